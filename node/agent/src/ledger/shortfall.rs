//! What is wished and does not fit, as others are told of it.

use super::Ledger;
use heddle_policy::PolicyId;
use heddle_rpc::node::NotInForce;

/// True when something is to be tried again though nobody waits for it.
pub(crate) fn falls_short(ledger: &Ledger) -> bool {
    !ledger.writer.failures.shortfalls().is_empty()
}

/// How many objects are not in force because something does not fit.
pub(crate) fn not_in_force_count(ledger: &Ledger) -> usize {
    ledger.writer.failures.shortfalls().len()
        + ledger.unsettled.limited().count()
        + ledger.policies.beyond_budget_count()
}

/// What does not fit.
pub(crate) fn not_in_force(ledger: &Ledger) -> Vec<NotInForce> {
    let shortfalls = ledger
        .writer
        .failures
        .shortfalls()
        .iter()
        .map(|(object, shortfall)| {
            let policies = shortfall
                .identity
                .map(|it| ledger.policies.rules.policies_about(it));
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
    let labels = ledger.unsettled.limited().filter_map(|(id, reason)| {
        let pod = &ledger.endpoints.get(id)?.record.pod;
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
