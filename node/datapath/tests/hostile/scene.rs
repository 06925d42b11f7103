//! The node that is sent to, who sends, and the table of what became of it.

use crate::bed::{Bed, allow_all, deny_all, packets::ethernet};
use heddle_abi::DropReason;
use heddle_datapath::{Datapath, Facts, PeerRow};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction};
use std::{
    collections::BTreeSet,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

const DROP: u32 = 2;
const UNMANAGED: Identity = Identity(3);
const REMOTE_NODE: Identity = Identity(6);

/// Who sends or is sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Actor {
    /// A pod of this node.
    A,
    /// Another pod of this node.
    B,
    /// A third pod of this node.
    C,
    /// This node.
    Node,
    /// A pod of another node.
    OtherPod,
    /// Another node.
    OtherNode,
    /// A host outside the cluster.
    World,
}

/// What must become of a packet.
pub type Outcome = Result<(), DropReason>;

/// The policies in force during a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// None.
    Open,
    /// Pod A may begin connections; nobody may begin one towards it.
    ClientA,
    /// Nothing may be sent to pod A or by it.
    DeniedA,
    /// The node may begin connections; nobody may begin one towards it.
    ClientNode,
}

/// A node and who is known to it.
pub struct Scene {
    pub bed: Bed,
    pub overlay: bool,
    pub host_routing: bool,
    pods: Vec<Facts>,
    uplink: (u32, [u8; 6]),
    next: AtomicU16,
    policy: Mutex<Policy>,
    governed: Mutex<bool>,
}

fn client() -> CompiledPolicy {
    let mut policy = allow_all();
    policy.ingress_enforced = true;
    policy
        .entries
        .retain(|entry| entry.key.direction == Direction::Egress);
    policy
}

impl Scene {
    pub fn new(overlay: bool, host_routing: bool) -> Self {
        let bed = Bed::new(|settings| {
            settings.overlay = overlay;
            settings.host_routing = host_routing;
        });
        for endpoint in 1..=3 {
            bed.pod(endpoint, 299 + u32::from(endpoint));
        }
        let other: IpAddr = Ipv4Addr::new(172, 31, 2, 2).into();
        let row = |prefix: &str, identity, node, is_node| PeerRow {
            prefix: prefix.parse().unwrap(),
            identity,
            cidr: Identity(0),
            node,
            in_cluster: true,
            is_node,
        };
        bed.datapath
            .set_peers(&[
                row("10.244.0.0/16", UNMANAGED, None, false),
                row("fd10:244::/48", UNMANAGED, None, false),
                row("10.244.2.0/24", UNMANAGED, Some(other), false),
                row("fd10:244:0:2::/64", UNMANAGED, Some(other), false),
                row("10.244.2.2/32", Identity(310), Some(other), false),
                row("fd10:244:0:2::2/128", Identity(310), Some(other), false),
                row("172.31.2.2/32", REMOTE_NODE, Some(other), true),
                row("fd31:2::2/128", REMOTE_NODE, Some(other), true),
            ])
            .unwrap();
        let read = |file: &str| {
            crate::bed::said(&format!(
                "ip netns exec {} cat /sys/class/net/eth0/{file}",
                bed.node()
            ))
        };
        let mut mac = [0; 6];
        for (byte, text) in mac.iter_mut().zip(read("address").trim().split(':')) {
            *byte = u8::from_str_radix(text, 16).unwrap();
        }
        let uplink = (read("ifindex").trim().parse().unwrap(), mac);
        let mut pods: Vec<_> = bed
            .datapath
            .endpoints()
            .unwrap()
            .into_iter()
            .map(|endpoint| endpoint.facts)
            .collect();
        pods.sort_by_key(|facts| facts.endpoint);
        Self {
            bed,
            overlay,
            host_routing,
            pods,
            uplink,
            next: AtomicU16::new(20_000),
            policy: Mutex::new(Policy::Open),
            governed: Mutex::new(false),
        }
    }

    pub fn run<'a>(&'a self, table: &'a Table, v6: bool) -> Run<'a> {
        Run {
            scene: self,
            table,
            v6,
        }
    }

    fn enforce(&self, policy: Policy) {
        let mut present = self.policy.lock().unwrap();
        if *present == policy {
            return;
        }
        let pod = match policy {
            Policy::ClientA => client(),
            Policy::DeniedA => deny_all(),
            Policy::Open | Policy::ClientNode => allow_all(),
        };
        self.bed.datapath.set_policy(1, &pod).unwrap();
        // Once there is one it stays, if only to allow everything: a program that was just taken off the
        // uplink may not be gone yet when it is to come back.
        let mut governed = self.governed.lock().unwrap();
        *governed |= policy == Policy::ClientNode;
        let node = match policy {
            Policy::ClientNode => Some(client()),
            _ => governed.then(allow_all),
        };
        self.bed.datapath.set_node_policy(node.as_ref()).unwrap();
        *present = policy;
    }

    /// The counters of every drop reason.
    fn counters(&self) -> Vec<(u8, u64)> {
        let metrics = self.bed.datapath.metrics().unwrap();
        metrics
            .iter()
            .map(|((reason, _), slot)| (*reason, slot.packets))
            .collect()
    }
}

/// A scene in one address family.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    pub scene: &'a Scene,
    table: &'a Table,
    pub v6: bool,
}

impl Run<'_> {
    pub fn address(&self, actor: Actor) -> IpAddr {
        let text = match (actor, self.v6) {
            (Actor::A | Actor::B | Actor::C, _) => {
                let facts = self.pod(actor);
                return if self.v6 {
                    facts.ipv6.unwrap().into()
                } else {
                    facts.ipv4.unwrap().into()
                };
            }
            (Actor::Node, false) => "172.31.1.2",
            (Actor::Node, true) => "fd31:1::2",
            (Actor::OtherPod, false) => "10.244.2.2",
            (Actor::OtherPod, true) => "fd10:244:0:2::2",
            (Actor::OtherNode, false) => "172.31.2.2",
            (Actor::OtherNode, true) => "fd31:2::2",
            (Actor::World, false) => "198.51.100.9",
            (Actor::World, true) => "2001:db8:9::9",
        };
        text.parse().unwrap()
    }

    pub fn ends(&self, from: Actor, to: Actor) -> (IpAddr, IpAddr) {
        (self.address(from), self.address(to))
    }

    fn pod(&self, actor: Actor) -> &Facts {
        let index = match actor {
            Actor::A => 0,
            Actor::B => 1,
            _ => 2,
        };
        &self.scene.pods[index]
    }

    /// A number that no other case uses: port, echo identifier, fragment identification.
    pub fn number(&self) -> u16 {
        self.scene.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The address in this family.
    pub fn either(&self, v4: &str, v6: &str) -> IpAddr {
        if self.v6 {
            IpAddr::V6(v6.parse::<Ipv6Addr>().unwrap())
        } else {
            IpAddr::V4(v4.parse::<Ipv4Addr>().unwrap())
        }
    }

    /// Runs one case: each packet by the hook that its sender's packets come to.
    pub fn case(
        &self,
        class: &'static str,
        sent: &str,
        policy: Policy,
        steps: &[(Actor, Vec<u8>, Outcome)],
    ) {
        self.scene.enforce(policy);
        let mut wrong = String::new();
        for (index, (sender, packet, wished)) in steps.iter().enumerate() {
            let (code, counted) = self.send(*sender, packet);
            let as_wished = match wished {
                Ok(()) => code != DROP,
                Err(reason) => code == DROP && counted == [(*reason as u8, 1)],
            };
            if !as_wished {
                wrong = format!("packet {}: code {code}, counted {counted:?}", index + 1);
                break;
            }
        }
        let last = steps.last().unwrap();
        let hook = match last.0 {
            Actor::A | Actor::B | Actor::C => "from_pod",
            Actor::Node => "to_network",
            _ => "from_network",
        };
        let line = format!(
            "{class} | {hook} | {} | host routing {} | IPv{} | {:?} | {policy:?} | {sent} | {} | {}",
            if self.scene.overlay {
                "vxlan"
            } else {
                "routed"
            },
            if self.scene.host_routing { "on" } else { "off" },
            if self.v6 { 6 } else { 4 },
            last.0,
            match last.2 {
                Ok(()) => "passes".to_owned(),
                Err(reason) => format!("dropped {reason:?}"),
            },
            if wrong.is_empty() { "ok" } else { &wrong },
        );
        self.table.add(class, &line, wrong.is_empty());
    }

    fn send(&self, sender: Actor, packet: &[u8]) -> (u32, Vec<(u8, u64)>) {
        let (index, mac) = self.scene.uplink;
        let (program, ifindex, frame) = match sender {
            Actor::A | Actor::B | Actor::C => {
                let facts = self.pod(sender);
                let frame = ethernet(facts.host_mac, facts.mac, packet);
                ("from_pod", facts.ifindex, frame)
            }
            Actor::Node => ("to_network", index, ethernet([2; 6], mac, packet)),
            _ => ("from_network", index, ethernet(mac, [2; 6], packet)),
        };
        let before = self.scene.counters();
        let datapath = &self.scene.bed.datapath;
        let code = datapath.run_program(program, &frame, ifindex).unwrap().0;
        let mut counted: Vec<(u8, u64)> = Vec::new();
        let old = |rows: &[(u8, u64)], reason| -> u64 {
            rows.iter()
                .filter(|row| row.0 == reason)
                .map(|row| row.1)
                .sum()
        };
        let after = self.scene.counters();
        // Link-local control traffic that the pods' own stacks send meanwhile is counted apart.
        let noise = [0, DropReason::IgmpHandled as u8];
        let reasons: BTreeSet<u8> = after.iter().map(|row| row.0).collect();
        for reason in reasons.into_iter().filter(|it| !noise.contains(it)) {
            let more = old(&after, reason) - old(&before, reason);
            if more != 0 {
                counted.push((reason, more));
            }
        }
        (code, counted)
    }
}

/// What became of every case.
#[derive(Default)]
pub struct Table(Mutex<Vec<(&'static str, bool)>>);

impl Table {
    fn add(&self, class: &'static str, line: &str, is_right: bool) {
        // Not by println, which the harness keeps to itself unless the test fails.
        let mark = if is_right { "    " } else { "FAIL" };
        writeln!(std::io::stdout().lock(), "{mark} {line}").unwrap();
        self.0.lock().unwrap().push((class, is_right));
    }

    /// Prints the table's size; fails where a case did.
    pub fn finish(&self) {
        let rows = self.0.lock().unwrap();
        let mut out = std::io::stdout().lock();
        let classes: BTreeSet<_> = rows.iter().map(|row| row.0).collect();
        let failed = rows.iter().filter(|row| !row.1).count();
        writeln!(
            out,
            "{} cases, {} classes, {failed} failed",
            rows.len(),
            classes.len()
        )
        .unwrap();
        assert_eq!(failed, 0, "cases marked FAIL in the table above");
    }
}
