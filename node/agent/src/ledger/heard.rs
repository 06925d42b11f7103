//! How far the store has been heard.

use heddle_kube::store::{Event, Kind};
use heddle_model::NamespacedName;
use std::collections::BTreeSet;

type Key = (Kind, NamespacedName);

/// What the watch has said.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// How far the watch was when everything up to there had been said.
    revision: u64,
    /// How far it was when the newest event about policies, or what they refer to, had been said.
    policy_revision: u64,
    /// Everything has been heard at least once.
    complete: bool,
    /// Objects known, to see what is gone after a watch started over.
    known: BTreeSet<Key>,
    /// Objects said again since the watch started over.
    repeated: Option<BTreeSet<Key>>,
}

impl Heard {
    /// Takes note of an event. Objects that are gone: those that were not said again by the time the watch, started
    /// over, has said everything.
    pub(crate) fn note(&mut self, event: &Event) -> BTreeSet<Key> {
        match event {
            Event::Applied(object) => {
                let key = (object.kind, object.name.clone());
                if let Some(repeated) = &mut self.repeated {
                    repeated.insert(key.clone());
                }
                self.known.insert(key);
            }
            Event::Deleted(object) => {
                self.known.remove(&(object.kind, object.name.clone()));
            }
            Event::Restarted => self.repeated = Some(BTreeSet::new()),
            Event::Synced { revision } => {
                self.revision = self.revision.max(*revision);
                self.complete = true;
                if let Some(repeated) = self.repeated.take() {
                    let gone = &self.known - &repeated;
                    self.known.retain(|key| !gone.contains(key));
                    return gone;
                }
            }
        }
        BTreeSet::new()
    }

    /// What was said until the watch came to an end of it has been taken in; whether policies, or what they refer to,
    /// were among it.
    pub(crate) fn all_said(&mut self, policies: bool) {
        if policies {
            self.policy_revision = self.policy_revision.max(self.revision);
        }
    }

    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// How far the watch was when the newest policy event had been said.
    pub(crate) const fn policy_revision(&self) -> u64 {
        self.policy_revision
    }

    /// Everything has been heard at least once.
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// True between a lost connection and its being made good.
    pub(crate) const fn is_starting_over(&self) -> bool {
        self.repeated.is_some()
    }

    /// Whether the store has an object, as far as it has been heard.
    pub(crate) fn knows(&self, kind: Kind, name: &NamespacedName) -> bool {
        self.known.contains(&(kind, name.clone()))
    }
}
