//! The pods and nodes that there are, where, with which address and identity.

use super::{Cluster, Holder, Node, Placement, Pod};
use crate::{
    VerifyError,
    inventory::{NodeSpec, PodSpec},
};
use heddle_model::{DeclaredPort, Identity, LabelSet, NamespacedName};
use heddle_policy::NodeFacts;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The node that pods run on when nothing names one.
const ONLY_NODE: &str = "node-1";
/// The label that every namespace has, with its name.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

impl Cluster {
    pub(super) fn add_nodes(
        &mut self,
        written: Vec<NodeSpec>,
        pods: &BTreeMap<NamespacedName, PodSpec>,
        before: &Placement,
    ) {
        let bare = |name: &str| Node {
            name: name.to_owned(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            pod_ranges: Vec::new(),
        };
        let mut named: BTreeMap<String, Node> = BTreeMap::new();
        for spec in written {
            let node = Node {
                name: spec.name.clone(),
                addresses: spec.addresses,
                labels: spec.labels,
                pod_ranges: spec.pod_ranges,
            };
            named.insert(spec.name, node);
        }
        for name in pods.values().filter_map(|pod| pod.node.as_ref()) {
            named.entry(name.clone()).or_insert_with(|| bare(name));
        }
        if named.is_empty() {
            named.insert(ONLY_NODE.to_owned(), bare(ONLY_NODE));
        }
        self.nodes = named.into_values().collect();
        let taken: BTreeSet<IpAddr> = self
            .nodes
            .iter()
            .flat_map(|n| n.addresses.clone())
            .collect();
        for (position, node) in self.nodes.iter_mut().enumerate() {
            if let Some(addresses) = before.nodes.get(&node.name)
                && node.addresses.is_empty()
            {
                node.addresses = addresses.clone();
            }
            if node.addresses.is_empty() {
                let mut number = position as u32 + 1;
                while taken.contains(&node_address(number)) {
                    number += 0x1_0000;
                }
                node.addresses = vec![
                    node_address(number),
                    Ipv6Addr::from(0xfd10_0245_0000_0000_0000_0000_0000_0000 | u128::from(number))
                        .into(),
                ];
            }
            for address in &node.addresses {
                self.by_address.insert(*address, Holder::Node(position));
            }
            let facts = NodeFacts {
                labels: node.labels.clone(),
                addresses: node.addresses.clone(),
            };
            self.engine.set_node(&node.name, facts);
            if let Some(subject) = Node::subject(position) {
                let labels = node.labels.iter();
                let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
                self.engine.set_identity(subject, LabelSet::of_node(labels));
            }
            self.pod_ranges.extend(&node.pod_ranges);
        }
    }

    pub(super) fn add_pods(
        &mut self,
        written: BTreeMap<NamespacedName, PodSpec>,
        before: &Placement,
    ) -> Result<(), VerifyError> {
        let mut next_node = 0;
        let mut sets: BTreeMap<LabelSet, Vec<usize>> = BTreeMap::new();
        for (name, spec) in written {
            let known = before.pods.get(&name);
            let named = spec.node.as_deref();
            let named = named.or(known.map(|(node, _)| node.as_str()));
            let node = match named.and_then(|name| self.node(name)) {
                Some(node) => node,
                None => {
                    next_node += 1;
                    (next_node - 1) % self.nodes.len()
                }
            };
            let position = self.pods.len();
            let named_ports = if spec.host_network {
                String::new()
            } else {
                DeclaredPort::named(&spec.ports)
            };
            let addresses = match known {
                _ if spec.host_network => self.nodes[node].addresses.clone(),
                Some((_, addresses)) if spec.addresses.is_empty() => addresses.clone(),
                _ => spec.addresses.clone(),
            };
            if !spec.host_network {
                for address in &addresses {
                    if let Some(Holder::Pod(other)) =
                        self.by_address.insert(*address, Holder::Pod(position))
                    {
                        return Err(VerifyError::DuplicateAddress {
                            first: self.pods[other].name.clone(),
                            second: name,
                            address: *address,
                        });
                    }
                }
                let labels = self.identity_labels(&name, &spec, &named_ports, before);
                sets.entry(labels).or_default().push(position);
            }
            self.by_name.insert(name.clone(), position);
            self.pods.push(Pod {
                name,
                node,
                addresses,
                host_network: spec.host_network,
                identity: Identity::UNKNOWN,
                labels: spec.labels,
                named_ports,
                ports: spec.ports,
                workload: spec.workload,
            });
        }
        // Label sets in their own order, so that the same manifests always give the same numbers.
        let taken: BTreeSet<Identity> = before.identities.values().copied().collect();
        let mut free = (Identity::CLUSTER_FIRST.0..=Identity::CLUSTER_LAST.0)
            .map(Identity)
            .filter(|identity| !taken.contains(identity));
        for (labels, pods) in sets {
            let known = before.identities.get(&labels).copied();
            let identity = known
                .or_else(|| free.next())
                .ok_or(VerifyError::IdentitiesExhausted)?;
            for pod in pods {
                self.pods[pod].identity = identity;
            }
            self.engine.set_identity(identity, labels);
        }
        Ok(())
    }

    /// The labels of a pod's identity.
    fn identity_labels(
        &self,
        name: &NamespacedName,
        spec: &PodSpec,
        named_ports: &str,
        before: &Placement,
    ) -> LabelSet {
        let pairs = |labels: &'_ BTreeMap<String, String>| -> Vec<(String, String)> {
            let pairs = labels.iter();
            pairs
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        let of_namespace = self.namespaces.get(&name.namespace);
        let mut of_namespace = of_namespace.map(pairs).unwrap_or_default();
        of_namespace.retain(|(key, _)| key != METADATA_NAME);
        of_namespace.push((METADATA_NAME.to_owned(), name.namespace.clone()));
        LabelSet::of_pod(
            name,
            spec.labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
            of_namespace
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
            &spec.service_account,
            named_ports,
            &before.cluster,
            &before.filter,
        )
    }
}

fn node_address(number: u32) -> IpAddr {
    Ipv4Addr::from(0xac10_0000 | (number & 0x000f_ffff)).into()
}
