//! From a pod to its identity.

use crate::agent::{Agent, store_failure, within};
use heddle_cni::protocol::{ApiError, error_codes};
use heddle_kube::identity::{IdentityAllocator, IdentityError};
use heddle_kube::pod;
use heddle_kube::store::{Kind, StoreError};
use heddle_model::{Identity, LabelSet, NamespacedName};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Pause between two looks for a pod that the store does not have yet.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Agent {
    /// The labels of a pod's identity, waiting for the pod to appear in the store until `deadline`. With
    /// a UID, an older pod of the same name is not taken for it.
    pub(crate) async fn pod_labels(
        &self,
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
        let cached = self
            .on_ledger(move |ledger| ledger.pods.get(&wanted).map(|pod| pod.value.clone()))
            .await
            // Without a UID nobody can say whether what is cached is this pod or its predecessor.
            .filter(|value| uid.is_some() && is_it(value));
        if let Some(value) = cached {
            return self.labels_of_pod(&value, deadline).await;
        }
        loop {
            match within(deadline, self.store.get(Kind::Pod, name)).await {
                Ok(found) if is_it(&found.value) => {
                    return self.labels_of_pod(&found.value, deadline).await;
                }
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(store_failure(&error, &object)),
            }
            if Instant::now() + LOOK_AGAIN >= deadline {
                let with_uid = uid.map_or_else(String::new, |uid| format!(" with UID {uid}"));
                return Err(ApiError::new(
                    error_codes::TRY_AGAIN,
                    format!("{object}{with_uid} is not in the store, so its labels and policy are unknown"),
                )
                .object(object)
                .help("create the Pod object first; if it was deleted, the runtime will give up by itself"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn labels_of_pod(&self, value: &Value, deadline: Instant) -> Result<LabelSet, ApiError> {
        let name = pod::name(value);
        let namespace = name.namespace.clone();
        let known = self
            .on_ledger(move |ledger| ledger.namespaces.get(&namespace).cloned())
            .await;
        let namespace_labels = match known {
            Some(labels) => labels,
            None => {
                let namespace = NamespacedName::new("", &name.namespace);
                match within(deadline, self.store.get(Kind::Namespace, &namespace)).await {
                    Ok(found) => crate::ledger::string_map(&found.value["metadata"]["labels"]),
                    Err(StoreError::NotFound { .. }) => BTreeMap::new(),
                    Err(error) => return Err(store_failure(&error, &format!("pod {name}"))),
                }
            }
        };
        Ok(self.identity_labels(value, &namespace_labels))
    }

    /// The labels of the identity of a pod.
    pub(crate) fn identity_labels(
        &self,
        value: &Value,
        namespace_labels: &BTreeMap<String, String>,
    ) -> LabelSet {
        pod::identity_labels(
            value,
            namespace_labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
            &self.config.cluster,
            &self.label_filter,
        )
    }

    /// The number of a label set, the same in the whole cluster.
    pub(crate) async fn allocate_identity(
        &self,
        labels: &LabelSet,
        deadline: Instant,
    ) -> Result<Identity, ApiError> {
        allocate(&self.identities, labels, deadline).await
    }

    /// Makes identities again that local endpoints have and the store has lost. A number that went to others
    /// meanwhile is given up: its endpoints get another.
    pub(crate) async fn reassert_identities(&self, deadline: Instant) {
        let due = self
            .on_ledger(|ledger| {
                let due = ledger.reassert.iter();
                let labels = due.filter_map(|identity| {
                    let mut bearers = ledger.endpoints.values();
                    let bearer = bearers.find(|it| it.identity == *identity)?;
                    (!bearer.labels.is_empty()).then(|| (*identity, bearer.labels.clone()))
                });
                labels.collect::<Vec<_>>()
            })
            .await;
        for (identity, labels) in due {
            let outcome = within(deadline, self.identities.reassert(identity, &labels)).await;
            match outcome {
                Ok(true) => {
                    tracing::warn!(%identity, labels = %labels, "made again: it was deleted while pods of this node have it")
                }
                Ok(false) => {
                    self.identities.forget(identity);
                    self.on_ledger(move |ledger| ledger.give_up_identity(identity))
                        .await;
                }
                Err(error) => {
                    tracing::warn!(%identity, %error, "an identity that pods of this node have is gone, and cannot be made again yet");
                    continue;
                }
            }
            self.on_ledger(move |ledger| ledger.reassert.remove(&identity))
                .await;
        }
    }

    /// Gives local endpoints whose pod or namespace changed the identity of their labels. False when
    /// some could not be done; they stay marked.
    pub(crate) async fn relabel(&self, deadline: Instant) -> bool {
        let due = self
            .on_ledger(|ledger| {
                let ids = std::mem::take(&mut ledger.relabel);
                ids.into_iter()
                    .filter_map(|id| {
                        let endpoint = ledger.endpoints.get(&id)?;
                        let contested = ledger.contested.contains_key(&endpoint.identity)
                            || endpoint.identity == Identity::INIT;
                        let before = (endpoint.identity, endpoint.labels.clone(), contested);
                        let Some(pod) = ledger.pods.get(&endpoint.record.pod) else {
                            return contested.then_some((id, None, None, before));
                        };
                        let uid = pod.value["metadata"]["uid"].as_str();
                        // A pod of the same name that came after it has an endpoint of its own.
                        if let (Some(has), Some(mine)) = (uid, endpoint.record.pod_uid.as_deref())
                            && has != mine
                        {
                            return contested.then_some((id, None, None, before));
                        }
                        let namespace = ledger.namespaces.get(&endpoint.record.pod.namespace);
                        Some((id, Some(pod.value.clone()), namespace.cloned(), before))
                    })
                    .collect::<Vec<_>>()
            })
            .await;
        let mut done = true;
        for (id, pod, namespace, before) in due {
            let (former, kept, contested) = before;
            let labels = match pod {
                Some(pod) => self.identity_labels(&pod, &namespace.unwrap_or_default()),
                None => LabelSet::clone(&kept),
            };
            if labels == *kept && !contested {
                self.on_ledger(move |ledger| ledger.identity_shortfalls.remove(&id))
                    .await;
                continue;
            }
            if contested {
                self.identities.forget(former);
            }
            let outcome = match self.allocate_identity(&labels, deadline).await {
                Ok(identity) => self.move_endpoint(id, identity, labels).await,
                Err(error) if is_limit(&error) => self
                    .follow_namespace(id, &kept, &labels, deadline)
                    .await
                    .and(Err(error)),
                Err(error) => Err(error),
            };
            let Err(error) = outcome else {
                self.on_ledger(move |ledger| ledger.identity_shortfalls.remove(&id))
                    .await;
                continue;
            };
            if is_limit(&error) {
                // Its namespace's own matter: nobody waits for it.
                self.on_ledger(move |ledger| {
                    let said = (error.message, Instant::now());
                    ledger.identity_shortfalls.insert(id, said)
                })
                .await;
            } else {
                done = false;
                tracing::warn!(endpoint = id, code = %error.code, "changed labels are not in force yet: {}", error.message);
                self.on_ledger(move |ledger| ledger.relabel.insert(id))
                    .await;
            }
        }
        self.republish().await && done
    }

    /// Gives an endpoint the identity of other labels.
    async fn move_endpoint(
        &self,
        id: u16,
        identity: Identity,
        labels: LabelSet,
    ) -> Result<(), ApiError> {
        tracing::info!(endpoint = id, %identity, "labels changed");
        let labels = std::sync::Arc::new(labels);
        let moved = self
            .on_ledger(move |ledger| {
                if ledger.stands_for_others(identity, &labels) {
                    return Err(());
                }
                ledger.relabel_endpoint(id, identity, labels);
                ledger.republish.insert(id);
                ledger.reconcile();
                let endpoint = ledger.endpoints.get(&id);
                let attached = endpoint.filter(|it| it.attached && !it.leaving);
                Ok(attached.map(|it| it.record.clone()))
            })
            .await;
        let Ok(record) = moved else {
            self.identities.forget(identity);
            return Err(other_labels(identity));
        };
        if let Some(record) = record
            && let Err(error) = self.save(&record).await
        {
            tracing::warn!(endpoint = id, "{}", error.message);
        }
        Ok(())
    }

    /// The limits are about the labels that a pod's own writers choose. What the administrator of its namespace says
    /// of the namespace counts at once, with the pod's labels as they were.
    async fn follow_namespace(
        &self,
        id: u16,
        kept: &LabelSet,
        wanted: &LabelSet,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let labels = kept.with_namespace_of(wanted);
        if labels == *kept {
            return Ok(());
        }
        let unlimited = self.identities.unlimited();
        let identity = allocate(&unlimited, &labels, deadline).await?;
        self.move_endpoint(id, identity, labels).await
    }

    /// Writes endpoints to the store whose identity changed. False when some could not be written; they stay marked.
    async fn republish(&self) -> bool {
        let due = self.on_ledger(|ledger| ledger.republish.clone()).await;
        let mut done = true;
        for id in due {
            match self.publish_again(id).await {
                Ok(()) => {
                    self.on_ledger(move |ledger| ledger.republish.remove(&id))
                        .await;
                }
                Err(error) => {
                    done = false;
                    tracing::warn!(endpoint = id, code = %error.code, "other nodes do not know its identity yet: {}", error.message);
                }
            }
        }
        done
    }
}

async fn allocate(
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

/// A limit of the pod's namespace keeps its labels from an identity.
fn is_limit(error: &ApiError) -> bool {
    matches!(
        error.code.as_str(),
        "identity/too-many" | "identity/too-fast"
    )
}

/// A number that went to other labels between the answer and its use.
fn other_labels(identity: Identity) -> ApiError {
    ApiError::new(
        error_codes::TRY_AGAIN,
        format!("identity {identity} stands for other labels by now"),
    )
    .help("nothing was opened; the next attempt gets another number")
}
