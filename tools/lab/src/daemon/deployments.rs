//! What a Deployment wants done next: pods to create, pods to end, its status. Pure but for the
//! random part of new names.

use crate::daemon::is_ending;
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Kubernetes' alphabet for generated names: no vowels, so no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The label that tells a template's pods from another's.
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// The next step of a Deployment.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Pods to create.
    pub create: Vec<Value>,
    /// Pods to end.
    pub delete: Vec<NamespacedName>,
    /// Its status.
    pub status: Value,
}

/// The uid of the Deployment that owns a pod.
pub fn owner(pod: &Object) -> Option<&str> {
    pod.value["metadata"]["ownerReferences"]
        .as_array()?
        .iter()
        .find(|owner| owner["kind"] == Kind::Deployment.name() && owner["controller"] == true)?["uid"]
        .as_str()
}

fn is_ready(pod: &Object) -> bool {
    pod.value["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What to do next. A changed template is rolled out with one pod more than wanted at a time, and an
/// old pod ends only when there are enough ready ones without it.
pub fn plan(deployment: &Object, pods: &[Object]) -> Plan {
    let uid = deployment.value["metadata"]["uid"].as_str();
    let wanted = deployment.value["spec"]["replicas"].as_u64().unwrap_or(1);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let hash = template_hash(&deployment.value["spec"]["template"]);
    let owned: Vec<&Object> = pods
        .iter()
        .filter(|pod| pod.name.namespace == deployment.name.namespace)
        .filter(|pod| uid.is_some() && owner(pod) == uid && !is_ending(pod))
        .collect();
    let (mut new, mut old): (Vec<&Object>, Vec<&Object>) = owned
        .iter()
        .copied()
        .partition(|pod| pod.value["metadata"]["labels"][TEMPLATE_HASH] == hash);
    let status = status(deployment, &owned, &new, wanted);
    let mut delete = Vec::new();

    // Too many: those that are not ready go first, then the youngest.
    new.sort_by_key(|pod| (!is_ready(pod), pod.revision_of_birth()));
    while new.len() > wanted {
        delete.extend(new.pop().map(|pod| pod.name.clone()));
    }
    old.sort_by_key(|pod| is_ready(pod));
    let mut ready = owned.iter().filter(|pod| is_ready(pod)).count();
    old.retain(|pod| {
        let spare = !is_ready(pod)
            || ready > wanted
            || new.iter().filter(|p| is_ready(p)).count() >= wanted;
        if spare {
            ready -= usize::from(is_ready(pod));
            delete.push(pod.name.clone());
        }
        !spare
    });
    let room = if old.is_empty() {
        wanted
    } else {
        (wanted + 1).saturating_sub(old.len())
    };
    let missing = wanted.min(room.max(new.len())).saturating_sub(new.len());
    let create = (0..missing).map(|_| new_pod(deployment, &hash)).collect();
    Plan {
        create,
        delete,
        status,
    }
}

trait Birth {
    fn revision_of_birth(&self) -> String;
}

impl Birth for Object {
    fn revision_of_birth(&self) -> String {
        self.value["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

fn status(deployment: &Object, owned: &[&Object], new: &[&Object], wanted: usize) -> Value {
    let ready = owned.iter().filter(|pod| is_ready(pod)).count();
    let available = ready >= wanted;
    let old = &deployment.value["status"];
    let reason = if available {
        "MinimumReplicasAvailable"
    } else {
        "MinimumReplicasUnavailable"
    };
    json!({
        "observedGeneration": deployment.value["metadata"]["generation"],
        "replicas": owned.len(),
        "updatedReplicas": new.len(),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": wanted.saturating_sub(ready),
        "conditions": [crate::pod::status::condition(old, "Available", available, reason, "")],
    })
}

fn new_pod(deployment: &Object, hash: &str) -> Value {
    let template = &deployment.value["spec"]["template"];
    let mut labels = template["metadata"]["labels"].clone();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[TEMPLATE_HASH] = json!(hash);
    let mut metadata = json!({
        "name": format!("{}-{hash}-{}", deployment.name.name, suffix()),
        "namespace": deployment.name.namespace,
        "labels": labels,
        "ownerReferences": [{
            "apiVersion": Kind::Deployment.api_version(),
            "kind": Kind::Deployment.name(),
            "name": deployment.name.name,
            "uid": deployment.value["metadata"]["uid"],
            "controller": true,
        }],
    });
    if template["metadata"]["annotations"].is_object() {
        metadata["annotations"] = template["metadata"]["annotations"].clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

/// Kubernetes' names end in five such letters.
fn suffix() -> String {
    let mut random = RandomState::new().build_hasher().finish();
    letters(5, || {
        let next = random % 27;
        random /= 27;
        next
    })
}

fn letters(count: usize, mut next: impl FnMut() -> u64) -> String {
    (0..count)
        .filter_map(|_| usize::try_from(next()).ok())
        .map(|index| char::from(ALPHABET[index % ALPHABET.len()]))
        .collect()
}

/// A short name of a template's content (FNV-1a; keys are sorted in JSON objects here).
pub fn template_hash(template: &Value) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in template.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    letters(9, || {
        let next = hash % 27;
        hash /= 27;
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_kube::store::Version;

    fn deployment(replicas: u64, image: &str) -> Object {
        Object {
            kind: Kind::Deployment,
            name: NamespacedName::new("n", "web"),
            version: Version::new("1"),
            value: json!({
                "metadata": {"name": "web", "namespace": "n", "uid": "u1", "generation": 1},
                "spec": {"replicas": replicas, "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": image}]}}},
            }),
        }
    }

    fn object(value: Value, ready: bool) -> Object {
        let mut value = value;
        if ready {
            value["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        }
        Object {
            kind: Kind::Pod,
            name: NamespacedName::new("n", value["metadata"]["name"].as_str().unwrap()),
            version: Version::new("1"),
            value,
        }
    }

    /// Lets a plan happen; new pods become ready.
    fn step(deployment: &Object, pods: &mut Vec<Object>) -> bool {
        let plan = plan(deployment, pods);
        let changed = !plan.create.is_empty() || !plan.delete.is_empty();
        pods.retain(|pod| !plan.delete.contains(&pod.name));
        pods.extend(plan.create.into_iter().map(|pod| object(pod, true)));
        changed
    }

    #[test]
    fn scaling_up_and_down() {
        let mut pods = Vec::new();
        step(&deployment(3, "heddle/echo"), &mut pods);
        assert_eq!(pods.len(), 3);
        assert!(pods.iter().all(|pod| pod.name.name.starts_with("web-")));
        assert!(!step(&deployment(3, "heddle/echo"), &mut pods));
        step(&deployment(1, "heddle/echo"), &mut pods);
        assert_eq!(pods.len(), 1);
        step(&deployment(0, "heddle/echo"), &mut pods);
        assert_eq!(pods.len(), 0);
    }

    #[test]
    fn a_new_template_never_leaves_fewer_ready_pods_than_wanted() {
        let mut pods = Vec::new();
        step(&deployment(3, "heddle/echo"), &mut pods);
        let new = deployment(3, "heddle/idle");
        let hash = template_hash(&new.value["spec"]["template"]);
        for _ in 0..20 {
            let changed = step(&new, &mut pods);
            assert!((3..=4).contains(&pods.len()), "{}", pods.len());
            if !changed {
                break;
            }
        }
        assert_eq!(pods.len(), 3);
        assert!(
            pods.iter()
                .all(|pod| pod.value["metadata"]["labels"][TEMPLATE_HASH] == hash)
        );
    }

    #[test]
    fn a_rollout_waits_for_the_new_pod() {
        let mut pods = Vec::new();
        step(&deployment(2, "heddle/echo"), &mut pods);
        let new = deployment(2, "heddle/idle");
        let first = plan(&new, &pods);
        assert_eq!((first.create.len(), first.delete.len()), (1, 0));
        pods.push(object(first.create[0].clone(), false));
        let second = plan(&new, &pods);
        assert_eq!((second.create.len(), second.delete.len()), (0, 0));
        assert_eq!(second.status["updatedReplicas"], 1);
    }

    #[test]
    fn another_owners_pods_are_left_alone() {
        let mut stranger = deployment(1, "heddle/echo");
        stranger.value["metadata"]["uid"] = json!("other");
        let mut pods = Vec::new();
        step(&stranger, &mut pods);
        let plan = plan(&deployment(0, "heddle/echo"), &pods);
        assert!(plan.delete.is_empty());
    }
}
