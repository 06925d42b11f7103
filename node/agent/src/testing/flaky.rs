//! A store that can be cut off.

use async_trait::async_trait;
use heddle_kube::store::memory::MemoryStore;
use heddle_kube::store::{Kind, Object, Scope, Store, StoreError, Version, Watch};
use heddle_model::NamespacedName;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store behind a wire; a watch that has begun goes on over a cut.
#[derive(Clone)]
pub(crate) struct FlakyStore {
    store: MemoryStore,
    down: Arc<AtomicBool>,
}

impl FlakyStore {
    pub(crate) fn new(store: MemoryStore) -> Self {
        Self {
            store,
            down: Arc::default(),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
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
        self.reach()?.create(kind, value).await
    }

    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.reach()?.update(kind, value).await
    }

    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError> {
        self.reach()?
            .apply_status(kind, name, manager, status)
            .await
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError> {
        self.reach()?.delete(kind, name, version).await
    }

    fn watch(&self, scopes: &[Scope]) -> Watch {
        self.store.watch(scopes)
    }

    fn position(&self, version: &Version) -> Option<u64> {
        self.store.position(version)
    }
}
