//! What this node has in force of each policy: the operator sums up the nodes' reports on the policies.

use crate::agent::{Agent, MANAGER, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL, STORE_TIMEOUT};
use crate::ledger::Ledger;
use crate::policy::PolicyKey;
use async_trait::async_trait;
use heddle_kube::objects::NodePolicyReport;
use heddle_kube::policy::report_key;
use heddle_kube::store::{Event, Kind, Scope, StoreError, Watch};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::PolicyId;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TryRecvError;

/// Lock-outs that a report names at most.
const MOST_LOCK_OUTS: usize = 32;
/// Objects that do not fit whose policies a report names at most.
const MOST_SHORTFALLS: usize = 256;

/// Least time between two reports of what is in force.
const REPORT_INTERVAL: Duration = Duration::from_millis(900);

/// How often is looked whether the report is still there. Each look computes the report, so it is not more often.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Reports to the operator what is in force here.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// What was reported last.
    reported: Option<NodePolicyReport>,
    /// When that was tried.
    at: Option<Instant>,
    /// What becomes of the object.
    object: Option<Watched>,
}

/// This node's report, as the store has it.
#[derive(Debug)]
struct Watched {
    events: Watch,
    /// The list that is being told has it.
    listed: bool,
}

impl Watched {
    fn begin(agent: &Agent) -> Self {
        let own = Scope::all(Kind::NodePolicyReport).named(&agent.config.node_name);
        Self {
            events: agent.store.watch(&[own]),
            listed: false,
        }
    }

    /// Whether the store has said since the last look that there is no report; nothing when the watch has ended.
    fn is_gone(&mut self) -> Option<bool> {
        let mut gone = false;
        loop {
            match self.events.try_recv() {
                Ok(Event::Restarted) => self.listed = false,
                Ok(Event::Applied(_)) => (self.listed, gone) = (true, false),
                Ok(Event::Deleted(_)) => (self.listed, gone) = (false, true),
                Ok(Event::Synced { .. }) => gone |= !self.listed,
                Err(TryRecvError::Empty) => return Some(gone),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }
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
        let object = self.object.get_or_insert_with(|| Watched::begin(agent));
        match object.is_gone() {
            Some(false) => {}
            Some(true) => self.reported = None,
            None => self.object = None,
        }
        let report = agent
            .on_ledger(|ledger| {
                // A node that is gone has nothing to report: the operator would remove it again.
                let may = ledger.is_settled() && ledger.peers.nodes.own().is_some();
                may.then(|| policy_report(ledger))
            })
            .await;
        let Some(report) = report.filter(|report| self.reported.as_ref() != Some(report)) else {
            return Next::ChangeOrAfter(CHECK_INTERVAL);
        };
        self.at = Some(Instant::now());
        match write(agent, &report).await {
            Ok(()) => {
                self.reported = Some(report);
                Next::ChangeOrAfter(CHECK_INTERVAL)
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

/// The `status` of this node's NodePolicyReport.
fn policy_report(ledger: &Ledger) -> NodePolicyReport {
    let mut subjects: BTreeMap<Identity, u64> = BTreeMap::new();
    for endpoint in ledger.endpoints.values() {
        if endpoint.has_wished() {
            *subjects.entry(endpoint.identity).or_default() += 1;
        }
    }
    if ledger.host.in_force().is_some() && ledger.host.in_force() == ledger.host.wished() {
        subjects.insert(Identity::OWN_NODE, 1);
    }
    let mut endpoints: BTreeMap<String, u64> = BTreeMap::new();
    for (identity, count) in subjects {
        for policy in ledger.policies.rules.policies_about(identity) {
            *endpoints.entry(key(&policy)).or_default() += count;
        }
    }
    let mut lock_outs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in ledger.host.lock_outs().iter().take(MOST_LOCK_OUTS) {
        for policy in &one.policies {
            let traffic = lock_outs.entry(key(policy)).or_default();
            if !traffic.contains(&one.what) {
                traffic.push(one.what.clone());
            }
        }
    }
    let name = |(kind, name): &PolicyKey| report_key(kind.name(), &name.namespace, &name.name);
    let refused = || ledger.policies.objects.refused_objects();
    NodePolicyReport {
        revision: ledger.heard.policy_revision(),
        observed: ledger.policies.objects.observed().digests(),
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
        not_in_force: policies_not_in_force(ledger),
        open: ledger
            .policies
            .objects
            .open_endpoints(&ledger.endpoints)
            .map(|(key, open)| (name(key), open))
            .collect(),
    }
}

/// Why policies are not in force for an endpoint that they are about.
fn policies_not_in_force(ledger: &Ledger) -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    for (object, shortfall) in ledger
        .writer
        .failures
        .shortfalls()
        .iter()
        .take(MOST_SHORTFALLS)
    {
        let about = shortfall
            .identity
            .map(|it| ledger.policies.rules.policies_about(it));
        for policy in about.into_iter().flatten() {
            reasons
                .entry(key(&policy))
                .or_insert_with(|| format!("{object}: {}", shortfall.reason));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use crate::testing::{Node, eventually};
    use heddle_kube::store::{Kind, Store};
    use heddle_model::NamespacedName;

    #[tokio::test]
    async fn a_report_that_was_deleted_is_written_again_and_not_for_a_node_that_is_gone() {
        let node = Node::start().await;
        let name = NamespacedName::new("", "n1");
        let is_there = || async { node.store.get(Kind::NodePolicyReport, &name).await.is_ok() };
        for _ in 0..2 {
            eventually("reported", is_there).await;
            let before = node.report().await;
            node.store
                .delete(Kind::NodePolicyReport, &name, None)
                .await
                .unwrap();
            eventually("reported again", is_there).await;
            eventually("the same", || async { node.report().await == before }).await;
        }
        node.store.delete(Kind::Node, &name, None).await.unwrap();
        node.settled().await;
        node.store
            .delete(Kind::NodePolicyReport, &name, None)
            .await
            .unwrap();
        // What comes after it in the store is in force, and still nothing is reported.
        let policy = serde_json::json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "namespace": "shop", "name": "p" }, "spec": { "podSelector": {} },
        });
        node.put(policy).await;
        node.settled().await;
        assert!(!is_there().await);
    }
}
