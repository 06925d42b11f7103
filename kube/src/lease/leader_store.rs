//! A store that only the leader may write.

use super::candidate::Leadership;
use crate::store::{Kind, Object, Scope, Store, StoreError, Version, Watch};
use async_trait::async_trait;
use heddle_model::NamespacedName;
use serde_json::Value;
use std::sync::Arc;

/// The same store; writes fail with [`StoreError::Unavailable`] while its candidate does not lead. A write that
/// began in time may still arrive later: what must not be overtaken has a version to compare.
pub struct LeaderStore {
    store: Arc<dyn Store>,
    leadership: Leadership,
}

impl LeaderStore {
    /// The part of `store` that a candidate may use.
    pub fn new(store: Arc<dyn Store>, leadership: Leadership) -> Self {
        Self { store, leadership }
    }

    fn leading(&self) -> Result<&dyn Store, StoreError> {
        if self.leadership.term().is_some() {
            return Ok(&*self.store);
        }
        Err(StoreError::Unavailable {
            address: "this process".into(),
            reason: "it does not lead (any more), so it writes nothing".into(),
        })
    }
}

#[async_trait]
impl Store for LeaderStore {
    async fn list(&self, scope: &Scope) -> Result<Vec<Object>, StoreError> {
        self.store.list(scope).await
    }

    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError> {
        self.store.get(kind, name).await
    }

    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.leading()?.create(kind, value).await
    }

    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.leading()?.update(kind, value).await
    }

    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError> {
        let store = self.leading()?;
        store.apply_status(kind, name, manager, status).await
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError> {
        self.leading()?.delete(kind, name, version).await
    }

    fn watch(&self, scopes: &[Scope]) -> Watch {
        self.store.watch(scopes)
    }

    fn position(&self, version: &Version) -> Option<u64> {
        self.store.position(version)
    }
}
