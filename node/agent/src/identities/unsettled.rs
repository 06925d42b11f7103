//! Labels and identities of local endpoints that are still to be settled with the store.

use super::due::Due;
use heddle_model::{Identity, LabelSet};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often an identity that a namespace's limits refused is asked for again.
const LIMIT_INTERVAL: Duration = Duration::from_secs(5);

/// What is still to be settled.
#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    /// Local endpoints whose labels have to be looked at again.
    pub(crate) relabel: Due<u16>,
    /// Local endpoints whose object in the store is to be written again.
    pub(crate) republish: Due<u16>,
    /// Identities of local endpoints whose objects are gone from the store and have to be made again.
    pub(crate) reassert: Due<Identity>,
    /// Identities of local endpoints whose number stands for other labels in the store, and these labels.
    contested: BTreeMap<Identity, LabelSet>,
    /// Endpoints whose labels have no identity because of their namespace's limits: which limit, and since when.
    limited: BTreeMap<u16, (String, Instant)>,
}

impl Unsettled {
    /// An endpoint is gone, and everything about it settled.
    pub(crate) fn forget(&mut self, endpoint: u16) {
        self.relabel.remove(endpoint);
        self.republish.remove(endpoint);
        self.limited.remove(&endpoint);
    }

    /// Every change of labels is in force, and known to the other nodes.
    pub(crate) fn is_empty(&self) -> bool {
        self.relabel.is_empty() && self.republish.is_empty()
    }

    /// The labels that the store says of a contested identity; empty when nobody can read them.
    pub(crate) fn contested(&self, identity: Identity) -> Option<&LabelSet> {
        self.contested.get(&identity)
    }

    /// An identity of local endpoints stands for these other labels.
    pub(crate) fn contest(&mut self, identity: Identity, others: LabelSet) {
        self.contested.insert(identity, others);
    }

    /// It does not any more. The labels that the store said.
    pub(crate) fn end_contest(&mut self, identity: Identity) -> Option<LabelSet> {
        self.contested.remove(&identity)
    }

    /// What an operator should know of numbers in conflict.
    pub(crate) fn contested_notice(&self) -> Option<String> {
        let numbers: Vec<String> = self.contested.keys().map(ToString::to_string).collect();
        (!numbers.is_empty()).then(|| {
            format!(
                "identities {} stand for other labels in the store than pods of this node have: the pods keep their labels and policy and are moved to other numbers",
                numbers.join(", ")
            )
        })
    }

    /// A limit of its namespace keeps an endpoint's labels from an identity.
    pub(crate) fn limit(&mut self, endpoint: u16, reason: String) {
        self.limited.insert(endpoint, (reason, Instant::now()));
    }

    pub(crate) fn end_limit(&mut self, endpoint: u16) {
        self.limited.remove(&endpoint);
    }

    /// Endpoints whose labels have no identity, and which limit is why.
    pub(crate) fn limited(&self) -> impl Iterator<Item = (u16, &str)> {
        let limited = self.limited.iter();
        limited.map(|(id, (reason, _))| (*id, reason.as_str()))
    }

    /// Endpoints that met a limit are due again after a while.
    pub(crate) fn retry_limited(&mut self) {
        for (id, (_, since)) in &mut self.limited {
            if since.elapsed() >= LIMIT_INTERVAL {
                *since = Instant::now();
                self.relabel.insert(*id);
            }
        }
    }
}
