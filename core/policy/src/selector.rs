//! Endpoint selectors, and the index that knows which identities each one matches.

use crate::engine::SpecKey;
use heddle_model::{Identity, LabelSet, Operator, Requirement, Selector, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

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

    /// The namespaces outside of which it selects nothing, if it names some.
    fn namespaces(&self) -> Option<&[String]> {
        self.requirements()
            .iter()
            .find(|requirement| {
                requirement.key == LabelSet::NAMESPACE && requirement.operator == Operator::In
            })
            .map(|requirement| requirement.values.as_slice())
    }
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
        let mut places = Vec::new();
        let mut labels = Vec::new();
        for Requirement {
            key,
            operator,
            values,
        } in self.requirements()
        {
            let (place, key) = match key.strip_prefix(LabelSet::NAMESPACE_LABELS) {
                Some(rest) => (true, rest),
                None if key == LabelSet::NAMESPACE => (true, "name"),
                None => (false, key.as_str()),
            };
            let text = match (operator, values.as_slice()) {
                (Operator::In, [one]) => format!("{key}={one}"),
                (Operator::In, many) => format!("{key} in ({})", many.join(",")),
                (Operator::NotIn, many) => format!("{key} not in ({})", many.join(",")),
                (Operator::Exists, _) if place && key == "name" => continue,
                (Operator::Exists, _) => format!("{key} exists"),
                (Operator::DoesNotExist, _) => format!("no {key}"),
            };
            if place { &mut places } else { &mut labels }.push(text);
        }
        let pods = if labels.is_empty() {
            "all pods".to_owned()
        } else {
            format!("pods with {}", labels.join(", "))
        };
        if places.is_empty() {
            write!(f, "{pods} of any namespace")
        } else {
            write!(f, "{pods} of namespaces with {}", places.join(", "))
        }
    }
}

/// What a policy's part uses a selector for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Role {
    /// It tells which endpoints the part is about.
    Subject,
    /// It tells which peers a rule is about.
    Peer,
}

#[derive(Clone, Debug)]
struct Slot {
    selector: EndpointSelector,
    matches: BTreeSet<Identity>,
    users: BTreeMap<(Role, SpecKey), usize>,
}

/// Every selector in use, once, with the identities it matches.
///
/// Selectors that name namespaces are only tried on identities of these, so that a change costs what
/// its own namespace holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelectorIndex {
    numbers: BTreeMap<EndpointSelector, u32>,
    slots: BTreeMap<u32, Slot>,
    next: u32,
    bound: BTreeMap<String, BTreeSet<u32>>,
    unbound: BTreeSet<u32>,
    matched: BTreeMap<Identity, BTreeSet<u32>>,
    pods: BTreeMap<String, BTreeSet<Identity>>,
}

impl SelectorIndex {
    pub(crate) fn add(
        &mut self,
        selector: &EndpointSelector,
        role: Role,
        user: &SpecKey,
        identities: &BTreeMap<Identity, LabelSet>,
    ) {
        let number = match self.numbers.get(selector) {
            Some(number) => *number,
            None => self.insert(selector, identities),
        };
        if let Some(slot) = self.slots.get_mut(&number) {
            *slot.users.entry((role, user.clone())).or_default() += 1;
        }
    }

    fn insert(
        &mut self,
        selector: &EndpointSelector,
        identities: &BTreeMap<Identity, LabelSet>,
    ) -> u32 {
        let number = self.next;
        self.next += 1;
        let mut matches = BTreeSet::new();
        match selector.namespaces() {
            Some(namespaces) => {
                for namespace in namespaces {
                    self.bound
                        .entry(namespace.clone())
                        .or_default()
                        .insert(number);
                    for identity in self.pods.get(namespace).into_iter().flatten() {
                        if identities
                            .get(identity)
                            .is_some_and(|l| selector.matches(l))
                        {
                            matches.insert(*identity);
                        }
                    }
                }
            }
            None => {
                self.unbound.insert(number);
                for (identity, labels) in identities {
                    if selector.matches(labels) {
                        matches.insert(*identity);
                    }
                }
            }
        }
        for identity in &matches {
            self.matched.entry(*identity).or_default().insert(number);
        }
        self.numbers.insert(selector.clone(), number);
        self.slots.insert(
            number,
            Slot {
                selector: selector.clone(),
                matches,
                users: BTreeMap::new(),
            },
        );
        number
    }

    pub(crate) fn remove(&mut self, selector: &EndpointSelector, role: Role, user: &SpecKey) {
        let Some(&number) = self.numbers.get(selector) else {
            return;
        };
        let Some(slot) = self.slots.get_mut(&number) else {
            return;
        };
        let key = (role, user.clone());
        if let Some(count) = slot.users.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                slot.users.remove(&key);
            }
        }
        if !slot.users.is_empty() {
            return;
        }
        for identity in &slot.matches {
            if let Some(set) = self.matched.get_mut(identity) {
                set.remove(&number);
            }
        }
        for namespace in selector.namespaces().into_iter().flatten() {
            if let Some(set) = self.bound.get_mut(namespace) {
                set.remove(&number);
                if set.is_empty() {
                    self.bound.remove(namespace);
                }
            }
        }
        self.unbound.remove(&number);
        self.slots.remove(&number);
        self.numbers.remove(selector);
    }

    /// Learns an identity that it does not hold.
    pub(crate) fn add_identity(&mut self, identity: Identity, labels: &LabelSet) {
        let mut candidates: Vec<u32> = self.unbound.iter().copied().collect();
        if let Some(namespace) = labels.namespace() {
            self.pods
                .entry(namespace.to_owned())
                .or_default()
                .insert(identity);
            candidates.extend(self.bound.get(namespace).into_iter().flatten());
        }
        let mut matched = BTreeSet::new();
        for number in candidates {
            if let Some(slot) = self.slots.get_mut(&number)
                && slot.selector.matches(labels)
            {
                slot.matches.insert(identity);
                matched.insert(number);
            }
        }
        self.matched.insert(identity, matched);
    }

    pub(crate) fn remove_identity(&mut self, identity: Identity, labels: &LabelSet) {
        for number in self.matched.remove(&identity).into_iter().flatten() {
            if let Some(slot) = self.slots.get_mut(&number) {
                slot.matches.remove(&identity);
            }
        }
        if let Some(namespace) = labels.namespace()
            && let Some(set) = self.pods.get_mut(namespace)
        {
            set.remove(&identity);
            if set.is_empty() {
                self.pods.remove(namespace);
            }
        }
    }

    /// The identities that a selector in use matches.
    pub(crate) fn matches(
        &self,
        selector: &EndpointSelector,
    ) -> impl Iterator<Item = Identity> + '_ {
        self.numbers
            .get(selector)
            .and_then(|number| self.slots.get(number))
            .into_iter()
            .flat_map(|slot| slot.matches.iter().copied())
    }

    /// The parts of policies that use, in this role, a selector that matches the identity.
    pub(crate) fn users_matching(&self, identity: Identity, role: Role) -> BTreeSet<&SpecKey> {
        self.matched
            .get(&identity)
            .into_iter()
            .flatten()
            .filter_map(|number| self.slots.get(number))
            .flat_map(|slot| slot.users.keys())
            .filter(|(used_as, _)| *used_as == role)
            .map(|(_, user)| user)
            .collect()
    }
}
