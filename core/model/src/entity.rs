//! Entities of CiliumNetworkPolicy (reference 1.3).

use crate::Identity;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A named group of peers that are not told by labels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entity {
    /// Everybody.
    All,
    /// Everybody outside the cluster.
    World,
    /// Every pod and node of the cluster.
    Cluster,
    /// The pod's own node and its host-network pods.
    Host,
    /// Pods whose labels are not known yet.
    Init,
    /// The ingress proxy.
    Ingress,
    /// Addresses in pod ranges that are not known (yet).
    Unmanaged,
    /// Other nodes and their host-network pods.
    RemoteNode,
    /// Health endpoints.
    Health,
    /// Nobody.
    None,
    /// Nodes that run the Kubernetes API server.
    KubeApiserver,
}

impl Entity {
    /// Every entity in the order of the CRD's enum.
    pub const ALL: [Self; 11] = [
        Self::All,
        Self::World,
        Self::Cluster,
        Self::Host,
        Self::Init,
        Self::Ingress,
        Self::Unmanaged,
        Self::RemoteNode,
        Self::Health,
        Self::None,
        Self::KubeApiserver,
    ];

    /// Its name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::World => "world",
            Self::Cluster => "cluster",
            Self::Host => "host",
            Self::Init => "init",
            Self::Ingress => "ingress",
            Self::Unmanaged => "unmanaged",
            Self::RemoteNode => "remote-node",
            Self::Health => "health",
            Self::None => "none",
            Self::KubeApiserver => "kube-apiserver",
        }
    }

    /// True when the entity stands for this identity (reference 1.3 and row I7b: `remote-node` also
    /// stands for the kube-apiserver identity, which is a remote node too).
    pub const fn contains(self, identity: Identity) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::World => identity.is_world(),
            // Every cluster-scope identity is a pod of this cluster.
            Self::Cluster => matches!(
                identity,
                Identity::HOST
                    | Identity::REMOTE_NODE
                    | Identity::INIT
                    | Identity::INGRESS
                    | Identity::HEALTH
                    | Identity::UNMANAGED
                    | Identity::KUBE_APISERVER
                    | Identity(256..=65_535)
            ),
            Self::Host => matches!(identity, Identity::HOST),
            Self::Init => matches!(identity, Identity::INIT),
            Self::Ingress => matches!(identity, Identity::INGRESS),
            Self::Unmanaged => matches!(identity, Identity::UNMANAGED),
            Self::RemoteNode => {
                matches!(identity, Identity::REMOTE_NODE | Identity::KUBE_APISERVER)
            }
            Self::Health => matches!(identity, Identity::HEALTH),
            Self::KubeApiserver => matches!(identity, Identity::KUBE_APISERVER),
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No entity has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown entity {0:?}")]
pub struct UnknownEntity(pub String);

impl FromStr for Entity {
    type Err = UnknownEntity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|entity| entity.name() == text)
            .ok_or_else(|| UnknownEntity(text.to_owned()))
    }
}
