//! Nodes, and the pods whose ports a node has.

use crate::Protocol;
use heddle_model::NamespacedName;
use ipnet::IpNet;
use std::net::IpAddr;

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone (label `topology.kubernetes.io/zone`).
    pub zone: Option<String>,
    /// Its addresses; those that no single host has ([`crate::AddressFault`]) count for nothing. Ports of Services and of
    /// pods on the node are served at those of this node.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods' addresses: no Service can have an address in one.
    pub pod_ranges: Vec<IpNet>,
}

/// A port of a pod that its node has too (`hostPort`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// The node's address (`hostIP`); `None`, `0.0.0.0` and `::`: all of them. A loopback address is for processes of the node.
    pub address: Option<IpAddr>,
    /// The port of the node.
    pub number: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
}

/// A pod of this node with ports of the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPortPod {
    /// Its namespace and name.
    pub name: NamespacedName,
    /// `metadata.uid`.
    pub uid: String,
    /// When it was made, in the unit of [`crate::Service::created`].
    pub created: u64,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its ports on the node.
    pub ports: Vec<HostPort>,
}
