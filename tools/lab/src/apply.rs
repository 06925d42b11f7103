//! `heddle lab apply`: creates or updates objects, and waits until they are in force.

use crate::LabError;
use crate::manifests::Checked;
use crate::mirror::{Follower, Mirror};
use crate::paths::Lab;
use crate::wait;
use heddle_kube::store::{Kind, Object, Scope, Store, StoreError, Version};
use heddle_model::NamespacedName;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// Remembers what was applied, so that a label left out of the next manifest goes (kubectl's rule).
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes of annotations that an API server takes at most. Of what is larger only the metadata is remembered, which is
/// all that is asked of it.
const MOST_REMEMBERED: usize = 256 << 10;
/// How often an object is read again when it changed in between.
const ATTEMPTS: usize = 20;

/// What became of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It was not there.
    Created,
    /// It was another.
    Configured,
    /// It was the same.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

/// `pod/ns/name`, as commands print objects.
pub fn label(kind: Kind, name: &NamespacedName) -> String {
    format!("{}/{name}", kind.name().to_ascii_lowercase())
}

/// Refuses objects whose namespace neither exists nor comes with them.
pub async fn check_namespaces(
    lab: &Lab,
    store: &dyn Store,
    objects: &[Checked],
) -> Result<(), LabError> {
    let mut known: BTreeSet<String> = store
        .list(&Scope::all(Kind::Namespace))
        .await?
        .into_iter()
        .map(|found| found.name.name)
        .collect();
    known.extend(
        objects
            .iter()
            .filter(|object| object.kind == Kind::Namespace)
            .map(|object| object.name.name.clone()),
    );
    match objects
        .iter()
        .find(|object| object.kind.is_namespaced() && !known.contains(&object.name.namespace))
    {
        None => Ok(()),
        Some(object) => Err(LabError::BadObject {
            code: "lab/no-namespace".into(),
            file: object.manifest.0.clone(),
            document: object.manifest.1,
            object: format!("{} {}", object.kind, object.name),
            field: "metadata.namespace".into(),
            reason: format!(
                "namespace {} does not exist in lab {}",
                object.name.namespace,
                lab.name()
            ),
            help: "apply a Namespace of that name first, or together with it".into(),
        }),
    }
}

/// Creates or updates one object.
pub async fn apply_one(store: &dyn Store, object: &Checked) -> Result<(Change, Object), LabError> {
    let mut wished = object.value.clone();
    if let Some(wished) = wished.as_object_mut() {
        wished.remove("status");
    }
    let mut written = wished.to_string();
    if written.len() > MOST_REMEMBERED {
        written = json!({ "metadata": wished["metadata"] }).to_string();
    }
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let stored = match store.get(object.kind, &object.name).await {
            Ok(stored) => stored,
            Err(StoreError::NotFound { .. }) => {
                let mut new = wished.clone();
                remember(&mut new, &written);
                match store.create(object.kind, new).await {
                    Ok(created) => return Ok((Change::Created, created)),
                    Err(error @ StoreError::AlreadyExists { .. }) => {
                        last = Some(error);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        let merged = merge(object, &stored.value, &wished, &written)?;
        if same(&merged, &stored.value) {
            return Ok((Change::Unchanged, stored));
        }
        match store.update(object.kind, merged).await {
            Ok(updated) => return Ok((Change::Configured, updated)),
            Err(error @ (StoreError::Conflict { .. } | StoreError::NotFound { .. })) => {
                last = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(
        || LabError::Usage("nothing was tried".into()),
        LabError::from,
    ))
}

fn remember(value: &mut Value, written: &str) {
    let annotations = &mut value["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[LAST_APPLIED] = json!(written);
}

/// True when two objects differ in nothing that was written by people.
fn same(a: &Value, b: &Value) -> bool {
    let cut = |value: &Value| {
        let mut value = value.clone();
        if let Some(annotations) = value["metadata"]["annotations"].as_object_mut() {
            annotations.remove(LAST_APPLIED);
        }
        if value["metadata"]["annotations"]
            .as_object()
            .is_some_and(Map::is_empty)
            && let Some(metadata) = value["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
        value
    };
    cut(a) == cut(b)
}

/// What the stored object becomes: the manifest's fields, the labels that others added, and what the
/// store and the cluster own.
fn merge(
    object: &Checked,
    stored: &Value,
    wished: &Value,
    written: &str,
) -> Result<Value, LabError> {
    let before: Value = stored["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let mut merged = wished.clone();
    merged["metadata"] = stored["metadata"].clone();
    for key in ["labels", "annotations"] {
        let mut kept = stored["metadata"][key]
            .as_object()
            .cloned()
            .unwrap_or_default();
        for (name, _) in before["metadata"][key].as_object().into_iter().flatten() {
            kept.remove(name);
        }
        for (name, value) in wished["metadata"][key].as_object().into_iter().flatten() {
            kept.insert(name.clone(), value.clone());
        }
        let was_there = !stored["metadata"][key].is_null();
        if was_there || !kept.is_empty() {
            merged["metadata"][key] = Value::Object(kept);
        }
    }
    remember(&mut merged, written);
    if let Some(status) = stored.get("status") {
        merged["status"] = status.clone();
    }
    match object.kind {
        // What others write into the spec stays: the scheduler's node, the operator's ranges.
        Kind::Pod => keep(&mut merged, stored, "nodeName"),
        Kind::Node => keep(&mut merged, stored, "podCIDRs"),
        _ => {}
    }
    if object.kind == Kind::Pod && merged["spec"] != stored["spec"] {
        return Err(LabError::BadObject {
            code: "pod/immutable".into(),
            file: object.manifest.0.clone(),
            document: object.manifest.1,
            object: format!("Pod {}", object.name),
            field: "spec".into(),
            reason: "the spec of a pod that exists cannot be changed".into(),
            help: format!(
                "`heddle lab delete pod {} -n {}` first",
                object.name.name, object.name.namespace
            ),
        });
    }
    Ok(merged)
}

fn keep(merged: &mut Value, stored: &Value, key: &str) {
    if merged["spec"][key].is_null() && !stored["spec"][key].is_null() {
        if !merged["spec"].is_object() {
            merged["spec"] = json!({});
        }
        merged["spec"][key] = stored["spec"][key].clone();
    }
}

/// Waits until the pods of what was applied are ready, and every node has put all of it in force.
pub async fn wait_until_in_force(
    lab: &Lab,
    store: &dyn Store,
    applied: &[Object],
    patience: Duration,
) -> Result<(), LabError> {
    let end = Instant::now() + patience;
    let mut revision = applied
        .iter()
        .filter_map(|object| store.position(&object.version))
        .max()
        .unwrap_or(0);
    if applied
        .iter()
        .any(|object| matches!(object.kind, Kind::Pod | Kind::Deployment))
    {
        let mut follower =
            Follower::new(store, &[Kind::Pod, Kind::Deployment, Kind::CiliumEndpoint]);
        let mut state = Waiting::default();
        let done = follower
            .until(end, |mirror| {
                state = Waiting::of(applied, mirror);
                state.unready.is_empty() || !state.failed.is_empty()
            })
            .await;
        if !state.failed.is_empty() || !done {
            return Err(LabError::Timeout {
                what: format!(
                    "{} {}",
                    if state.failed.is_empty() { state.unready.len() } else { state.failed.len() },
                    if state.failed.is_empty() { "object(s) not ready" } else { "pod(s) failed" }
                ),
                seconds: patience.as_secs(),
                state: if state.failed.is_empty() { &state.unready } else { &state.failed }.join("; "),
                help: "`heddle lab get pods -A -o wide` and `heddle lab logs` show more; --timeout waits longer".into(),
            });
        }
        revision = state
            .versions
            .iter()
            .filter_map(|version| store.position(version))
            .fold(revision, u64::max);
    }
    wait::realised_everywhere(lab, store, revision, end, patience).await?;
    let nodes = crate::config::record(lab)?.nodes;
    wait::locks_nobody_out(lab, &nodes, applied).await?;
    wait::fits(lab, &nodes, applied).await
}

/// How far the pods are.
#[derive(Default)]
struct Waiting {
    unready: Vec<String>,
    failed: Vec<String>,
    /// What has to be in force, beside what was applied.
    versions: Vec<Version>,
}

impl Waiting {
    fn of(applied: &[Object], mirror: &Mirror) -> Self {
        let mut state = Self::default();
        for object in applied {
            match object.kind {
                Kind::Pod => state.add_pod(mirror, &object.name),
                Kind::Deployment => state.add_deployment(mirror, &object.name),
                _ => {}
            }
        }
        state
    }

    fn add_deployment(&mut self, mirror: &Mirror, name: &NamespacedName) {
        let label = label(Kind::Deployment, name);
        let Some(deployment) = mirror.objects.get(&(Kind::Deployment, name.clone())) else {
            self.unready.push(format!("{label}: it is gone"));
            return;
        };
        let value = &deployment.value;
        let wanted = value["spec"]["replicas"].as_u64().unwrap_or(1);
        let count = |key: &str| value["status"][key].as_u64().unwrap_or(0);
        let pods: Vec<&Object> = mirror
            .of(Kind::Pod)
            .filter(|pod| {
                crate::daemon::deployments::owner(pod) == value["metadata"]["uid"].as_str()
            })
            .collect();
        let current = value["status"]["observedGeneration"] == value["metadata"]["generation"];
        if !current
            || count("updatedReplicas") != wanted
            || count("replicas") != wanted
            || pods.len() as u64 != wanted
        {
            self.unready.push(format!(
                "{label}: {} of {wanted} pods are of the new template, {} pods in all",
                count("updatedReplicas"),
                pods.len()
            ));
        }
        for pod in pods {
            self.add_pod(mirror, &pod.name);
        }
    }

    fn add_pod(&mut self, mirror: &Mirror, name: &NamespacedName) {
        let label = label(Kind::Pod, name);
        let Some(pod) = mirror.objects.get(&(Kind::Pod, name.clone())) else {
            self.unready.push(format!("{label}: it is gone"));
            return;
        };
        self.versions.push(pod.version.clone());
        let status = &pod.value["status"];
        let condition = status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Ready");
        let ready = condition.is_some_and(|condition| condition["status"] == "True");
        match status["phase"].as_str() {
            Some("Succeeded") => return,
            Some("Failed") => {
                let why = status["message"]
                    .as_str()
                    .unwrap_or("a container ended with a failure");
                self.failed.push(format!("{label}: {why}"));
                return;
            }
            _ if !ready => {
                let why = condition.map_or("it is not scheduled yet", |condition| {
                    condition["message"]
                        .as_str()
                        .or(condition["reason"].as_str())
                        .unwrap_or("not ready")
                });
                self.unready.push(format!("{label}: {why}"));
                return;
            }
            _ => {}
        }
        if pod.value["spec"]["hostNetwork"] == true {
            return;
        }
        match mirror.objects.get(&(Kind::CiliumEndpoint, name.clone())) {
            Some(endpoint) => self.versions.push(endpoint.version.clone()),
            None => self
                .unready
                .push(format!("{label}: its endpoint is not published yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_kube::store::memory::MemoryStore;

    fn checked(kind: Kind, value: Value) -> Checked {
        Checked {
            kind,
            name: NamespacedName::new(
                value["metadata"]["namespace"].as_str().unwrap_or_default(),
                value["metadata"]["name"].as_str().unwrap(),
            ),
            value,
            manifest: ("m.yaml".into(), 1),
            warnings: Vec::new(),
        }
    }

    #[tokio::test]
    async fn created_then_unchanged_then_configured() {
        let store = MemoryStore::new();
        let namespace = |labels: Value| {
            checked(
                Kind::Namespace,
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "labels": labels}}),
            )
        };
        let first = namespace(json!({"a": "1", "b": "2"}));
        assert_eq!(apply_one(&store, &first).await.unwrap().0, Change::Created);
        assert_eq!(
            apply_one(&store, &first).await.unwrap().0,
            Change::Unchanged
        );
        // A label that somebody else added stays; one that the manifest no longer has goes.
        let name = NamespacedName::new("", "n");
        let mut value = store.get(Kind::Namespace, &name).await.unwrap().value;
        value["metadata"]["labels"]["other"] = json!("x");
        store.update(Kind::Namespace, value).await.unwrap();
        assert_eq!(
            apply_one(&store, &first).await.unwrap().0,
            Change::Unchanged
        );
        let second = namespace(json!({"a": "1"}));
        assert_eq!(
            apply_one(&store, &second).await.unwrap().0,
            Change::Configured
        );
        let labels =
            store.get(Kind::Namespace, &name).await.unwrap().value["metadata"]["labels"].clone();
        assert_eq!(labels, json!({"a": "1", "other": "x"}));
    }

    #[tokio::test]
    async fn a_scheduled_pod_is_unchanged_and_its_spec_fixed() {
        let store = MemoryStore::new();
        let pod = |image: &str| {
            checked(
                Kind::Pod,
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
                       "spec": {"containers": [{"name": "c", "image": image}]}}),
            )
        };
        let (_, created) = apply_one(&store, &pod("heddle/echo")).await.unwrap();
        let mut scheduled = created.value.clone();
        scheduled["spec"]["nodeName"] = json!("node-1");
        store.update(Kind::Pod, scheduled).await.unwrap();
        assert_eq!(
            apply_one(&store, &pod("heddle/echo")).await.unwrap().0,
            Change::Unchanged
        );
        let error = apply_one(&store, &pod("heddle/idle")).await.unwrap_err();
        assert_eq!(error.code(), "pod/immutable");
    }
}
