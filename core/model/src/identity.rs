//! Security identities (reference 1.7).

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number that stands for one set of labels.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Identity(pub u32);

/// Who hands out an identity number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentityScope {
    /// Fixed numbers below 256.
    Reserved,
    /// One number per label set in the whole cluster: 256 to 65535.
    Cluster,
    /// Each node's own numbers for policy CIDRs: from 0x0100_0001.
    Node,
    /// A node as the subject of host policies, numbered by whoever asks: from 0x0200_0000. No packet bears
    /// one: as a peer a node is `host`, `remote-node` or `kube-apiserver`.
    Subject,
    /// A number that this version hands out nowhere.
    Other,
}

impl Identity {
    /// Unknown; the wildcard in a policy map.
    pub const UNKNOWN: Self = Self(0);
    /// This node and its host-network pods.
    pub const HOST: Self = Self(1);
    /// Outside the cluster, family not told apart.
    pub const WORLD: Self = Self(2);
    /// In a pod range but not known (yet).
    pub const UNMANAGED: Self = Self(3);
    /// Health endpoints.
    pub const HEALTH: Self = Self(4);
    /// A pod whose labels are not known yet.
    pub const INIT: Self = Self(5);
    /// Another node and its host-network pods.
    pub const REMOTE_NODE: Self = Self(6);
    /// A node that runs the Kubernetes API server.
    pub const KUBE_APISERVER: Self = Self(7);
    /// The ingress proxy.
    pub const INGRESS: Self = Self(8);
    /// Outside the cluster, IPv4.
    pub const WORLD_IPV4: Self = Self(9);
    /// Outside the cluster, IPv6.
    pub const WORLD_IPV6: Self = Self(10);

    /// First number of the cluster scope.
    pub const CLUSTER_FIRST: Self = Self(256);
    /// Last number of the cluster scope.
    pub const CLUSTER_LAST: Self = Self(65_535);
    /// First number of the node scope (policy CIDRs).
    pub const NODE_FIRST: Self = Self(0x0100_0001);
    /// Last number of the node scope.
    pub const NODE_LAST: Self = Self(0x01ff_ffff);

    /// This node as the subject of host policies.
    pub const OWN_NODE: Self = Self::node_subject(0);

    /// The subject number of the node with this position; this node has the first, [`Identity::OWN_NODE`].
    pub const fn node_subject(position: u16) -> Self {
        Self(0x0200_0000 + position as u32)
    }

    /// The reserved identities and their names.
    pub const RESERVED: [(Self, &'static str); 10] = [
        (Self::HOST, "host"),
        (Self::WORLD, "world"),
        (Self::UNMANAGED, "unmanaged"),
        (Self::HEALTH, "health"),
        (Self::INIT, "init"),
        (Self::REMOTE_NODE, "remote-node"),
        (Self::KUBE_APISERVER, "kube-apiserver"),
        (Self::INGRESS, "ingress"),
        (Self::WORLD_IPV4, "world-ipv4"),
        (Self::WORLD_IPV6, "world-ipv6"),
    ];

    /// Who hands out this number.
    pub const fn scope(self) -> IdentityScope {
        match self.0 {
            0..=255 => IdentityScope::Reserved,
            256..=65_535 => IdentityScope::Cluster,
            0x0100_0001..=0x01ff_ffff => IdentityScope::Node,
            0x0200_0000..=0x0200_ffff => IdentityScope::Subject,
            _ => IdentityScope::Other,
        }
    }

    /// The name of a reserved identity.
    pub fn reserved_name(self) -> Option<&'static str> {
        Self::RESERVED
            .iter()
            .find(|(identity, _)| *identity == self)
            .map(|(_, name)| *name)
    }

    /// The reserved identity with this name.
    pub fn from_reserved_name(name: &str) -> Option<Self> {
        Self::RESERVED
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(identity, _)| *identity)
    }

    /// True for world, world-ipv4 and world-ipv6.
    pub const fn is_world(self) -> bool {
        matches!(self, Self::WORLD | Self::WORLD_IPV4 | Self::WORLD_IPV6)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_round_trip() {
        for (identity, name) in Identity::RESERVED {
            assert_eq!(identity.reserved_name(), Some(name));
            assert_eq!(Identity::from_reserved_name(name), Some(identity));
            assert_eq!(identity.scope(), IdentityScope::Reserved);
        }
        assert_eq!(Identity::CLUSTER_LAST.scope(), IdentityScope::Cluster);
        assert_eq!(Identity::NODE_FIRST.scope(), IdentityScope::Node);
        assert_eq!(Identity(65_536).scope(), IdentityScope::Other);
        assert_eq!(Identity::OWN_NODE.scope(), IdentityScope::Subject);
        let last = Identity::node_subject(u16::MAX);
        assert_eq!(last.scope(), IdentityScope::Subject);
        assert_eq!(Identity(last.0 + 1).scope(), IdentityScope::Other);
    }
}
