//! The nodes of the cluster, and the addresses at which the kernel takes packets for this one.

use super::ipcache::Base;
use crate::config::{AgentConfig, Fabric};
use heddle_model::Identity;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// A node as the store has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeView {
    pub(crate) labels: BTreeMap<String, String>,
    /// Annotated to have its own policy on audit.
    pub(crate) on_audit: bool,
    /// All its addresses, the internal ones first.
    pub(crate) addresses: Vec<IpAddr>,
    /// How many of these are internal: one of them is the underlay.
    pub(crate) internal_count: usize,
    pub(crate) pod_cidrs: Vec<IpNet>,
}

impl NodeView {
    /// The addresses by which nodes reach each other.
    pub(crate) fn internal(&self) -> &[IpAddr] {
        self.addresses
            .get(..self.internal_count)
            .unwrap_or_default()
    }

    /// The underlay address for traffic to its pods of a family.
    pub(crate) fn underlay(&self, fabric: Fabric, wants_v4: bool) -> Option<IpAddr> {
        // The overlay carries both families over one; the routed fabric needs the pods' own.
        let wants_v4 = wants_v4 || fabric == Fabric::Vxlan;
        let same = |address: &&IpAddr| address.is_ipv4() == wants_v4;
        let internal = self.internal();
        internal
            .iter()
            .find(same)
            .or_else(|| internal.first())
            .copied()
    }
}

/// Every node, by name and by address.
#[derive(Debug)]
pub(crate) struct NodeTable {
    own_name: String,
    fabric: Fabric,
    /// The cluster's pod ranges.
    pod_cidrs: Vec<IpNet>,
    nodes: BTreeMap<String, NodeView>,
    /// The nodes that list an address.
    holders: HashMap<IpAddr, BTreeSet<String>>,
    /// Where the kernel takes packets for itself: more than the Node object says.
    devices: BTreeSet<IpNet>,
    ranges_changed: bool,
}

impl NodeTable {
    pub(crate) fn new(config: &AgentConfig) -> Self {
        Self {
            own_name: config.node_name.clone(),
            fabric: config.fabric,
            pod_cidrs: config.pod_cidrs.clone(),
            nodes: BTreeMap::new(),
            holders: HashMap::new(),
            devices: BTreeSet::new(),
            ranges_changed: true,
        }
    }

    /// Every node, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &NodeView)> {
        self.nodes.iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(name)
    }

    /// This node, once the store has said it.
    pub(crate) fn own(&self) -> Option<&NodeView> {
        self.nodes.get(&self.own_name)
    }

    /// The first address of each own pod range: what pods use as gateway.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.own()
            .into_iter()
            .flat_map(|node| &node.pod_cidrs)
            .filter_map(first_address)
    }

    /// What the store says of a node now; `None` when it is gone. The addresses that may be somebody else now.
    pub(crate) fn set(&mut self, name: String, node: Option<NodeView>) -> BTreeSet<IpAddr> {
        let before = match &node {
            Some(node) => self.nodes.insert(name.clone(), node.clone()),
            None => self.nodes.remove(&name),
        };
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for view in before.iter().chain(&node) {
            addresses.extend(&view.addresses);
            addresses.extend(view.pod_cidrs.iter().filter_map(first_address));
        }
        for address in before.iter().flat_map(|view| &view.addresses) {
            if let Some(holders) = self.holders.get_mut(address) {
                holders.remove(&name);
                if holders.is_empty() {
                    self.holders.remove(address);
                }
            }
        }
        for address in node.iter().flat_map(|view| &view.addresses) {
            let holders = self.holders.entry(*address).or_default();
            holders.insert(name.clone());
        }
        self.ranges_changed = true;
        addresses
    }

    /// The node that has an address: this one first, then whoever is reached by it, then whoever lists it.
    pub(crate) fn at(&self, address: IpAddr) -> Option<(&String, &NodeView)> {
        let own = self
            .holders_of(address)
            .find(|(name, _)| **name == self.own_name);
        let internal = || {
            let mut holders = self.holders_of(address);
            holders.find(|(_, node)| node.internal().contains(&address))
        };
        own.or_else(internal)
            .or_else(|| self.holders_of(address).next())
    }

    /// The nodes that list an address, by name.
    fn holders_of(&self, address: IpAddr) -> impl Iterator<Item = (&String, &NodeView)> {
        let names = self.holders.get(&address).into_iter().flatten();
        names.filter_map(|name| self.nodes.get_key_value(name))
    }

    /// Whether the kernel takes packets to an address for this node's own. Pods' addresses are theirs, whatever a
    /// device is given.
    pub(crate) fn is_of_device(&self, address: IpAddr) -> bool {
        let is_of_pods = |range: &IpNet| range.contains(&address);
        let pods_of_nodes = || self.nodes.values().flat_map(|node| &node.pod_cidrs);
        self.devices.contains(&IpNet::from(address))
            && !self.pod_cidrs.iter().any(is_of_pods)
            && !pods_of_nodes().any(is_of_pods)
    }

    /// The addresses at which the kernel takes packets for itself. Those that are new or gone.
    pub(crate) fn set_devices(&mut self, devices: BTreeSet<IpNet>) -> Vec<IpNet> {
        let before = std::mem::replace(&mut self.devices, devices);
        let changed = before.symmetric_difference(&self.devices);
        let changed: Vec<IpNet> = changed.copied().collect();
        self.ranges_changed |= !changed.is_empty();
        changed
    }

    /// Whether the ranges may be others than when this was asked last.
    pub(crate) const fn take_ranges_changed(&mut self) -> bool {
        std::mem::replace(&mut self.ranges_changed, false)
    }

    /// The ranges behind addresses that nobody is known to have.
    pub(crate) fn ranges(&self) -> BTreeMap<IpNet, Base> {
        let mut ranges = BTreeMap::from([
            (
                IpNet::V4(ipnet::Ipv4Net::default()),
                Base::outside(Identity::WORLD_IPV4),
            ),
            (
                IpNet::V6(ipnet::Ipv6Net::default()),
                Base::outside(Identity::WORLD_IPV6),
            ),
        ]);
        for range in &self.pod_cidrs {
            ranges.insert(range.trunc(), Base::pod(Identity::UNMANAGED, None));
        }
        let device_ranges = self.devices.iter();
        let device_ranges =
            device_ranges.filter(|range| range.prefix_len() < range.max_prefix_len());
        for range in device_ranges {
            ranges.insert(range.trunc(), Base::node(Identity::HOST, None));
        }
        for (name, node) in &self.nodes {
            for range in &node.pod_cidrs {
                // A pod that another node just started is reached before its endpoint is heard of.
                let underlay = if *name == self.own_name {
                    None
                } else {
                    node.underlay(self.fabric, range.addr().is_ipv4())
                };
                ranges.insert(range.trunc(), Base::pod(Identity::UNMANAGED, underlay));
            }
        }
        ranges
    }

    /// Routes to other nodes' pod ranges: each range and the address behind which it lies.
    pub(crate) fn routes(&self) -> Vec<(IpNet, IpAddr)> {
        let others = self
            .nodes
            .iter()
            .filter(|(name, _)| **name != self.own_name);
        others
            .flat_map(|(_, node)| {
                node.pod_cidrs.iter().filter_map(|range| {
                    let underlay = node.underlay(self.fabric, range.addr().is_ipv4())?;
                    Some((range.trunc(), underlay))
                })
            })
            .collect()
    }
}

/// The first address of a pod range.
fn first_address(range: &IpNet) -> Option<IpAddr> {
    match range.trunc() {
        IpNet::V4(v4) => u32::from(v4.network())
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpNet::V6(v6) => u128::from(v6.network())
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(addresses: &[IpAddr], internal_count: usize) -> NodeView {
        NodeView {
            addresses: addresses.to_vec(),
            internal_count,
            ..NodeView::default()
        }
    }

    fn table() -> NodeTable {
        NodeTable {
            own_name: "n5".to_owned(),
            fabric: Fabric::Routed,
            pod_cidrs: Vec::new(),
            nodes: BTreeMap::new(),
            holders: HashMap::new(),
            devices: BTreeSet::new(),
            ranges_changed: false,
        }
    }

    #[test]
    fn an_address_is_this_nodes_then_whose_underlay_it_is_then_who_lists_it() {
        let mut nodes = table();
        let address = IpAddr::from([192, 0, 2, 1]);
        let at = |nodes: &NodeTable| nodes.at(address).map(|(name, _)| name.clone());
        nodes.set("n1".to_owned(), Some(view(&[address], 0)));
        assert_eq!(at(&nodes).as_deref(), Some("n1"));
        nodes.set("n2".to_owned(), Some(view(&[address], 1)));
        assert_eq!(at(&nodes).as_deref(), Some("n2"));
        nodes.set("n5".to_owned(), Some(view(&[address], 0)));
        assert_eq!(at(&nodes).as_deref(), Some("n5"));
        nodes.set("n5".to_owned(), Some(view(&[], 0)));
        nodes.set("n2".to_owned(), None);
        assert_eq!(at(&nodes).as_deref(), Some("n1"));
        nodes.set("n1".to_owned(), None);
        assert_eq!(at(&nodes), None);
        assert!(nodes.holders.is_empty());
    }

    #[test]
    fn whose_an_address_is_costs_the_same_however_many_nodes_there_are() {
        let mut nodes = table();
        for number in 0..2_000_u32 {
            let address = IpAddr::from((0xc0a8_0000 + number).to_be_bytes());
            nodes.set(format!("n{number}"), Some(view(&[address], 1)));
        }
        let looked_at = |address: [u8; 4]| nodes.holders_of(address.into()).count();
        assert_eq!(looked_at([192, 168, 0, 7]), 1);
        assert_eq!(looked_at([198, 51, 100, 7]), 0);
    }
}
