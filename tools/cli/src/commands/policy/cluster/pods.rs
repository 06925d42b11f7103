//! Nodes and pods: who there is, where, with which address and identity.

use super::{Cluster, Failure, Holder, Node, Placement, Pod, check, kind, of_kind};
use heddle_kube::{manifest::Manifest, pod};
use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_policy::NodeFacts;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The node that pods run on when nothing names one.
const ONLY_NODE: &str = "node-1";
/// Pods of one workload at most; more is a slip of the finger.
const MOST_REPLICAS: u64 = 10_000;

impl Cluster {
    pub(super) fn add_nodes(
        &mut self,
        manifests: &[Manifest],
        pods: &BTreeMap<NamespacedName, Value>,
        before: &Placement,
    ) {
        let mut named: BTreeMap<String, Node> = BTreeMap::new();
        let bare = |name: &str| Node {
            name: name.to_owned(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            pod_ranges: Vec::new(),
        };
        for manifest in of_kind(manifests, "Node") {
            let name = pod::name(&manifest.value).name;
            let mut node = bare(&name);
            let labels = pod::labels(&manifest.value).into_iter();
            node.labels = labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            for entry in list(&manifest.value, "/status/addresses") {
                let internal = entry.get("type").and_then(Value::as_str) == Some("InternalIP");
                let address = entry.get("address").and_then(Value::as_str);
                if let (true, Some(Ok(address))) = (internal, address.map(str::parse)) {
                    node.addresses.push(address);
                }
            }
            let single = manifest.value.pointer("/spec/podCIDR");
            for range in list(&manifest.value, "/spec/podCIDRs").iter().chain(single) {
                if let Some(Ok(range)) = range.as_str().map(str::parse::<IpNet>)
                    && !node.pod_ranges.contains(&range.trunc())
                {
                    node.pod_ranges.push(range.trunc());
                }
            }
            named.insert(name, node);
        }
        for name in pods.values().filter_map(pod::node) {
            named.entry(name.to_owned()).or_insert_with(|| bare(name));
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
        objects: &BTreeMap<NamespacedName, Value>,
        before: &Placement,
    ) -> Result<(), Failure> {
        let mut next_node = 0;
        let mut sets: BTreeMap<LabelSet, Vec<usize>> = BTreeMap::new();
        for (name, object) in objects {
            let known = before.pods.get(name);
            let named = pod::node(object).or(known.map(|(node, _)| node.as_str()));
            let node = match named.and_then(|name| self.node(name)) {
                Some(node) => node,
                None => {
                    next_node += 1;
                    (next_node - 1) % self.nodes.len()
                }
            };
            let position = self.pods.len();
            let host_network = pod::is_host_network(object);
            let addresses = if host_network {
                self.nodes[node].addresses.clone()
            } else {
                let given = pod::addresses(object);
                match known {
                    Some((_, addresses)) if given.is_empty() => addresses.clone(),
                    _ => given,
                }
            };
            if !host_network {
                for address in &addresses {
                    if let Some(Holder::Pod(other)) =
                        self.by_address.insert(*address, Holder::Pod(position))
                    {
                        return Err(Failure::new(
                            "manifest/duplicate-address",
                            format!(
                                "pods {} and {name} both have {address}",
                                self.pods[other].name
                            ),
                        )
                        .object(format!("Pod {name}"))
                        .field("status.podIPs")
                        .help("correct status.podIPs, or leave it out to have one assigned"));
                    }
                }
                let namespace = self.namespaces.get(&name.namespace).into_iter().flatten();
                let namespace = namespace.map(|(key, value)| (key.as_str(), value.as_str()));
                let labels =
                    pod::identity_labels(object, namespace, &before.cluster, &before.filter);
                sets.entry(labels).or_default().push(position);
            }
            self.by_name.insert(name.clone(), position);
            self.pods.push(Pod {
                name: name.clone(),
                node,
                addresses,
                host_network,
                identity: Identity::UNKNOWN,
                labels: pod::labels(object)
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
                named_ports: if host_network {
                    String::new()
                } else {
                    pod::named_ports(object)
                },
                ports: pod::declared_ports(object),
            });
        }
        // Label sets in their own order, so that the same manifests always give the same numbers.
        let taken: BTreeSet<Identity> = before.identities.values().copied().collect();
        let mut free = (Identity::CLUSTER_FIRST.0..=Identity::CLUSTER_LAST.0)
            .map(Identity)
            .filter(|identity| !taken.contains(identity));
        for (labels, pods) in sets {
            let known = before.identities.get(&labels).copied();
            let identity = known.or_else(|| free.next()).ok_or_else(|| {
                Failure::new(
                    "identity/exhausted",
                    "the pods have more than 65280 different label sets",
                )
                .help("ask about fewer pods at once")
            })?;
            for pod in pods {
                self.pods[pod].identity = identity;
            }
            self.engine.set_identity(identity, labels);
        }
        Ok(())
    }

    /// Gives pods without addresses one of each family, from their node's pod ranges, or from blocks of
    /// 10.244.0.0/16 and fd10:244::/48 when it has none.
    pub(super) fn assign_addresses(&mut self) -> Result<(), Failure> {
        let mut ranges: Vec<Vec<IpNet>> = self
            .nodes
            .iter()
            .map(|node| node.pod_ranges.clone())
            .collect();
        let mut cursors: BTreeMap<IpNet, u128> = BTreeMap::new();
        let mut next_block = [0u32; 2];
        for position in 0..self.pods.len() {
            let pod = &self.pods[position];
            if pod.host_network || !pod.addresses.is_empty() {
                continue;
            }
            let node = pod.node;
            let given = &self.nodes[node].pod_ranges;
            // A node with ranges of one family only is a cluster of one family.
            let families: Vec<usize> = [0, 1]
                .into_iter()
                .filter(|family| {
                    given.is_empty() || given.iter().any(|range| family_of(*range) == *family)
                })
                .collect();
            for family in families {
                let address = loop {
                    let found = ranges[node]
                        .iter()
                        .filter(|range| family_of(**range) == family)
                        .find_map(|range| next_address(*range, &mut cursors, &self.by_address));
                    if let Some(address) = found {
                        break address;
                    }
                    let Some(block) = default_block(family, next_block[family]) else {
                        return Err(Failure::new(
                            "ipam/pool-exhausted",
                            "10.244.0.0/16 has no block left for pods without addresses",
                        )
                        .help("give nodes wider spec.podCIDRs, or pods status.podIPs"));
                    };
                    next_block[family] += 1;
                    ranges[node].push(block);
                    self.pod_ranges.push(match family {
                        0 => IpNet::from(ipnet::Ipv4Net::new_assert(
                            Ipv4Addr::new(10, 244, 0, 0),
                            16,
                        )),
                        _ => IpNet::from(ipnet::Ipv6Net::new_assert(
                            Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, 0),
                            48,
                        )),
                    });
                };
                self.by_address.insert(address, Holder::Pod(position));
                self.pods[position].addresses.push(address);
            }
        }
        self.pod_ranges.sort();
        self.pod_ranges.dedup();
        Ok(())
    }
}

/// The pods, those of workloads included: `NAME-0`, `NAME-1`, ... for each replica.
pub(super) fn pods_of(manifests: &[Manifest]) -> Result<BTreeMap<NamespacedName, Value>, Failure> {
    let mut pods = BTreeMap::new();
    for manifest in manifests {
        match kind(manifest) {
            "Pod" => {
                if !pod::is_finished(&manifest.value) {
                    pods.insert(pod::name(&manifest.value), manifest.value.clone());
                }
            }
            "Deployment" | "StatefulSet" | "ReplicaSet" => {
                let owner = pod::name(&manifest.value);
                let replicas = manifest.value.pointer("/spec/replicas");
                let replicas = replicas.map_or(Some(1), Value::as_u64);
                let Some(replicas) = replicas.filter(|replicas| *replicas <= MOST_REPLICAS) else {
                    return Err(Failure::new(
                        "manifest/invalid-replicas",
                        format!(
                            "{}: replicas must be 0 to {MOST_REPLICAS}",
                            check::object(manifest)
                        ),
                    )
                    .object(check::object(manifest))
                    .field("spec.replicas")
                    .help("write a number"));
                };
                let template = manifest.value.pointer("/spec/template").cloned();
                let template = template.unwrap_or_default();
                for replica in 0..replicas {
                    let name =
                        NamespacedName::new(&owner.namespace, format!("{}-{replica}", owner.name));
                    let labels = template.pointer("/metadata/labels").cloned();
                    let object = json!({
                        "metadata": {
                            "namespace": name.namespace,
                            "name": name.name,
                            "labels": labels.unwrap_or_default(),
                        },
                        "spec": template.get("spec").cloned().unwrap_or_default(),
                    });
                    pods.insert(name, object);
                }
            }
            _ => {}
        }
    }
    Ok(pods)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn node_address(number: u32) -> IpAddr {
    Ipv4Addr::from(0xac10_0000 | (number & 0x000f_ffff)).into()
}

const fn family_of(net: IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

/// The block with this number of the default pool; a pool has 256 IPv4 blocks and 65536 IPv6 ones.
fn default_block(family: usize, number: u32) -> Option<IpNet> {
    let (address, length): (IpAddr, u8) = if family == 0 {
        let third = u8::try_from(number).ok()?;
        (Ipv4Addr::new(10, 244, third, 0).into(), 24)
    } else {
        let fourth = u16::try_from(number).ok()?;
        (
            Ipv6Addr::new(0xfd10, 0x244, 0, fourth, 0, 0, 0, 0).into(),
            64,
        )
    };
    IpNet::new(address, length).ok()
}

/// The next address of a range that nobody has; not the network's, the gateway's or the broadcast one.
fn next_address(
    range: IpNet,
    cursors: &mut BTreeMap<IpNet, u128>,
    taken: &BTreeMap<IpAddr, Holder>,
) -> Option<IpAddr> {
    let cursor = cursors.entry(range).or_insert(2);
    let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    while *cursor < size.saturating_sub(1) {
        let offset = *cursor;
        *cursor += 1;
        let address: IpAddr = match range.network() {
            IpAddr::V4(first) => {
                Ipv4Addr::from(u32::from(first).wrapping_add(u32::try_from(offset).ok()?)).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(offset)).into(),
        };
        if !taken.contains_key(&address) {
            return Some(address);
        }
    }
    None
}
