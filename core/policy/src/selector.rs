//! Endpoint selectors.

use heddle_model::{LabelSet, Operator, Requirement, Selector, Source};
use std::fmt;

/// Prefix of a key that asks for a reserved label.
const RESERVED: &str = "reserved:";

/// A selector over the labels of an identity.
///
/// Keys without a source ask for Kubernetes labels, `reserved:NAME` for reserved ones. A selector that names
/// no reserved label only selects pods (reference I6): `NotIn` and `DoesNotExist` do not select hosts or
/// the world just because these have no labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointSelector(Selector);

impl EndpointSelector {
    /// A selector whose keys follow the rule above.
    pub const fn new(selector: Selector) -> Self {
        Self(selector)
    }

    /// A selector of nodes by their own labels: a host policy's subjects.
    pub fn of_nodes(labels: &Selector) -> Self {
        Self(labels.and_exists(format!("{RESERVED}{}", LabelSet::NODE)))
    }

    /// True when it selects nodes.
    pub fn selects_nodes(&self) -> bool {
        self.requirements().iter().any(is_node)
    }

    /// Its requirements.
    pub fn requirements(&self) -> &[Requirement] {
        self.0.requirements()
    }

    /// True when it selects an endpoint with these labels.
    pub fn matches(&self, labels: &LabelSet) -> bool {
        (self.names_reserved() || labels.namespace().is_some())
            && self.0.matches(|key| match key.strip_prefix(RESERVED) {
                Some(name) => reserved(labels, name),
                None => labels.get(key),
            })
    }

    /// True when it asks for reserved labels.
    pub fn names_reserved(&self) -> bool {
        self.requirements()
            .iter()
            .any(|requirement| requirement.key.starts_with(RESERVED))
    }
}

/// True for the requirement that only nodes meet.
fn is_node(requirement: &Requirement) -> bool {
    requirement.key.strip_prefix(RESERVED) == Some(LabelSet::NODE)
}

/// The value of a reserved label; the identities of the world and of API server nodes bear the label of the
/// wider group too (references I3, I7b).
fn reserved<'a>(labels: &'a LabelSet, name: &str) -> Option<&'a str> {
    let narrower: &[&str] = match name {
        "world" => &["world-ipv4", "world-ipv6"],
        "remote-node" => &["kube-apiserver"],
        _ => &[],
    };
    std::iter::once(&name)
        .chain(narrower)
        .find_map(|name| labels.get_from(Source::Reserved, name))
}

impl fmt::Display for EndpointSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.selects_nodes() {
            return write_nodes(f, self.requirements().iter().filter(|r| !is_node(r)));
        }
        let place =
            |key: &str| key.starts_with(LabelSet::NAMESPACE_LABELS) || key == LabelSet::NAMESPACE;
        let of = |places: bool| {
            self.requirements().iter().filter(move |r| {
                // That there is a namespace is what makes it a pod.
                let implied = r.key == LabelSet::NAMESPACE && r.operator == Operator::Exists;
                place(&r.key) == places && !implied
            })
        };
        let mut separator = "pods with ";
        for requirement in of(false) {
            f.write_str(separator)?;
            requirement.describe(&requirement.key, f)?;
            separator = ", ";
        }
        if separator != ", " {
            f.write_str("all pods")?;
        }
        let mut separator = " of namespaces with ";
        for requirement in of(true) {
            f.write_str(separator)?;
            let rest = requirement.key.strip_prefix(LabelSet::NAMESPACE_LABELS);
            let key = rest.unwrap_or("name");
            requirement.describe(key, f)?;
            separator = ", ";
        }
        if separator != ", " {
            f.write_str(" of any namespace")?;
        }
        Ok(())
    }
}

/// Nodes by their labels, in an operator's words.
pub(crate) fn write_nodes<'a>(
    f: &mut fmt::Formatter<'_>,
    requirements: impl Iterator<Item = &'a Requirement>,
) -> fmt::Result {
    let mut separator = "nodes with ";
    for requirement in requirements {
        f.write_str(separator)?;
        requirement.describe(&requirement.key, f)?;
        separator = ", ";
    }
    if separator != ", " {
        f.write_str("all nodes")?;
    }
    Ok(())
}
