//! What this node has in force of each policy: the operator sums up the nodes' reports on the policies.

use super::Ledger;
use heddle_kube::policy::report_key;
use heddle_model::Identity;
use heddle_policy::PolicyId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Lock-outs that a report names at most.
const MOST_LOCK_OUTS: usize = 32;

fn key(policy: &PolicyId) -> String {
    report_key(policy.kind.name(), &policy.namespace, &policy.name)
}

impl Ledger {
    /// The `status` of this node's NodePolicyReport: the revision that all is in force up to, how many endpoints
    /// each policy is about (the node itself counts as one), and what host policies are held back.
    pub(crate) fn policy_report(&self) -> Value {
        let mut subjects: BTreeMap<Identity, u64> = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            if endpoint.policy.is_some() && endpoint.policy == endpoint.wished {
                *subjects.entry(endpoint.identity).or_default() += 1;
            }
        }
        if self.host.in_force().is_some() && self.host.in_force() == self.host.wished() {
            subjects.insert(Identity::OWN_NODE, 1);
        }
        let mut endpoints: BTreeMap<String, u64> = BTreeMap::new();
        for (identity, count) in subjects {
            for policy in self.engine.policies_about(identity) {
                *endpoints.entry(key(&policy)).or_default() += count;
            }
        }
        let mut lock_outs: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for one in self.host.lock_outs().iter().take(MOST_LOCK_OUTS) {
            for policy in &one.policies {
                let traffic = lock_outs.entry(key(policy)).or_default();
                if !traffic.contains(&one.what.as_str()) {
                    traffic.push(&one.what);
                }
            }
        }
        json!({
            "revision": self.policy_revision,
            "endpoints": endpoints,
            "lockOuts": lock_outs,
        })
    }
}

/// What turns a report into another one: a merge patch keeps what it does not name.
pub(crate) fn patch(before: &Value, after: &Value) -> Value {
    let mut patch = after.clone();
    for field in ["endpoints", "lockOuts"] {
        let known = before[field].as_object().into_iter().flatten();
        let gone: Map<String, Value> = known
            .filter(|(policy, _)| after[field].get(policy).is_none())
            .map(|(policy, _)| (policy.clone(), Value::Null))
            .collect();
        if let Some(fields) = patch[field].as_object_mut() {
            fields.extend(gone);
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_away_what_is_gone() {
        let before =
            json!({"revision": 1, "endpoints": {"a": 1, "b": 2}, "lockOuts": {"a": ["x"]}});
        let after = json!({"revision": 2, "endpoints": {"b": 3}, "lockOuts": {}});
        let patch = patch(&before, &after);
        assert_eq!(
            patch,
            json!({"revision": 2, "endpoints": {"a": null, "b": 3}, "lockOuts": {"a": null}})
        );
    }
}
