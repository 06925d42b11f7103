//! What is wished and does not fit, as others are told of it.

use super::Ledger;
use heddle_policy::PolicyId;
use heddle_rpc::node::NotInForce;

impl Ledger {
    /// True when something is to be tried again though nobody waits for it.
    pub(crate) fn falls_short(&self) -> bool {
        !self.failures.shortfalls().is_empty()
    }

    /// How many objects are not in force because something does not fit.
    pub(crate) fn not_in_force_count(&self) -> usize {
        self.failures.shortfalls().len()
            + self.unsettled.limited().count()
            + self.cidr_budget.refused().count()
    }

    /// What does not fit.
    pub(crate) fn not_in_force(&self) -> Vec<NotInForce> {
        let shortfalls = self
            .failures
            .shortfalls()
            .iter()
            .map(|(object, shortfall)| {
                let policies = shortfall.identity.map(|it| self.engine.policies_about(it));
                let policies = policies.into_iter().flatten();
                let policies: Vec<String> = policies.map(|id: PolicyId| id.to_string()).collect();
                NotInForce {
                    object: object.to_string(),
                    namespace: shortfall.pod.as_ref().map(|pod| pod.namespace.clone()),
                    pod: shortfall.pod.as_ref().map(|pod| pod.name.clone()),
                    policies,
                    reason: shortfall.reason.clone(),
                }
            });
        let labels = self.unsettled.limited().filter_map(|(id, reason)| {
            let pod = &self.endpoints.get(id)?.record.pod;
            Some(NotInForce {
                object: format!("labels of endpoint {id} ({pod})"),
                namespace: Some(pod.namespace.clone()),
                pod: Some(pod.name.clone()),
                policies: Vec::new(),
                reason: reason.to_owned(),
            })
        });
        shortfalls.chain(labels).collect()
    }
}
