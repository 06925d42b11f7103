//! `identity.list`, `node.list`, `ipam.list`, `diff`.

use crate::message::Call;
use heddle_model::{Identity, LabelSet};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// `identity.list`: identities that the datapath knows, with the reserved ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IdentityList {}

impl Call for IdentityList {
    const METHOD: &'static str = "identity.list";
    type Answer = Vec<IdentityUse>;
}

/// An identity.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IdentityUse {
    /// Its number.
    pub id: Identity,
    /// What it stands for.
    pub labels: Arc<LabelSet>,
    /// Pods that have it, in the whole cluster.
    pub endpoints: u64,
}

/// `node.list`: the nodes that the agent knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeList {}

impl Call for NodeList {
    const METHOD: &'static str = "node.list";
    type Answer = Vec<NodeSeen>;
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// It is the agent's own.
    pub local: bool,
}

/// `ipam.list`: the node's pod addresses, a row for each family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IpamList {}

impl Call for IpamList {
    const METHOD: &'static str = "ipam.list";
    type Answer = Vec<AddressUse>;
}

/// A family's pod addresses, and where they are from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressUse {
    /// The node.
    pub node: String,
    /// The node's blocks of this family.
    pub blocks: Vec<IpNet>,
    /// How many are used.
    #[serde(flatten)]
    pub pool: super::PoolUse,
}

/// `diff`: what the kernel has against what it should have; nothing when all is as wished.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DifferenceList {}

impl Call for DifferenceList {
    const METHOD: &'static str = "diff";
    type Answer = Vec<Difference>;
}

/// A difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// `endpoint`, `node` or `ipcache`.
    pub kind: String,
    /// Which one.
    pub object: String,
    /// What of it.
    pub field: String,
    /// What it should be.
    pub wished: String,
    /// What it is.
    pub realised: String,
}
