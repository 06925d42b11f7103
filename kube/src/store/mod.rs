//! The Store: list, watch, get, create, update, delete, apply status.
//!
//! The agent, the operator and the lab see only this trait; they do not know whether Kubernetes or the
//! embedded store answers. Objects are JSON values in Kubernetes' shape.

pub mod embedded;
mod hub;
mod kinds;
mod managed;
pub mod memory;
mod objects;
mod scope;
mod version;

#[cfg(test)]
mod conformance;

pub use kinds::Kind;
pub use scope::Scope;
pub use version::Version;

use async_trait::async_trait;
use heddle_model::NamespacedName;
use serde_json::Value;
use tokio::sync::mpsc;

/// One object of the store.
///
/// `value` is the whole object, `metadata` included; the store sets `metadata.uid`,
/// `metadata.resourceVersion`, `metadata.generation` and `metadata.creationTimestamp`.
#[derive(Clone, PartialEq, Debug)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: NamespacedName,
    /// Which state of it this is: `metadata.resourceVersion`.
    pub version: Version,
    /// The object in Kubernetes' JSON shape, without `metadata.managedFields`.
    pub value: Value,
}

/// What a watch says.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The object was created or changed, came into scope, or is part of the initial list.
    Applied(Object),
    /// The object is gone or went out of scope; the value is its last state in scope, with the version at which
    /// that was.
    Deleted(Object),
    /// Everything up to here has been said. Sent after the initial list, after a lost connection has been made
    /// good (then objects not repeated since the last [`Event::Restarted`] are gone), and after each batch of
    /// changes.
    Synced {
        /// How far this watch is: it never gets smaller, and it grows with what is said. Where
        /// [`Store::position`] has answers, it is on their scale, and grows when others change, too.
        revision: u64,
    },
    /// The connection was lost and the list starts over: what is not repeated before the next
    /// [`Event::Synced`] no longer exists.
    Restarted,
}

/// A store's refusal or failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("{kind} {name} does not exist")]
    NotFound {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: NamespacedName,
    },
    /// Create found the name taken.
    #[error("{kind} {name} exists already")]
    AlreadyExists {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: NamespacedName,
    },
    /// The object changed since it was read.
    #[error("{kind} {name} changed since it was read")]
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: NamespacedName,
    },
    /// The object is not one the store can keep.
    #[error("{kind} {name}: field {field}: {reason}")]
    Invalid {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: NamespacedName,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store cannot be reached; worth another try.
    #[error("the store at {address} cannot be reached: {reason}")]
    Unavailable {
        /// Where it was looked for.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The store could not write; nothing of this request was kept.
    #[error("the store could not save {what}: {reason}")]
    NotSaved {
        /// What was to be saved.
        what: String,
        /// Why not (a full disk, say).
        reason: String,
    },
    /// The store's file is damaged; it is left as it is.
    #[error("the store's file {path} is damaged: {reason}")]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        reason: String,
    },
}

impl StoreError {
    /// Stable code of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "store/not-found",
            Self::AlreadyExists { .. } => "store/already-exists",
            Self::Conflict { .. } => "store/conflict",
            Self::Invalid { .. } => "store/invalid-object",
            Self::Unavailable { .. } => "store/unavailable",
            Self::NotSaved { .. } => "store/not-saved",
            Self::Corrupt { .. } => "store/corrupt",
        }
    }

    /// What to try.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "check the name and the namespace",
            Self::AlreadyExists { .. } => "update the object, or delete it first",
            Self::Conflict { .. } => "read the object again and repeat the change",
            Self::Invalid { .. } => "correct the field and try again",
            Self::Unavailable { .. } => {
                "check that the store process runs and that this user may open its socket"
            }
            Self::NotSaved { .. } => {
                "make room on the store's file system; the store carries on by itself"
            }
            Self::Corrupt { .. } => {
                "restore the file from a backup, or move it away to start with an empty store"
            }
        }
    }

    /// True when the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotSaved { .. })
    }
}

/// A stream of events; it ends when the store object is dropped.
pub type Watch = mpsc::Receiver<Event>;

/// Where objects live.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The objects in scope, in the order of their namespaces and names.
    async fn list(&self, scope: &Scope) -> Result<Vec<Object>, StoreError>;

    /// One object.
    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError>;

    /// Creates an object; fails when its name is taken. Atomic: of many creators of one name, one wins. Metadata
    /// that the store sets is ignored in `value`, and so is `status` where it is a subresource
    /// ([`Kind::has_status_subresource`]).
    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError>;

    /// Replaces an object, but for its `status` where that is a subresource. When `metadata.resourceVersion` is
    /// set, fails with [`StoreError::Conflict`] unless it is the stored one; so does another `metadata.uid` than
    /// the stored one. An update that changes nothing keeps the version.
    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError>;

    /// Makes `status` all that `manager` says of the object's status (server-side apply, by force): what it said
    /// before and does not say now goes, what other managers say stays. `conditions` is merged by `type`, other
    /// lists are replaced. An application that changes nothing keeps the version.
    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError>;

    /// Deletes an object; with a version, only if it is still the stored one.
    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError>;

    /// Everything in these scopes, then every change, in the order in which each kind changed. Reconnects by
    /// itself.
    fn watch(&self, scopes: &[Scope]) -> Watch;

    /// The place of a version in the one order of everything that this store does, on the scale of
    /// [`Event::Synced`] of every watch of every client. None where there is no such order (Kubernetes): there
    /// what was written is waited for by its `metadata.generation`.
    fn position(&self, version: &Version) -> Option<u64>;
}
