//! On how many nodes and endpoints each policy is in force, written on the policy.
//!
//! Agents report what they have in force ([`Kind::NodePolicyReport`]); the operator sums it up and is the only
//! writer of a policy's `status.enforcement`, so that a change costs a write for each policy and not for each
//! node.

use crate::cluster::{Facts, PolicyFacts, Report};
use heddle_kube::policy::report_key;
use heddle_kube::store::{Event, Kind, Store, StoreError};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Policies written at one look at most; the rest waits for the next.
const MOST_WRITES: usize = 512;
/// Nodes named beside a policy that they do not put in force at most.
const MOST_NODES: usize = 8;

/// A policy's status that is not as it should be.
#[derive(Debug)]
pub(crate) struct Write {
    kind: Kind,
    name: NamespacedName,
    enforcement: Value,
}

/// Whether an event changes what is in force, or what is known of it.
pub(crate) fn concerns(event: &Event) -> bool {
    match event {
        Event::Applied(object) | Event::Deleted(object) => {
            object.kind.is_policy() || matches!(object.kind, Kind::Node | Kind::NodePolicyReport)
        }
        Event::Synced { .. } => false,
        Event::Restarted => true,
    }
}

/// The statuses to write, and whether these are all.
pub(crate) fn writes(facts: &Facts) -> (Vec<Write>, bool) {
    let reports: Vec<(&String, &Report)> = facts
        .reports
        .iter()
        .filter(|(node, _)| facts.nodes.contains_key(*node))
        .collect();
    let mut revisions: Vec<u64> = reports.iter().map(|(_, report)| report.revision).collect();
    revisions.sort_unstable();
    let mut endpoints: HashMap<&str, u64> = HashMap::new();
    for (policy, count) in reports.iter().flat_map(|(_, report)| &report.endpoints) {
        *endpoints.entry(policy).or_default() += count;
    }
    let mut found = Vec::new();
    for ((kind, name), policy) in &facts.policies {
        let key = report_key(kind.name(), &name.namespace, &name.name);
        let held_back: Vec<Value> = reports
            .iter()
            .filter_map(|(node, report)| {
                let traffic = report.lock_outs.get(&key)?;
                Some(json!({ "node": node, "traffic": traffic }))
            })
            .collect();
        let realised = revisions.len() - revisions.partition_point(|at| *at < policy.revision);
        let nodes = if policy.refused {
            0
        } else {
            realised.saturating_sub(held_back.len())
        };
        let enforcement = json!({
            "nodes": nodes,
            "ofNodes": facts.nodes.len(),
            "endpoints": endpoints.get(key.as_str()).copied().unwrap_or(0),
            "revision": policy.revision,
            "observedGeneration": policy.generation,
            "lockOuts": held_back.into_iter().take(MOST_NODES).collect::<Vec<_>>(),
        });
        if enforcement != policy.enforcement {
            if found.len() == MOST_WRITES {
                return (found, false);
            }
            found.push(Write {
                kind: *kind,
                name: name.clone(),
                enforcement,
            });
        }
    }
    (found, true)
}

/// Writes them; false when some could not be.
pub(crate) async fn execute(store: Arc<dyn Store>, writes: Vec<Write>) -> bool {
    for write in writes {
        let status = json!({ "enforcement": write.enforcement });
        match store.patch_status(write.kind, &write.name, status).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(kind = %write.kind, policy = %write.name, %error, "its status is not written yet");
                return false;
            }
        }
    }
    true
}

impl PolicyFacts {
    /// What counts of a policy object. The revision is that of the write that gave it its present
    /// generation: writes to its status change its own.
    pub(crate) fn of(value: &Value, revision: u64, before: Option<&Self>) -> Self {
        let status = &value["status"];
        let enforcement = status["enforcement"].clone();
        let generation = value["metadata"]["generation"].clone();
        let told = (enforcement["observedGeneration"] == generation)
            .then(|| enforcement["revision"].as_u64())
            .flatten();
        let known = before
            .filter(|before| before.generation == generation)
            .map(|before| before.revision);
        let conditions = status["conditions"].as_array();
        Self {
            revision: known.or(told).unwrap_or(revision),
            generation,
            enforcement,
            refused: conditions.is_some_and(|conditions| {
                conditions
                    .iter()
                    .any(|one| one["type"] == "Valid" && one["status"] == "False")
            }),
        }
    }
}

impl Report {
    /// Reads a node's report; what cannot be read counts as nothing.
    pub(crate) fn of(value: &Value) -> Self {
        let status = &value["status"];
        let fields = |name: &str| status[name].as_object().into_iter().flatten();
        Self {
            revision: status["revision"].as_u64().unwrap_or(0),
            endpoints: fields("endpoints")
                .filter_map(|(policy, count)| Some((policy.clone(), count.as_u64()?)))
                .collect(),
            lock_outs: fields("lockOuts")
                .map(|(policy, traffic)| (policy.clone(), traffic.clone()))
                .collect(),
        }
    }
}
