//! The Store: list, watch, get, create, update, delete, patch status.
//!
//! The agent, the operator and the lab see only this trait; they do not know whether Kubernetes or the
//! embedded store answers. Objects are JSON values in Kubernetes' shape.

pub mod embedded;
mod hub;
pub mod memory;
mod objects;

#[cfg(test)]
mod conformance;

use async_trait::async_trait;
use heddle_model::NamespacedName;
use serde_json::Value;
use std::fmt;
use tokio::sync::mpsc;

/// The kinds that Heddle reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `apps/v1` Deployment.
    Deployment,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `cilium.io/v2` CiliumCIDRGroup.
    CiliumCIDRGroup,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `cilium.io/v2` CiliumIdentity: named by its number, labels in `security-labels`.
    CiliumIdentity,
    /// `cilium.io/v2` CiliumEndpoint: one per pod, data in `status`.
    CiliumEndpoint,
    /// `heddle.dev/v1` IdentityClaim: named by the hash of a label set, so that a label set has one number.
    IdentityClaim,
    /// `heddle.dev/v1` NodePolicyReport: named by its node, which says in it what it has in force.
    NodePolicyReport,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Deployment,
        Self::NetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::CiliumCIDRGroup,
        Self::Service,
        Self::EndpointSlice,
        Self::CiliumIdentity,
        Self::CiliumEndpoint,
        Self::IdentityClaim,
        Self::NodePolicyReport,
    ];

    /// The `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::CiliumCIDRGroup => "CiliumCIDRGroup",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::CiliumIdentity => "CiliumIdentity",
            Self::CiliumEndpoint => "CiliumEndpoint",
            Self::IdentityClaim => "IdentityClaim",
            Self::NodePolicyReport => "NodePolicyReport",
        }
    }

    /// Everything that bears on a policy's verdicts: who there is and where, the policies, and what they refer
    /// to by name. Deployments do not: their pods are there themselves.
    pub const OF_VERDICTS: [Self; 12] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::NetworkPolicy,
        Self::CiliumNetworkPolicy,
        Self::CiliumClusterwideNetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::CiliumCIDRGroup,
        Self::Service,
        Self::EndpointSlice,
        Self::CiliumIdentity,
        Self::CiliumEndpoint,
    ];

    /// The `apiVersion` field.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service => "v1",
            Self::Deployment => "apps/v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::CiliumNetworkPolicy
            | Self::CiliumClusterwideNetworkPolicy
            | Self::CiliumCIDRGroup
            | Self::CiliumIdentity
            | Self::CiliumEndpoint => "cilium.io/v2",
            Self::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::IdentityClaim | Self::NodePolicyReport => "heddle.dev/v1",
        }
    }

    /// True when objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace
                | Self::Node
                | Self::CiliumClusterwideNetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::CiliumCIDRGroup
                | Self::CiliumIdentity
                | Self::IdentityClaim
                | Self::NodePolicyReport
        )
    }

    /// True for the kinds of policy.
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Self::NetworkPolicy
                | Self::CiliumNetworkPolicy
                | Self::CiliumClusterwideNetworkPolicy
                | Self::ClusterNetworkPolicy
        )
    }

    /// The kind with this `kind` field.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
    /// Revision of the store at which it was last written.
    pub revision: u64,
    /// The object in Kubernetes' JSON shape.
    pub value: Value,
}

/// What a watch says.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The object was created or changed, or is part of the initial list.
    Applied(Object),
    /// The object is gone; the value is its last state.
    Deleted(Object),
    /// Everything up to this revision *of the whole store* has been said. Sent after the initial list,
    /// after a lost connection has been made good (then objects not repeated since the last
    /// [`Event::Restarted`] are gone), after each batch of changes, and when other kinds changed: so a
    /// watcher always learns up to which revision it is current.
    Synced {
        /// Revision of the store.
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
    #[error("{kind} {name} changed since it was read (have revision {have}, store has {stored})")]
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: NamespacedName,
        /// Revision that the writer had read.
        have: u64,
        /// Revision in the store.
        stored: u64,
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
    /// All objects of a kind, in the order of their names; one namespace's, or all.
    async fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Object>, StoreError>;

    /// One object.
    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError>;

    /// Creates an object, its `status` included; fails when its name is taken. Atomic: of many creators
    /// of one name, one wins. Metadata that the store sets is ignored in `value`.
    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError>;

    /// Replaces an object except its `status`. When `metadata.resourceVersion` is set, fails with
    /// [`StoreError::Conflict`] unless it is the stored one; so does another `metadata.uid` than the
    /// stored one. An update that changes nothing keeps the revision.
    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError>;

    /// Merges into `status` (JSON merge patch, RFC 7396).
    async fn patch_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        status: Value,
    ) -> Result<Object, StoreError>;

    /// Deletes an object; with a revision, only if it is still the stored one.
    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        revision: Option<u64>,
    ) -> Result<(), StoreError>;

    /// Everything of these kinds, then every change, in the order of revisions. Reconnects by itself.
    fn watch(&self, kinds: &[Kind]) -> Watch;
}
