//! An address that passes from one pod to another takes nothing along of what was allowed to the first.

use crate::{
    bed::{self, Pod, in_netns},
    craft::datagram,
    lab::{Lab, PORT, address, contains, foe},
    raw::Wire,
    table::{Expect, Table},
};
use heddle_datapath::{Datapath, Facts, LinkSpec};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction};
use std::{
    io::Write,
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

/// A pod with the victim's addresses.
fn heir(lab: &Lab, endpoint: u16, old: &Pod, policy: &CompiledPolicy) -> Pod {
    let netns = format!("{}-heir{endpoint}", lab.bed.node());
    assert!(bed::sh(&format!("ip netns add {netns}")));
    let datapath = &lab.bed.datapath;
    lab.bed.in_node(|| {
        let link = datapath
            .create_link(&LinkSpec {
                endpoint,
                netns: format!("/run/netns/{netns}").into(),
                interface: "eth0".into(),
                ipv4: Some(old.ipv4),
                ipv6: Some(old.ipv6),
            })
            .expect("link");
        datapath.set_policy(endpoint, policy).expect("policy");
        datapath
            .set_facts(&Facts {
                endpoint,
                ifindex: link.ifindex,
                ipv4: Some(old.ipv4),
                ipv6: Some(old.ipv6),
                identity: Identity(600),
                cidr_ipv4: Identity(0),
                cidr_ipv6: Identity(0),
                mac: link.mac,
                host_mac: link.host_mac,
            })
            .expect("facts");
        datapath.attach(endpoint, link.ifindex).expect("attach");
    });
    Pod {
        netns,
        ipv4: old.ipv4,
        ipv6: old.ipv6,
    }
}

/// It may begin everything, and nobody may begin anything towards it.
fn isolated() -> CompiledPolicy {
    let mut policy = bed::allow_all();
    policy.ingress_enforced = true;
    policy
        .entries
        .retain(|row| row.key.direction == Direction::Egress);
    policy
}

/// The connections that the first owner of the address had: TCP opened by the neighbour, TCP opened by the
/// owner, and datagrams that the owner sent first.
struct Old {
    to_owner: TcpStream,
    from_owner: TcpStream,
    neighbours: UdpSocket,
    owners: std::net::SocketAddr,
    /// The owner's socket that has sent to another node's pod.
    far: UdpSocket,
    /// The owner's ends: open, so that they answer nothing by themselves.
    _ends: [TcpStream; 2],
}

fn open(lab: &Lab, v6: bool) -> Old {
    let (owner, neighbour) = (lab.victim(v6), lab.neighbour(v6));
    let (owner_ns, neighbour_ns) = (lab.victim.netns.clone(), lab.neighbour.netns.clone());
    let bind = |netns: &str| in_netns(netns, || TcpListener::bind(("::", 0)).expect("bind"));
    let connect = |netns: &str, to| {
        in_netns(netns, move || {
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connects")
        })
    };
    let listener = bind(&owner_ns);
    let port = listener.local_addr().expect("port").port();
    let to_owner = connect(&neighbour_ns, (owner, port).into());
    let (server, _) = listener.accept().expect("accept");
    let listener = bind(&neighbour_ns);
    let port = listener.local_addr().expect("port").port();
    let client = connect(&owner_ns, (neighbour, port).into());
    let (from_owner, _) = listener.accept().expect("accept");
    let neighbours = in_netns(&neighbour_ns, || UdpSocket::bind(("::", 0)).expect("bind"));
    let limit = Some(Duration::from_secs(5));
    neighbours.set_read_timeout(limit).expect("timeout");
    let port = neighbours.local_addr().expect("port").port();
    in_netns(&owner_ns, move || {
        let any = if v6 { "::" } else { "0.0.0.0" };
        let socket = UdpSocket::bind((any, 0)).expect("bind");
        socket.send_to(b"first", (neighbour, port)).expect("send");
    });
    let far = in_netns(&owner_ns, move || {
        let any = if v6 { "::" } else { "0.0.0.0" };
        let socket = UdpSocket::bind((any, 0)).expect("bind");
        socket.send_to(b"first", (foe(v6), PORT)).expect("send");
        socket
    });
    let (_, owners) = neighbours.recv_from(&mut [0; 16]).expect("datagram");
    Old {
        to_owner,
        from_owner,
        neighbours,
        owners,
        far,
        _ends: [server, client],
    }
}

/// What the pod of another node answers to the datagrams that it got.
fn far_reply(lab: &Lab, old: &Old, v6: bool, marker: &[u8]) -> Vec<u8> {
    let ends = (foe(v6), lab.victim(v6));
    let port = old.far.local_addr().expect("port").port();
    lab.outside_frame(&datagram(ends, (PORT, port), marker))
}

#[test]
fn an_heir_of_an_address_inherits_no_connection() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        for (same_endpoint, is_deaf) in [(false, true), (false, false), (true, true), (true, false)]
        {
            let lab = Lab::new(false, host_routing);
            let mut old = [open(&lab, false), open(&lab, true)];
            for (old, v6) in old.iter().zip([false, true]) {
                let marker = lab.marker();
                let reply = far_reply(&lab, old, v6, &marker);
                let outcome = lab.send(&lab.outside, &[reply], &marker);
                table.record(
                    "I before",
                    &format!("a reply to the owner from another node, IPv6 {v6}"),
                    Expect::Delivered,
                    &outcome,
                );
            }
            lab.bed
                .in_node(|| lab.bed.datapath.remove_endpoint(1).expect("removed"));
            let policy = if is_deaf { bed::deny_all() } else { isolated() };
            let endpoint = if same_endpoint { 1 } else { 3 };
            let heir = heir(&lab, endpoint, &lab.victim, &policy);
            let link = Wire::open(&heir.netns, "eth0");
            let mode = format!(
                "endpoint id {}, policy {}, host routing {host_routing}",
                if same_endpoint { "re-used" } else { "new" },
                if is_deaf {
                    "denies all"
                } else {
                    "allows egress"
                }
            );
            // Only the heir's friend is let in, afterwards: it shows that the link works and that all before
            // it has gone by.
            for (old, v6) in old.iter_mut().zip([false, true]) {
                let before = lab.bed.drops(133);
                let markers: Vec<_> = (0..4).map(|_| lab.marker()).collect();
                (&old.to_owner).write_all(&markers[0]).expect("write");
                (&old.from_owner).write_all(&markers[1]).expect("write");
                old.neighbours
                    .send_to(&markers[2], old.owners)
                    .expect("send");
                lab.outside.send(&far_reply(&lab, old, v6, &markers[3]));
                lab.wait(|| lab.bed.drops(133) >= before + 4);
                let dropped = lab.bed.drops(133) - before;
                lab.bed
                    .datapath
                    .set_policy(endpoint, &bed::allow_all())
                    .expect("policy");
                let fence = lab.marker();
                let to = (address(&heir, v6), PORT);
                let sent = fence.clone();
                in_netns(&lab.neighbour.netns, move || {
                    let any = if v6 { "::" } else { "0.0.0.0" };
                    let socket = UdpSocket::bind((any, 0)).expect("bind");
                    socket.send_to(&sent, to).expect("send");
                });
                let mut seen = Vec::new();
                lab.wait(|| {
                    seen.extend(link.arrived());
                    seen.iter().any(|frame| contains(frame, &fence))
                });
                let end = seen.iter().position(|frame| contains(frame, &fence));
                let before_fence = &seen[..end.unwrap_or(seen.len())];
                lab.bed
                    .datapath
                    .set_policy(endpoint, &policy)
                    .expect("policy");
                let names = [
                    "TCP to the owner",
                    "TCP from the owner",
                    "UDP reply to the owner",
                    "UDP reply from another node to the owner",
                ];
                for (name, marker) in names.iter().zip(&markers) {
                    // A segment that is sent again once everything is allowed may come before the fence.
                    let came = before_fence.iter().any(|frame| contains(frame, marker));
                    let right = end.is_some() && dropped >= 4 && !came;
                    let found = format!("came in: {came}, PolicyDenied {dropped}");
                    let name = format!("{name}, IPv6 {v6}, {mode}");
                    table.check("I address re-use", &name, right, &found);
                }
            }
        }
    }
    table.finish();
}
