//! A live copy of some kinds of the store's objects.

use heddle_kube::store::{Event, Kind, Object, Scope, Store, Version, Watch};
use heddle_model::NamespacedName;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// What an object is known by.
pub type Key = (Kind, NamespacedName);

/// The objects as the store's stream of changes tells them.
#[derive(Debug, Default)]
pub struct Mirror {
    /// What exists.
    pub objects: BTreeMap<Key, Object>,
    /// How far the watch was when it had said that an object went, of those that went while this looked.
    pub gone: BTreeMap<Key, u64>,
    /// Objects that went, said but not synced yet.
    going: BTreeSet<Key>,
    /// What was written here and the stream has not told yet: it may still tell what was before.
    written: BTreeMap<Key, Version>,
    /// True once everything that existed at the beginning has been told.
    pub synced: bool,
    /// What was said since the list started over; what is missing from it at its end is gone.
    relisted: Option<BTreeSet<Key>>,
}

impl Mirror {
    /// Takes an event in.
    pub fn note(&mut self, event: Event) {
        match event {
            Event::Applied(object) => {
                let key = (object.kind, object.name.clone());
                if let Some(seen) = &mut self.relisted {
                    seen.insert(key.clone());
                }
                if !self.is_older_than_written(&key, &object.version) {
                    self.objects.insert(key, object);
                }
            }
            Event::Deleted(object) => {
                let key = (object.kind, object.name);
                if !self.is_older_than_written(&key, &object.version) {
                    self.objects.remove(&key);
                }
                self.going.insert(key);
            }
            Event::Restarted => {
                self.relisted = Some(BTreeSet::new());
                // The list is newer than every write before it.
                self.written.clear();
            }
            Event::Synced { revision } => {
                if let Some(seen) = self.relisted.take() {
                    let lost: Vec<Key> = self
                        .objects
                        .keys()
                        .filter(|key| !seen.contains(*key))
                        .cloned()
                        .collect();
                    for key in lost {
                        self.objects.remove(&key);
                        self.going.insert(key);
                    }
                }
                let gone = std::mem::take(&mut self.going);
                self.gone
                    .extend(gone.into_iter().map(|key| (key, revision)));
                self.synced = true;
            }
        }
    }

    /// Takes in what was just written here: it is known before the stream tells it.
    pub fn wrote(&mut self, object: Object) {
        let key = (object.kind, object.name.clone());
        let is_new = self
            .objects
            .get(&key)
            .is_none_or(|known| known.version != object.version);
        if is_new {
            self.written.insert(key.clone(), object.version.clone());
        }
        self.objects.insert(key, object);
    }

    /// True for what the stream tells of an object before it tells what was written here.
    fn is_older_than_written(&mut self, key: &Key, version: &Version) -> bool {
        match self.written.get(key) {
            Some(written) if written == version => {
                self.written.remove(key);
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Objects of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .iter()
            .filter(move |((of, _), _)| *of == kind)
            .map(|(_, object)| object)
    }
}

/// A mirror with its stream, for a command that waits for something.
pub struct Follower {
    /// The objects.
    pub mirror: Mirror,
    watch: Watch,
}

impl Follower {
    /// Follows these kinds.
    pub fn new(store: &dyn Store, kinds: &[Kind]) -> Self {
        Self {
            mirror: Mirror::default(),
            watch: store.watch(&Scope::each(kinds)),
        }
    }

    /// Waits until `done` holds of the objects; false when `end` comes first.
    pub async fn until(&mut self, end: Instant, mut done: impl FnMut(&Mirror) -> bool) -> bool {
        loop {
            while let Ok(event) = self.watch.try_recv() {
                self.mirror.note(event);
            }
            // What is going is gone once the stream says how far it is.
            if self.mirror.synced && self.mirror.going.is_empty() && done(&self.mirror) {
                return true;
            }
            match tokio::time::timeout_at(end, self.watch.recv()).await {
                Ok(Some(event)) => self.mirror.note(event),
                Ok(None) | Err(_) => return false,
            }
        }
    }
}
