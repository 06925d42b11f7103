//! The Pods of this node and the Namespaces of the cluster, as far as endpoints need them.

use heddle_kube::store::Object;
use heddle_model::NamespacedName;
use std::collections::{BTreeMap, BTreeSet};

/// Pods of this node, and what is known of namespaces.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// Pods of this node, and pods whose endpoint is here.
    pods: BTreeMap<NamespacedName, Object>,
    /// Labels of namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Namespaces whose administrator lets their pods be on audit.
    audited: BTreeSet<String>,
}

impl Pods {
    pub(crate) fn get(&self, name: &NamespacedName) -> Option<&Object> {
        self.pods.get(name)
    }

    pub(crate) fn set(&mut self, pod: Object) {
        self.pods.insert(pod.name.clone(), pod);
    }

    pub(crate) fn remove(&mut self, name: &NamespacedName) {
        self.pods.remove(name);
    }

    /// The labels of a namespace.
    pub(crate) fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// True when they are others than before.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) -> bool {
        if self.namespaces.get(name) == Some(&labels) {
            return false;
        }
        self.namespaces.insert(name.to_owned(), labels);
        true
    }

    /// Its pods keep their labels until they are gone themselves.
    pub(crate) fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Whether a namespace's administrator lets its pods be on audit.
    pub(crate) fn allows_audit(&self, namespace: &str) -> bool {
        self.audited.contains(namespace)
    }

    /// True when that is otherwise than before.
    pub(crate) fn set_allows_audit(&mut self, namespace: &str, allows: bool) -> bool {
        if allows {
            self.audited.insert(namespace.to_owned())
        } else {
            self.audited.remove(namespace)
        }
    }
}
