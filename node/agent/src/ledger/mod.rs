//! Everything the agent knows and wishes, behind one lock; what changes in it is brought into the kernel
//! by [`Ledger::reconcile`].

mod audit;
mod budget;
#[cfg(test)]
mod claimed;
mod claims;
mod facts;
mod failures;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod hanging;
mod heard;
mod host;
pub(crate) mod nearest;
mod observe;
mod policies;
mod progress;
mod realised;
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

use crate::addresses::ipcache::{self, Base, Ipcache};
use crate::addresses::nodes::NodeTable;
use crate::addresses::remote::{RemoteEndpoint, RemoteTable};
use crate::config::{AgentConfig, AllowLocalhost};
use crate::directory::{Directory, Listing};
use crate::endpoint::pods::Pods;
use crate::endpoint::table::{EndpointTable, LocalEndpoint};
use crate::identities::unsettled::Unsettled;
use heddle_datapath::{Datapath, DatapathError, Facts};
use heddle_model::{Identity, LabelSet};
use heddle_policy::{CidrChange, CidrScope, Engine};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;

pub(crate) use facts::NamedFacts;
pub(crate) use failures::{Failures, Shortfall};
pub(crate) use heard::Heard;
pub(crate) use host::HostPolicy;
pub(crate) use observe::string_map;
pub(crate) use policies::{PolicyKey, PolicyTable};
pub(crate) use progress::Progress;
pub(crate) use realised::as_compiled;
pub(crate) use reconcile::IPCACHE;
pub(crate) use shared::SharedLedger;

/// File in the state directory: which number stands for which policy CIDR.
const CIDRS_FILE: &str = "policy-cidrs.json";

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
    pub(crate) nodes: NodeTable,
    /// Other nodes' pods.
    remote: RemoteTable,
    pub(crate) pods: Pods,
    pub(crate) endpoints: EndpointTable,
    /// Identities whose compiled policy may have changed.
    touched: BTreeSet<Identity>,
    /// CIDR changes that are not in the ipcache yet.
    cidr_changes: Vec<CidrChange>,
    routes: Option<Vec<(IpNet, IpAddr)>>,
    /// Other nodes changed since the routes were written.
    routes_due: bool,
    pub(crate) unsettled: Unsettled,
    pub(crate) heard: Heard,
    pub(crate) failures: Failures,
    /// Number of cookies at which those that nobody bears are forgotten.
    cookies_due: usize,
    pub(crate) progress: Progress,
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
            nodes: NodeTable::new(&config),
            config,
            directory,
            datapath,
            engine,
            ipcache,
            remote: RemoteTable::default(),
            pods: Pods::default(),
            endpoints: EndpointTable::default(),
            touched: BTreeSet::new(),
            cidr_changes: Vec::new(),
            routes: None,
            routes_due: true,
            unsettled: Unsettled::default(),
            heard: Heard::default(),
            failures: Failures::default(),
            cookies_due: reconcile::LEAST_COOKIES,
            progress: Progress::new(realised, changed),
        })
    }

    /// Everything that was heard is in force here, the labels of pods included.
    pub(crate) fn is_settled(&self) -> bool {
        self.progress.is_ready()
            && self.heard.is_complete()
            && !self.heard.is_starting_over()
            && !self.is_behind()
            && self.unsettled.relabel.is_empty()
    }

    /// Says so when everything that was heard is in force and known to the other nodes, and wakes whoever looks for
    /// work.
    pub(crate) fn tell(&self) {
        if self.is_settled() && self.unsettled.is_empty() {
            self.progress.realise(self.heard.revision());
        }
        self.progress.wake();
    }

    /// Makes an endpoint known; the next reconciliation writes its facts, policy and addresses.
    pub(crate) fn add_endpoint(&mut self, mut endpoint: LocalEndpoint) {
        let id = endpoint.record.endpoint;
        if self.endpoints.has_with_other_labels(&endpoint) {
            tracing::error!(endpoint = id, identity = %endpoint.identity, "another pod here has this identity with other labels: isolated until it has one of its own");
            endpoint.identity = Identity::INIT;
            self.unsettled.relabel.insert(id);
        }
        let addresses: Vec<IpAddr> = endpoint.record.addresses().collect();
        if self.stands_for_others(endpoint.identity, &endpoint.labels)
            && let Some(others) = self.engine.labels(endpoint.identity).cloned()
        {
            if self.unsettled.contested(endpoint.identity).is_none() {
                self.unsettled.contest(endpoint.identity, others);
            }
            self.unsettled.relabel.insert(id);
        }
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
        let former = self.endpoints.insert(endpoint);
        self.attend();
        for address in addresses {
            self.refresh_host(address);
        }
        if let Some(former) = former {
            self.left_identity(former.identity);
        }
    }

    /// Only what touches this node and its endpoints is worth its time.
    fn attend(&mut self) {
        let here = self.endpoints.values().map(|it| it.identity);
        let here = here.chain([Identity::OWN_NODE]).collect();
        self.engine.attend(Some(here));
    }

    /// An endpoint's labels changed.
    pub(crate) fn relabel_endpoint(&mut self, id: u16, identity: Identity, labels: Arc<LabelSet>) {
        let Some(mut endpoint) = self.endpoints.get(id).cloned() else {
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
        if let Some(endpoint) = self.endpoints.get_mut(id) {
            endpoint.leaving = true;
        }
    }

    /// Forgets an endpoint; the next reconciliation takes its addresses out of the ipcache.
    pub(crate) fn forget_endpoint(&mut self, id: u16) -> Option<LocalEndpoint> {
        let (endpoint, addresses) = self.endpoints.remove(id)?;
        for address in addresses {
            self.refresh_host(address);
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
        if let Some(endpoint) = self.endpoints.at(address) {
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
        if self.nodes.gateways().any(|gateway| gateway == address) {
            let listing = of_node(Identity::HOST, &self.config.node_name);
            return Some((Base::node(Identity::HOST, None), listing));
        }
        if self.nodes.is_of_device(address) {
            let listing = of_node(Identity::HOST, &self.config.node_name);
            return Some((Base::node(Identity::HOST, None), listing));
        }
        if let Some((name, view)) = self.nodes.at(address) {
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
        let (name, endpoint) = self.remote.at(address)?;
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

    /// Takes in the addresses at which the kernel takes packets for itself. True when they are others than before.
    pub(crate) fn set_device_addresses(&mut self, addresses: BTreeSet<IpNet>) -> bool {
        let changed = self.nodes.set_devices(addresses);
        for prefix in &changed {
            self.refresh_host(prefix.addr());
        }
        !changed.is_empty()
    }

    fn underlay_of(&self, endpoint: &RemoteEndpoint, wants_v4: bool) -> Option<IpAddr> {
        endpoint
            .node_name
            .as_ref()
            .and_then(|name| self.nodes.get(name))
            .and_then(|node| node.underlay(self.config.fabric, wants_v4))
            .or(endpoint.node_address)
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
