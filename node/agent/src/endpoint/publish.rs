//! An endpoint in the store: how other nodes learn a pod's address and identity.

use super::record::Record;
use crate::agent::{Agent, MANAGER, store_failure, within};
use crate::controller::{Controller, Next, RETRY_INTERVAL, STORE_TIMEOUT};
use async_trait::async_trait;
use heddle_kube::store::{Kind, StoreError};
use heddle_model::LabelSet;
use heddle_rpc::ApiError;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the store is waited for when an endpoint is removed.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells other nodes of endpoints whose identity changed.
pub(crate) struct Publisher;

#[async_trait]
impl Controller for Publisher {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if !agent.health.is_ready() || republish(agent, Instant::now() + STORE_TIMEOUT).await {
            Next::Change
        } else {
            Next::After(RETRY_INTERVAL)
        }
    }
}

/// Writes the pod's CiliumEndpoint.
pub(super) async fn publish(
    agent: &Agent,
    record: &Record,
    deadline: Instant,
) -> Result<(), ApiError> {
    let id = record.endpoint;
    let (labels, node) = agent
        .on_ledger(move |ledger| {
            let labels = ledger
                .endpoints
                .get(id)
                .map(|it| LabelSet::clone(&it.labels));
            let node = ledger
                .peers
                .nodes
                .own()
                .and_then(|node| node.underlay(ledger.config.fabric, true));
            (labels.unwrap_or_default(), node)
        })
        .await;
    let status = json!({
        "id": record.endpoint,
        "state": "ready",
        "nodeName": agent.config.node_name,
        "external-identifiers": {
            "container-id": record.key.container_id,
            "cni-attachment-id": format!("{}:{}", record.key.container_id, record.key.interface),
            "k8s-namespace": record.pod.namespace,
            "k8s-pod-name": record.pod.name,
            "pod-name": record.pod.to_string(),
        },
        "identity": { "id": record.identity, "labels": labels.to_strings() },
        "networking": {
            "addressing": [addressing(record)],
            "node": node.map(|address| address.to_string()),
        },
    });
    let object = json!({
        "apiVersion": Kind::CiliumEndpoint.api_version(),
        "kind": Kind::CiliumEndpoint.name(),
        "metadata": { "namespace": record.pod.namespace, "name": record.pod.name },
        "status": status,
    });
    let written = within(deadline, async {
        match agent.store.create(Kind::CiliumEndpoint, object).await {
            Err(StoreError::AlreadyExists { .. }) => {
                // The pod's former sandbox, or this one before its labels changed.
                agent
                    .store
                    .apply_status(Kind::CiliumEndpoint, &record.pod, MANAGER, status)
                    .await
            }
            other => other,
        }
    })
    .await;
    written
        .map(drop)
        .map_err(|error| store_failure(&error, &format!("pod {}", record.pod)))
}

/// Writes endpoints to the store whose identity changed. False when some could not be written; they stay due.
async fn republish(agent: &Agent, deadline: Instant) -> bool {
    let due = agent
        .on_ledger(|ledger| {
            let mut records = Vec::new();
            for id in ledger.unsettled.republish.begin(usize::MAX) {
                let Some(endpoint) = ledger.endpoints.get(id) else {
                    // It is gone: its removal takes it out of the store.
                    ledger.unsettled.republish.done(id);
                    ledger.tell();
                    continue;
                };
                let mut record = endpoint.record.clone();
                record.identity = endpoint.identity.0;
                records.push(record);
            }
            records
        })
        .await;
    let mut done = true;
    for record in due {
        let id = record.endpoint;
        let outcome = publish(agent, &record, deadline).await;
        if let Err(error) = &outcome {
            done = false;
            tracing::warn!(endpoint = id, code = %error.code, "other nodes do not know its identity yet: {}", error.message);
        }
        let is_gone = agent
            .on_ledger(move |ledger| {
                match outcome {
                    Ok(()) => ledger.unsettled.republish.done(id),
                    Err(_) => ledger.unsettled.republish.failed(id),
                }
                ledger.tell();
                !ledger.endpoints.contains(id)
            })
            .await;
        // It was removed meanwhile, and may have been taken out of the store before it was written.
        if is_gone && let Err(error) = withdraw(agent, &record).await {
            tracing::warn!(endpoint = id, code = %error.code, "removed, but still in the store: {}", error.message);
        }
    }
    done
}

/// Removes it, unless it is about another sandbox by now.
pub(super) async fn withdraw(agent: &Agent, record: &Record) -> Result<(), ApiError> {
    let deadline = Instant::now() + WITHDRAW_TIMEOUT;
    let object = format!("pod {}", record.pod);
    let found = within(deadline, agent.store.get(Kind::CiliumEndpoint, &record.pod)).await;
    let present = match found {
        Ok(present) => present,
        Err(StoreError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(store_failure(&error, &object)),
    };
    let status = &present.value["status"];
    let ours = status["nodeName"] == agent.config.node_name.as_str()
        && status["external-identifiers"]["container-id"] == record.key.container_id.as_str();
    if !ours {
        return Ok(());
    }
    let deleted = within(
        deadline,
        agent
            .store
            .delete(Kind::CiliumEndpoint, &record.pod, Some(&present.version)),
    )
    .await;
    match deleted {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(store_failure(&error, &object)),
    }
}

fn addressing(record: &Record) -> Value {
    let mut pair = serde_json::Map::new();
    if let Some(address) = record.ipv4 {
        pair.insert("ipv4".into(), address.to_string().into());
    }
    if let Some(address) = record.ipv6 {
        pair.insert("ipv6".into(), address.to_string().into());
    }
    Value::Object(pair)
}
