//! What this node has in force of each policy: the operator sums up the nodes' reports on the policies.

use super::Ledger;
use super::policies::PolicyKey;
use heddle_kube::objects::NodePolicyReport;
use heddle_kube::policy::report_key;
use heddle_model::Identity;
use heddle_policy::PolicyId;
use std::collections::BTreeMap;

/// Lock-outs that a report names at most.
const MOST_LOCK_OUTS: usize = 32;
/// Objects that do not fit whose policies a report names at most.
const MOST_SHORTFALLS: usize = 256;

fn key(policy: &PolicyId) -> String {
    report_key(policy.kind.name(), &policy.namespace, &policy.name)
}

impl Ledger {
    /// The `status` of this node's NodePolicyReport.
    pub(crate) fn policy_report(&self) -> NodePolicyReport {
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
        let mut lock_outs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in self.host.lock_outs().iter().take(MOST_LOCK_OUTS) {
            for policy in &one.policies {
                let traffic = lock_outs.entry(key(policy)).or_default();
                if !traffic.contains(&one.what) {
                    traffic.push(one.what.clone());
                }
            }
        }
        let name = |(kind, name): &PolicyKey| report_key(kind.name(), &name.namespace, &name.name);
        let refused = || self.policies.refused_objects();
        NodePolicyReport {
            revision: self.policy_revision,
            observed: self.policies.observed().digests(),
            endpoints,
            lock_outs,
            kept: refused()
                .filter(|(_, is_kept, _)| *is_kept)
                .map(|(key, _, _)| name(key))
                .collect(),
            isolated: refused()
                .filter(|(_, _, isolates)| *isolates)
                .map(|(key, _, _)| name(key))
                .collect(),
            not_in_force: self.policies_not_in_force(),
            open: self
                .open_endpoints()
                .map(|(key, open)| (name(key), open))
                .collect(),
        }
    }

    /// Why policies are not in force for an endpoint that they are about.
    fn policies_not_in_force(&self) -> BTreeMap<String, String> {
        let mut reasons = BTreeMap::new();
        for (object, shortfall) in self.shortfalls.iter().take(MOST_SHORTFALLS) {
            let about = shortfall.identity.map(|it| self.engine.policies_about(it));
            for policy in about.into_iter().flatten() {
                reasons
                    .entry(key(&policy))
                    .or_insert_with(|| format!("{object}: {}", shortfall.reason));
            }
        }
        reasons
    }
}
