//! From a pod to its identity, and what is to be settled with the store about it.

mod due;
mod settle;
pub(crate) mod unsettled;

pub(crate) use settle::{Reasserter, Relabeler};

use crate::agent::{Agent, store_failure, within};
use crate::config::AgentConfig;
use heddle_kube::identity::{IdentityAllocator, IdentityError, IdentityLimits};
use heddle_kube::pod;
use heddle_kube::store::{Kind, Store, StoreError};
use heddle_model::{Identity, LabelFilter, LabelSet, NamespacedName};
use heddle_rpc::{ApiError, error_codes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause between two looks for a pod that the store does not have yet.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// From labels to identities.
pub(crate) struct Identities {
    pub(crate) allocator: IdentityAllocator,
    filter: LabelFilter,
    cluster: String,
}

impl Identities {
    pub(crate) fn new(config: &AgentConfig, store: Arc<dyn Store>) -> Self {
        let limits = IdentityLimits {
            per_namespace: config.max_identities_per_namespace as usize,
            new_per_minute: config.new_identities_per_minute,
        };
        let excluded = config.excluded_labels.as_ref();
        Self {
            allocator: IdentityAllocator::new(store).limited(limits),
            filter: excluded.map_or_else(LabelFilter::default, |keys| {
                LabelFilter::excluding(keys.iter().map(String::as_str))
            }),
            cluster: config.cluster.clone(),
        }
    }

    /// The labels of the identity of a pod.
    pub(crate) fn labels_of(
        &self,
        pod: &Value,
        namespace_labels: &BTreeMap<String, String>,
    ) -> LabelSet {
        let namespace_labels = namespace_labels.iter();
        pod::identity_labels(
            pod,
            namespace_labels.map(|(key, value)| (key.as_str(), value.as_str())),
            &self.cluster,
            &self.filter,
        )
    }

    /// The number of a label set, the same in the whole cluster.
    pub(crate) async fn allocate(
        &self,
        labels: &LabelSet,
        deadline: Instant,
    ) -> Result<Identity, ApiError> {
        allocate(&self.allocator, labels, deadline).await
    }
}

/// The labels of a pod's identity, waiting for the pod to appear in the store until `deadline`. With
/// a UID, an older pod of the same name is not taken for it.
pub(crate) async fn pod_labels(
    agent: &Agent,
    name: &NamespacedName,
    uid: Option<&str>,
    deadline: Instant,
) -> Result<LabelSet, ApiError> {
    let object = format!("pod {name}");
    let is_it = |value: &Value| match (uid, value["metadata"]["uid"].as_str()) {
        (Some(wanted), Some(has)) => wanted == has,
        _ => true,
    };
    let wanted = name.clone();
    let cached = agent
        .on_ledger(move |ledger| ledger.pods.get(&wanted).map(|pod| pod.value.clone()))
        .await
        // Without a UID nobody can say whether what is cached is this pod or its predecessor.
        .filter(|value| uid.is_some() && is_it(value));
    if let Some(value) = cached {
        return labels_of_pod(agent, &value, deadline).await;
    }
    loop {
        match within(deadline, agent.store.get(Kind::Pod, name)).await {
            Ok(found) if is_it(&found.value) => {
                return labels_of_pod(agent, &found.value, deadline).await;
            }
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(store_failure(&error, &object)),
        }
        if Instant::now() + CHECK_INTERVAL >= deadline {
            let with_uid = uid.map_or_else(String::new, |uid| format!(" with UID {uid}"));
            return Err(ApiError::new(
                error_codes::TRY_AGAIN,
                format!("{object}{with_uid} is not in the store, so its labels and policy are unknown"),
            )
            .object(object)
            .help("create the Pod object first; if it was deleted, the runtime will give up by itself"));
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

async fn labels_of_pod(
    agent: &Agent,
    value: &Value,
    deadline: Instant,
) -> Result<LabelSet, ApiError> {
    let name = pod::name(value);
    let namespace = name.namespace.clone();
    let known = agent
        .on_ledger(move |ledger| ledger.pods.namespace(&namespace).cloned())
        .await;
    let namespace_labels = match known {
        Some(labels) => labels,
        None => {
            let namespace = NamespacedName::new("", &name.namespace);
            match within(deadline, agent.store.get(Kind::Namespace, &namespace)).await {
                Ok(found) => heddle_kube::pod::label_map(&found.value),
                Err(StoreError::NotFound { .. }) => BTreeMap::new(),
                Err(error) => return Err(store_failure(&error, &format!("pod {name}"))),
            }
        }
    };
    Ok(agent.identities.labels_of(value, &namespace_labels))
}

pub(super) async fn allocate(
    identities: &IdentityAllocator,
    labels: &LabelSet,
    deadline: Instant,
) -> Result<Identity, ApiError> {
    let allocation = tokio::time::timeout_at(deadline.into(), identities.resolve(labels));
    match allocation.await {
        Ok(Ok(identity)) => Ok(identity),
        Ok(Err(IdentityError::Store { source, .. })) => {
            Err(store_failure(&source, &format!("labels {labels}")))
        }
        Ok(Err(error)) => Err(ApiError::new(error.code(), error.to_string()).help(error.help())),
        Err(_) => Err(ApiError::new(
            error_codes::TRY_AGAIN,
            format!("no identity for the labels {labels}: the store did not answer in time"),
        )
        .help("see that the store runs; pods that run keep their network meanwhile")),
    }
}
