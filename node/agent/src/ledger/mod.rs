//! Everything the agent knows and wishes, behind one lock; what changes in it is brought into the kernel
//! by [`Ledger::reconcile`].

mod audit;
mod budget;
#[cfg(test)]
mod claimed;
mod claims;
mod facts;
#[cfg(test)]
mod hanging;
mod heard;
mod host;
pub(crate) mod nearest;
mod observe;
mod policies;
mod reconcile;
#[cfg(test)]
mod refused;
mod shared;
mod shortfall;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod tests;
mod transition;

use crate::config::{AgentConfig, AllowLocalhost, Fabric};
use crate::directory::{Directory, EndpointInfo, Listing, PolicyListing};
use crate::endpoint::record::{AttachmentKey, Record};
use crate::identities::unsettled::Unsettled;
use crate::ipcache::{self, Base, Ipcache};
use heddle_datapath::{Datapath, DatapathError, Facts};
use heddle_kube::store::Object;
use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_policy::{CidrChange, CidrScope, CompiledPolicy, Engine};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

pub(crate) use facts::NamedFacts;
pub(crate) use heard::Heard;
pub(crate) use host::HostPolicy;
pub(crate) use observe::string_map;
pub(crate) use policies::{PolicyKey, PolicyTable, outside_only};
pub(crate) use reconcile::IPCACHE;
pub(crate) use shared::SharedLedger;

/// File in the state directory: which number stands for which policy CIDR.
const CIDRS_FILE: &str = "policy-cidrs.json";

/// Highest endpoint id: the one after it is the node's own.
pub(crate) const LAST_ENDPOINT_ID: u16 = (heddle_abi::HOST_ENDPOINT - 1) as u16;

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

/// How old a claim of addresses is: the younger is greater. A watch tells changes in the order in which they were
/// made; what a list tells at once goes by when it was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Age {
    /// Which change this agent heard of it was, as a count that one list shares.
    pub(crate) heard: u64,
    /// When the object was made, to the second.
    pub(crate) created: String,
    pub(crate) uid: String,
}

impl Age {
    fn of(object: &serde_json::Value) -> Self {
        let metadata = &object["metadata"];
        let field = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        Self {
            heard: 0,
            created: field("creationTimestamp"),
            uid: field("uid"),
        }
    }
}

/// Another pod's endpoint as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RemoteEndpoint {
    pub(crate) age: Age,
    pub(crate) identity: Identity,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) node_name: Option<String>,
    pub(crate) node_address: Option<IpAddr>,
}

/// A local pod's endpoint.
#[derive(Clone, Debug)]
pub(crate) struct LocalEndpoint {
    pub(crate) record: Record,
    pub(crate) identity: Identity,
    pub(crate) labels: Arc<LabelSet>,
    pub(crate) facts: Option<Facts>,
    pub(crate) wished: Option<Arc<CompiledPolicy>>,
    pub(crate) policy: Option<Arc<CompiledPolicy>>,
    /// What is to be said of the wished policy once it is in force.
    listing: Option<Arc<PolicyListing>>,
    pub(crate) attached: bool,
    /// It is being removed: nothing is written for it any more.
    pub(crate) leaving: bool,
    /// Store revision up to which policy is in force.
    pub(crate) policy_revision: u64,
    /// Why its policy could not be brought into force.
    pub(crate) failure: Option<String>,
    /// A policy that did not fit.
    too_large: Option<TooLarge>,
}

/// A policy that does not fit.
#[derive(Clone, Debug)]
struct TooLarge {
    whole: Arc<CompiledPolicy>,
    /// As much of it as fits.
    part: Arc<CompiledPolicy>,
    reason: String,
}

/// What is wished and does not fit: nobody but the endpoint waits for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shortfall {
    /// What does not fit, and what to do.
    pub(crate) reason: String,
    /// Whose endpoint it is.
    pub(crate) pod: Option<NamespacedName>,
    /// Whose policies do not fit.
    pub(crate) identity: Option<Identity>,
}

impl LocalEndpoint {
    pub(crate) fn new(record: Record, identity: Identity, labels: Arc<LabelSet>) -> Self {
        Self {
            record,
            identity,
            labels,
            facts: None,
            wished: None,
            policy: None,
            listing: None,
            attached: false,
            leaving: false,
            policy_revision: 0,
            failure: None,
            too_large: None,
        }
    }

    /// Whether of its wished policy, which does not fit, as much is in force as fits.
    pub(crate) fn has_part_of_wished(&self) -> bool {
        let too_large = self.too_large.as_ref();
        too_large.is_some_and(|too_large| {
            self.wished.as_ref() == Some(&too_large.whole)
                && self.policy.as_ref() == Some(&too_large.part)
        })
    }

    pub(crate) const fn state(&self) -> &'static str {
        match (&self.failure, self.attached) {
            (Some(_), _) => "not-ready",
            (None, false) => "creating",
            (None, true) => "ready",
        }
    }

    fn info(&self) -> EndpointInfo {
        EndpointInfo {
            id: self.record.endpoint,
            pod: self.record.pod.clone(),
            identity: self.identity,
            labels: Arc::clone(&self.labels),
            ifindex: self.record.link.as_ref().map_or(0, |link| link.ifindex),
            addresses: self.record.addresses().collect(),
        }
    }
}

/// Everything the agent knows and wishes.
pub(crate) struct Ledger {
    pub(crate) config: AgentConfig,
    pub(crate) directory: Arc<Directory>,
    pub(crate) datapath: Arc<dyn Datapath>,
    pub(crate) engine: Engine,
    pub(crate) policies: PolicyTable,
    /// Whose addresses are enforced.
    cidr_budget: budget::Budget,
    /// The node's own policy.
    pub(crate) host: HostPolicy,
    pub(crate) named: NamedFacts,
    pub(crate) ipcache: Ipcache,
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Namespaces whose administrator lets their pods be on audit.
    audit_namespaces: BTreeSet<String>,
    pub(crate) nodes: BTreeMap<String, NodeView>,
    /// Where the kernel takes packets for itself: more than the Node object says.
    device_addresses: BTreeSet<IpNet>,
    /// Pods of this node, and pods whose endpoint is here.
    pub(crate) pods: BTreeMap<NamespacedName, Object>,
    pub(crate) remote: HashMap<NamespacedName, RemoteEndpoint>,
    /// Who claims an address; the newest claim counts.
    claims: HashMap<IpAddr, BTreeSet<(Age, NamespacedName)>>,
    /// Claims of addresses that were heard of, as a count.
    claims_heard: u64,
    /// A list is being told: until the next time that all has been said.
    is_listing: bool,
    pub(crate) endpoints: BTreeMap<u16, LocalEndpoint>,
    keys: HashMap<AttachmentKey, u16>,
    local_addresses: HashMap<IpAddr, u16>,
    /// Endpoint ids that are taken, in use or about to be.
    ids: BTreeSet<u16>,
    last_id: u16,
    /// Identities whose compiled policy may have changed.
    touched: BTreeSet<Identity>,
    /// CIDR changes that are not in the ipcache yet.
    cidr_changes: Vec<CidrChange>,
    ranges_changed: bool,
    routes: Option<Vec<(IpNet, IpAddr)>>,
    pub(crate) unsettled: Unsettled,
    pub(crate) heard: Heard,
    /// Failures of the last reconciliation, by object.
    pub(crate) failures: BTreeMap<String, String>,
    /// What did not fit in the last reconciliation, by object.
    pub(crate) shortfalls: BTreeMap<String, Shortfall>,
    /// Number of cookies at which those that nobody bears are forgotten.
    cookies_due: usize,
    /// Before the former run's state is taken over nothing is written.
    pub(crate) restored: bool,
    /// The former run's state is taken over, and new pods are served.
    pub(crate) ready: bool,
    /// Store revision up to which everything is in force.
    realised: Arc<AtomicU64>,
    /// Wakes those who look at the ledger for work.
    changed: watch::Sender<()>,
}

impl Ledger {
    /// A ledger that knows nothing of the store yet, with the CIDR numbers that the kernel holds.
    pub(crate) fn new(
        config: AgentConfig,
        directory: Arc<Directory>,
        datapath: Arc<dyn Datapath>,
        realised: Arc<AtomicU64>,
        changed: watch::Sender<()>,
    ) -> Result<Self, DatapathError> {
        let rows = datapath.peers()?;
        let mut engine = Engine::new();
        engine.stage_cidrs();
        engine.set_mode(config.policy_enforcement);
        engine.set_allow_localhost(config.allow_localhost == AllowLocalhost::Always);
        let written_down = std::fs::read(config.state_dir.join(CIDRS_FILE)).ok();
        let written_down = written_down.and_then(|content| serde_json::from_slice(&content).ok());
        let cidrs = ipcache::borne(&rows, written_down);
        for one in &cidrs {
            engine.restore_cidr(one.prefix, one.scope, one.identity);
        }
        let mut ipcache = Ipcache::default();
        ipcache.restore(rows, &cidrs);
        Ok(Self {
            policies: PolicyTable::new(&config.state_dir),
            cidr_budget: budget::of(&config),
            host: HostPolicy::restore(datapath.as_ref())?,
            named: NamedFacts::default(),
            config,
            directory,
            datapath,
            engine,
            ipcache,
            namespaces: BTreeMap::new(),
            audit_namespaces: BTreeSet::new(),
            nodes: BTreeMap::new(),
            device_addresses: BTreeSet::new(),
            pods: BTreeMap::new(),
            remote: HashMap::new(),
            claims: HashMap::new(),
            claims_heard: 0,
            is_listing: true,
            endpoints: BTreeMap::new(),
            keys: HashMap::new(),
            local_addresses: HashMap::new(),
            ids: BTreeSet::new(),
            last_id: 0,
            touched: BTreeSet::new(),
            cidr_changes: Vec::new(),
            ranges_changed: true,
            routes: None,
            unsettled: Unsettled::default(),
            heard: Heard::default(),
            failures: BTreeMap::new(),
            shortfalls: BTreeMap::new(),
            cookies_due: reconcile::LEAST_COOKIES,
            restored: false,
            ready: false,
            realised,
            changed,
        })
    }

    /// Everything that was heard is in force here, the labels of pods included.
    pub(crate) fn is_settled(&self) -> bool {
        self.ready
            && self.heard.is_complete()
            && !self.heard.is_starting_over()
            && !self.is_behind()
            && self.unsettled.relabel.is_empty()
    }

    /// Says so when everything that was heard is in force and known to the other nodes, and wakes whoever looks for
    /// work.
    pub(crate) fn tell(&self) {
        if self.is_settled() && self.unsettled.is_empty() {
            self.realised
                .fetch_max(self.heard.revision(), Ordering::SeqCst);
        }
        self.changed.send_replace(());
    }

    /// This node, once the store has said it.
    pub(crate) fn own_node(&self) -> Option<&NodeView> {
        self.nodes.get(&self.config.node_name)
    }

    /// The first address of each own pod range: what pods use as gateway.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.own_node()
            .into_iter()
            .flat_map(|node| &node.pod_cidrs)
            .filter_map(first_address)
    }

    /// Takes a free endpoint id; ids rotate, so that late events never meet a new owner soon.
    pub(crate) fn take_id(&mut self) -> Option<u16> {
        let after = (self.last_id + 1..=LAST_ENDPOINT_ID).chain(1..=self.last_id);
        let id = after.into_iter().find(|id| !self.ids.contains(id))?;
        self.ids.insert(id);
        self.last_id = id;
        Some(id)
    }

    /// Marks an id as taken (by a former run).
    pub(crate) fn reserve_id(&mut self, id: u16) {
        self.ids.insert(id);
        self.last_id = self.last_id.max(id);
    }

    pub(crate) fn free_id(&mut self, id: u16) {
        self.ids.remove(&id);
    }

    pub(crate) fn by_key(&self, key: &AttachmentKey) -> Option<&LocalEndpoint> {
        self.endpoints.get(self.keys.get(key)?)
    }

    pub(crate) fn by_pod(&self, pod: &NamespacedName) -> Option<&LocalEndpoint> {
        self.endpoints
            .values()
            .filter(|endpoint| endpoint.record.pod == *pod)
            .max_by_key(|endpoint| endpoint.attached)
    }

    /// Makes an endpoint known; the next reconciliation writes its facts, policy and addresses.
    pub(crate) fn add_endpoint(&mut self, mut endpoint: LocalEndpoint) {
        let id = endpoint.record.endpoint;
        if self.is_held_with_other_labels(&endpoint) {
            tracing::error!(endpoint = id, identity = %endpoint.identity, "another pod here has this identity with other labels: isolated until it has one of its own");
            endpoint.identity = Identity::INIT;
            self.unsettled.relabel.insert(id);
        }
        self.ids.insert(id);
        self.keys.insert(endpoint.record.key.clone(), id);
        let addresses: Vec<IpAddr> = endpoint.record.addresses().collect();
        for address in &addresses {
            self.local_addresses.insert(*address, id);
        }
        if self.stands_for_others(endpoint.identity, &endpoint.labels)
            && let Some(others) = self.engine.labels(endpoint.identity).cloned()
        {
            if self.unsettled.contested(endpoint.identity).is_none() {
                self.unsettled.contest(endpoint.identity, others);
            }
            self.unsettled.relabel.insert(id);
        }
        let former = self.endpoints.get(&id).map(|it| it.identity);
        if endpoint.identity != Identity::INIT {
            let touched = self
                .engine
                .set_identity(endpoint.identity, LabelSet::clone(&endpoint.labels));
            self.touched.extend(touched);
            self.directory
                .set_labels(endpoint.identity, Some(Arc::clone(&endpoint.labels)));
            self.assert_identity(endpoint.identity);
        }
        self.touched.insert(endpoint.identity);
        self.directory.set_endpoint(id, Some(endpoint.info()));
        self.endpoints.insert(id, endpoint);
        self.attend();
        for address in addresses {
            self.refresh_host(address);
        }
        if let Some(former) = former {
            self.left_identity(former);
        }
    }

    /// Whether another endpoint here has its identity for other labels.
    fn is_held_with_other_labels(&self, endpoint: &LocalEndpoint) -> bool {
        let mut others = self.endpoints.iter();
        !endpoint.labels.is_empty()
            && others.any(|(id, other)| {
                *id != endpoint.record.endpoint
                    && other.identity == endpoint.identity
                    && !other.labels.is_empty()
                    && other.labels != endpoint.labels
            })
    }

    /// Only what touches this node and its endpoints is worth its time.
    fn attend(&mut self) {
        let here = self.endpoints.values().map(|it| it.identity);
        let here = here.chain([Identity::OWN_NODE]).collect();
        self.engine.attend(Some(here));
    }

    /// An endpoint's labels changed.
    pub(crate) fn relabel_endpoint(&mut self, id: u16, identity: Identity, labels: Arc<LabelSet>) {
        let Some(mut endpoint) = self.endpoints.get(&id).cloned() else {
            return;
        };
        endpoint.identity = identity;
        endpoint.record.identity = identity.0;
        endpoint.record.labels = labels.to_strings();
        endpoint.labels = labels;
        self.add_endpoint(endpoint);
    }

    /// The labels of an identity are not known after all: what bears it is isolated.
    pub(crate) fn disown_identity(&mut self, identity: Identity) {
        self.touched.extend(self.engine.remove_identity(identity));
        self.touched.insert(identity);
        self.directory.set_labels(identity, None);
    }

    /// An endpoint's removal from the kernel begins: no reconciliation brings any of it back.
    pub(crate) fn begin_removal(&mut self, id: u16) {
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            endpoint.leaving = true;
        }
    }

    /// Endpoints that are to be as wished.
    fn staying(&self) -> impl Iterator<Item = (&u16, &LocalEndpoint)> {
        self.endpoints.iter().filter(|(_, it)| !it.leaving)
    }

    /// Forgets an endpoint; the next reconciliation takes its addresses out of the ipcache.
    pub(crate) fn forget_endpoint(&mut self, id: u16) -> Option<LocalEndpoint> {
        let endpoint = self.endpoints.remove(&id)?;
        self.keys.remove(&endpoint.record.key);
        for address in endpoint.record.addresses() {
            if self.local_addresses.get(&address) == Some(&id) {
                self.local_addresses.remove(&address);
                self.refresh_host(address);
            }
        }
        self.directory.set_endpoint(id, None);
        self.unsettled.forget(id);
        self.attend();
        self.left_identity(endpoint.identity);
        Some(endpoint)
    }

    /// Works out again who an address is.
    fn refresh_host(&mut self, address: IpAddr) {
        let (base, listing) = match self.host(address) {
            Some((base, listing)) => (Some(base), Some(listing)),
            None => (None, None),
        };
        let touched = match base.filter(|base| base.in_cluster) {
            Some(base) => self.engine.set_address(address.into(), base.identity),
            None => self.engine.remove_address(address.into()),
        };
        self.touched.extend(touched);
        self.ipcache.set_host(address, base);
        self.directory.set_address(address, listing);
    }

    fn host(&self, address: IpAddr) -> Option<(Base, Listing)> {
        if let Some(endpoint) = self
            .local_addresses
            .get(&address)
            .and_then(|id| self.endpoints.get(id))
        {
            let listing = Listing {
                identity: endpoint.identity,
                pod: Some(endpoint.record.pod.clone()),
                node: Some(self.config.node_name.clone()),
            };
            return Some((Base::pod(endpoint.identity, None), listing));
        }
        let of_node = |identity: Identity, name: &str| Listing {
            identity,
            pod: None,
            node: Some(name.to_owned()),
        };
        if self.gateways().any(|gateway| gateway == address) {
            let listing = of_node(Identity::HOST, &self.config.node_name);
            return Some((Base::node(Identity::HOST, None), listing));
        }
        if self.is_device_address(address) {
            let listing = of_node(Identity::HOST, &self.config.node_name);
            return Some((Base::node(Identity::HOST, None), listing));
        }
        if let Some((name, view)) = self.node_at(address) {
            let (identity, node) = if *name == self.config.node_name {
                (Identity::HOST, None)
            } else {
                // What a node encapsulates bears its underlay address, whatever it holds. Without one the node
                // is still another than this.
                let underlay = view.underlay(self.config.fabric, address.is_ipv4());
                (Identity::REMOTE_NODE, underlay.or(Some(address)))
            };
            return Some((Base::node(identity, node), of_node(identity, name)));
        }
        let (_, name) = self.claims.get(&address)?.last()?;
        let endpoint = self.remote.get(name)?;
        let node = self.underlay_of(endpoint, address.is_ipv4());
        // Until local endpoints have left a number that stands for other labels, it must not give those who
        // have it elsewhere what these labels are allowed here. Not `unmanaged`: of such an address the tunnel
        // tells the identity.
        let identity = if self.unsettled.contested(endpoint.identity).is_some() {
            Identity::INIT
        } else {
            endpoint.identity
        };
        let listing = Listing {
            identity,
            pod: Some(name.clone()),
            node: endpoint.node_name.clone(),
        };
        Some((Base::pod(identity, node), listing))
    }

    /// Whether the kernel takes packets to an address for this node's own. Pods' addresses are theirs, whatever a
    /// device is given.
    fn is_device_address(&self, address: IpAddr) -> bool {
        let is_of_pods = |range: &IpNet| range.contains(&address);
        let pods_of_nodes = || self.nodes.values().flat_map(|node| &node.pod_cidrs);
        self.device_addresses.contains(&IpNet::from(address))
            && !self.config.pod_cidrs.iter().any(is_of_pods)
            && !pods_of_nodes().any(is_of_pods)
    }

    /// Takes in the addresses at which the kernel takes packets for itself. True when they are others than before.
    pub(crate) fn set_device_addresses(&mut self, addresses: BTreeSet<IpNet>) -> bool {
        let before = std::mem::replace(&mut self.device_addresses, addresses);
        let changed: Vec<IpNet> = before
            .symmetric_difference(&self.device_addresses)
            .copied()
            .collect();
        for prefix in &changed {
            self.refresh_host(prefix.addr());
        }
        self.ranges_changed |= !changed.is_empty();
        !changed.is_empty()
    }

    /// The node that has an address: this one first, then whoever is reached by it, then whoever lists it.
    fn node_at(&self, address: IpAddr) -> Option<(&String, &NodeView)> {
        let own = self.nodes.get_key_value(&self.config.node_name);
        let own = own.filter(|(_, node)| node.addresses.contains(&address));
        let internal = || {
            let mut nodes = self.nodes.iter();
            nodes.find(|(_, node)| node.internal().contains(&address))
        };
        let any = || {
            let mut nodes = self.nodes.iter();
            nodes.find(|(_, node)| node.addresses.contains(&address))
        };
        own.or_else(internal).or_else(any)
    }

    fn underlay_of(&self, endpoint: &RemoteEndpoint, wants_v4: bool) -> Option<IpAddr> {
        endpoint
            .node_name
            .as_ref()
            .and_then(|name| self.nodes.get(name))
            .and_then(|node| node.underlay(self.config.fabric, wants_v4))
            .or(endpoint.node_address)
    }

    /// The ranges behind addresses that nobody is known to have.
    fn ranges(&self) -> BTreeMap<IpNet, Base> {
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
        for range in &self.config.pod_cidrs {
            ranges.insert(range.trunc(), Base::pod(Identity::UNMANAGED, None));
        }
        let device_ranges = self.device_addresses.iter();
        let device_ranges =
            device_ranges.filter(|range| range.prefix_len() < range.max_prefix_len());
        for range in device_ranges {
            ranges.insert(range.trunc(), Base::node(Identity::HOST, None));
        }
        for (name, node) in &self.nodes {
            for range in &node.pod_cidrs {
                // A pod that another node just started is reached before its endpoint is heard of.
                let underlay = if *name == self.config.node_name {
                    None
                } else {
                    node.underlay(self.config.fabric, range.addr().is_ipv4())
                };
                ranges.insert(range.trunc(), Base::pod(Identity::UNMANAGED, underlay));
            }
        }
        ranges
    }

    /// The facts that an endpoint's programs should have.
    pub(crate) fn wished_facts(&self, endpoint: &LocalEndpoint) -> Option<Facts> {
        let link = endpoint.record.link.as_ref()?;
        let cidr = |address: Option<IpAddr>| match address {
            Some(address) => self.ipcache.cidr(address.into(), CidrScope::InCluster),
            None => Identity::UNKNOWN,
        };
        Some(Facts {
            endpoint: endpoint.record.endpoint,
            ifindex: link.ifindex,
            ipv4: endpoint.record.ipv4,
            ipv6: endpoint.record.ipv6,
            identity: endpoint.identity,
            cidr_ipv4: cidr(endpoint.record.ipv4.map(IpAddr::V4)),
            cidr_ipv6: cidr(endpoint.record.ipv6.map(IpAddr::V6)),
            mac: link.mac,
            host_mac: link.host_mac,
        })
    }
}

/// The first address of a pod range.
pub(crate) fn first_address(range: &IpNet) -> Option<IpAddr> {
    match range.trunc() {
        IpNet::V4(v4) => u32::from(v4.network())
            .checked_add(1)
            .map(|bits| IpAddr::V4(bits.into())),
        IpNet::V6(v6) => u128::from(v6.network())
            .checked_add(1)
            .map(|bits| IpAddr::V6(bits.into())),
    }
}
