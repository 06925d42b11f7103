//! The objects that a cluster is built from, as far as policy is about them.

use heddle_model::{DeclaredPort, NamespacedName};
use heddle_policy::Policy;
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

/// All that is written of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Nodes by name; those that only pods name are added.
    pub nodes: Vec<NodeSpec>,
    /// Pods by name, those of workloads included.
    pub pods: BTreeMap<NamespacedName, PodSpec>,
    /// Labels of the namespaces that are written as objects.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Services.
    pub services: BTreeMap<NamespacedName, ServiceSpec>,
    /// CIDR groups by name.
    pub groups: BTreeMap<String, GroupSpec>,
    /// Policies.
    pub policies: Vec<Policy>,
}

/// A node as it is written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its addresses; none has one of each family assigned.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The ranges that its pods have addresses from.
    pub pod_ranges: Vec<IpNet>,
}

/// A pod as it is written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodSpec {
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// The service account that it runs as.
    pub service_account: String,
    /// The node that it names.
    pub node: Option<String>,
    /// Its addresses, the primary one first; none has them assigned.
    pub addresses: Vec<IpAddr>,
    /// It shares its node's network.
    pub host_network: bool,
    /// Every port that its containers declare.
    pub ports: Vec<DeclaredPort>,
    /// The workload that it works for, as kind and name.
    pub workload: Option<(String, String)>,
}

/// A Service with the addresses behind it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceSpec {
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// The labels of the pods behind it.
    pub selector: Option<BTreeMap<String, String>>,
    /// Its own addresses.
    pub cluster_addresses: Vec<IpAddr>,
    /// The addresses that its EndpointSlices list.
    pub endpoints: Vec<IpAddr>,
}

/// A CIDR group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupSpec {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its CIDRs.
    pub cidrs: Vec<IpNet>,
}
