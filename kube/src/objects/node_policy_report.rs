//! `heddle.dev/v1` NodePolicyReport: what one node has in force of the policies.

use crate::store::Kind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The `status` of a NodePolicyReport. Policies are named as [`crate::policy::report_key`] does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePolicyReport {
    /// How far the node's watch was when the newest policy in force had been said.
    pub revision: u64,
    /// What the node has heard and put in force, by kind ([`crate::policy::ObservedPolicies`]).
    pub observed: BTreeMap<Kind, String>,
    /// How many endpoints of the node each policy is about; the node itself counts as one.
    pub endpoints: BTreeMap<String, u64>,
    /// Traffic that host policies which are held back would cut, by policy.
    pub lock_outs: BTreeMap<String, Vec<String>>,
    /// Policies that are refused while an earlier version of them stays in force.
    pub kept: Vec<String>,
    /// Policies that are refused, and isolate whom they select (`unenforceablePolicies: isolate`).
    pub isolated: Vec<String>,
    /// What is not in force because it does not fit, by policy: the reason.
    pub not_in_force: BTreeMap<String, String>,
    /// Endpoints that are open because a policy is refused, by policy.
    pub open: BTreeMap<String, OpenEndpoints>,
}

/// Endpoints that a refused policy would have isolated, and no other policy does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OpenEndpoints {
    /// How many there are.
    pub count: u64,
    /// The first few, `NAMESPACE/NAME`.
    pub pods: Vec<String>,
}

impl NodePolicyReport {
    /// The `status` of a NodePolicyReport; an empty one where it cannot be read.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(&object["status"]).unwrap_or_default()
    }
}
