//! Which identities each selector in use matches, kept up to date at the cost of what a change touches.

use crate::{EndpointSelector, fast::NumberMap, link::SpecNo};
use heddle_model::{Identity, LabelSet, Operator, Requirement, Source};
use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// A selector in use.
pub(crate) type SelectorNo = u32;

/// Anchors that one selector hangs on at most; it hangs on a wider one rather than on more.
const MOST_ANCHORS: usize = 64;

#[derive(Clone, Debug)]
struct Slot {
    selector: Arc<EndpointSelector>,
    /// Sorted.
    matches: Vec<Identity>,
    /// With how often each uses it; sorted.
    users: Vec<(SpecNo, u32)>,
}

/// Every selector in use, once, with the identities it matches.
///
/// A selector hangs on an anchor: the hash of a namespace and of one label that it asks for, as far as
/// it asks for them. A new identity is only tried on the selectors that hang on what it bears, and a
/// new selector only on the identities that bear the rarest label it asks for. Hashes that collide cost a
/// comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelectorIndex {
    numbers: HashMap<Arc<EndpointSelector>, SelectorNo>,
    slots: Vec<Option<Slot>>,
    free: Vec<SelectorNo>,
    anchored: NumberMap<u64, Vec<SelectorNo>>,
    matched: NumberMap<Identity, Vec<SelectorNo>>,
}

/// Who bears which label: the other way around, for new selectors. One for all indexes.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelIndex {
    labels: NumberMap<Identity, Arc<LabelSet>>,
    identities: BTreeSet<Identity>,
    bearing: NumberMap<u64, Vec<Identity>>,
}

/// The hashes of an identity's labels.
pub(crate) struct Marks {
    namespace: Option<u64>,
    /// Of each label's key, and of key and value.
    labels: Vec<(u64, u64)>,
}

impl Marks {
    pub(crate) fn of(labels: &LabelSet) -> Self {
        Self {
            namespace: labels
                .namespace()
                .map(|namespace| hash(&(LabelSet::NAMESPACE, namespace))),
            labels: labels
                .iter()
                .filter(|(source, ..)| *source == Source::K8s)
                .map(|(_, key, value)| (hash(&key), hash(&(key, value))))
                .collect(),
        }
    }

    /// The anchors on which a selector may hang that matches these labels.
    fn anchors(&self) -> Vec<u64> {
        let mut anchors = Vec::with_capacity(3 + 4 * self.labels.len());
        // Whatever asks for no reserved label only matches pods; what asks for one may ask that it is absent.
        anchors.push(anchor(None, Some(RESERVED)));
        if self.namespace.is_some() {
            for namespace in [None, self.namespace] {
                anchors.push(anchor(namespace, None));
                for (key, pair) in &self.labels {
                    anchors.push(anchor(namespace, Some(*key)));
                    anchors.push(anchor(namespace, Some(*pair)));
                }
            }
        }
        anchors
    }
}

impl LabelIndex {
    pub(crate) fn get(&self, identity: Identity) -> Option<&Arc<LabelSet>> {
        self.labels.get(&identity)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Identity, &LabelSet)> {
        self.identities
            .iter()
            .filter_map(|identity| Some((*identity, self.labels.get(identity)?.as_ref())))
    }

    /// The cluster's own pods: every identity but the reserved ones.
    pub(crate) fn pods(&self) -> impl Iterator<Item = Identity> + '_ {
        let first = Identity::CLUSTER_FIRST;
        self.identities.range(first..).copied()
    }

    /// The reserved identities.
    pub(crate) fn reserved(&self) -> impl Iterator<Item = Identity> + '_ {
        let first = Identity::CLUSTER_FIRST;
        self.identities.range(..first).copied()
    }

    pub(crate) fn add(&mut self, identity: Identity, labels: Arc<LabelSet>, marks: &Marks) {
        for (key, pair) in &marks.labels {
            for hash in [key, pair] {
                insert_sorted(self.bearing.entry(*hash).or_default(), identity);
            }
        }
        self.identities.insert(identity);
        self.labels.insert(identity, labels);
    }

    pub(crate) fn remove(&mut self, identity: Identity) -> Option<Arc<LabelSet>> {
        let labels = self.labels.remove(&identity)?;
        self.identities.remove(&identity);
        let marks = Marks::of(&labels);
        for hash in marks.labels.into_iter().flat_map(|(key, pair)| [key, pair]) {
            if let Some(list) = self.bearing.get_mut(&hash) {
                remove_sorted(list, &identity);
                if list.is_empty() {
                    self.bearing.remove(&hash);
                }
            }
        }
        Some(labels)
    }

    /// The identities among which a selector finds all it matches, or `None`: among all.
    fn candidates(&self, selector: &EndpointSelector) -> Option<Vec<Identity>> {
        if selector.names_reserved() {
            return None;
        }
        let among = |requirement: &Requirement| -> Option<Vec<u64>> {
            match requirement.operator {
                Operator::In => Some(
                    requirement
                        .values
                        .iter()
                        .map(|value| hash(&(requirement.key.as_str(), value.as_str())))
                        .collect(),
                ),
                Operator::Exists => Some(vec![hash(&requirement.key.as_str())]),
                Operator::NotIn | Operator::DoesNotExist => None,
            }
        };
        let count = |hashes: &Vec<u64>| -> usize {
            hashes
                .iter()
                .map(|hash| self.bearing.get(hash).map_or(0, Vec::len))
                .sum()
        };
        let rarest = selector
            .requirements()
            .iter()
            .filter_map(among)
            .min_by_key(count)?;
        let mut found: Vec<Identity> = rarest
            .iter()
            .filter_map(|hash| self.bearing.get(hash))
            .flatten()
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        Some(found)
    }
}

impl SelectorIndex {
    /// Counts one more user of a selector.
    pub(crate) fn add(
        &mut self,
        selector: &EndpointSelector,
        user: SpecNo,
        label_index: &LabelIndex,
    ) -> SelectorNo {
        let number = match self.numbers.get(selector) {
            Some(number) => *number,
            None => self.insert(selector, label_index),
        };
        if let Some(slot) = self.slot_mut(number) {
            match slot.users.binary_search_by_key(&user, |(user, _)| *user) {
                Ok(at) => slot.users[at].1 += 1,
                Err(at) => slot.users.insert(at, (user, 1)),
            }
        }
        number
    }

    fn insert(&mut self, selector: &EndpointSelector, label_index: &LabelIndex) -> SelectorNo {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // As many selectors as numbers do not fit into memory.
            (self.slots.len() - 1) as SelectorNo
        });
        let matches: Vec<Identity> = match label_index.candidates(selector) {
            Some(candidates) => candidates
                .into_iter()
                .filter(|identity| {
                    label_index
                        .get(*identity)
                        .is_some_and(|l| selector.matches(l))
                })
                .collect(),
            None => label_index
                .iter()
                .filter(|(_, labels)| selector.matches(labels))
                .map(|(identity, _)| identity)
                .collect(),
        };
        for identity in &matches {
            insert_sorted(self.matched.entry(*identity).or_default(), number);
        }
        for anchor in anchors_of(selector) {
            self.anchored.entry(anchor).or_default().push(number);
        }
        let selector = Arc::new(selector.clone());
        self.numbers.insert(Arc::clone(&selector), number);
        self.slots[number as usize] = Some(Slot {
            selector,
            matches,
            users: Vec::new(),
        });
        number
    }

    /// Counts one user less; a selector without users is forgotten.
    pub(crate) fn remove(&mut self, number: SelectorNo, user: SpecNo) {
        let Some(slot) = self.slot_mut(number) else {
            return;
        };
        if let Ok(at) = slot.users.binary_search_by_key(&user, |(user, _)| *user) {
            slot.users[at].1 -= 1;
            if slot.users[at].1 == 0 {
                slot.users.remove(at);
            }
        }
        if !slot.users.is_empty() {
            return;
        }
        let Some(slot) = self.slots[number as usize].take() else {
            return;
        };
        for identity in &slot.matches {
            if let Some(list) = self.matched.get_mut(identity) {
                remove_sorted(list, &number);
                if list.is_empty() {
                    self.matched.remove(identity);
                }
            }
        }
        for anchor in anchors_of(&slot.selector) {
            if let Some(list) = self.anchored.get_mut(&anchor) {
                drop_value(list, number);
                if list.is_empty() {
                    self.anchored.remove(&anchor);
                }
            }
        }
        self.numbers.remove(&slot.selector);
        self.free.push(number);
    }

    /// Learns an identity that it does not hold.
    pub(crate) fn add_identity(&mut self, identity: Identity, labels: &LabelSet, marks: &Marks) {
        let mut matched = Vec::new();
        for anchor in marks.anchors() {
            for number in self.anchored.get(&anchor).into_iter().flatten() {
                if let Some(Some(slot)) = self.slots.get_mut(*number as usize)
                    && slot.selector.matches(labels)
                    && insert_sorted(&mut slot.matches, identity)
                {
                    matched.push(*number);
                }
            }
        }
        if !matched.is_empty() {
            matched.sort_unstable();
            self.matched.insert(identity, matched);
        }
    }

    /// Forgets an identity.
    pub(crate) fn remove_identity(&mut self, identity: Identity) {
        for number in self.matched.remove(&identity).into_iter().flatten() {
            if let Some(slot) = self.slot_mut(number) {
                remove_sorted(&mut slot.matches, &identity);
            }
        }
    }

    /// The identities that a selector in use matches, sorted.
    pub(crate) fn matches(&self, number: SelectorNo) -> &[Identity] {
        self.slot(number).map_or(&[], |slot| &slot.matches)
    }

    /// The selectors in use that match the identity, sorted.
    pub(crate) fn matching(&self, identity: Identity) -> &[SelectorNo] {
        self.matched.get(&identity).map_or(&[], Vec::as_slice)
    }

    /// The users of the selectors that match the identity; one may come more than once.
    pub(crate) fn users_matching(&self, identity: Identity) -> impl Iterator<Item = SpecNo> + '_ {
        self.matched
            .get(&identity)
            .into_iter()
            .flatten()
            .filter_map(|number| self.slot(*number))
            .flat_map(|slot| slot.users.iter().map(|(user, _)| *user))
    }

    fn slot(&self, number: SelectorNo) -> Option<&Slot> {
        self.slots.get(number as usize)?.as_ref()
    }

    fn slot_mut(&mut self, number: SelectorNo) -> Option<&mut Slot> {
        self.slots.get_mut(number as usize)?.as_mut()
    }
}

/// Only ever compared, so a collision costs time alone.
fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What selectors that ask for reserved labels hang on.
const RESERVED: u64 = 1;

/// The anchor of a namespace and a label, each by its hash.
fn anchor(namespace: Option<u64>, label: Option<u64>) -> u64 {
    hash(&(namespace, label))
}

/// The anchors that a selector hangs on: whatever it matches bears exactly one of them.
fn anchors_of(selector: &EndpointSelector) -> Vec<u64> {
    if selector.names_reserved() {
        return vec![anchor(None, Some(RESERVED))];
    }
    let requirements = selector.requirements();
    let pairs_of = |requirement: &Requirement| -> Vec<u64> {
        let key = requirement.key.as_str();
        let mut pairs: Vec<u64> = requirement
            .values
            .iter()
            .map(|value| hash(&(key, value.as_str())))
            .collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    };
    let namespaces: Vec<u64> = requirements
        .iter()
        .find(|r| r.key == LabelSet::NAMESPACE && r.operator == Operator::In)
        .map(pairs_of)
        .unwrap_or_default();
    let others = || requirements.iter().filter(|r| r.key != LabelSet::NAMESPACE);
    let narrowest = others()
        .filter(|r| r.operator == Operator::In)
        .min_by_key(|r| r.values.len());
    let labels: Vec<u64> = match narrowest {
        Some(requirement) => pairs_of(requirement),
        None => others()
            .find(|r| r.operator == Operator::Exists)
            .map(|r| hash(&r.key.as_str()))
            .into_iter()
            .collect(),
    };
    let in_namespaces = || {
        namespaces
            .iter()
            .map(|it| anchor(Some(*it), None))
            .collect()
    };
    match (namespaces.len(), labels.len()) {
        (0, 0) => vec![anchor(None, None)],
        (_, 0) => in_namespaces(),
        (0, _) => labels.iter().map(|it| anchor(None, Some(*it))).collect(),
        (n, l) if n * l <= MOST_ANCHORS => namespaces
            .iter()
            .flat_map(|n| labels.iter().map(|l| anchor(Some(*n), Some(*l))))
            .collect(),
        (n, l) if n <= l => in_namespaces(),
        _ => labels.iter().map(|it| anchor(None, Some(*it))).collect(),
    }
}

/// Inserts into a sorted list; false when it was there.
fn insert_sorted<T: Ord>(list: &mut Vec<T>, value: T) -> bool {
    match list.binary_search(&value) {
        Ok(_) => false,
        Err(at) => {
            list.insert(at, value);
            true
        }
    }
}

fn remove_sorted<T: Ord>(list: &mut Vec<T>, value: &T) {
    if let Ok(at) = list.binary_search(value) {
        list.remove(at);
    }
}

fn drop_value(list: &mut Vec<SelectorNo>, number: SelectorNo) {
    if let Some(at) = list.iter().position(|known| *known == number) {
        list.swap_remove(at);
    }
}

#[cfg(test)]
mod tests;
