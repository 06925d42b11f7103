//! What is wrong with an object: which field, which value, why, and what to do.
//!
//! A problem takes out the port or the address that it is about, and never the rest of its object.

use crate::{AddressFault, Family, Kind, Subject};
use heddle_model::NamespacedName;
use ipnet::IpNet;
use std::fmt;

/// Problems of one object that are listed; the last one says how many more there are.
pub const MAX_PROBLEMS: usize = 64;
/// Characters of a value that a problem repeats: values come from anybody.
const MAX_SHOWN: usize = 64;

/// A field whose value cannot be used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// The field, as in `spec.ports[1].port`.
    pub field: String,
    /// Its value, cut after 64 characters; empty when the field as a whole is meant.
    pub value: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.field)?;
        if !self.value.is_empty() {
            write!(f, " {:?}", self.value)?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for Problem {}

/// What is wrong with a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Fault {
    /// A number that is no port.
    #[error("is not a port (1 to 65535)")]
    NotAPort,
    /// A port outside of the range that the cluster gives to Services.
    #[error("is not in the node port range {first}-{last}")]
    OutsideNodePorts {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
    },
    /// A word that the API does not know.
    #[error("is not one of {known}")]
    UnknownWord {
        /// The words that it knows.
        known: &'static str,
    },
    /// Text that is no address.
    #[error("is not an IP address")]
    NotAnAddress,
    /// An address that no single host has.
    #[error("cannot be used: {0}")]
    Unusable(AddressFault),
    /// An address of a family that the object does not have.
    #[error("is {found}, and that family is not the object's")]
    OtherFamily {
        /// The family of the address.
        found: Family,
    },
    /// Text that is no prefix.
    #[error("is not an IP prefix")]
    NotAPrefix,
    /// A prefix to be refused that cannot be read: nobody knows whom it meant.
    #[error("is not an IP prefix: until it is one, load balancer addresses admit nobody")]
    UnreadableDeny,
    /// A number outside of its bounds.
    #[error("is not between {least} and {most}; {used} is used")]
    OutOfBounds {
        /// The least value.
        least: u32,
        /// The greatest value.
        most: u32,
        /// What is used.
        used: u32,
    },
    /// A value that another entry has already.
    #[error("{first} has the same")]
    Duplicate {
        /// The field of the other entry.
        first: String,
    },
    /// A list that is longer than it may be.
    #[error("has {count} entries; the first {most} are used")]
    TooMany {
        /// Entries that there are.
        count: usize,
        /// Entries that are used.
        most: usize,
    },
    /// More problems than are listed.
    #[error("{0} more problems are not listed")]
    More(usize),
    /// A value without effect.
    #[error("has no effect: {0}")]
    NoEffect(&'static str),
    /// A name that is none.
    #[error("is not the name of a container's port")]
    NotAPortName,
    /// An address of a node that is not the endpoint's own.
    #[error("is an address of node {node}")]
    NodeAddress {
        /// The node.
        node: String,
    },
    /// An address that belongs to pods.
    #[error("is in the pod range {range}")]
    PodRange {
        /// The range.
        range: IpNet,
    },
    /// An address that is a Service's.
    #[error("is the cluster IP of Service {service}")]
    ClusterIp {
        /// The Service.
        service: NamespacedName,
    },
    /// An address that a load balancer gave to Services of other namespaces.
    #[error("is a load balancer's address of namespace {namespace}")]
    OthersLoadBalancer {
        /// One of the namespaces that have it.
        namespace: String,
    },
    /// An address and port that somebody before has.
    #[error("{by} has it as {kind}")]
    Taken {
        /// Who has it.
        by: Subject,
        /// As what.
        kind: Kind,
    },
    /// A host port on an address that this node does not have.
    #[error("is not an address of this node")]
    NotThisNode,
    /// No container of some pods has a port of this name and protocol.
    #[error("{pods} of the Service's pods have no such port, {example} for one")]
    NoSuchContainerPort {
        /// How many.
        pods: usize,
        /// The first of them.
        example: NamespacedName,
    },
}

impl Fault {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. }
            | Self::ClusterIp { .. }
            | Self::OthersLoadBalancer { .. }
            | Self::Duplicate { .. } => "services/conflict",
            Self::Unusable(_)
            | Self::NodeAddress { .. }
            | Self::PodRange { .. }
            | Self::NotThisNode => "services/refused-address",
            Self::TooMany { .. } | Self::More(_) => "services/too-many",
            Self::NoEffect(_) => "services/no-effect",
            Self::NoSuchContainerPort { .. } => "services/no-such-port",
            Self::NotAPort
            | Self::OutsideNodePorts { .. }
            | Self::UnknownWord { .. }
            | Self::NotAnAddress
            | Self::OtherFamily { .. }
            | Self::NotAPrefix
            | Self::UnreadableDeny
            | Self::OutOfBounds { .. }
            | Self::NotAPortName => "services/invalid",
        }
    }

    /// What to do.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::NotAPort => "write a port from 1 to 65535",
            Self::OutsideNodePorts { .. } => {
                "choose a port of the range, or leave the field out to have one chosen"
            }
            Self::UnknownWord { .. } => "write one of the known words as they are spelled",
            Self::NotAnAddress => "write an address like 192.0.2.1 or 2001:db8::1",
            Self::Unusable(_) => "write an address that one host on a network has",
            Self::OtherFamily { .. } => {
                "add the family to ipFamilies with a dual-stack ipFamilyPolicy, or remove the address"
            }
            Self::NotAPrefix | Self::UnreadableDeny => "write a prefix like 192.0.2.0/24",
            Self::OutOfBounds { .. } => "write a number within the bounds",
            Self::Duplicate { .. } => "remove one of the two",
            Self::TooMany { .. } => "split the object in several",
            Self::More(_) => "correct those that are listed, and read again",
            Self::NoEffect(_) => "remove the field",
            Self::NotAPortName => "write a port's number, or the name that a container gives one",
            Self::NodeAddress { .. } => {
                "an endpoint on a node's address must say nodeName, and belong to a pod of the host network"
            }
            Self::PodRange { .. } => "choose an address outside of the ranges of pods",
            Self::ClusterIp { .. } => "choose an address that is no Service's cluster IP",
            Self::OthersLoadBalancer { .. } => {
                "choose an address that no Service of another namespace has from a load balancer"
            }
            Self::Taken { .. } => "choose another address or port, or delete the other object",
            Self::NotThisNode => "leave hostIP out, or write an address of the pod's node",
            Self::NoSuchContainerPort { .. } => {
                "name the port in the pod's containers, or write targetPort as a number"
            }
        }
    }
}

/// Problems as they are found: as many as are listed, and a count of the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems {
    listed: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(crate) fn add(&mut self, field: impl Into<String>, value: &str, fault: Fault) {
        self.push(Problem {
            field: field.into(),
            value: value.chars().take(MAX_SHOWN).collect(),
            fault,
        });
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if let Fault::More(count) = problem.fault {
            self.more += count;
        } else if self.listed.len() < MAX_PROBLEMS - 1 {
            self.listed.push(problem);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn extend(&mut self, problems: &[Problem]) {
        for problem in problems {
            self.push(problem.clone());
        }
    }

    pub(crate) fn into_list(mut self) -> Vec<Problem> {
        if self.more > 0 {
            self.listed.push(Problem {
                field: "problems".to_owned(),
                value: String::new(),
                fault: Fault::More(self.more),
            });
        }
        self.listed
    }
}
