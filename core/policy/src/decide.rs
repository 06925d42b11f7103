//! The same answer on paper: rules against labels, addresses and ports, with the reasons.

use crate::{
    Action, Direction, Engine, EntryVerdict, Peer, Peers, PolicyId, PortMatch, PortTerm, Ports,
    Rule, RuleRef, compile::Stance, engine::named_ports_of, protocol,
};
use heddle_model::{Identity, LabelSet, Source};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Rules named as nearest at most: enough to see what is missing, few enough to read.
const MOST_NEAREST: usize = 8;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Party {
    /// Its identity.
    pub identity: Identity,
    /// Its address as a full-length prefix; a shorter prefix stands for any of its addresses about which
    /// nothing finer is known (`0.0.0.0/0`: somewhere in the IPv4 world). `None`: no CIDR selects it.
    pub prefix: Option<IpNet>,
    /// Whether the address is a pod's, a node's, or in a pod range.
    pub in_cluster: bool,
}

impl Party {
    /// An end inside the cluster.
    pub const fn in_cluster(identity: Identity, prefix: Option<IpNet>) -> Self {
        Self {
            identity,
            prefix,
            in_cluster: true,
        }
    }

    /// An end outside the cluster, with the world identity of its family.
    pub const fn world(prefix: IpNet) -> Self {
        Self {
            identity: match prefix {
                IpNet::V4(_) => Identity::WORLD_IPV4,
                IpNet::V6(_) => Identity::WORLD_IPV6,
            },
            prefix: Some(prefix),
            in_cluster: false,
        }
    }
}

/// What is spoken: the first packet's protocol and destination port, or ICMP message type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Traffic {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; for ICMP the message type.
    pub port: u16,
}

/// Why a direction decided as it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// Rules allow it.
    Rule,
    /// No rule matched, and policies isolate the endpoint.
    DefaultDeny,
    /// Rules deny it.
    ExplicitDeny,
    /// No policy isolates the endpoint in this direction.
    NotEnforced,
    /// Always allowed: the endpoint's own node connects to it, or a pod to itself.
    Reserved,
}

/// The first term of a rule that failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Term {
    /// The peer and the protocol match, the port does not.
    Port,
    /// The peer matches, the ICMP type does not.
    Icmp,
    /// The peer matches, the protocol does not.
    Protocol,
    /// The peer does not match.
    Peer,
}

/// An allow that came near.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Nearest {
    /// The rule.
    pub rule: RuleRef,
    /// Its first term that failed.
    pub failed: Term,
    /// What the term asks for.
    pub wanted: String,
    /// What was there.
    pub got: String,
}

/// What one end's policy says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectionDecision {
    /// Allow or deny.
    pub verdict: EntryVerdict,
    /// Whether something isolates this end in this direction.
    pub enforced: bool,
    /// Why.
    pub because: Because,
    /// The deciding rules: every allow that matched, or every deny.
    pub rules: Vec<RuleRef>,
    /// The policies that isolate this end in this direction.
    pub isolated_by: Vec<PolicyId>,
    /// After a default deny: the allows that came nearest, the nearest first.
    pub nearest: Vec<Nearest>,
}

/// What both ends' policies say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// Allow when both directions allow.
    pub verdict: EntryVerdict,
    /// The source's policy.
    pub egress: DirectionDecision,
    /// The destination's policy.
    pub ingress: DirectionDecision,
}

impl Decision {
    /// A pod that talks to itself: the packet never leaves it, so no policy sees it.
    pub fn within_pod() -> Self {
        let part = DirectionDecision {
            verdict: EntryVerdict::Allow,
            enforced: false,
            because: Because::Reserved,
            rules: Vec::new(),
            isolated_by: Vec::new(),
            nearest: Vec::new(),
        };
        Self {
            verdict: EntryVerdict::Allow,
            egress: part.clone(),
            ingress: part,
        }
    }
}

impl Engine {
    /// Decides a connection between two ends that are not the same pod.
    ///
    /// Each end's identity is as the other end's node sees it (`Identity::HOST` only towards pods of that
    /// same node).
    pub fn decide(&self, from: &Party, to: &Party, traffic: Traffic) -> Decision {
        let egress = self.decide_direction(from, to, Direction::Egress, traffic);
        let ingress = self.decide_direction(to, from, Direction::Ingress, traffic);
        let verdict = egress.verdict.max(ingress.verdict);
        Decision {
            verdict,
            egress,
            ingress,
        }
    }

    /// Decides one direction: `subject` is the end whose policy is asked.
    pub fn decide_direction(
        &self,
        subject: &Party,
        peer: &Party,
        direction: Direction,
        traffic: Traffic,
    ) -> DirectionDecision {
        let weighed = self.weigh(subject, peer, direction, traffic);
        let isolated_by: BTreeSet<&PolicyId> = self
            .selecting(subject.identity)
            .into_iter()
            .filter(|(_, spec)| {
                weighed.stance == Stance::Isolated && spec.isolates.holds(direction)
            })
            .map(|(id, _)| id)
            .collect();
        let nearest = if weighed.because == Because::DefaultDeny {
            self.nearest(subject, peer, direction, traffic)
        } else {
            Vec::new()
        };
        DirectionDecision {
            verdict: weighed.because.verdict(),
            enforced: weighed.stance == Stance::Isolated,
            because: weighed.because,
            rules: weighed.rules,
            isolated_by: isolated_by.into_iter().cloned().collect(),
            nearest,
        }
    }

    /// The verdict of one direction without its reasons.
    pub fn verdict(
        &self,
        subject: &Party,
        peer: &Party,
        direction: Direction,
        traffic: Traffic,
    ) -> EntryVerdict {
        self.weigh(subject, peer, direction, traffic)
            .because
            .verdict()
    }

    fn weigh(
        &self,
        subject: &Party,
        peer: &Party,
        direction: Direction,
        traffic: Traffic,
    ) -> Weighed {
        let stance = self.stance(subject.identity, direction);
        let (mut allows, mut denies) = (Vec::new(), Vec::new());
        if stance != Stance::Exempt {
            let case = Case::new(self, subject, peer, direction, traffic);
            for (id, spec) in self.selecting(subject.identity) {
                for rule in &spec.rules {
                    if rule.section.direction() != direction || case.failure(rule).is_some() {
                        continue;
                    }
                    let name = RuleRef::of(id, spec.position, rule);
                    match rule.action {
                        Action::Allow => allows.push(name),
                        Action::Deny => denies.push(name),
                        Action::Pass => {}
                    }
                }
            }
        }
        let own_node = direction == Direction::Ingress && peer.identity == Identity::HOST;
        let (because, rules) = if !denies.is_empty() {
            (Because::ExplicitDeny, denies)
        } else if !allows.is_empty() {
            (Because::Rule, allows)
        } else if stance != Stance::Isolated {
            (Because::NotEnforced, Vec::new())
        } else if own_node {
            (Because::Reserved, Vec::new())
        } else {
            (Because::DefaultDeny, Vec::new())
        };
        Weighed {
            stance,
            because,
            rules,
        }
    }

    fn nearest(
        &self,
        subject: &Party,
        peer: &Party,
        direction: Direction,
        traffic: Traffic,
    ) -> Vec<Nearest> {
        let case = Case::new(self, subject, peer, direction, traffic);
        let mut found = Vec::new();
        for (id, spec) in self.selecting(subject.identity) {
            for rule in &spec.rules {
                if rule.section.direction() != direction || rule.action != Action::Allow {
                    continue;
                }
                if let Some(failed) = case.failure(rule) {
                    found.push(Nearest {
                        rule: RuleRef::of(id, spec.position, rule),
                        failed,
                        wanted: match failed {
                            Term::Peer => describe_peers(&rule.peers),
                            _ => describe_ports(&rule.ports),
                        },
                        got: match failed {
                            Term::Peer => describe_party(peer, case.peer_labels),
                            _ => protocol::describe(traffic.protocol, traffic.port),
                        },
                    });
                }
            }
        }
        found.sort_by(|a, b| (a.failed, &a.rule).cmp(&(b.failed, &b.rule)));
        found.truncate(MOST_NEAREST);
        found
    }
}

impl Because {
    const fn verdict(self) -> EntryVerdict {
        match self {
            Self::Rule | Self::NotEnforced | Self::Reserved => EntryVerdict::Allow,
            Self::DefaultDeny | Self::ExplicitDeny => EntryVerdict::Deny,
        }
    }
}

struct Weighed {
    stance: Stance,
    because: Because,
    rules: Vec<RuleRef>,
}

/// One question, ready to be put to rules.
struct Case<'a> {
    peer: &'a Party,
    peer_labels: Option<&'a LabelSet>,
    /// Named ports of the receiving end.
    names: &'a str,
    direction: Direction,
    traffic: Traffic,
}

impl<'a> Case<'a> {
    fn new(
        engine: &'a Engine,
        subject: &Party,
        peer: &'a Party,
        direction: Direction,
        traffic: Traffic,
    ) -> Self {
        let receiver = match direction {
            Direction::Ingress => subject,
            Direction::Egress => peer,
        };
        Self {
            peer,
            peer_labels: engine.labels(peer.identity),
            names: engine
                .labels(receiver.identity)
                .and_then(named_ports_of)
                .unwrap_or_default(),
            direction,
            traffic,
        }
    }

    /// The first term of the rule that fails, or `None` when the rule matches.
    fn failure(&self, rule: &Rule) -> Option<Term> {
        // Towards an address there is nobody to say what a port's name means.
        let names_known =
            |peer: &Peer| self.direction == Direction::Ingress || !matches!(peer, Peer::Cidr(_));
        let mut nearest = Some(Term::Peer);
        match &rule.peers {
            Peers::Any => nearest = self.port_failure(&rule.ports, true),
            Peers::Terms(terms) => {
                for term in terms.iter().filter(|term| self.is_peer(term)) {
                    let failure = self.port_failure(&rule.ports, names_known(term));
                    // `None`, a match, sorts before every failure; failures by how near they came.
                    nearest = nearest.min(failure);
                }
            }
        }
        nearest
    }

    fn is_peer(&self, term: &Peer) -> bool {
        match term {
            Peer::Endpoints(selector) => self
                .peer_labels
                .is_some_and(|labels| selector.matches(labels)),
            Peer::Entity(entity) => entity.contains(self.peer.identity),
            Peer::CidrGroup { .. } | Peer::Services(_) => false,
            Peer::Cidr(cidr) => self
                .peer
                .prefix
                .is_some_and(|prefix| cidr.covers(prefix, self.peer.in_cluster)),
        }
    }

    fn port_failure(&self, ports: &Ports, names_known: bool) -> Option<Term> {
        let Ports::Only(terms) = ports else {
            return None;
        };
        let Traffic { protocol, port } = self.traffic;
        let mut nearest = Some(Term::Protocol);
        for term in terms {
            let failure = match term {
                PortTerm::Transport(transport, wanted) => {
                    if !transport.protocols().contains(&protocol) {
                        continue;
                    }
                    let holds = match wanted {
                        PortMatch::All => true,
                        PortMatch::Range(first, last) => (*first..=*last).contains(&port),
                        PortMatch::Name(name) => {
                            names_known
                                && protocol::named_ports(self.names)
                                    .any(|known| known == (name.as_str(), protocol, port))
                        }
                    };
                    (!holds).then_some(Term::Port)
                }
                PortTerm::Icmp(family, kind) => {
                    if family.protocol() != protocol {
                        continue;
                    }
                    (u16::from(*kind) != port).then_some(Term::Icmp)
                }
            };
            nearest = nearest.min(failure);
        }
        nearest
    }
}

fn describe_peers(peers: &Peers) -> String {
    match peers {
        Peers::Any => "anybody".to_owned(),
        Peers::Terms(terms) if terms.is_empty() => "nobody (an empty list)".to_owned(),
        Peers::Terms(terms) => join(terms.iter()),
    }
}

fn describe_ports(ports: &Ports) -> String {
    match ports {
        Ports::All => "everything".to_owned(),
        Ports::Only(terms) if terms.is_empty() => "nothing (an empty list)".to_owned(),
        Ports::Only(terms) => join(terms.iter()),
    }
}

fn join(terms: impl Iterator<Item = impl std::fmt::Display>) -> String {
    terms
        .map(|term| term.to_string())
        .collect::<Vec<_>>()
        .join(", or ")
}

fn describe_party(party: &Party, labels: Option<&LabelSet>) -> String {
    let Some(labels) = labels else {
        return format!("identity {}", party.identity);
    };
    if let Some(namespace) = labels.namespace() {
        let own: Vec<String> = labels
            .iter()
            .filter(|(source, key, _)| *source == Source::K8s && !key.starts_with("io."))
            .map(|(_, key, value)| format!("{key}={value}"))
            .collect();
        let labels = if own.is_empty() {
            "no labels".to_owned()
        } else {
            own.join(", ")
        };
        return format!("pod with {labels} of namespace {namespace}");
    }
    let name = party.identity.reserved_name().unwrap_or("unknown");
    match party.prefix {
        Some(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
            format!("{} ({name})", prefix.addr())
        }
        _ => name.to_owned(),
    }
}
