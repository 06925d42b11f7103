//! The pods of the manifests by identity, and which of them a selector selects.

use crate::{Cluster, Node};
use heddle_model::{Identity, LabelSet, Operator, Requirement};
use heddle_policy::EndpointSelector;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Key by which a namespace's labels name it.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// What a selector finds among the manifests.
pub(super) enum Finding {
    /// Some pods.
    Pods(Rc<BTreeSet<Identity>>),
    /// No pod, and the manifests are about the place where it looks: it has pods, with other labels.
    NoPod {
        /// Labels that pods there have under the keys that it asks for.
        instead: Vec<String>,
    },
    /// No node, and nodes are written with their labels.
    NoNode,
    /// No namespace, and every namespace of the manifests is written with its labels.
    NoNamespace,
    /// The manifests do not speak of the place where it looks.
    Elsewhere,
}

/// The pods of a cluster by identity; those in their node's network have none.
pub(super) struct Population<'a> {
    cluster: &'a Cluster,
    by_identity: BTreeMap<Identity, Vec<usize>>,
    by_namespace: BTreeMap<&'a str, BTreeSet<Identity>>,
    known: RefCell<BTreeMap<EndpointSelector, Rc<BTreeSet<Identity>>>>,
}

impl<'a> Population<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        let mut by_identity: BTreeMap<Identity, Vec<usize>> = BTreeMap::new();
        let mut by_namespace: BTreeMap<&str, BTreeSet<Identity>> = BTreeMap::new();
        for (position, pod) in cluster.pods.iter().enumerate() {
            if pod.host_network {
                continue;
            }
            by_identity.entry(pod.identity).or_default().push(position);
            let of_namespace = by_namespace.entry(&pod.name.namespace).or_default();
            of_namespace.insert(pod.identity);
        }
        Self {
            cluster,
            by_identity,
            by_namespace,
            known: RefCell::default(),
        }
    }

    /// The pods with this identity, by position.
    pub(super) fn pods(&self, identity: Identity) -> &[usize] {
        self.by_identity.get(&identity).map_or(&[], Vec::as_slice)
    }

    /// The identities that a selector selects.
    pub(super) fn selected(&self, selector: &EndpointSelector) -> Rc<BTreeSet<Identity>> {
        if let Some(known) = self.known.borrow().get(selector) {
            return Rc::clone(known);
        }
        let selects = |identity: &&Identity| {
            let labels = self.cluster.engine.labels(**identity);
            labels.is_some_and(|labels| selector.matches(labels))
        };
        let place = selector
            .requirements()
            .iter()
            .find(|r| r.key == LabelSet::NAMESPACE && r.operator == Operator::In);
        let found: BTreeSet<Identity> = match place {
            Some(place) => place
                .values
                .iter()
                .filter_map(|namespace| self.by_namespace.get(namespace.as_str()))
                .flatten()
                .filter(selects)
                .copied()
                .collect(),
            None => self.by_identity.keys().filter(selects).copied().collect(),
        };
        let found = Rc::new(found);
        let mut known = self.known.borrow_mut();
        known.insert(selector.clone(), Rc::clone(&found));
        found
    }

    /// What a selector finds, and when it finds nothing, whether that means anything.
    pub(super) fn find(&self, selector: &EndpointSelector) -> Finding {
        let selected = self.selected(selector);
        if !selected.is_empty() {
            return Finding::Pods(selected);
        }
        if selector.selects_nodes() {
            return self.find_nodes(selector);
        }
        if selector.names_reserved() {
            return Finding::Elsewhere;
        }
        let (place, pods): (Vec<&Requirement>, Vec<&Requirement>) =
            selector.requirements().iter().partition(|requirement| {
                requirement.key == LabelSet::NAMESPACE
                    || requirement.key.starts_with(LabelSet::NAMESPACE_LABELS)
            });
        let mut names_one = false;
        for requirement in &place {
            let by_name = requirement.key == LabelSet::NAMESPACE
                || requirement.key.strip_prefix(LabelSet::NAMESPACE_LABELS) == Some(METADATA_NAME);
            names_one |= by_name && requirement.operator == Operator::In;
        }
        let known = self.cluster.known_namespaces();
        let mut there = BTreeSet::new();
        for (name, labels) in &known {
            let fits = |requirement: &&Requirement| {
                fits(requirement, name, *labels)
                    // Of a namespace that is not written the labels are not known.
                    || (labels.is_none() && !is_by_name(requirement))
            };
            if place.iter().all(fits) {
                if labels.is_none() && place.iter().any(|r| !is_by_name(r)) {
                    return Finding::Elsewhere;
                }
                there.extend(self.by_namespace.get(name).into_iter().flatten().copied());
            }
        }
        if !there.is_empty() {
            return Finding::NoPod {
                instead: self.labels_of(&there, &pods),
            };
        }
        let all_written = !known.is_empty() && known.values().all(Option::is_some);
        let fits_some = known
            .iter()
            .any(|(name, labels)| place.iter().all(|r| fits(r, name, *labels)));
        if names_one || fits_some || !all_written {
            Finding::Elsewhere
        } else {
            Finding::NoNamespace
        }
    }

    /// What a selector of nodes finds; manifests without labelled nodes do not speak of them.
    fn find_nodes(&self, selector: &EndpointSelector) -> Finding {
        let nodes = &self.cluster.nodes;
        let mut found = (0..nodes.len()).filter_map(Node::subject).filter(|node| {
            let labels = self.cluster.engine.labels(*node);
            labels.is_some_and(|labels| selector.matches(labels))
        });
        let written = nodes.iter().any(|node| !node.labels.is_empty());
        if found.next().is_some() || !written {
            Finding::Elsewhere
        } else {
            Finding::NoNode
        }
    }

    /// The labels under the keys of the requirements, of pods with these identities.
    fn labels_of(&self, identities: &BTreeSet<Identity>, asked: &[&Requirement]) -> Vec<String> {
        let mut found = BTreeSet::new();
        for identity in identities {
            let Some(labels) = self.cluster.engine.labels(*identity) else {
                continue;
            };
            for requirement in asked {
                if let Some(value) = labels.get(&requirement.key) {
                    found.insert(format!("{}={value}", requirement.key));
                }
            }
        }
        found.into_iter().take(5).collect()
    }
}

fn is_by_name(requirement: &Requirement) -> bool {
    requirement.key == LabelSet::NAMESPACE
        || requirement.key.strip_prefix(LabelSet::NAMESPACE_LABELS) == Some(METADATA_NAME)
}

/// Whether a requirement on the place holds for a namespace.
fn fits(requirement: &Requirement, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = match requirement.key.strip_prefix(LabelSet::NAMESPACE_LABELS) {
        None | Some(METADATA_NAME) => Some(name),
        Some(key) => labels
            .and_then(|labels| labels.get(key))
            .map(String::as_str),
    };
    let has = |value: &str| requirement.values.iter().any(|wanted| wanted == value);
    match requirement.operator {
        Operator::In => value.is_some_and(has),
        Operator::NotIn => !value.is_some_and(has),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
    }
}
