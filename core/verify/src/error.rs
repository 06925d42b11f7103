//! Why a question has no answer.

use crate::Family;
use heddle_model::NamespacedName;
use std::net::IpAddr;

/// What kind of error it is; who asks decides by it how loudly and with which exit code it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// The question names something that is not there, or cannot be understood.
    Question,
    /// The cluster's objects contradict each other or are too many.
    Objects,
    /// What is known does not tell.
    Unknown,
}

/// Why a question has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// No node has this name.
    #[error("there is no node {given:?} in {whence}")]
    UnknownNode {
        /// As it was given.
        given: String,
        /// Where the objects are from.
        whence: String,
        /// The nodes that there are.
        nodes: Vec<String>,
    },
    /// No pod has this name.
    #[error("there is no pod {given} in {whence}")]
    UnknownPod {
        /// As it was given.
        given: String,
        /// Where the objects are from.
        whence: String,
        /// A pod that is nearly called so.
        near: Option<String>,
    },
    /// No workload of this name has a pod.
    #[error("there is no pod of {given} in {whence}")]
    UnknownWorkload {
        /// As it was given.
        given: String,
        /// Where the objects are from.
        whence: String,
        /// The workloads of its namespace that have pods.
        workloads: Vec<String>,
    },
    /// Neither a pod nor an address nor an entity.
    #[error("{given:?} is no pod, address or entity")]
    UnknownPeer {
        /// As it was given.
        given: String,
    },
    /// An entity that many peers have.
    #[error("{given:?} is not one peer")]
    AmbiguousPeer {
        /// As it was given.
        given: String,
    },
    /// The pod has its node's network, and so no policy of its own.
    #[error("pod {pod} shares its node's network and has no policy of its own")]
    HostNetwork {
        /// The pod.
        pod: NamespacedName,
    },
    /// Not a port number.
    #[error("{given:?} is not a port")]
    BadPort {
        /// As it was given.
        given: String,
    },
    /// The destination has no port of this name.
    #[error("{peer} has no {protocol} port named {name:?}")]
    UnknownPortName {
        /// The destination, as it was given.
        peer: String,
        /// The protocol's name.
        protocol: &'static str,
        /// The port's name.
        name: String,
    },
    /// Not an ICMP type.
    #[error("{given:?} is not an ICMP type")]
    BadIcmp {
        /// As it was given.
        given: String,
    },
    /// Not a probe.
    #[error("{given:?} is not a probe")]
    BadProbe {
        /// As it was given.
        given: String,
    },
    /// Two pods have one address.
    #[error("pods {first} and {second} both have {address}")]
    DuplicateAddress {
        /// The pod that had it first.
        first: NamespacedName,
        /// The other.
        second: NamespacedName,
        /// The address.
        address: IpAddr,
    },
    /// No identity number is left.
    #[error("the pods have more than 65280 different label sets")]
    IdentitiesExhausted,
    /// No block is left for pods without addresses.
    #[error("{} has no block left for pods without addresses", match .family { Family::V4 => "10.244.0.0/16", Family::V6 => "fd10:244::/48" })]
    PoolExhausted {
        /// The family that ran out.
        family: Family,
    },
}

impl VerifyError {
    /// A stable code: `area/what`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownNode { .. }
            | Self::UnknownPod { .. }
            | Self::UnknownWorkload { .. }
            | Self::UnknownPeer { .. } => "policy/unknown-peer",
            Self::AmbiguousPeer { .. } => "policy/ambiguous-peer",
            Self::HostNetwork { .. } => "policy/host-network",
            Self::BadPort { .. } => "usage/port",
            Self::UnknownPortName { .. } => "policy/unknown-port-name",
            Self::BadIcmp { .. } => "usage/icmp",
            Self::BadProbe { .. } => "usage/probe",
            Self::DuplicateAddress { .. } => "manifest/duplicate-address",
            Self::IdentitiesExhausted => "identity/exhausted",
            Self::PoolExhausted { .. } => "ipam/pool-exhausted",
        }
    }

    /// What kind of error it is.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::UnknownPortName { .. } => ErrorClass::Unknown,
            Self::DuplicateAddress { .. }
            | Self::IdentitiesExhausted
            | Self::PoolExhausted { .. } => ErrorClass::Objects,
            _ => ErrorClass::Question,
        }
    }

    /// What to try.
    pub fn help(&self) -> String {
        match self {
            Self::UnknownNode { nodes, .. } => return format!("nodes: {}", nodes.join(", ")),
            Self::UnknownPod {
                near: Some(near), ..
            } => return format!("did you mean {near}?"),
            Self::UnknownWorkload { workloads, .. } if workloads.is_empty() => {
                "a workload is NAMESPACE/KIND/NAME, for example shop/deploy/web; no workload of that namespace has pods"
            }
            Self::UnknownWorkload { workloads, .. } => {
                return format!("workloads there: {}", workloads.join(", "));
            }
            Self::UnknownPod { .. } => {
                "name a pod as namespace/name; pods without a namespace are in `default`"
            }
            Self::UnknownPeer { .. } => {
                "a peer is namespace/pod, namespace/deploy/NAME, an address, host:NODE, or an entity such as world, remote-node, kube-apiserver"
            }
            Self::AmbiguousPeer { .. } => {
                "name one: a pod, an address, world, host:NODE, remote-node, kube-apiserver"
            }
            Self::HostNetwork { .. } => {
                "ask about its node with --node, or about a pod with hostNetwork: false"
            }
            Self::BadPort { .. } => {
                "ports go from 1 to 65535; a name is one of the destination's named ports"
            }
            Self::UnknownPortName { .. } => {
                "declare it under containers[].ports, or ask by number"
            }
            Self::BadIcmp { .. } => "types are 0 to 255, or a name such as EchoRequest",
            Self::BadProbe { .. } => {
                "probes look like TCP/80, UDP/53, SCTP/9, TCP/http, ICMP/8, ICMPv6/128"
            }
            Self::DuplicateAddress { .. } => {
                "correct status.podIPs, or leave it out to have one assigned"
            }
            Self::IdentitiesExhausted => "ask about fewer pods at once",
            Self::PoolExhausted { .. } => {
                "give nodes wider spec.podCIDRs, or pods status.podIPs"
            }
        }
        .to_owned()
    }

    /// The object that it is about; empty when it is about none.
    pub fn object(&self) -> String {
        match self {
            Self::UnknownPortName { peer, .. } => peer.clone(),
            Self::DuplicateAddress { second, .. } => format!("Pod {second}"),
            _ => String::new(),
        }
    }

    /// The object's field that is wrong; empty when it is about none.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::DuplicateAddress { .. } => "status.podIPs",
            _ => "",
        }
    }
}
