//! What networking needs to know of a Pod object.

pub use heddle_model::DeclaredPort;
use heddle_model::{LabelFilter, LabelSet, NamespacedName};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// An object's namespace (`default` when it has none) and name.
pub fn name(object: &Value) -> NamespacedName {
    NamespacedName::new(
        text(object, "/metadata/namespace")
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or("default"),
        text(object, "/metadata/name").unwrap_or_default(),
    )
}

/// An object's labels.
pub fn labels(object: &Value) -> Vec<(&str, &str)> {
    object
        .pointer("/metadata/labels")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect()
}

/// An object's labels, owned.
pub fn label_map(object: &Value) -> BTreeMap<String, String> {
    let labels = labels(object).into_iter();
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The service account that the pod runs as.
pub fn service_account(pod: &Value) -> &str {
    text(pod, "/spec/serviceAccountName")
        .or_else(|| text(pod, "/spec/serviceAccount"))
        .filter(|name| !name.is_empty())
        .unwrap_or("default")
}

/// The object that a pod works for, as (kind, name): its controller, and what that one in turn works for
/// where the names tell (a ReplicaSet's Deployment, a Job's CronJob). `None` for a pod of its own.
///
/// The names are Kubernetes' own: `DEPLOYMENT-HASH`, where the pod is labelled `pod-template-hash: HASH`,
/// and `CRONJOB-MINUTES`, minutes since 1970.
pub fn workload(pod: &Value) -> Option<(String, String)> {
    let controller = list(pod, "/metadata/ownerReferences")
        .iter()
        .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))?;
    let kind = text(controller, "/kind").filter(|kind| !kind.is_empty())?;
    let name = text(controller, "/name").filter(|name| !name.is_empty())?;
    let above = match kind {
        "ReplicaSet" => text(pod, "/metadata/labels/pod-template-hash")
            .filter(|hash| !hash.is_empty())
            .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'))
            .map(|deployment| ("Deployment", deployment)),
        "Job" => name
            .rsplit_once('-')
            .filter(|(_, minutes)| (8..=10).contains(&minutes.len()))
            .filter(|(_, minutes)| minutes.bytes().all(|byte| byte.is_ascii_digit()))
            .map(|(cron, _)| ("CronJob", cron)),
        _ => None,
    };
    let (kind, name) = above
        .filter(|(_, name)| !name.is_empty())
        .unwrap_or((kind, name));
    Some((kind.to_owned(), name.to_owned()))
}

/// The ports that a pod declares, sorted; those of containers and of sidecars (init containers that are
/// restarted always) count.
pub fn declared_ports(pod: &Value) -> Vec<DeclaredPort> {
    let containers = list(pod, "/spec/containers");
    let sidecars = list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == Some("Always"));
    let found: BTreeSet<DeclaredPort> = containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| list(container, "/ports"))
        .filter_map(|port| {
            let number = port.get("containerPort").and_then(Value::as_u64)?;
            Some(DeclaredPort {
                name: text(port, "/name").unwrap_or_default().to_owned(),
                protocol: text(port, "/protocol").unwrap_or("TCP").to_owned(),
                number: u16::try_from(number).ok()?,
            })
        })
        .collect();
    found.into_iter().collect()
}

/// The ports of a pod that its node probes, sorted: of startup, readiness and liveness probes.
pub fn probed_ports(pod: &Value) -> BTreeSet<u16> {
    let declared = declared_ports(pod);
    let number = |port: &Value| match port {
        Value::String(name) => declared
            .iter()
            .find(|it| it.name == *name)
            .map(|it| it.number),
        port => port.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    list(pod, "/spec/containers")
        .iter()
        .chain(list(pod, "/spec/initContainers"))
        .flat_map(|container| {
            ["startupProbe", "readinessProbe", "livenessProbe"].map(|kind| &container[kind])
        })
        .flat_map(|probe| ["httpGet", "tcpSocket", "grpc"].map(|how| &probe[how]["port"]))
        .filter_map(number)
        .collect()
}

/// The pod's named ports in the form of the identity label `LabelSet::NAMED_PORTS`:
/// `dns=UDP/53,http=TCP/8080`, sorted.
pub fn named_ports(pod: &Value) -> String {
    DeclaredPort::named(&declared_ports(pod))
}

/// Whether the pod shares its node's network and so has no endpoint of its own.
pub fn is_host_network(pod: &Value) -> bool {
    pod.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true)
}

/// Whether the pod has ended for good and holds no address any more.
pub fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed"))
}

/// The node that the pod runs on.
pub fn node(pod: &Value) -> Option<&str> {
    text(pod, "/spec/nodeName").filter(|name| !name.is_empty())
}

/// The addresses in the pod's status, the primary one first; what is no address is left out.
pub fn addresses(pod: &Value) -> Vec<IpAddr> {
    let listed = list(pod, "/status/podIPs")
        .iter()
        .filter_map(|entry| text(entry, "/ip"));
    let mut found = Vec::new();
    for address in text(pod, "/status/podIP").into_iter().chain(listed) {
        if let Ok(address) = address.parse()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The labels of the pod's identity.
///
/// `namespace_labels` are those of its Namespace; `kubernetes.io/metadata.name` is added, as the API server
/// does.
pub fn identity_labels<'a>(
    pod: &Value,
    namespace_labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    cluster: &str,
    filter: &LabelFilter,
) -> LabelSet {
    let name = name(pod);
    let mut of_namespace: Vec<(&str, &str)> = namespace_labels.into_iter().collect();
    let metadata_name = ("kubernetes.io/metadata.name", name.namespace.as_str());
    of_namespace.retain(|(key, _)| *key != metadata_name.0);
    of_namespace.push(metadata_name);
    LabelSet::of_pod(
        &name,
        labels(pod),
        of_namespace,
        service_account(pod),
        &named_ports(pod),
        cluster,
        filter,
    )
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// The list at a place of an object; empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_workload_is_its_controller_or_what_that_one_works_for() {
        let owned = |kind: &str, name: &str, hash: &str, controller: bool| {
            workload(&json!({"metadata": {
                "labels": {"pod-template-hash": hash},
                "ownerReferences": [
                    {"kind": "Other", "name": "bystander"},
                    {"kind": kind, "name": name, "controller": controller}],
            }}))
        };
        for (kind, name, hash, expected) in [
            ("Deployment", "web", "f4b8", ("Deployment", "web")),
            ("ReplicaSet", "web-f4b8", "f4b8", ("Deployment", "web")),
            ("ReplicaSet", "web-f4b8", "c9d2", ("ReplicaSet", "web-f4b8")),
            ("ReplicaSet", "web-f4b8", "", ("ReplicaSet", "web-f4b8")),
            ("ReplicaSet", "-f4b8", "f4b8", ("ReplicaSet", "-f4b8")),
            ("Job", "backup-29384756", "", ("CronJob", "backup")),
            ("Job", "backup-once", "", ("Job", "backup-once")),
            ("Job", "backup-12", "", ("Job", "backup-12")),
            ("StatefulSet", "db", "", ("StatefulSet", "db")),
            ("DaemonSet", "log", "", ("DaemonSet", "log")),
        ] {
            let expected = Some((expected.0.to_owned(), expected.1.to_owned()));
            assert_eq!(owned(kind, name, hash, true), expected, "{kind} {name}");
        }
        assert_eq!(owned("Deployment", "web", "", false), None);
        assert_eq!(workload(&json!({"metadata": {"name": "alone"}})), None);
    }

    #[test]
    fn a_pod_is_read() {
        let pod = json!({
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "shop",
                "containers": [{"ports": [
                    {"name": "http", "containerPort": 8080},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"containerPort": 9}]}],
                "initContainers": [
                    {"restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15000}]},
                    {"ports": [{"name": "gone", "containerPort": 1}]}]
            },
            "status": {"podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]}
        });
        assert_eq!(name(&pod).to_string(), "default/web");
        assert_eq!(
            named_ports(&pod),
            "dns=UDP/53,http=TCP/8080,proxy=TCP/15000"
        );
        assert_eq!(addresses(&pod).len(), 2);
        assert_eq!((node(&pod), service_account(&pod)), (Some("n1"), "shop"));
        assert!(!is_host_network(&pod) && !is_finished(&pod));
        let printed = identity_labels(&pod, [], "default", &LabelFilter::default()).to_strings();
        assert!(
            printed.contains(
                &"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default"
                    .to_owned()
            ),
            "{printed:?}"
        );
    }
}
