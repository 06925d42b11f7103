//! A store in memory: for tests, and for everything that must not touch a disk.

use super::hub::{Batch, Hub, Tables, WATCH_QUEUE};
use super::objects::{Stored, Write, revision_of};
use super::{Event, Kind, Object, Scope, Store, StoreError, Version, Watch};
use async_trait::async_trait;
use heddle_model::NamespacedName;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// A [`Store`] that forgets everything when it is dropped. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore {
    hub: Arc<Hub>,
    writer: Arc<Mutex<()>>,
    /// Closed when the last clone is dropped: watches end.
    life: Arc<watch::Sender<()>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with(Tables::default())
    }

    /// A store that was written elsewhere: these objects as they are, versions included, and the revision of its
    /// last write.
    pub fn holding(objects: impl IntoIterator<Item = Object>, revision: u64) -> Self {
        let stored = objects.into_iter().map(|object| Stored {
            object: Arc::new(object),
            owners: Arc::default(),
        });
        Self::with(Tables::new(stored, revision))
    }

    fn with(tables: Tables) -> Self {
        Self {
            hub: Arc::new(Hub::new(tables)),
            writer: Arc::default(),
            life: Arc::new(watch::Sender::new(())),
        }
    }

    /// Revision of the last write.
    pub fn revision(&self) -> u64 {
        self.hub.revision()
    }

    fn write(&self, write: Write) -> Result<Object, StoreError> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::new(&self.hub);
        let object = batch.add(write)?;
        let changes = std::mem::take(&mut batch.changes);
        if !changes.is_empty() {
            self.hub.commit(&changes);
        }
        Ok(Object::clone(&object))
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn list(&self, scope: &Scope) -> Result<Vec<Object>, StoreError> {
        let objects = self.hub.list(scope);
        Ok(objects.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError> {
        self.hub.get(kind, name).map(Arc::unwrap_or_clone)
    }

    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.write(Write::Create { kind, value })
    }

    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.write(Write::Update { kind, value })
    }

    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError> {
        self.write(Write::ApplyStatus {
            kind,
            name: name.clone(),
            manager: manager.to_owned(),
            status,
        })
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError> {
        self.write(Write::Delete {
            kind,
            name: name.clone(),
            version: version.cloned(),
        })
        .map(|_| ())
    }

    fn watch(&self, scopes: &[Scope]) -> Watch {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        let mut follower = self.hub.follow(scopes);
        let mut life = self.life.subscribe();
        tokio::spawn(async move {
            let follow = async {
                loop {
                    let event: Event = follower.next().await.into();
                    if events.send(event).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                () = follow => {}
                () = events.closed() => {}
                _ = life.changed() => {}
            }
        });
        receiver
    }

    fn position(&self, version: &Version) -> Option<u64> {
        revision_of(version)
    }
}
