//! Policies in one normal form, whatever API they were written in.

use crate::{Direction, EndpointSelector, EntryVerdict};
use heddle_model::Entity;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The API a policy was written in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
}

impl PolicyKind {
    /// Its `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which object a policy is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PolicyId {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for cluster-wide policies.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyId {
    /// The policy of this kind, namespace and name.
    pub fn new(kind: PolicyKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The list of a policy that a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Section {
    /// `ingress`: allows.
    Ingress,
    /// `egress`: allows.
    Egress,
    /// `ingressDeny`.
    IngressDeny,
    /// `egressDeny`.
    EgressDeny,
}

impl Section {
    /// The field's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::IngressDeny => "ingressDeny",
            Self::EgressDeny => "egressDeny",
        }
    }

    /// The direction its rules are about.
    pub const fn direction(self) -> Direction {
        match self {
            Self::Ingress | Self::IngressDeny => Direction::Ingress,
            Self::Egress | Self::EgressDeny => Direction::Egress,
        }
    }

    /// What its rules say.
    pub const fn action(self) -> EntryVerdict {
        match self {
            Self::Ingress | Self::Egress => EntryVerdict::Allow,
            Self::IngressDeny | Self::EgressDeny => EntryVerdict::Deny,
        }
    }
}

/// Which rule of which policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RuleRef {
    /// The policy's kind.
    pub kind: PolicyKind,
    /// The policy's namespace; empty for cluster-wide policies.
    #[serde(default)]
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// Position in `specs`, for a policy that has `specs` instead of `spec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<u32>,
    /// The list it stands in.
    pub section: Section,
    /// Its position in that list, from 0.
    pub index: u32,
    /// What it says.
    pub action: EntryVerdict,
}

impl RuleRef {
    /// The rule at this place of a policy.
    pub fn new(policy: &PolicyId, spec: Option<u32>, section: Section, index: u32) -> Self {
        Self {
            kind: policy.kind,
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            spec,
            section,
            index,
            action: section.action(),
        }
    }

    /// Its policy.
    pub fn policy(&self) -> PolicyId {
        PolicyId::new(self.kind, self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.policy())?;
        if let Some(spec) = self.spec {
            write!(f, "specs[{spec}].")?;
        }
        write!(f, "{}[{}]", self.section.name(), self.index)
    }
}

/// A policy object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Which object it is.
    pub id: PolicyId,
    /// Its parts: one for `spec`, as many as there are in `specs`. Each has a subject of its own.
    pub specs: Vec<PolicySpec>,
}

/// One part of a policy: whom it is about and what it says about them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicySpec {
    /// Position in `specs`; `None` when the policy has `spec`.
    pub position: Option<u32>,
    /// The endpoints it is about.
    pub subject: EndpointSelector,
    /// The directions in which it denies its subjects what no rule allows.
    pub isolates: Isolation,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// In which directions an endpoint is denied what no rule allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Isolation {
    /// Connections to it.
    pub ingress: bool,
    /// Connections from it.
    pub egress: bool,
}

impl Isolation {
    /// True when it holds for this direction.
    pub const fn holds(self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// One rule: it matches when some peer term and some port term match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The list it stands in: its direction and action.
    pub section: Section,
    /// Its position in that list, from 0.
    pub index: u32,
    /// Who the other end is.
    pub peers: Peers,
    /// What is spoken.
    pub ports: Ports,
}

/// Whom a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peers {
    /// Anybody, inside the cluster and outside.
    Any,
    /// Whom one of these selects; an empty list selects nobody (reference E4).
    Terms(Vec<Peer>),
}

/// One term of a rule's peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// Pods by their labels and their namespace's.
    Endpoints(EndpointSelector),
    /// Addresses.
    Cidr(CidrBlock),
    /// A named group.
    Entity(Entity),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(selector) => selector.fmt(f),
            Self::Cidr(block) => block.fmt(f),
            Self::Entity(entity) => write!(f, "entity {entity}"),
        }
    }
}

/// A block of addresses with holes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CidrBlock {
    /// The block.
    pub block: IpNet,
    /// The holes, each inside the block.
    pub except: Vec<IpNet>,
    /// Whether it also selects pod and node addresses: true for Kubernetes `ipBlock`, false for Cilium's
    /// CIDR rules (reference I1).
    pub in_cluster: bool,
}

impl CidrBlock {
    /// True when it selects all addresses of `prefix`, which is not cut by a hole.
    pub fn covers(&self, prefix: IpNet, in_cluster: bool) -> bool {
        (self.in_cluster || !in_cluster)
            && self.block.contains(&prefix)
            && !self.except.iter().any(|hole| hole.contains(&prefix))
    }
}

impl fmt::Display for CidrBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "addresses in {}", self.block)?;
        for (at, hole) in self.except.iter().enumerate() {
            write!(f, "{}{hole}", if at == 0 { " except " } else { ", " })?;
        }
        if !self.in_cluster {
            f.write_str(" outside the cluster")?;
        }
        Ok(())
    }
}

/// What a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ports {
    /// Everything, ICMP and unknown protocols included (reference P2).
    All,
    /// What one of these says; an empty list is nothing (reference E9).
    Only(Vec<PortTerm>),
}

/// One term of a rule's ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortTerm {
    /// Ports of a transport protocol.
    Transport(Transport, PortMatch),
    /// An ICMP message type.
    Icmp(IcmpFamily, u8),
}

impl fmt::Display for PortTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(transport, PortMatch::All) => write!(f, "{}", transport.name()),
            Self::Transport(transport, PortMatch::Range(first, last)) if first == last => {
                write!(f, "{}/{first}", transport.name())
            }
            Self::Transport(transport, PortMatch::Range(first, last)) => {
                write!(f, "{}/{first}-{last}", transport.name())
            }
            Self::Transport(transport, PortMatch::Name(name)) => {
                write!(f, "{}/{name}", transport.name())
            }
            Self::Icmp(IcmpFamily::V4, kind) => write!(f, "ICMP/{kind}"),
            Self::Icmp(IcmpFamily::V6, kind) => write!(f, "ICMPv6/{kind}"),
        }
    }
}

/// A transport protocol of a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// All three; not ICMP (reference P1).
    Any,
}

impl Transport {
    /// Its name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Any => "ANY",
        }
    }

    /// The IP protocol numbers.
    pub const fn protocols(self) -> &'static [u8] {
        use crate::protocol::{SCTP, TCP, UDP};
        match self {
            Self::Tcp => &[TCP],
            Self::Udp => &[UDP],
            Self::Sctp => &[SCTP],
            Self::Any => &[TCP, UDP, SCTP],
        }
    }
}

/// Ports of a transport protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortMatch {
    /// All of them.
    All,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// The ports that the pod on the receiving end gives this name (references P5, P6).
    Name(String),
}

/// An ICMP version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IcmpFamily {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

impl IcmpFamily {
    /// The IP protocol number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::V4 => crate::protocol::ICMP,
            Self::V6 => crate::protocol::ICMPV6,
        }
    }
}
