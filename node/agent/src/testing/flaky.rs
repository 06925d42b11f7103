//! A store that can be cut off, or whose writes hang.

use async_trait::async_trait;
use heddle_kube::store::memory::MemoryStore;
use heddle_kube::store::{Kind, Object, Scope, Store, StoreError, Version, Watch};
use heddle_model::NamespacedName;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A store behind a wire; a watch that has begun goes on over a cut.
#[derive(Clone)]
pub(crate) struct FlakyStore {
    store: MemoryStore,
    down: Arc<AtomicBool>,
    hanging: tokio::sync::watch::Sender<bool>,
    refused_writes: Arc<AtomicUsize>,
}

impl FlakyStore {
    pub(crate) fn new(store: MemoryStore) -> Self {
        Self {
            store,
            down: Arc::default(),
            hanging: tokio::sync::watch::Sender::new(false),
            refused_writes: Arc::default(),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// From now on no write is answered, or all are again.
    pub(crate) fn set_hanging(&self, hanging: bool) {
        self.hanging.send_replace(hanging);
    }

    async fn reach_to_write(&self) -> Result<&MemoryStore, StoreError> {
        let _ = self.hanging.subscribe().wait_for(|it| !it).await;
        self.reach().inspect_err(|_| {
            self.refused_writes.fetch_add(1, Ordering::SeqCst);
        })
    }

    /// How many writes failed because the store was down.
    pub(crate) fn refused_writes(&self) -> usize {
        self.refused_writes.load(Ordering::SeqCst)
    }

    fn reach(&self) -> Result<&MemoryStore, StoreError> {
        if self.down.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable {
                address: "the test's store".into(),
                reason: "it is cut off".into(),
            })
        } else {
            Ok(&self.store)
        }
    }
}

#[async_trait]
impl Store for FlakyStore {
    async fn list(&self, scope: &Scope) -> Result<Vec<Object>, StoreError> {
        self.reach()?.list(scope).await
    }

    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError> {
        self.reach()?.get(kind, name).await
    }

    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.reach_to_write().await?.create(kind, value).await
    }

    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.reach_to_write().await?.update(kind, value).await
    }

    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError> {
        self.reach_to_write()
            .await?
            .apply_status(kind, name, manager, status)
            .await
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError> {
        self.reach_to_write()
            .await?
            .delete(kind, name, version)
            .await
    }

    fn watch(&self, scopes: &[Scope]) -> Watch {
        self.store.watch(scopes)
    }

    fn position(&self, version: &Version) -> Option<u64> {
        self.store.position(version)
    }
}
