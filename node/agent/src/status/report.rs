//! What this node has in force of each policy: the operator sums up the nodes' reports on the policies.

use crate::agent::{Agent, MANAGER, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL, STORE_TIMEOUT};
use crate::ledger::{Ledger, PolicyKey};
use async_trait::async_trait;
use heddle_kube::objects::NodePolicyReport;
use heddle_kube::policy::report_key;
use heddle_kube::store::{Kind, StoreError};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::PolicyId;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lock-outs that a report names at most.
const MOST_LOCK_OUTS: usize = 32;
/// Objects that do not fit whose policies a report names at most.
const MOST_SHORTFALLS: usize = 256;

/// Least time between two reports of what is in force.
const REPORT_INTERVAL: Duration = Duration::from_millis(900);

/// Reports to the operator what is in force here.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What was reported last.
    reported: Option<NodePolicyReport>,
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

async fn write(agent: &Agent, report: &NodePolicyReport) -> Result<(), StoreError> {
    let name = NamespacedName::new("", &agent.config.node_name);
    let kind = Kind::NodePolicyReport;
    within(Instant::now() + STORE_TIMEOUT, async {
        let apply = || {
            let store = &agent.store;
            store.apply_status(kind, &name, MANAGER, json!(report))
        };
        match apply().await {
            Err(StoreError::NotFound { .. }) => {
                let object = json!({
                    "apiVersion": kind.api_version(), "kind": kind.name(),
                    "metadata": { "name": name.name },
                });
                agent.store.create(kind, object).await?;
                apply().await
            }
            other => other,
        }
    })
    .await
    .map(drop)
}

fn key(policy: &PolicyId) -> String {
    report_key(policy.kind.name(), &policy.namespace, &policy.name)
}

impl Ledger {
    /// The `status` of this node's NodePolicyReport.
    fn policy_report(&self) -> NodePolicyReport {
        let mut subjects: BTreeMap<Identity, u64> = BTreeMap::new();
        for endpoint in self.endpoints.values() {
            if endpoint.has_wished() {
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
            revision: self.heard.policy_revision(),
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
        for (object, shortfall) in self.failures.shortfalls().iter().take(MOST_SHORTFALLS) {
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
