//! What settings of the agent may be, beyond numbers and text.

use heddle_policy::{Direction, Peer, Peers, Policy, PolicyKind, protocol};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How packets reach other nodes' pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    /// The network between the nodes knows their pod ranges.
    Routed,
    /// The network knows only the nodes; packets between pods are encapsulated.
    Vxlan,
}

/// Whose policies are on audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyAudit {
    /// Nobody's, but for nodes that are annotated `heddle.dev/policy-audit: "true"`, and pods where
    /// `allowPodAudit` permits it.
    #[default]
    None,
    /// The node's own: host policies begin by telling what they would do.
    Host,
    /// Every pod's and the node's.
    All,
}

/// Whether a pod's own node passes the pod's default deny.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowLocalhost {
    /// It does, so that probes reach their pods.
    #[default]
    Always,
    /// It does where a rule says so.
    Policy,
}

/// What a policy does that cannot be enforced as it is written, and of which no version ever was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnenforceablePolicies {
    /// Nothing: the pods that it selects are as open as without it, and its status says which.
    #[default]
    Ignore,
    /// It isolates them in the directions that it is about, and allows nothing. Where its selector cannot be read,
    /// all pods of its namespace.
    Isolate,
}

/// Which addresses Kubernetes' `ipBlock` selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CidrMatchMode {
    /// All in the block, those of pods and nodes too, as the specification has it.
    #[default]
    Specification,
    /// Those outside the cluster, as Cilium has it (reference I1).
    Outside,
}

impl CidrMatchMode {
    /// A policy as it is meant in this mode.
    pub fn meant(self, policy: Policy) -> Policy {
        match self {
            Self::Specification => policy,
            Self::Outside => outside_only(policy),
        }
    }
}

/// Kubernetes' NetworkPolicy as Cilium reads it: `ipBlock` selects nobody inside the cluster (reference I1).
fn outside_only(mut policy: Policy) -> Policy {
    if policy.id.kind != PolicyKind::NetworkPolicy {
        return policy;
    }
    let rules = policy.specs.iter_mut().flat_map(|spec| &mut spec.rules);
    for rule in rules {
        if let Peers::Terms(terms) = &mut rule.peers {
            for term in terms {
                if let Peer::Cidr(block) = term {
                    block.in_cluster = false;
                }
            }
        }
    }
    policy
}

/// Traffic of this node that no host policy may cut.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtectedTraffic {
    /// `egress`: the node connects; `ingress`: it is connected to.
    pub direction: Direction,
    /// The other end.
    pub peer: IpNet,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: ProtectedProtocol,
    /// The port that is connected to, 1 to 65535.
    pub port: u16,
}

/// The protocols of [`ProtectedTraffic`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProtectedProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl ProtectedProtocol {
    /// Its IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

impl fmt::Display for ProtectedTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let spoken = protocol::describe(self.protocol.number(), self.port);
        write!(f, "{spoken} {way} {} (protectedTraffic)", self.peer)
    }
}
