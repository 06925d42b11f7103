//! Label sets with sources, and the filter that keeps churny labels out of identities.

use crate::NamespacedName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who vouches for a label.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Kubernetes metadata, or facts that Heddle derives from it.
    K8s,
    /// Reserved identities; never taken from an object.
    Reserved,
    /// Facts that Heddle needs in an identity and no user can set.
    Heddle,
}

impl Source {
    /// The prefix that a printed label bears.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::K8s => "k8s",
            Self::Reserved => "reserved",
            Self::Heddle => "heddle",
        }
    }
}

/// A sorted set of labels, each with its source; the content of an identity.
///
/// Printed forms are Cilium's: `k8s:app=web`, `reserved:host`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LabelSet(Vec<(Source, String, String)>);

impl LabelSet {
    /// Key of the namespace's name (reference 1.4).
    pub const NAMESPACE: &'static str = "io.kubernetes.pod.namespace";
    /// Prefix of the namespace's own labels (reference 1.4).
    pub const NAMESPACE_LABELS: &'static str = "io.cilium.k8s.namespace.labels.";
    /// Key of the service account (reference 1.4).
    pub const SERVICE_ACCOUNT: &'static str = "io.cilium.k8s.policy.serviceaccount";
    /// Key of the cluster's name (reference 1.4).
    pub const CLUSTER: &'static str = "io.cilium.k8s.policy.cluster";
    /// Key (source [`Source::Heddle`]) of a pod's named ports, so that pods whose names mean different
    /// numbers never share an identity; the value is `name=TCP/8080,...`, sorted.
    pub const NAMED_PORTS: &'static str = "named-ports";

    /// Name of the reserved label that tells a node as the subject of host policies from everybody else.
    pub const NODE: &'static str = "node";

    /// No labels.
    pub fn new() -> Self {
        Self::default()
    }

    /// The labels of a reserved identity.
    pub fn reserved(name: &str) -> Self {
        let mut labels = Self::new();
        labels.insert(Source::Reserved, name, "");
        labels
    }

    /// The labels of a pod, as its identity sees them.
    ///
    /// Pod labels whose key imitates a key that Heddle derives are left out: nobody can claim another
    /// namespace or service account by a label.
    pub fn of_pod<'a>(
        pod: &NamespacedName,
        pod_labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        namespace_labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        service_account: &str,
        named_ports: &str,
        cluster: &str,
        filter: &LabelFilter,
    ) -> Self {
        let mut labels = Self::new();
        for (key, value) in pod_labels {
            if filter.keeps(key) && !LabelFilter::is_derived(key) {
                labels.insert(Source::K8s, key, value);
            }
        }
        for (key, value) in namespace_labels {
            if filter.keeps(key) {
                labels.insert(
                    Source::K8s,
                    &format!("{}{key}", Self::NAMESPACE_LABELS),
                    value,
                );
            }
        }
        labels.insert(Source::K8s, Self::NAMESPACE, &pod.namespace);
        labels.insert(Source::K8s, Self::SERVICE_ACCOUNT, service_account);
        labels.insert(Source::K8s, Self::CLUSTER, cluster);
        if !named_ports.is_empty() {
            labels.insert(Source::Heddle, Self::NAMED_PORTS, named_ports);
        }
        labels
    }

    /// The labels of a node, as host policies see them. Keys that imitate a pod's derived labels are left out:
    /// a node is never taken for a pod.
    pub fn of_node<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut node = Self::reserved(Self::NODE);
        for (key, value) in labels {
            if !LabelFilter::is_derived(key) {
                node.insert(Source::K8s, key, value);
            }
        }
        node
    }

    /// Adds or replaces a label.
    pub fn insert(&mut self, source: Source, key: &str, value: &str) {
        match self.find(source, key) {
            Ok(at) => value.clone_into(&mut self.0[at].2),
            Err(at) => self
                .0
                .insert(at, (source, key.to_owned(), value.to_owned())),
        }
    }

    /// The value of a Kubernetes label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.get_from(Source::K8s, key)
    }

    /// The value of a label of this source.
    pub fn get_from(&self, source: Source, key: &str) -> Option<&str> {
        let at = self.find(source, key).ok()?;
        Some(self.0[at].2.as_str())
    }

    /// Where a label is, or would be.
    fn find(&self, source: Source, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, name, _)| {
            known.cmp(&source).then_with(|| name.as_str().cmp(key))
        })
    }

    /// The namespace's name, for a pod's labels.
    pub fn namespace(&self) -> Option<&str> {
        self.get(Self::NAMESPACE)
    }

    /// These labels with the namespace's labels of others.
    #[must_use]
    pub fn with_namespace_of(&self, other: &Self) -> Self {
        let is_of_namespace = |key: &str| key.starts_with(Self::NAMESPACE_LABELS);
        let mine = self.iter().filter(|(_, key, _)| !is_of_namespace(key));
        let others = other.iter().filter(|(_, key, _)| is_of_namespace(key));
        let mut labels = Self::new();
        for (source, key, value) in mine.chain(others) {
            labels.insert(source, key, value);
        }
        labels
    }

    /// Every label in order.
    pub fn iter(&self) -> impl Iterator<Item = (Source, &str, &str)> {
        self.0
            .iter()
            .map(|(source, key, value)| (*source, key.as_str(), value.as_str()))
    }

    /// True without labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Printed labels, sorted: `k8s:app=web`, `reserved:host`.
    pub fn to_strings(&self) -> Vec<String> {
        self.iter()
            .map(|(source, key, value)| match (source, value) {
                (Source::Reserved, "") => format!("reserved:{key}"),
                _ => format!("{}:{key}={value}", source.prefix()),
            })
            .collect()
    }

    /// Reads what [`LabelSet::to_strings`] printed; entries it does not know are `None`.
    pub fn from_strings<'a>(printed: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut labels = Self::new();
        for text in printed {
            let (source, rest) = text.split_once(':')?;
            let source = match source {
                "k8s" => Source::K8s,
                "reserved" => Source::Reserved,
                "heddle" => Source::Heddle,
                _ => return None,
            };
            let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
            labels.insert(source, key, value);
        }
        Some(labels)
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(","))
    }
}

impl Serialize for LabelSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_strings().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LabelSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let printed = Vec::<String>::deserialize(deserializer)?;
        Self::from_strings(printed.iter().map(String::as_str))
            .ok_or_else(|| serde::de::Error::custom("a label has the form source:key=value"))
    }
}

/// Which label keys take part in identities: all but those that change with every pod of a workload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelFilter {
    excluded: Vec<String>,
}

impl LabelFilter {
    /// Keys left out by default; a key that ends in `*` stands for every key with that beginning.
    /// Cilium's default filter plus the labels that Kubernetes puts on each pod of a job or set.
    pub const DEFAULT_EXCLUDED: &'static [&'static str] = &[
        "controller-uid",
        "job-name",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "batch.kubernetes.io/job-completion-index",
        "pod-template-hash",
        "pod-template-generation",
        "controller-revision-hash",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "annotation.*",
        "etcd_node",
    ];

    /// A filter that leaves these keys out.
    pub fn excluding<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            excluded: keys.into_iter().map(str::to_owned).collect(),
        }
    }

    /// True when the key takes part in identities.
    pub fn keeps(&self, key: &str) -> bool {
        !self
            .excluded
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => key.starts_with(beginning),
                None => key == pattern,
            })
    }

    /// True for a key that Heddle derives itself.
    fn is_derived(key: &str) -> bool {
        key.starts_with("io.cilium.k8s.") || key == LabelSet::NAMESPACE
    }
}

impl Default for LabelFilter {
    fn default() -> Self {
        Self::excluding(Self::DEFAULT_EXCLUDED.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pod_labels: &[(&str, &str)]) -> LabelSet {
        LabelSet::of_pod(
            &NamespacedName::new("shop", "web-1"),
            pod_labels.iter().copied(),
            [("team", "a")],
            "default",
            "http=TCP/8080",
            "default",
            &LabelFilter::default(),
        )
    }

    #[test]
    fn churny_labels_stay_out() {
        let base = of(&[("app", "web")]);
        assert_eq!(
            base,
            of(&[
                ("app", "web"),
                ("pod-template-hash", "x"),
                ("job-name", "y")
            ])
        );
        assert_ne!(base, of(&[("app", "api")]));
    }

    #[test]
    fn a_pod_cannot_claim_another_namespace() {
        let honest = of(&[]);
        assert_eq!(honest, of(&[(LabelSet::NAMESPACE, "kube-system")]));
        assert_eq!(honest, of(&[("io.cilium.k8s.namespace.labels.team", "b")]));
        assert_eq!(honest, of(&[(LabelSet::SERVICE_ACCOUNT, "admin")]));
        assert_eq!(honest.namespace(), Some("shop"));
    }

    #[test]
    fn printed_labels_read_back() {
        let labels = of(&[("app", "web"), ("empty", "")]);
        let printed = labels.to_strings();
        assert!(printed.contains(&"k8s:app=web".to_owned()), "{printed:?}");
        assert_eq!(
            LabelSet::from_strings(printed.iter().map(String::as_str)),
            Some(labels)
        );
        assert_eq!(LabelSet::reserved("host").to_strings(), ["reserved:host"]);
    }

    #[test]
    fn a_pods_own_labels_pass_for_nothing_that_others_say_of_it() {
        let labels = of(&[
            ("reserved:host", ""),
            ("heddle:named-ports", "x=TCP/1"),
            ("k8s:io.kubernetes.pod.namespace", "kube-system"),
            ("io.kubernetes.pod.namespace", "kube-system"),
            ("io.cilium.k8s.policy.cluster", "other"),
            ("io.cilium.k8s.policy.serviceaccount", "admin"),
            ("io.cilium.k8s.namespace.labels.team", "admin"),
        ]);
        assert!(
            labels
                .iter()
                .all(|(source, _, _)| source != Source::Reserved)
        );
        assert_eq!(labels.get_from(Source::Reserved, "host"), None);
        assert_ne!(
            labels.get_from(Source::Heddle, LabelSet::NAMED_PORTS),
            Some("x=TCP/1")
        );
        assert_ne!(labels.get(LabelSet::NAMESPACE), Some("kube-system"));
        assert_ne!(labels.get(LabelSet::CLUSTER), Some("other"));
        assert_ne!(labels.get(LabelSet::SERVICE_ACCOUNT), Some("admin"));
        // The namespace's own.
        assert_eq!(labels.get("io.cilium.k8s.namespace.labels.team"), Some("a"));
        // Nor after a way through the store.
        let printed = labels.to_strings();
        let read = LabelSet::from_strings(printed.iter().map(String::as_str));
        assert_eq!(read, Some(labels));
    }
}
