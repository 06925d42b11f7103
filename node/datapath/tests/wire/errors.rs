//! ICMP errors at a real stack: only those about what it sent, from who can know, break its connections or
//! make its packets smaller.

use crate::{
    bed::in_netns,
    craft::{datagram, encapsulated, icmp_error},
    lab::{FRIEND, Lab, PORT, foe, ip, only_from},
    table::{Expect, Outcome, Table},
};
use heddle_abi::DropReason::PolicyDenied;
use heddle_datapath::{Datapath, Facts, PeerRow};
use heddle_model::Identity;
use heddle_policy::compiled::CompiledPolicy;
use nix::libc;
use std::{
    net::{IpAddr, UdpSocket},
    os::fd::AsRawFd,
};

const MTU: u32 = 1280;

/// ICMP types and codes of one family.
struct Kinds {
    port: (u8, u8),
    host: (u8, u8),
    size: (u8, u8),
    time: (u8, u8),
}

const IPV4: Kinds = Kinds {
    port: (3, 3),
    host: (3, 1),
    size: (3, 4),
    time: (11, 0),
};
const IPV6: Kinds = Kinds {
    port: (1, 4),
    host: (1, 3),
    size: (2, 0),
    time: (3, 0),
};

/// A socket of the victim that is connected, and has sent something.
fn open(lab: &Lab, to: IpAddr, port: u16) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    in_netns(&lab.victim.netns, move || {
        let socket = UdpSocket::bind((any, 0)).expect("bind");
        socket.connect((to, port)).expect("connect");
        socket.send(b"first").expect("send");
        socket
    })
}

/// The path MTU that the victim's stack believes in.
#[allow(unsafe_code)]
fn path_mtu(lab: &Lab, to: IpAddr) -> i32 {
    let socket = open(lab, to, PORT);
    let (level, option) = if to.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    let (mut mtu, mut size) = (0_i32, size_of::<i32>() as u32);
    // SAFETY: a plain system call that writes at most `size` bytes to `mtu`.
    let got = unsafe {
        let value = (&raw mut mtu).cast();
        libc::getsockopt(socket.as_raw_fd(), level, option, value, &raw mut size)
    };
    assert_eq!(got, 0, "path MTU");
    mtu
}

/// Who sends an error.
#[derive(Clone, Copy)]
enum Sender {
    /// The other pod of the node, on its own link.
    Neighbour,
    /// A pod of another node.
    Pod(IpAddr),
    /// Somebody beyond the uplink.
    Outside(IpAddr),
}

/// An ICMP error about a connection of the victim's, or about one that it does not have.
struct IcmpError {
    from: Sender,
    kind: (u8, u8),
    /// Where the connection goes.
    to: IpAddr,
    is_about_it: bool,
}

struct Case<'a> {
    lab: &'a Lab,
    v6: bool,
    mode: String,
}

impl Case<'_> {
    fn send(&self, from: Sender, kind: (u8, u8), quoted: (IpAddr, u16), sport: u16) -> Outcome {
        let (lab, victim) = (self.lab, self.lab.victim(self.v6));
        let marker = lab.marker();
        let quoted = datagram((victim, quoted.0), (sport, quoted.1), &marker);
        let source = match from {
            Sender::Neighbour => lab.neighbour(self.v6),
            Sender::Pod(address) | Sender::Outside(address) => address,
        };
        let packet = icmp_error((source, victim), kind, MTU, &quoted);
        let (wire, frame) = match from {
            Sender::Neighbour => (&lab.in_neighbour, lab.neighbour_frame(&packet)),
            Sender::Pod(_) if lab.overlay => {
                let outer = (ip("172.31.2.2"), ip("172.31.1.2"));
                let packet = encapsulated(outer, FRIEND, &packet);
                (&lab.outside, lab.outside_frame(&packet))
            }
            _ => (&lab.outside, lab.outside_frame(&packet)),
        };
        lab.send(wire, &[frame], &marker)
    }

    /// An error about the victim's connection to `to`, or about one beside it.
    fn check(&self, table: &mut Table, name: &str, error: IcmpError, must_pass: bool) {
        let IcmpError {
            from,
            kind,
            to,
            is_about_it,
        } = error;
        let kinds = if self.v6 { IPV6 } else { IPV4 };
        let socket = open(self.lab, to, PORT);
        let sport = socket.local_addr().expect("port").port();
        let before = path_mtu(self.lab, to);
        let quoted = if is_about_it { PORT } else { PORT + 1 };
        let outcome = self.send(from, kind, (to, quoted), sport);
        let name = format!("{name}, {}", self.mode);
        let class = if must_pass {
            "L true errors"
        } else {
            "L forged errors"
        };
        let expect = if must_pass {
            Expect::Delivered
        } else {
            Expect::Dropped(PolicyDenied)
        };
        table.record(class, &name, expect, &outcome);
        let error = socket.take_error().expect("socket error");
        let is_refused =
            error.as_ref().and_then(std::io::Error::raw_os_error) == Some(libc::ECONNREFUSED);
        let right = is_refused == (must_pass && kind == kinds.port);
        let found = format!("socket's error: {error:?}");
        table.check(class, &format!("the socket, {name}"), right, &found);
        let after = path_mtu(self.lab, to);
        let is_less = after == MTU as i32 && before > after;
        let right = is_less == (must_pass && kind == kinds.size) && (is_less || after == before);
        let found = format!("path MTU {before}, then {after}");
        table.check(class, &format!("the path MTU, {name}"), right, &found);
    }
}

/// The victim's policy: ICMP is allowed from nobody.
fn only_datagrams() -> CompiledPolicy {
    let mut policy = only_from(FRIEND);
    for row in &mut policy.entries {
        row.key.protocol = 17;
    }
    policy
}

#[test]
fn only_true_errors_reach_a_socket() {
    let mut table = Table::default();
    for (overlay, host_routing) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(overlay, host_routing);
        let policy = only_datagrams();
        lab.bed.datapath.set_policy(1, &policy).expect("policy");
        for v6 in [false, true] {
            let mode = format!("IPv6 {v6}, overlay {overlay}, host routing {host_routing}");
            all_cases(&lab, v6, mode, &mut table);
        }
    }
    table.finish();
}

fn all_cases(lab: &Lab, v6: bool, mode: String, table: &mut Table) {
    use Sender::{Neighbour, Outside, Pod};
    let error = |from, kind, to, is_about_it| IcmpError {
        from,
        kind,
        to,
        is_about_it,
    };
    let case = Case { lab, v6, mode };
    let kinds = if v6 { IPV6 } else { IPV4 };
    let of = |v4: &str, other: &str| ip(if v6 { other } else { v4 });
    let router = of("172.31.1.1", "fd31:1::1");
    let world = of("203.0.113.5", "2001:db8::5");
    // A path MTU is remembered by destination: each case has one of its own.
    let mut last = 100;
    let mut remote = || {
        last += 1;
        of(
            &format!("10.244.2.{last}"),
            &format!("fd10:244:0:2::{last}"),
        )
    };
    let of_host = [
        ("port", kinds.port),
        ("size", kinds.size),
        ("host", kinds.host),
        ("time", kinds.time),
    ];
    for (what, kind) in of_host {
        let to = remote();
        let name = format!("{what}, from a third pod about another's");
        case.check(table, &name, error(Neighbour, kind, to, true), false);
        let name = format!("{what}, from another node's pod about another's");
        case.check(table, &name, error(Pod(foe(v6)), kind, to, true), false);
        let name = format!("{what}, from another node's pod about a local pod's");
        case.check(
            table,
            &name,
            error(Pod(foe(v6)), kind, lab.neighbour(v6), true),
            false,
        );
        let name = format!("{what}, from the peer about another connection");
        case.check(
            table,
            &name,
            error(Neighbour, kind, lab.neighbour(v6), false),
            false,
        );
        let name = format!("{what}, from the far peer about another connection");
        case.check(table, &name, error(Pod(to), kind, to, false), false);
        let name = format!("{what}, from the router about another connection");
        case.check(table, &name, error(Outside(router), kind, to, false), false);
    }
    // Between two pods of a node there is no router, nor on a tunnel's way.
    for from in [router, world] {
        for (what, kind) in &of_host[1..] {
            let name = format!("{what}, from {from} about a local pod's");
            let about = error(Outside(from), *kind, lab.neighbour(v6), true);
            case.check(table, &name, about, false);
            let name = format!("{what}, from {from} about a far pod's");
            case.check(
                table,
                &name,
                error(Outside(from), *kind, remote(), true),
                !lab.overlay,
            );
        }
    }
    for from in [router, world] {
        let name = format!("port, from {from} that is not the destination");
        case.check(
            table,
            &name,
            error(Outside(from), kinds.port, remote(), true),
            false,
        );
    }
    if !v6 {
        for (what, kind) in [
            ("redirect", (5, 1)),
            ("source quench", (4, 0)),
            ("protocol", (3, 2)),
        ] {
            let name = format!("{what}, from the router");
            case.check(
                table,
                &name,
                error(Outside(router), kind, remote(), true),
                false,
            );
        }
    }
    // What is true passes.
    let name = "port, from the peer";
    case.check(
        table,
        name,
        error(Neighbour, kinds.port, lab.neighbour(v6), true),
        true,
    );
    let to = remote();
    case.check(
        table,
        "port, from the far peer",
        error(Pod(to), kinds.port, to, true),
        true,
    );
    let node = of("172.31.2.2", "fd31:2::2");
    for (what, kind) in &of_host[1..] {
        let name = format!("{what}, from the node of the far peer");
        case.check(
            table,
            &name,
            error(Outside(node), *kind, remote(), true),
            true,
        );
    }
    // And so does what a stack says itself.
    let socket = open(lab, lab.neighbour(v6), PORT + 1);
    let refused = lab.wait(|| {
        let error = socket.take_error().expect("socket error");
        error.is_some_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
    });
    let name = format!("a stack's refusal, {}", case.mode);
    table.check("L true errors", &name, refused, "");
}

/// Gives an address of a peer to somebody else.
fn give(lab: &Lab, to: IpAddr, identity: u32) {
    let datapath = &lab.bed.datapath;
    let endpoints = datapath.endpoints().expect("endpoints");
    let local = endpoints
        .into_iter()
        .map(|endpoint| endpoint.facts)
        .find(|facts| {
            facts.ipv4.map(IpAddr::V4) == Some(to) || facts.ipv6.map(IpAddr::V6) == Some(to)
        });
    let identity = Identity(identity);
    if let Some(facts) = local {
        datapath
            .set_facts(&Facts { identity, ..facts })
            .expect("facts");
        return;
    }
    let row = PeerRow {
        prefix: to.into(),
        identity,
        cidr: Identity(0),
        node: Some(ip("172.31.2.2")),
        in_cluster: true,
        is_node: false,
    };
    datapath.set_peers(&[row]).expect("peers");
}

#[test]
fn errors_about_a_peer_that_is_another_now_are_evaluated_anew() {
    use Sender::{Neighbour, Outside, Pod};
    let mut table = Table::default();
    for (overlay, host_routing) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(overlay, host_routing);
        let mut policy = only_datagrams();
        policy.egress_enforced = true;
        for row in &mut policy.entries {
            row.key.identity = Identity(FRIEND);
        }
        lab.bed.datapath.set_policy(1, &policy).expect("policy");
        for v6 in [false, true] {
            let mode = format!("IPv6 {v6}, overlay {overlay}, host routing {host_routing}");
            let kinds = if v6 { IPV6 } else { IPV4 };
            let node = ip(if v6 { "fd31:2::2" } else { "172.31.2.2" });
            let near = lab.neighbour(v6);
            let far = ip(if v6 {
                "fd10:244:0:2::50"
            } else {
                "10.244.2.50"
            });
            give(&lab, far, FRIEND);
            let errors = [
                ("the local peer", Neighbour, kinds.port, near),
                ("the far peer", Pod(far), kinds.port, far),
                ("the far peer's node", Outside(node), kinds.host, far),
            ];
            for (who, from, kind, to) in errors {
                let case = Case {
                    lab: &lab,
                    v6,
                    mode: mode.clone(),
                };
                for (now, identity) in [("as it was", FRIEND), ("another", 400), ("again", FRIEND)]
                {
                    let name = format!("from {who} that is {now}");
                    let socket = open(&lab, to, PORT);
                    let sport = socket.local_addr().expect("port").port();
                    give(&lab, to, identity);
                    let outcome = case.send(from, kind, (to, PORT), sport);
                    give(&lab, to, FRIEND);
                    let expect = if identity == FRIEND {
                        Expect::Delivered
                    } else {
                        Expect::Dropped(PolicyDenied)
                    };
                    table.record(
                        "L another peer",
                        &format!("{name}, {mode}"),
                        expect,
                        &outcome,
                    );
                }
            }
        }
    }
    table.finish();
}
