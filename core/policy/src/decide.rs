//! The same answer on paper: rules against labels, addresses and ports, with the reasons.

use crate::{
    Direction, Engine, EntryVerdict, PolicyId, RuleRef,
    case::Case,
    engine::isolating,
    link::Asked,
    order::{Frame, Place, rule_on},
};
use heddle_model::Identity;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
    /// The number that its own policy goes by where that is not `identity`: a node's
    /// (`Identity::node_subject`). Without it a node has no policy.
    pub subject: Option<Identity>,
}

impl Party {
    /// An end inside the cluster.
    pub const fn in_cluster(identity: Identity, prefix: Option<IpNet>) -> Self {
        Self {
            identity,
            prefix,
            in_cluster: true,
            subject: None,
        }
    }

    /// This end, whose own policy goes by another number.
    #[must_use]
    pub const fn with_subject(self, subject: Identity) -> Self {
        Self {
            subject: Some(subject),
            ..self
        }
    }

    /// The number that its own policy goes by.
    pub const fn subject(&self) -> Identity {
        match self.subject {
            Some(subject) => subject,
            None => self.identity,
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
            subject: None,
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
    /// The deciding rules: all that matched at the place in the order that decides.
    pub rules: Vec<RuleRef>,
    /// The passes that were followed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<RuleRef>,
    /// The policies that isolate this end in this direction.
    pub isolated_by: Vec<PolicyId>,
    /// After a default deny: the allows that came nearest, the nearest first.
    pub nearest: Vec<Nearest>,
}

impl DirectionDecision {
    /// Nothing is enforced, and no rule was asked.
    const fn not_enforced() -> Self {
        Self {
            verdict: EntryVerdict::Allow,
            enforced: false,
            because: Because::NotEnforced,
            rules: Vec::new(),
            passed: Vec::new(),
            isolated_by: Vec::new(),
            nearest: Vec::new(),
        }
    }
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
            because: Because::Reserved,
            ..DirectionDecision::not_enforced()
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
        let number = subject.subject();
        let specs = self.selecting(number);
        let Some(frame) = self.frame(number, &specs, direction) else {
            return DirectionDecision::not_enforced();
        };
        let frame = Frame {
            own_node: self.passes_as_own_node(number, peer.identity, direction),
            ..frame
        };
        let case = Case::new(self, subject, peer, direction, traffic);
        let matching: Vec<_> = specs
            .iter()
            .flat_map(|spec| spec.rules(direction))
            .filter(|asked| case.failure(*asked).is_none())
            .collect();
        let ruling = rule_on(matching.iter().map(Asked::place), frame);
        let standing_at = |at: Option<Place>| {
            let mut names: Vec<RuleRef> = matching
                .iter()
                .filter(|asked| Some(asked.place()) == at)
                .filter_map(Asked::name)
                .collect();
            names.sort();
            names
        };
        let nearest = if ruling.because == Because::DefaultDeny {
            case.nearest(&specs, frame, &ruling)
        } else {
            Vec::new()
        };
        DirectionDecision {
            verdict: ruling.because.verdict(),
            enforced: frame.isolated || frame.strict,
            because: ruling.because,
            rules: standing_at(ruling.decided),
            passed: ruling
                .passed
                .into_iter()
                .flatten()
                .flat_map(|place| standing_at(Some(place)))
                .collect(),
            isolated_by: isolating(&specs, direction),
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
        let number = subject.subject();
        let specs = self.selecting(number);
        let Some(frame) = self.frame(number, &specs, direction) else {
            return EntryVerdict::Allow;
        };
        let frame = Frame {
            own_node: self.passes_as_own_node(number, peer.identity, direction),
            ..frame
        };
        let case = Case::new(self, subject, peer, direction, traffic);
        let matching = specs
            .iter()
            .flat_map(|spec| spec.rules(direction))
            .filter(|asked| case.failure(*asked).is_none())
            .map(|asked| asked.place());
        rule_on(matching, frame).because.verdict()
    }
}

impl Because {
    /// Allow or deny.
    pub const fn verdict(self) -> EntryVerdict {
        match self {
            Self::Rule | Self::NotEnforced | Self::Reserved => EntryVerdict::Allow,
            Self::DefaultDeny | Self::ExplicitDeny => EntryVerdict::Deny,
        }
    }
}
