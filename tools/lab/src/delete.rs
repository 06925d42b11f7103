//! `heddle lab delete`: deletes objects, and waits until they are gone from every node.

use crate::LabError;
use crate::daemon::{deployments, is_ending};
use crate::mirror::{Follower, Key};
use crate::paths::Lab;
use crate::time;
use crate::wait;
use heddle_kube::store::{Kind, Object, Scope, Store, StoreError};
use heddle_model::NamespacedName;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// Kinds that deletion follows.
const FOLLOWED: [Kind; 12] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Pod,
    Kind::Deployment,
    Kind::NetworkPolicy,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::CiliumCIDRGroup,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::CiliumEndpoint,
];

/// Marks a pod as ending; its node's kubelet ends it and deletes the object. `None` when it is ending
/// already or gone.
pub async fn begin_pod(
    store: &dyn Store,
    name: &NamespacedName,
) -> Result<Option<Object>, LabError> {
    loop {
        let pod = match store.get(Kind::Pod, name).await {
            Ok(pod) if is_ending(&pod) => return Ok(None),
            Ok(pod) => pod,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut value = pod.value;
        value["metadata"]["deletionTimestamp"] = json!(time::stamp());
        match store.update(Kind::Pod, value).await {
            Ok(ending) => return Ok(Some(ending)),
            Err(StoreError::Conflict { .. }) => {}
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Namespaces that Kubernetes does not let anybody delete either.
const PERMANENT_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses to delete what the lab stands on.
///
/// # Errors
///
/// [`LabError::Protected`], with what to do instead.
pub fn check_deletable(kind: Kind, name: &NamespacedName) -> Result<(), LabError> {
    let (reason, help) = match kind {
        Kind::Node => (
            "its agent and its pods would lose their network for good",
            "`heddle lab down` removes the lab; a node that is away is `heddle lab agent stop NODE`",
        ),
        Kind::Namespace if PERMANENT_NAMESPACES.contains(&name.name.as_str()) => (
            "Kubernetes keeps this namespace, and so does a lab",
            "delete what is in it: `heddle lab delete -f PATH`, or KIND NAME",
        ),
        _ => return Ok(()),
    };
    Err(LabError::Protected {
        what: crate::apply::label(kind, name),
        reason,
        help: help.to_owned(),
    })
}

/// A deletion under way.
pub struct Deletion {
    follower: Follower,
    waiting: Vec<Key>,
}

impl Deletion {
    /// Begins to follow the store.
    pub async fn new(store: &dyn Store, patience: Duration) -> Result<Self, LabError> {
        let mut follower = Follower::new(store, &FOLLOWED);
        if !follower.until(Instant::now() + patience, |_| true).await {
            return Err(StoreError::Unavailable {
                address: "the lab's store".into(),
                reason: format!("no list of objects in {} s", patience.as_secs()),
            }
            .into());
        }
        Ok(Self {
            follower,
            waiting: Vec::new(),
        })
    }

    /// Deletes an object and what lives in it; false when there was none.
    ///
    /// # Errors
    ///
    /// [`LabError::Protected`] for what [`check_deletable`] refuses; when the store refuses or fails.
    pub async fn delete(
        &mut self,
        store: &dyn Store,
        kind: Kind,
        name: &NamespacedName,
    ) -> Result<bool, LabError> {
        check_deletable(kind, name)?;
        match store.get(kind, name).await {
            Ok(object) => {
                self.delete_contents(store, &object).await?;
                if kind == Kind::Pod {
                    begin_pod(store, name).await?;
                } else {
                    match store.delete(kind, name, None).await {
                        Ok(()) | Err(StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                self.wait_for(kind, name);
                Ok(true)
            }
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete_contents(
        &mut self,
        store: &dyn Store,
        object: &Object,
    ) -> Result<(), LabError> {
        let uid = object.value["metadata"]["uid"].as_str();
        match object.kind {
            Kind::Deployment => {
                // Its pods end once it is gone; this only waits for them.
                let pods = store
                    .list(&Scope::all(Kind::Pod).in_namespace(&object.name.namespace))
                    .await?;
                for pod in pods.iter().filter(|pod| deployments::owner(pod) == uid) {
                    self.wait_for(Kind::Pod, &pod.name);
                }
            }
            Kind::Namespace => {
                let inside = [
                    Kind::Deployment,
                    Kind::Pod,
                    Kind::NetworkPolicy,
                    Kind::CiliumNetworkPolicy,
                    Kind::Service,
                    Kind::EndpointSlice,
                ];
                for kind in inside {
                    for object in store
                        .list(&Scope::all(kind).in_namespace(&object.name.name))
                        .await?
                    {
                        Box::pin(self.delete(store, kind, &object.name)).await?;
                    }
                }
                // A namespace outlives what is in it.
                let inside = object.name.name.clone();
                let waiting = self.waiting.clone();
                self.follower
                    .until(Instant::now() + Duration::from_secs(60), |mirror| {
                        waiting
                            .iter()
                            .filter(|(_, name)| name.namespace == inside)
                            .all(|key| !mirror.objects.contains_key(key))
                    })
                    .await;
            }
            _ => {}
        }
        Ok(())
    }

    fn wait_for(&mut self, kind: Kind, name: &NamespacedName) {
        self.waiting.push((kind, name.clone()));
        if kind == Kind::Pod {
            self.waiting.push((Kind::CiliumEndpoint, name.clone()));
        }
    }

    /// Waits until everything is gone from the store and from every node.
    pub async fn finish(mut self, lab: &Lab, patience: Duration) -> Result<(), LabError> {
        let end = Instant::now() + patience;
        let waiting = std::mem::take(&mut self.waiting);
        let mut left = Vec::new();
        let gone = self
            .follower
            .until(end, |mirror| {
                left = waiting
                    .iter()
                    .filter(|key| mirror.objects.contains_key(*key))
                    .map(|(kind, name)| crate::apply::label(*kind, name))
                    .collect();
                left.is_empty()
            })
            .await;
        if !gone {
            return Err(LabError::Timeout {
                what: format!("{} object(s) are still there", left.len()),
                seconds: patience.as_secs(),
                state: left.join(", "),
                help: "a pod may take its terminationGracePeriodSeconds; a stopped agent keeps its pods' endpoints".into(),
            });
        }
        let revision = waiting
            .iter()
            .filter_map(|key| self.follower.mirror.gone.get(key))
            .max()
            .copied()
            .unwrap_or(0);
        let nodes = crate::config::record(lab)?.nodes;
        wait::realised(lab, &nodes, revision, end, patience).await
    }
}
