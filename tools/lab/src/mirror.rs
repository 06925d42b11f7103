//! A live copy of some kinds of the store's objects.

use heddle_kube::store::{Event, Kind, Object, Store, Watch};
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
    /// Revisions at which objects went, of those that went while this looked.
    pub gone: BTreeMap<Key, u64>,
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
                // What was written here is known before the stream tells it.
                if self
                    .objects
                    .get(&key)
                    .is_none_or(|known| known.revision <= object.revision)
                {
                    self.objects.insert(key, object);
                }
            }
            Event::Deleted(object) => {
                let key = (object.kind, object.name);
                self.objects.remove(&key);
                self.gone.insert(key, object.revision);
            }
            Event::Restarted => self.relisted = Some(BTreeSet::new()),
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
                        self.gone.insert(key, revision);
                    }
                }
                self.synced = true;
            }
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
            watch: store.watch(kinds),
        }
    }

    /// Waits until `done` holds of the objects; false when `end` comes first.
    pub async fn until(&mut self, end: Instant, mut done: impl FnMut(&Mirror) -> bool) -> bool {
        loop {
            while let Ok(event) = self.watch.try_recv() {
                self.mirror.note(event);
            }
            if self.mirror.synced && done(&self.mirror) {
                return true;
            }
            match tokio::time::timeout_at(end, self.watch.recv()).await {
                Ok(Some(event)) => self.mirror.note(event),
                Ok(None) | Err(_) => return false,
            }
        }
    }
}
