//! What a connectivity test tries: scenarios of policies and probes, with what is expected of each. Nothing here talks to
//! a lab.

use super::scene;
use heddle_kube::store::Kind;
use heddle_model::Family;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// TCP and UDP port on which every test pod answers.
pub const PORT: u16 = 8_080;
/// TCP port on which every test pod answers, and which no policy of the test allows.
pub const OTHER_PORT: u16 = 8_081;
/// TCP port on which no test pod listens.
pub const CLOSED_PORT: u16 = 8_099;
/// Nodes up to which every ordered pair is tried; of more, each node tries itself and its two neighbours in the list.
pub const ALL_PAIRS: usize = 6;

/// One end of a probe.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    /// A test pod.
    Pod {
        /// What policies select it by.
        role: Role,
        /// Its node.
        node: String,
    },
    /// A node itself.
    Node(String),
    /// The host outside of the cluster.
    World,
}

/// What a test pod is to policies: its label `role`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Connects; what policies allow is about it.
    Client,
    /// Connects and is connected to; no policy names it as allowed.
    Other,
    /// Is connected to.
    Server,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Client, Self::Other, Self::Server];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Other => "other",
            Self::Server => "server",
        }
    }

    /// Name of the pod of this role on a node.
    pub fn pod(self, node: &str) -> String {
        format!("{}-{node}", self.name())
    }
}

impl End {
    fn pod(role: Role, node: &str) -> Self {
        Self::Pod {
            role,
            node: node.to_owned(),
        }
    }

    /// As `heddle policy why` takes it: `namespace/pod`, `host:NODE`, `world`.
    pub fn peer(&self, namespace: &str) -> String {
        match self {
            Self::Pod { role, node } => format!("{namespace}/{}", role.pod(node)),
            Self::Node(node) => format!("host:{node}"),
            Self::World => "world".to_owned(),
        }
    }
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Probe {
    /// A TCP connection to this port.
    Tcp(u16),
    /// A datagram to this port, and the answer.
    Udp(u16),
    /// An ICMP or ICMPv6 echo request, and the answer.
    Echo,
    /// Bytes over a TCP connection to this port that was opened before the scenario's policies, and the echo.
    Established(u16),
}

impl Probe {
    /// `TCP/8080`, `UDP/8080`, `ICMP/8`, `ICMPv6/128`, `TCP/8080 established`.
    pub fn name(self, family: Family) -> String {
        match (self, family) {
            (Self::Tcp(port), _) => format!("TCP/{port}"),
            (Self::Udp(port), _) => format!("UDP/{port}"),
            (Self::Echo, Family::V4) => "ICMP/8".to_owned(),
            (Self::Echo, Family::V6) => "ICMPv6/128".to_owned(),
            (Self::Established(port), _) => format!("TCP/{port} established"),
        }
    }

    /// The options of `heddle policy why` that mean the same packet.
    pub fn why(self, family: Family) -> String {
        match (self, family) {
            (Self::Tcp(port) | Self::Established(port), _) => format!("--port {port}/TCP"),
            (Self::Udp(port), _) => format!("--port {port}/UDP"),
            (Self::Echo, Family::V4) => "--icmp 8".to_owned(),
            (Self::Echo, Family::V6) => "--icmp 128".to_owned(),
        }
    }
}

/// What became of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The other end answered.
    Answered,
    /// The other end, or its host, refused: the packet got there, and nobody listens.
    Refused,
    /// Nothing came back.
    Silent,
    /// A router, or the sender's own stack, said that there is no way.
    Unreachable,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
        })
    }
}

/// One probe of a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Who sends.
    pub from: End,
    /// To whom.
    pub to: End,
    /// What.
    pub probe: Probe,
    /// Over which family.
    pub family: Family,
    /// What must become of it.
    pub expected: Outcome,
}

/// What a scenario leaves out, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Skipped {
    /// The probes.
    pub what: String,
    /// Why they mean nothing in this lab.
    pub reason: String,
}

/// Policies, and what is expected while they are in force.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// Its name: lower case, with hyphens.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// Policies that are in force while it is probed.
    pub policies: Vec<(Kind, Value)>,
    /// The probes.
    pub cases: Vec<Case>,
    /// What is left out.
    pub skipped: Vec<Skipped>,
}

/// Where the test is run.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Namespace of the test's objects.
    pub namespace: String,
    /// The lab's nodes.
    pub nodes: Vec<String>,
    /// The lab's families.
    pub families: Vec<Family>,
    /// The port of the test's own listener on each node; TCP.
    pub node_ports: BTreeMap<String, u16>,
    /// Addresses of the host outside, and the ports of the test's own listeners there.
    pub world: World,
    /// False where a pod's own node does not pass the pod's default deny (`allowLocalhost: policy`).
    pub own_node_passes: bool,
}

/// The host outside, as the test uses it.
#[derive(Clone, PartialEq, Debug)]
pub struct World {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// TCP port of the test's listener.
    pub tcp: u16,
    /// UDP port of the test's listener.
    pub udp: u16,
    /// Why pods and the host outside cannot reach each other in this lab, if they cannot.
    pub unreachable: Option<&'static str>,
}

/// All scenarios, in the order in which they are run.
pub fn scenarios(setting: &Setting) -> Vec<Scenario> {
    vec![
        open(setting, "no-policy", "without policy everything answers"),
        ingress(setting),
        egress(setting),
        entities(setting),
        cut(setting),
        open(
            setting,
            "policy-removed",
            "with the policies gone everything answers again",
        ),
    ]
}

/// Collects the cases of one scenario.
struct Cases<'a> {
    setting: &'a Setting,
    cases: Vec<Case>,
    skipped: Vec<Skipped>,
}

impl<'a> Cases<'a> {
    fn new(setting: &'a Setting) -> Self {
        let mut cases = Self {
            setting,
            cases: Vec::new(),
            skipped: Vec::new(),
        };
        if setting.nodes.len() == 1 {
            cases.skip("probes to another node", "the lab has one node");
        }
        cases
    }

    fn skip(&mut self, what: &str, reason: &str) {
        self.skipped.push(Skipped {
            what: what.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// One probe, in each family.
    fn add(&mut self, from: &End, to: &End, probe: Probe, expected: Outcome) {
        for family in &self.setting.families {
            self.cases.push(Case {
                from: from.clone(),
                to: to.clone(),
                probe,
                family: *family,
                expected,
            });
        }
    }

    /// The probes of a scenario to or from the host outside, unless there is no way to it.
    fn with_world(&mut self, probes: impl FnOnce(&mut Self, &World)) {
        let world = &self.setting.world;
        match world.unreachable {
            Some(reason) => self.skip("probes between pods and world", reason),
            None => probes(self, world),
        }
    }

    /// What a pod's own node may is a setting of the agents.
    fn with_own_node(&mut self, probes: impl FnOnce(&mut Self)) {
        if self.setting.own_node_passes {
            probes(self);
        } else {
            self.skip(
                "probes between a pod and its own node",
                "allowLocalhost is `policy` in this lab",
            );
        }
    }

    fn node_port(&self, node: &str) -> u16 {
        self.setting.node_ports.get(node).copied().unwrap_or(0)
    }

    fn into_scenario(
        self,
        name: &'static str,
        about: &'static str,
        policies: Vec<(Kind, Value)>,
    ) -> Scenario {
        Scenario {
            name,
            about,
            policies,
            cases: self.cases,
            skipped: self.skipped,
        }
    }
}

/// Pairs of nodes that are tried, each with itself among them.
fn pairs(nodes: &[String]) -> Vec<(&str, &str)> {
    let count = nodes.len();
    let mut pairs = Vec::new();
    for (index, from) in nodes.iter().enumerate() {
        for (other, to) in nodes.iter().enumerate() {
            let next = other == (index + 1) % count || index == (other + 1) % count;
            if count <= ALL_PAIRS || index == other || next {
                pairs.push((from.as_str(), to.as_str()));
            }
        }
    }
    pairs
}

fn open(setting: &Setting, name: &'static str, about: &'static str) -> Scenario {
    use Outcome::{Answered, Refused};
    let mut cases = Cases::new(setting);
    for (from, to) in pairs(&setting.nodes) {
        let client = End::pod(Role::Client, from);
        let server = End::pod(Role::Server, to);
        cases.add(&client, &server, Probe::Tcp(PORT), Answered);
        cases.add(&client, &server, Probe::Tcp(CLOSED_PORT), Refused);
        cases.add(&client, &server, Probe::Udp(PORT), Answered);
        cases.add(&client, &server, Probe::Echo, Answered);
        let node = End::Node(to.to_owned());
        let port = cases.node_port(to);
        cases.add(&client, &node, Probe::Tcp(port), Answered);
        cases.add(&client, &node, Probe::Echo, Answered);
        let node = End::Node(from.to_owned());
        cases.add(&node, &server, Probe::Tcp(PORT), Answered);
    }
    cases.with_world(|cases, world| {
        for node in &setting.nodes {
            let client = End::pod(Role::Client, node);
            let server = End::pod(Role::Server, node);
            cases.add(&client, &End::World, Probe::Tcp(world.tcp), Answered);
            cases.add(&client, &End::World, Probe::Udp(world.udp), Answered);
            cases.add(&client, &End::World, Probe::Echo, Answered);
            cases.add(&End::World, &server, Probe::Tcp(PORT), Answered);
            cases.add(&End::World, &server, Probe::Udp(PORT), Answered);
            cases.add(&End::World, &server, Probe::Echo, Answered);
        }
    });
    cases.into_scenario(name, about, Vec::new())
}

fn ingress(setting: &Setting) -> Scenario {
    use Outcome::{Answered, Silent};
    let mut cases = Cases::new(setting);
    for (from, to) in pairs(&setting.nodes) {
        let client = End::pod(Role::Client, from);
        let other = End::pod(Role::Other, from);
        let server = End::pod(Role::Server, to);
        cases.add(&client, &server, Probe::Tcp(PORT), Answered);
        cases.add(&client, &server, Probe::Tcp(OTHER_PORT), Silent);
        cases.add(&client, &server, Probe::Udp(PORT), Silent);
        cases.add(&client, &server, Probe::Echo, Silent);
        cases.add(&other, &server, Probe::Tcp(PORT), Silent);
        cases.add(&other, &server, Probe::Udp(PORT), Silent);
        if from != to {
            let node = End::Node(from.to_owned());
            cases.add(&node, &server, Probe::Tcp(PORT), Silent);
        }
    }
    cases.with_own_node(|cases| {
        for node in &setting.nodes {
            let server = End::pod(Role::Server, node);
            cases.add(
                &End::Node(node.clone()),
                &server,
                Probe::Tcp(PORT),
                Answered,
            );
        }
    });
    cases.with_world(|cases, _| {
        for node in &setting.nodes {
            let server = End::pod(Role::Server, node);
            cases.add(&End::World, &server, Probe::Tcp(PORT), Silent);
            cases.add(&End::World, &server, Probe::Udp(PORT), Silent);
        }
    });
    cases.into_scenario(
        "ingress-by-label-and-port",
        "a NetworkPolicy lets the clients into the servers on one TCP port, and nobody else",
        scene::ingress_by_label_and_port(setting),
    )
}

fn egress(setting: &Setting) -> Scenario {
    use Outcome::{Answered, Silent};
    let mut cases = Cases::new(setting);
    for (from, to) in pairs(&setting.nodes) {
        let client = End::pod(Role::Client, from);
        let other = End::pod(Role::Other, to);
        let server = End::pod(Role::Server, to);
        cases.add(&client, &server, Probe::Tcp(PORT), Answered);
        cases.add(&client, &server, Probe::Tcp(OTHER_PORT), Silent);
        cases.add(&client, &server, Probe::Udp(PORT), Silent);
        cases.add(&client, &server, Probe::Echo, Silent);
        cases.add(&client, &other, Probe::Tcp(PORT), Silent);
        // Who is not selected goes on as before, and into the clients, too.
        cases.add(
            &End::pod(Role::Other, from),
            &server,
            Probe::Tcp(PORT),
            Answered,
        );
        cases.add(
            &End::pod(Role::Other, from),
            &End::pod(Role::Client, to),
            Probe::Tcp(PORT),
            Answered,
        );
        // What a pod sends to its own node is denied like all else: that a node passes is about what it sends.
        let port = cases.node_port(to);
        cases.add(&client, &End::Node(to.to_owned()), Probe::Tcp(port), Silent);
    }
    cases.with_world(|cases, world| {
        for node in &setting.nodes {
            let client = End::pod(Role::Client, node);
            cases.add(&client, &End::World, Probe::Tcp(world.tcp), Silent);
            cases.add(&client, &End::World, Probe::Udp(world.udp), Silent);
            cases.add(&client, &End::World, Probe::Echo, Silent);
        }
    });
    cases.into_scenario(
        "egress-default-deny",
        "a NetworkPolicy denies all that the clients send, but for one TCP port of the servers",
        scene::egress_default_deny(setting),
    )
}

fn entities(setting: &Setting) -> Scenario {
    use Outcome::{Answered, Silent};
    let mut cases = Cases::new(setting);
    for (from, to) in pairs(&setting.nodes) {
        let server = End::pod(Role::Server, to);
        let other = End::pod(Role::Other, from);
        cases.add(&other, &server, Probe::Tcp(PORT), Silent);
        cases.add(
            &End::pod(Role::Server, from),
            &End::pod(Role::Other, to),
            Probe::Tcp(PORT),
            Answered,
        );
        let client = End::pod(Role::Client, from);
        cases.add(
            &client,
            &End::pod(Role::Other, to),
            Probe::Tcp(PORT),
            Silent,
        );
        if from != to {
            let port = cases.node_port(to);
            let node = End::Node(from.to_owned());
            cases.add(&node, &server, Probe::Tcp(PORT), Answered);
            cases.add(&node, &server, Probe::Tcp(OTHER_PORT), Silent);
            cases.add(
                &client,
                &End::Node(to.to_owned()),
                Probe::Tcp(port),
                Answered,
            );
        }
    }
    cases.with_world(|cases, world| {
        for node in &setting.nodes {
            let client = End::pod(Role::Client, node);
            let server = End::pod(Role::Server, node);
            let other = End::pod(Role::Other, node);
            cases.add(&End::World, &server, Probe::Tcp(PORT), Answered);
            cases.add(&End::World, &server, Probe::Tcp(OTHER_PORT), Silent);
            cases.add(&End::World, &other, Probe::Tcp(PORT), Silent);
            cases.add(&client, &End::World, Probe::Tcp(world.tcp), Answered);
            cases.add(&client, &End::World, Probe::Udp(world.udp), Silent);
        }
    });
    cases.into_scenario(
        "cilium-entities-and-cidr",
        "CiliumNetworkPolicies allow by the entities world, remote-node and cluster, and by CIDR",
        scene::entities_and_cidr(setting),
    )
}

fn cut(setting: &Setting) -> Scenario {
    use Outcome::Silent;
    let mut cases = Cases::new(setting);
    for (from, to) in pairs(&setting.nodes) {
        let client = End::pod(Role::Client, from);
        let server = End::pod(Role::Server, to);
        cases.add(&client, &server, Probe::Established(PORT), Silent);
        cases.add(&client, &server, Probe::Tcp(PORT), Silent);
    }
    cases.into_scenario(
        "deny-cuts-established",
        "a new deny cuts the connections that stand",
        scene::deny_all_ingress(setting),
    )
}

#[cfg(test)]
pub(in crate::connectivity) mod tests;
