//! What this node has in force of each policy: the operator sums up the nodes' reports on the policies.

use crate::agent::{Agent, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL, STORE_TIMEOUT};
use crate::ledger::Ledger;
use async_trait::async_trait;
use heddle_kube::policy::report_key;
use heddle_kube::store::{Kind, StoreError};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::PolicyId;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lock-outs that a report names at most.
const MOST_LOCK_OUTS: usize = 32;

/// Least time between two reports of what is in force.
const REPORT_INTERVAL: Duration = Duration::from_millis(900);

/// Reports to the operator what is in force here.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What was reported last.
    reported: Option<Value>,
    /// When that was tried.
    at: Option<Instant>,
}

#[async_trait]
impl Controller for Report {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        let rest = self
            .at
            .map(|at| REPORT_INTERVAL.saturating_sub(at.elapsed()));
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            return Next::After(rest);
        }
        let report = agent
            .on_ledger(|ledger| ledger.is_settled().then(|| ledger.policy_report()))
            .await;
        let Some(report) = report.filter(|report| self.reported.as_ref() != Some(report)) else {
            return Next::Change;
        };
        self.at = Some(Instant::now());
        match write(agent, &report).await {
            Ok(()) => {
                self.reported = Some(report);
                Next::Change
            }
            Err(error) => {
                tracing::debug!(%error, "what is in force is not reported yet");
                Next::After(RETRY_INTERVAL)
            }
        }
    }
}

async fn write(agent: &Agent, report: &Value) -> Result<(), StoreError> {
    let name = NamespacedName::new("", &agent.config.node_name);
    let kind = Kind::NodePolicyReport;
    within(Instant::now() + STORE_TIMEOUT, async {
        let present = match agent.store.get(kind, &name).await {
            Ok(present) => present.value["status"].clone(),
            Err(StoreError::NotFound { .. }) => {
                let object = json!({
                    "apiVersion": kind.api_version(), "kind": kind.name(),
                    "metadata": { "name": name.name }, "status": report,
                });
                return agent.store.create(kind, object).await;
            }
            Err(error) => return Err(error),
        };
        let patch = patch(&present, report);
        agent.store.patch_status(kind, &name, patch).await
    })
    .await
    .map(drop)
}

fn key(policy: &PolicyId) -> String {
    report_key(policy.kind.name(), &policy.namespace, &policy.name)
}

impl Ledger {
    /// The `status` of this node's NodePolicyReport: the revision that all is in force up to, how many endpoints
    /// each policy is about (the node itself counts as one), and what host policies are held back.
    fn policy_report(&self) -> Value {
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
            "revision": self.heard.policy_revision(),
            "endpoints": endpoints,
            "lockOuts": lock_outs,
        })
    }
}

/// What turns a report into another one: a merge patch keeps what it does not name.
fn patch(before: &Value, after: &Value) -> Value {
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
