//! The condition `Valid` of policy objects: what is in force is written on the objects themselves.

pub(crate) mod pending;

use crate::agent::{Agent, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL, STORE_TIMEOUT};
use async_trait::async_trait;
use heddle_kube::store::StoreError;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Writes conditions, one object after the other.
pub(crate) struct Conditions;

#[async_trait]
impl Controller for Conditions {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if !agent.is_ready() {
            return Next::Change;
        }
        let mut next = Next::Change;
        let mut last = None;
        loop {
            let after = last.take();
            let pending = agent
                .on_ledger(move |ledger| ledger.policies.conditions.after(after.as_ref()))
                .await;
            let Some((key, wanted)) = pending else {
                return next;
            };
            last = Some(key.clone());
            let status = json!({ "conditions": wanted });
            let written = within(
                Instant::now() + STORE_TIMEOUT,
                agent.store.patch_status(key.0, &key.1, status),
            )
            .await;
            match written {
                Ok(_) | Err(StoreError::NotFound { .. }) => {
                    agent
                        .on_ledger(move |ledger| ledger.policies.conditions.wrote(&key, &wanted))
                        .await;
                }
                Err(error) => {
                    tracing::warn!(kind = %key.0, policy = %key.1, %error, "its condition is not written yet");
                    next = Next::After(RETRY_INTERVAL);
                    if error.is_retryable() {
                        // The store is away; the others wait with it.
                        return next;
                    }
                }
            }
        }
    }
}
