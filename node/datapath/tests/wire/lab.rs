//! One node with two pods, the rows of two other nodes, and the frames that a router or a pod puts on its
//! links.

use crate::{
    bed::{self, Bed, Pod, in_netns},
    craft::{self, datagram, encapsulated},
    raw::{Wire, keep_to_one_cpu},
    table::{Expect, Outcome, Place, Table},
};
use heddle_abi::DropReason;
use heddle_datapath::{Datapath, PeerRow};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction};
use std::{
    cell::Cell,
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

/// Who may begin something towards the victim.
pub const FRIEND: u32 = 300;
const UNMANAGED: u32 = 3;
const REMOTE_NODE: u32 = 6;
/// Where every pod of the lab, and the node, listens.
pub const PORT: u16 = 7777;
const LIMIT: Duration = Duration::from_secs(3);

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Only `identity` may begin something towards the endpoint, which may begin everything.
pub fn only_from(identity: u32) -> CompiledPolicy {
    let mut policy = bed::allow_all();
    policy.ingress_enforced = true;
    for row in &mut policy.entries {
        if row.key.direction == Direction::Ingress {
            row.key.identity = Identity(identity);
        }
    }
    policy
}

pub struct Lab {
    pub bed: Bed,
    /// Only [`FRIEND`] may begin something towards it.
    pub victim: Pod,
    /// Another pod of the node, which bears the victim's friend's identity.
    pub neighbour: Pod,
    /// The router's link to the node.
    pub outside: Wire,
    /// The links in the pods.
    pub in_victim: Wire,
    pub in_neighbour: Wire,
    pub node_mac: [u8; 6],
    pub overlay: bool,
    markers: Cell<u64>,
    /// The victim's, the neighbour's and the node's.
    listeners: [UdpSocket; 3],
}

fn listen(netns: &str) -> UdpSocket {
    let socket = in_netns(netns, || UdpSocket::bind(("::", PORT)).expect("listener"));
    socket.set_nonblocking(true).expect("nonblocking");
    socket
}

impl Lab {
    pub fn new(overlay: bool, host_routing: bool) -> Self {
        keep_to_one_cpu();
        let bed = Bed::new(|settings| {
            settings.overlay = overlay;
            settings.host_routing = host_routing;
        });
        let victim = bed.pod(1, 500);
        let neighbour = bed.pod(2, FRIEND);
        bed.datapath
            .set_policy(1, &only_from(FRIEND))
            .expect("policy");
        set_peers(&bed);
        let router = bed.outside();
        // A second address of the node, which no row tells of; and ways back for what a stack answers.
        assert!(bed::sh(&format!(
            "ip -n {node} addr add 172.31.1.77/24 dev eth0
             ip -n {node} addr add fd31:1::77/64 dev eth0 nodad
             ip -n {router} route add blackhole 10.244.0.0/16
             ip -n {router} route add blackhole 172.31.0.0/16",
            node = bed.node()
        )));
        let outside = Wire::open(router, "n1");
        let in_victim = Wire::open(&victim.netns, "eth0");
        let in_neighbour = Wire::open(&neighbour.netns, "eth0");
        let node_mac = Wire::open(bed.node(), "eth0").mac;
        let listeners =
            [&victim.netns, &neighbour.netns, &bed.node().to_owned()].map(|netns| listen(netns));
        // The node knows its router's MAC addresses.
        for address in ["172.31.1.1", "fd31:1::1"] {
            assert!(bed.ping_from_node(address));
        }
        let lab = Self {
            bed,
            victim,
            neighbour,
            outside,
            in_victim,
            in_neighbour,
            node_mac,
            overlay,
            markers: Cell::new(0),
            listeners,
        };
        lab.fence();
        lab
    }

    pub fn victim(&self, v6: bool) -> IpAddr {
        address(&self.victim, v6)
    }

    pub fn neighbour(&self, v6: bool) -> IpAddr {
        address(&self.neighbour, v6)
    }

    /// The datagrams that the victim's stack gave its listener since the last look.
    pub fn victim_heard(&self) -> Vec<Vec<u8>> {
        self.heard(0)
    }

    fn heard(&self, listener: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2048];
        std::iter::from_fn(|| {
            let length = self.listeners[listener].recv(&mut buffer).ok()?;
            Some(buffer[..length].to_vec())
        })
        .collect()
    }

    /// Waits until something holds, or for so long that it never will; the caller looks which.
    pub fn wait(&self, mut holds: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + LIMIT;
        loop {
            if holds() {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::yield_now();
        }
    }

    /// A payload that no other frame has.
    pub fn marker(&self) -> Vec<u8> {
        self.markers.set(self.markers.get() + 1);
        [&b"wire"[..], &self.markers.get().to_be_bytes(), b"erif"].concat()
    }

    /// A frame that the router sends to the node.
    pub fn outside_frame(&self, packet: &[u8]) -> Vec<u8> {
        craft::frame(self.node_mac, self.outside.mac, packet)
    }

    /// A frame that the neighbour sends.
    pub fn neighbour_frame(&self, packet: &[u8]) -> Vec<u8> {
        let endpoints = self.bed.datapath.endpoints().expect("endpoints");
        let facts = endpoints
            .into_iter()
            .find(|endpoint| endpoint.facts.endpoint == 2)
            .expect("neighbour")
            .facts;
        craft::frame(facts.host_mac, facts.mac, packet)
    }

    /// What the victim's friend on the other node sends it, as it comes to this node.
    pub fn good_packet(&self, v6: bool, payload: &[u8]) -> Vec<u8> {
        let ends = (friend(v6), self.victim(v6));
        let inner = datagram(ends, (4000, PORT), payload);
        if self.overlay {
            encapsulated((ip("172.31.2.2"), ip("172.31.1.2")), FRIEND, &inner)
        } else {
            inner
        }
    }

    /// Sends good frames until they have all arrived, and with them all that was sent before; gives what else
    /// arrived, in the victim and outside.
    fn fence(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut seen = (Vec::new(), Vec::new());
        // What the first one follows may cause further packets, one link further each.
        for _ in 0..3 {
            let marker = self.marker();
            self.outside
                .send(&self.outside_frame(&self.good_packet(false, &marker)));
            let end = Instant::now() + LIMIT;
            let mut is_through = false;
            while !is_through {
                assert!(
                    Instant::now() < end,
                    "a proper frame arrives: {:?}",
                    self.drops()
                );
                for frame in self.in_victim.arrived() {
                    if contains(&frame, &marker) {
                        is_through = true;
                    } else {
                        seen.0.push(frame);
                    }
                }
                std::thread::yield_now();
            }
        }
        seen.1 = self.outside.arrived();
        seen
    }

    /// Drops by reason, but for the node's own link-local control traffic.
    fn drops(&self) -> BTreeMap<u8, u64> {
        let mut drops = BTreeMap::new();
        for ((reason, _), slot) in self.bed.datapath.metrics().expect("metrics") {
            if reason != 0 && reason != DropReason::IgmpHandled as u8 {
                *drops.entry(reason).or_default() += slot.packets;
            }
        }
        drops
    }

    /// Sends frames, each with the marker, and tells what became of them.
    pub fn send(&self, wire: &Wire, frames: &[Vec<u8>], marker: &[u8]) -> Outcome {
        let before = self.drops();
        for frame in frames {
            wire.send(frame);
        }
        let (in_victim, outside) = self.fence();
        let mut drops = self.drops();
        drops.retain(|reason, count| {
            *count -= before.get(reason).copied().unwrap_or(0);
            *count != 0
        });
        let seen = [
            (Place::Victim, in_victim),
            (Place::Neighbour, self.in_neighbour.arrived()),
            (Place::Node, self.heard(2)),
            (Place::Outside, outside),
        ];
        Outcome {
            frames: frames.len() as u64,
            places: seen
                .into_iter()
                .filter(|(_, seen)| seen.iter().any(|frame| contains(frame, marker)))
                .map(|(place, _)| place)
                .collect(),
            drops,
        }
    }

    /// A case: IP packets that the router sends to the node.
    pub fn outside_case(
        &self,
        table: &mut Table,
        class: &str,
        name: &str,
        expect: Expect,
        packets: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    ) {
        let outcome = self.case(&self.outside, packets, |packet| self.outside_frame(packet));
        table.record(class, name, expect, &outcome);
    }

    /// A case: IP packets that the neighbour sends.
    pub fn pod_case(
        &self,
        table: &mut Table,
        class: &str,
        name: &str,
        expect: Expect,
        packets: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    ) {
        let outcome = self.case(&self.in_neighbour, packets, |packet| {
            self.neighbour_frame(packet)
        });
        table.record(class, name, expect, &outcome);
    }

    /// Sends marked packets from a place, each in a frame.
    fn case(
        &self,
        from: &Wire,
        packets: impl Fn(&[u8]) -> Vec<Vec<u8>>,
        frame: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Outcome {
        let marker = self.marker();
        let frames: Vec<_> = packets(&marker)
            .iter()
            .map(|packet| frame(packet))
            .collect();
        self.send(from, &frames, &marker)
    }
}

pub fn contains(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|window| window == marker)
}

pub fn address(pod: &Pod, v6: bool) -> IpAddr {
    if v6 { pod.ipv6.into() } else { pod.ipv4.into() }
}

/// The victim's friend on the second node.
pub fn friend(v6: bool) -> IpAddr {
    ip(if v6 { "fd10:244:0:2::2" } else { "10.244.2.2" })
}

/// A pod of the second node that may not talk to the victim.
pub fn foe(v6: bool) -> IpAddr {
    ip(if v6 { "fd10:244:0:2::3" } else { "10.244.2.3" })
}

/// An address of the second node's pods that nobody is known to have.
pub fn unassigned(v6: bool) -> IpAddr {
    ip(if v6 {
        "fd10:244:0:2::99"
    } else {
        "10.244.2.99"
    })
}

/// The rows of the pod ranges of all nodes, of the second node with two pods, and of a third node, whose
/// underlay address is an IPv6 one.
fn set_peers(bed: &Bed) {
    let mut rows = Vec::new();
    let mut add = |prefix: &str, identity, node: Option<&str>, is_node| {
        rows.push(PeerRow {
            prefix: prefix.parse().expect("prefix"),
            identity: Identity(identity),
            cidr: Identity(0),
            node: node.map(ip),
            in_cluster: true,
            is_node,
        });
    };
    let (second, third) = (Some("172.31.2.2"), Some("fd31:3::2"));
    for (number, node) in [(1, None), (2, second), (3, third)] {
        add(&format!("10.244.{number}.0/24"), UNMANAGED, node, false);
        add(&format!("fd10:244:0:{number}::/64"), UNMANAGED, node, false);
        if node.is_some() {
            add(&format!("172.31.{number}.2/32"), REMOTE_NODE, node, true);
            add(&format!("fd31:{number}::2/128"), REMOTE_NODE, node, true);
            for (pod, identity) in [(2, FRIEND), (3, 400)] {
                add(&format!("10.244.{number}.{pod}/32"), identity, node, false);
                add(
                    &format!("fd10:244:0:{number}::{pod}/128"),
                    identity,
                    node,
                    false,
                );
            }
        }
    }
    bed.datapath.set_peers(&rows).expect("peers");
    let routes = [
        ("10.244.2.0/24", "172.31.2.2"),
        ("fd10:244:0:2::/64", "172.31.2.2"),
    ]
    .map(|(range, node)| (range.parse().expect("range"), ip(node)));
    bed.in_node(|| bed.datapath.set_routes(&routes).expect("routes"));
}
