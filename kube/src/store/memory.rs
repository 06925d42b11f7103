//! A store in memory: for tests, and for everything that must not touch a disk.

use super::hub::{Batch, Hub, Tables, WATCH_QUEUE};
use super::objects::Write;
use super::{Event, Kind, Object, Store, StoreError, Watch};
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
        Self {
            hub: Arc::new(Hub::new(Tables::default())),
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
    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Object>, StoreError> {
        let objects = self.hub.list(kind, namespace);
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

    async fn patch_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        status: Value,
    ) -> Result<Object, StoreError> {
        let name = name.clone();
        self.write(Write::PatchStatus { kind, name, status })
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        revision: Option<u64>,
    ) -> Result<(), StoreError> {
        let name = name.clone();
        self.write(Write::Delete {
            kind,
            name,
            revision,
        })
        .map(|_| ())
    }

    fn watch(&self, kinds: &[Kind]) -> Watch {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        let mut follower = self.hub.follow(kinds);
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
}
