//! `status` and `metrics`.

use super::Enforcement;
use crate::message::Call;
use serde::{Deserialize, Serialize};

/// `status`: how the agent and its node are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadStatus {}

impl Call for ReadStatus {
    const METHOD: &'static str = "status";
    type Answer = NodeStatus;
}

/// How the agent and its node are.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// The cluster's.
    pub cluster: String,
    /// Heddle's version.
    pub version: String,
    /// Whether pods can be attached.
    pub ready: bool,
    /// The kernel's release.
    pub kernel: String,
    /// What the datapath uses of the kernel.
    pub features: Vec<FeatureSeen>,
    /// How many endpoints there are.
    pub endpoints: EndpointCount,
    /// How many policies are in force.
    pub policies: u64,
    /// The node's own policy.
    pub host_policy: HostPolicyStatus,
    /// How many identities the agent knows.
    pub identities: u64,
    /// How many Services the datapath knows.
    pub services: u64,
    /// How full the maps are.
    pub maps: Vec<MapSeen>,
    /// How many pod addresses there are, by family.
    pub addresses: Vec<PoolUse>,
    /// The flows that are remembered; `None` where none are collected.
    pub flows: Option<FlowStatus>,
    /// What does not fit.
    pub not_in_force: Vec<NotInForce>,
    /// Position of the store up to which everything is in force.
    pub realised_revision: u64,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// Something that the datapath uses where the kernel has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FeatureSeen {
    /// Its name.
    pub name: String,
    /// `on`, `off` or `unavailable`.
    pub state: String,
    /// Why, where it is not on.
    pub why: String,
}

/// How many endpoints there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointCount {
    /// All.
    pub total: u64,
    /// Those that are as wished.
    pub ready: u64,
}

/// The node's own policy, as far as one is in force.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostPolicyStatus {
    /// What comes to the node.
    pub ingress: Enforcement,
    /// What the node sends.
    pub egress: Enforcement,
    /// What is denied passes, and is told.
    pub audit: bool,
    /// What keeps the wished policy from being in force.
    pub lock_outs: Vec<LockOut>,
}

/// Traffic that a node lives by, and the policies that would cut it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LockOut {
    /// The traffic, in words.
    pub traffic: String,
    /// The policies: kind and name.
    pub policies: Vec<String>,
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MapSeen {
    /// Its name.
    pub name: String,
    /// Entries there are.
    pub entries: u64,
    /// Entries there can be.
    pub max: u64,
}

/// A family's pod addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolUse {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// All.
    pub total: u64,
    /// Those that pods have.
    pub used: u64,
    /// Those that rest after use.
    pub resting: u64,
    /// Those that a pod can have.
    pub free: u64,
}

/// The flows that are remembered.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowStatus {
    /// How many are remembered.
    pub kept: u64,
    /// How many can be.
    pub max: u64,
    /// How many were seen since the agent's start.
    pub seen: u64,
    /// How many clients observe now.
    pub observers: u64,
    /// Why the kernel's events cannot be read right now.
    pub problem: Option<String>,
    /// Events lost on their way from the kernel.
    pub lost: u64,
    /// Drops that were counted and not reported, to bound their rate.
    pub sampled: u64,
}

/// Something that is wished and does not fit.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NotInForce {
    /// What, in words.
    pub object: String,
    /// The namespace of the pod that it is about.
    pub namespace: Option<String>,
    /// That pod's name.
    pub pod: Option<String>,
    /// The policies about that pod: kind, namespace and name.
    pub policies: Vec<String>,
    /// Why it is not in force.
    pub reason: String,
}

/// `metrics`: what a scrape would give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadMetrics {}

/// Metrics in the format of OpenMetrics.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct MetricsText {
    /// All lines.
    pub text: String,
}

impl Call for ReadMetrics {
    const METHOD: &'static str = "metrics";
    type Answer = MetricsText;
}
