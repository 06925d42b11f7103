//! An endpoint in the store: how other nodes learn a pod's address and identity.

use super::record::Record;
use crate::agent::{Agent, MANAGER, store_failure, within};
use heddle_cni::protocol::ApiError;
use heddle_kube::store::{Kind, StoreError};
use heddle_model::LabelSet;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Patience with the store where nobody waits for the answer.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(10);

impl Agent {
    /// Writes the pod's CiliumEndpoint.
    pub(super) async fn publish(&self, record: &Record, deadline: Instant) -> Result<(), ApiError> {
        let id = record.endpoint;
        let (labels, node) = self
            .on_ledger(move |ledger| {
                let labels = ledger
                    .endpoints
                    .get(&id)
                    .map(|it| LabelSet::clone(&it.labels));
                let node = ledger
                    .own_node()
                    .and_then(|node| node.underlay(ledger.config.fabric, true));
                (labels.unwrap_or_default(), node)
            })
            .await;
        let status = json!({
            "id": record.endpoint,
            "state": "ready",
            "nodeName": self.config.node_name,
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
            match self.store.create(Kind::CiliumEndpoint, object).await {
                Err(StoreError::AlreadyExists { .. }) => {
                    // The pod's former sandbox, or this one before its labels changed.
                    self.store
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

    /// Writes it again after its identity changed.
    pub(crate) async fn publish_again(&self, id: u16) -> Result<(), ApiError> {
        let record = self
            .on_ledger(move |ledger| {
                let endpoint = ledger.endpoints.get(&id)?;
                let mut record = endpoint.record.clone();
                record.identity = endpoint.identity.0;
                Some(record)
            })
            .await;
        match record {
            Some(record) => {
                self.publish(&record, Instant::now() + BACKGROUND_PATIENCE)
                    .await
            }
            None => Ok(()),
        }
    }

    /// Removes it, unless it is about another sandbox by now.
    pub(super) async fn withdraw(&self, record: &Record) -> Result<(), ApiError> {
        let deadline = Instant::now() + BACKGROUND_PATIENCE;
        let object = format!("pod {}", record.pod);
        let found = within(deadline, self.store.get(Kind::CiliumEndpoint, &record.pod)).await;
        let present = match found {
            Ok(present) => present,
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(store_failure(&error, &object)),
        };
        let status = &present.value["status"];
        let ours = status["nodeName"] == self.config.node_name.as_str()
            && status["external-identifiers"]["container-id"] == record.key.container_id.as_str();
        if !ours {
            return Ok(());
        }
        let deleted = within(
            deadline,
            self.store
                .delete(Kind::CiliumEndpoint, &record.pod, Some(&present.version)),
        )
        .await;
        match deleted {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_failure(&error, &object)),
        }
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
