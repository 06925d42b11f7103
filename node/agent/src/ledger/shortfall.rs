//! What is wished and does not fit, as others are told of it.

use super::Ledger;
use heddle_policy::PolicyId;
use serde_json::{Value, json};

impl Ledger {
    /// True when something is to be tried again though nobody waits for it.
    pub(crate) fn falls_short(&self) -> bool {
        !self.shortfalls.is_empty()
    }

    /// How many objects are not in force because something does not fit.
    pub(crate) fn not_in_force_count(&self) -> usize {
        self.shortfalls.len()
            + self.unsettled.limited().count()
            + self.cidr_budget.refused().count()
    }

    /// `[{"object", "namespace", "pod", "policies", "reason"}]`: what does not fit, with the pod it is about and the
    /// policies that are about that pod.
    pub(crate) fn not_in_force(&self) -> Vec<Value> {
        let shortfalls = self.shortfalls.iter().map(|(object, shortfall)| {
            let policies = shortfall.identity.map(|it| self.engine.policies_about(it));
            let policies = policies.into_iter().flatten();
            let policies: Vec<String> = policies.map(|id: PolicyId| id.to_string()).collect();
            json!({
                "object": object,
                "namespace": shortfall.pod.as_ref().map(|pod| &pod.namespace),
                "pod": shortfall.pod.as_ref().map(|pod| &pod.name),
                "policies": policies,
                "reason": shortfall.reason,
            })
        });
        let labels = self.unsettled.limited().filter_map(|(id, reason)| {
            let pod = &self.endpoints.get(&id)?.record.pod;
            Some(json!({
                "object": format!("labels of endpoint {id} ({pod})"),
                "namespace": pod.namespace,
                "pod": pod.name,
                "policies": [],
                "reason": reason,
            }))
        });
        shortfalls.chain(labels).collect()
    }
}
