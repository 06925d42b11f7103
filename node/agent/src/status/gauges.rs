//! What the agent shows of itself: gauges, and notices about labels and annotations.

use crate::agent::Agent;
use crate::controller::{Controller, Next, RETRY_INTERVAL};
use crate::ledger::not_in_force_count;
use crate::metrics::{AddressCount, IdentityCount};
use async_trait::async_trait;
use heddle_ipam::Family;
use heddle_model::IdentityScope;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keeps gauges and notices up to date.
pub(crate) struct Gauges;

#[async_trait]
impl Controller for Gauges {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if !agent.health.is_ready() {
            return Next::Change;
        }
        let (contested, audit) = agent
            .on_ledger(|ledger| (ledger.unsettled.contested_notice(), ledger.audit_notice()))
            .await;
        agent.health.notice("identities", contested);
        agent.health.notice("policy-audit", audit);
        update_metrics(agent).await;
        // Addresses that rest become free with time.
        Next::ChangeOrAfter(RETRY_INTERVAL)
    }
}

/// Brings the gauges up to date.
pub(crate) async fn update_metrics(agent: &Agent) {
    let (states, identities, policies, revision, not_in_force) = agent
        .on_ledger(|ledger| {
            let mut states: BTreeMap<&'static str, u64> = BTreeMap::new();
            for endpoint in ledger.endpoints.values() {
                *states.entry(endpoint.state()).or_default() += 1;
            }
            let mut identities = IdentityCount {
                node: ledger.policies.rules.engine().cidrs().len() as u64,
                ..IdentityCount::default()
            };
            for (identity, _) in ledger.policies.rules.engine().identities() {
                match identity.scope() {
                    IdentityScope::Reserved => identities.reserved += 1,
                    IdentityScope::Cluster => identities.cluster += 1,
                    IdentityScope::Node | IdentityScope::Subject | IdentityScope::Other => {}
                }
            }
            (
                states.into_iter().collect::<Vec<_>>(),
                identities,
                ledger.policies.objects.in_force() as u64,
                ledger.heard.policy_revision(),
                not_in_force_count(ledger) as u64,
            )
        })
        .await;
    agent.metrics.set_endpoints(&states);
    agent.metrics.set_identities(identities);
    agent.metrics.set_policies(policies, revision);
    agent.metrics.set_not_in_force(not_in_force);
    for (family, stats) in agent.attachments.addresses.stats() {
        agent.metrics.set_addresses(AddressCount {
            family: if family == Family::V4 { 4 } else { 6 },
            used: stats.used,
            resting: stats.resting,
            free: stats.free,
        });
    }
}
