//! Whose an address is as a whole: a node's, pods', one Service's, or load balancers'.

use heddle_model::NamespacedName;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A Service by its age.
type Aged = (u64, Arc<NamespacedName>);

/// What an address belongs to before any Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Owned {
    /// A node.
    Node(Arc<str>),
    /// Pods, in this range.
    Pods(IpNet),
}

/// All that decides about an address as a whole: while it stays, so does every answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    owned: Option<Owned>,
    cluster_ip_of: Option<Arc<NamespacedName>>,
    /// The first two namespaces with a load balancer's address here: each Service is told of one that is not its own.
    load_balancers: Vec<String>,
}

/// Owners of addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressOwners {
    nodes: BTreeMap<IpAddr, Vec<Arc<str>>>,
    /// How many have each range of pods.
    pods: BTreeMap<IpNet, u32>,
    /// How many ranges of pods have each length.
    lengths: [BTreeMap<u8, u32>; 2],
    /// The oldest first.
    cluster_ips: BTreeMap<IpAddr, Vec<Aged>>,
    /// How many Services of each namespace have each address from a load balancer.
    load_balancers: BTreeMap<IpAddr, BTreeMap<String, u32>>,
}

impl AddressOwners {
    pub(super) fn set_node_address(&mut self, address: IpAddr, node: &Arc<str>, add: bool) {
        set_in(&mut self.nodes, address, Arc::clone(node), add);
    }

    pub(super) fn set_cluster_ip(
        &mut self,
        address: IpAddr,
        created: u64,
        service: &Arc<NamespacedName>,
        add: bool,
    ) {
        let aged = (created, Arc::clone(service));
        set_in(&mut self.cluster_ips, address, aged, add);
    }

    pub(super) fn set_load_balancer(&mut self, address: IpAddr, namespace: &str, add: bool) {
        let namespaces = self.load_balancers.entry(address).or_default();
        count_in(namespaces, namespace.to_owned(), add);
        if namespaces.is_empty() {
            self.load_balancers.remove(&address);
        }
    }

    pub(super) fn set_pod_range(&mut self, range: IpNet, add: bool) {
        count_in(&mut self.pods, range, add);
        let lengths = &mut self.lengths[usize::from(matches!(range, IpNet::V6(_)))];
        count_in(lengths, range.prefix_len(), add);
    }

    /// What an address belongs to before any Service.
    pub(super) fn owned(&self, address: IpAddr) -> Option<Owned> {
        if let Some(node) = self.nodes.get(&address).and_then(|nodes| nodes.first()) {
            return Some(Owned::Node(Arc::clone(node)));
        }
        let mut lengths = self.lengths[usize::from(address.is_ipv6())].keys();
        lengths.find_map(|length| {
            let range = IpNet::new(address, *length).ok()?.trunc();
            self.pods.contains_key(&range).then_some(Owned::Pods(range))
        })
    }

    /// Whether it is an address of this node.
    pub(super) fn is_address_of(&self, address: IpAddr, node: &str) -> bool {
        let nodes = self.nodes.get(&address);
        nodes.is_some_and(|nodes| nodes.iter().any(|name| **name == *node))
    }

    /// The Service that has an address to itself, if that is not [`AddressOwners::owned`].
    pub(super) fn cluster_ip_of(&self, address: IpAddr) -> Option<&Arc<NamespacedName>> {
        let (_, oldest) = self.cluster_ips.get(&address)?.first()?;
        Some(oldest)
    }

    /// Services that want an address to themselves.
    pub(super) fn cluster_ip_claimants(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = super::Subject> + '_ {
        let services = self.cluster_ips.get(&address).into_iter().flatten();
        services.map(|(_, name)| super::Subject::Service(Arc::clone(name)))
    }

    /// Addresses between these two, both included, that Services want to themselves.
    pub(super) fn cluster_ips_between(
        &self,
        first: IpAddr,
        last: IpAddr,
    ) -> impl Iterator<Item = IpAddr> + '_ {
        self.cluster_ips
            .range(first..=last)
            .map(|(address, _)| *address)
    }

    /// A namespace other than this one that has an address from a load balancer: the first by name.
    pub(super) fn other_load_balancer(&self, address: IpAddr, namespace: &str) -> Option<&str> {
        let mut namespaces = self.load_balancers.get(&address)?.keys();
        namespaces
            .find(|name| *name != namespace)
            .map(String::as_str)
    }

    pub(super) fn summary(&self, address: IpAddr) -> Summary {
        let namespaces = self.load_balancers.get(&address);
        Summary {
            owned: self.owned(address),
            cluster_ip_of: self.cluster_ip_of(address).cloned(),
            load_balancers: namespaces
                .into_iter()
                .flat_map(BTreeMap::keys)
                .take(2)
                .cloned()
                .collect(),
        }
    }
}

/// Puts a value into a sorted list of a map, or takes it out.
fn set_in<T: Ord>(map: &mut BTreeMap<IpAddr, Vec<T>>, address: IpAddr, value: T, add: bool) {
    // Most lists have one value: a Vec that grows by itself would begin with room for four.
    let list = map.entry(address).or_insert_with(|| Vec::with_capacity(1));
    match (list.binary_search(&value), add) {
        (Err(at), true) => list.insert(at, value),
        (Ok(at), false) => drop(list.remove(at)),
        (Ok(_), true) | (Err(_), false) => {}
    }
    if list.is_empty() {
        map.remove(&address);
    }
}

/// Counts a value up or down; what comes down to nothing goes.
fn count_in<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, add: bool) {
    if add {
        *counts.entry(key).or_default() += 1;
    } else if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
