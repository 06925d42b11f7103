//! A cluster: nodes, pods with addresses and identities, services, CIDR groups, and a policy engine.

mod addresses;
mod pods;

use crate::{
    VerifyError,
    inventory::{GroupSpec, Inventory},
};
use heddle_model::{DeclaredPort, Identity, LabelFilter, LabelSet, NamespacedName};
use heddle_policy::{Engine, ServiceFacts};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

pub use crate::inventory::ServiceSpec as Service;

/// The cluster's name in identity labels.
const CLUSTER: &str = "default";

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// One per family, given or assigned.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    pod_ranges: Vec<IpNet>,
}

impl Node {
    /// The number that host policies know the node with this position by.
    pub fn subject(position: usize) -> Option<Identity> {
        u16::try_from(position).ok().map(Identity::node_subject)
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: NamespacedName,
    /// Position among the nodes.
    pub node: usize,
    /// Primary first; its node's for a host-network pod.
    pub addresses: Vec<IpAddr>,
    /// It shares its node's network.
    pub host_network: bool,
    /// 0 for a host-network pod: it depends on who looks.
    pub identity: Identity,
    /// Its own labels, as written.
    pub labels: BTreeMap<String, String>,
    /// `http=TCP/8080,...`; empty for a host-network pod.
    pub named_ports: String,
    /// Every port that its containers declare.
    pub ports: Vec<DeclaredPort>,
    /// The workload that it works for, as kind and name.
    pub workload: Option<(String, String)>,
}

/// What stands at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// A pod, by its position.
    Pod(usize),
    /// A node, by its position.
    Node(usize),
    /// In a pod range, but no pod's.
    Unmanaged,
    /// Outside the cluster.
    World,
}

/// The cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its pods, by name.
    pub pods: Vec<Pod>,
    /// The engine that knows its policies.
    pub engine: Engine,
    /// Labels of the namespaces that are written as objects.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Its services.
    pub services: BTreeMap<NamespacedName, Service>,
    /// Its CIDR groups, by name.
    pub groups: BTreeMap<String, GroupSpec>,
    /// The ranges that pods have addresses from.
    pub pod_ranges: Vec<IpNet>,
    /// Where its objects are from, as errors say it.
    pub whence: String,
    by_name: BTreeMap<NamespacedName, usize>,
    by_address: BTreeMap<IpAddr, Holder>,
}

/// Where the pods and nodes of another cluster are: what is not written is taken from there, so that two
/// clusters differ in what their objects say alone.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The cluster's name in identity labels.
    pub cluster: String,
    /// Which labels of pods count.
    pub filter: LabelFilter,
    /// Numbers that label sets have already.
    pub identities: BTreeMap<LabelSet, Identity>,
    /// Where the objects are from, as errors say it.
    pub whence: String,
    /// Each pod's node and addresses.
    pods: BTreeMap<NamespacedName, (String, Vec<IpAddr>)>,
    /// Each node's addresses.
    nodes: BTreeMap<String, Vec<IpAddr>>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            cluster: CLUSTER.to_owned(),
            filter: LabelFilter::default(),
            identities: BTreeMap::new(),
            whence: "the manifests".to_owned(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }
}

impl Cluster {
    /// Builds the cluster, with pods and nodes that are not placed where `before` has them.
    pub fn build(inventory: Inventory, before: &Placement) -> Result<Self, VerifyError> {
        let mut cluster = Self {
            nodes: Vec::new(),
            pods: Vec::new(),
            engine: Engine::new(),
            namespaces: inventory.namespaces,
            services: inventory.services,
            groups: inventory.groups,
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
            pod_ranges: Vec::new(),
            whence: before.whence.clone(),
        };
        for (name, found) in &cluster.services {
            let facts = ServiceFacts {
                labels: found.labels.clone(),
                selector: found.selector.clone(),
                addresses: found.endpoints.iter().copied().map(IpNet::from).collect(),
            };
            cluster.engine.set_service(name.clone(), facts);
        }
        for (name, group) in &cluster.groups {
            cluster
                .engine
                .set_cidr_group(name, group.labels.clone(), group.cidrs.clone());
        }
        cluster.engine.set_policies(inventory.policies);
        cluster.add_nodes(inventory.nodes, &inventory.pods, before);
        cluster.add_pods(inventory.pods, before)?;
        cluster.assign_addresses()?;
        Ok(cluster)
    }

    /// Where its pods and nodes are.
    pub fn placement(&self) -> Placement {
        let pods = self.pods.iter().filter(|pod| !pod.host_network);
        Placement {
            pods: pods
                .map(|pod| {
                    let node = self.nodes[pod.node].name.clone();
                    (pod.name.clone(), (node, pod.addresses.clone()))
                })
                .collect(),
            nodes: self
                .nodes
                .iter()
                .map(|node| (node.name.clone(), node.addresses.clone()))
                .collect(),
            ..Placement::default()
        }
    }

    /// The position of a pod.
    pub fn pod(&self, name: &NamespacedName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The position of a node.
    pub fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// What stands at an address.
    pub fn holder(&self, address: IpAddr) -> Holder {
        if let Some(holder) = self.by_address.get(&address) {
            *holder
        } else if self.pod_ranges.iter().any(|range| range.contains(&address)) {
            Holder::Unmanaged
        } else {
            Holder::World
        }
    }

    /// The namespaces that the objects speak of, written as objects or named by pods.
    pub fn known_namespaces(&self) -> BTreeMap<&str, Option<&BTreeMap<String, String>>> {
        let mut known: BTreeMap<&str, _> = self
            .pods
            .iter()
            .map(|pod| (pod.name.namespace.as_str(), None))
            .collect();
        for (name, labels) in &self.namespaces {
            known.insert(name, Some(labels));
        }
        known
    }
}
