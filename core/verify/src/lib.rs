//! Questions about a whole cluster's policy, answered without asking the cluster: who reaches whom (matrix), what a
//! change of policies changes (impact), which traps a policy has (lint), and whether what a datapath does is what
//! policies say (why), with the path that carries the packets.
//!
//! Everything here is computed from values: an [`Inventory`] of parsed objects becomes a [`Cluster`], and each question
//! has a typed answer that serialises. Reading files, asking nodes and printing are the caller's.
#![forbid(unsafe_code)]

mod cluster;
mod decide;
mod entries;
mod error;
pub mod impact;
mod inventory;
pub mod lint;
pub mod matrix;
pub mod path;
mod peer;
mod probe;
mod summary;
mod unroutable;
pub mod why;

pub use cluster::{Cluster, Holder, Node, Placement, Pod, Service};
pub use decide::{Answer, decide, icmp, transport};
pub use entries::{EntriesAnswer, Row, entries_of_node, entries_of_pod};
pub use error::{ErrorClass, VerifyError};
pub use heddle_model::Family;
pub use inventory::{GroupSpec, Inventory, NodeSpec, PodSpec, ServiceSpec};
pub use peer::{About, Named, Peer, common_family};
pub use probe::{Answers, Kind, Probe, word};
pub use summary::Summary;
pub use unroutable::{GATEWAY_IPV4, is_unroutable, unroutable_class};
