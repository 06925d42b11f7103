//! What a list or a watch is about: a kind, and which of its objects.

use super::{Kind, Object, Version};
use heddle_model::{NamespacedName, Requirement, Selector};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Objects of one kind: all, or those that every given condition holds of. Conditions are those that Kubernetes
/// evaluates itself, so that what is out of scope never travels.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<Requirement>,
    #[serde(default)]
    metadata_only: bool,
}

impl Scope {
    /// All objects of a kind.
    pub const fn all(kind: Kind) -> Self {
        Self {
            kind,
            namespace: None,
            name: None,
            node: None,
            labels: Vec::new(),
            metadata_only: false,
        }
    }

    /// All objects of each of these kinds.
    pub fn each(kinds: &[Kind]) -> Vec<Self> {
        kinds.iter().copied().map(Self::all).collect()
    }

    /// Only those of a namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Only those of this name (field selector `metadata.name`).
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Only those placed on a node (field selector `spec.nodeName`, which Kubernetes has for Pods).
    #[must_use]
    pub fn on_node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Only those whose labels a selector selects.
    #[must_use]
    pub fn labelled(mut self, selector: &Selector) -> Self {
        self.labels = selector.requirements().to_vec();
        self
    }

    /// Of each object only `apiVersion`, `kind` and `metadata`.
    #[must_use]
    pub const fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }

    /// The kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The namespace, when it is about one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Kubernetes' `fieldSelector`; empty when there is none.
    pub fn field_selector(&self) -> String {
        let name = self.name.iter().map(|name| format!("metadata.name={name}"));
        let node = self.node.iter().map(|node| format!("spec.nodeName={node}"));
        name.chain(node).collect::<Vec<_>>().join(",")
    }

    /// What labels must be.
    pub fn requirements(&self) -> &[Requirement] {
        &self.labels
    }

    /// True when only metadata is wanted.
    pub const fn is_metadata_only(&self) -> bool {
        self.metadata_only
    }

    /// True when an object is in scope.
    pub fn contains(&self, object: &Object) -> bool {
        self.kind == object.kind && self.contains_of_its_kind(&object.name, &object.value)
    }

    fn contains_of_its_kind(&self, name: &NamespacedName, value: &Value) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        if !is(&self.namespace, &name.namespace) || !is(&self.name, &name.name) {
            return false;
        }
        let node = || value["spec"]["nodeName"].as_str().unwrap_or_default();
        if self.node.is_some() && !is(&self.node, node()) {
            return false;
        }
        if self.labels.is_empty() {
            return true;
        }
        let labels = &value["metadata"]["labels"];
        Selector::new(std::collections::BTreeMap::new(), self.labels.clone())
            .is_ok_and(|selector| selector.matches(|key| labels[key].as_str()))
    }
}

/// Which scopes one watcher has: an object is in scope when it is in one of them, and whole unless all of those
/// want its metadata only.
pub(crate) struct Scopes(Vec<Scope>);

impl Scopes {
    pub(crate) fn new(scopes: &[Scope]) -> Self {
        let mut distinct: Vec<Scope> = Vec::new();
        for scope in scopes {
            if !distinct.contains(scope) {
                distinct.push(scope.clone());
            }
        }
        Self(distinct)
    }

    /// The kinds that there is a scope of, each once.
    pub(crate) fn kinds(&self) -> std::collections::BTreeSet<Kind> {
        self.0.iter().map(Scope::kind).collect()
    }

    /// The object as these scopes show it; none when it is in none of them.
    pub(crate) fn view(&self, object: &Arc<Object>) -> Option<Arc<Object>> {
        let mut trimmed = false;
        for scope in self.0.iter().filter(|scope| scope.contains(object)) {
            if !scope.metadata_only {
                return Some(Arc::clone(object));
            }
            trimmed = true;
        }
        trimmed.then(|| Arc::new(metadata_of(object)))
    }
}

fn metadata_of(object: &Object) -> Object {
    let kept = ["apiVersion", "kind", "metadata"];
    let fields: Map<String, Value> = kept
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), object.value.get(field)?.clone())))
        .collect();
    Object {
        kind: object.kind,
        name: object.name.clone(),
        version: object.version.clone(),
        value: Value::Object(fields),
    }
}

/// The last state of an object that is gone, or went out of scope, as a watcher hears it: with the version at
/// which that was.
pub(crate) fn last_state(object: &Object, version: &Version) -> Object {
    let mut value = object.value.clone();
    value["metadata"]["resourceVersion"] = json!(version);
    Object {
        kind: object.kind,
        name: object.name.clone(),
        version: version.clone(),
        value,
    }
}
