//! Everything the agent knows and wishes, behind one lock; what changes in it is brought into the kernel
//! by [`Ledger::reconcile`].

#[cfg(test)]
mod claimed;
mod claims;
mod failures;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod hanging;
mod heard;
pub(crate) mod nearest;
mod observe;
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
pub(crate) mod transition;
mod writer;

use crate::addresses::peers::Peers;
use crate::audit::Audit;
use crate::config::AgentConfig;
use crate::directory::Directory;
use crate::endpoint::pods::Pods;
use crate::endpoint::table::{EndpointTable, LocalEndpoint};
use crate::host::HostPolicy;
use crate::identities::unsettled::Unsettled;
use crate::policy::Policies;
use heddle_datapath::{Datapath, DatapathError};
use heddle_model::{Identity, LabelSet};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::watch;

pub(crate) use failures::{Failures, Shortfall};
pub(crate) use heard::Heard;
pub(crate) use progress::Progress;
pub(crate) use realised::as_compiled;
pub(crate) use shared::SharedLedger;
pub(crate) use shortfall::{falls_short, not_in_force, not_in_force_count};
pub(crate) use writer::Writer;

/// Everything the agent knows and wishes: the parts, and what happens to several of them at once.
pub(crate) struct Ledger {
    pub(crate) config: AgentConfig,
    /// What policies say.
    pub(crate) policies: Policies,
    /// Who stands at which address.
    pub(crate) peers: Peers,
    /// The node's own policy.
    pub(crate) host: HostPolicy,
    pub(crate) pods: Pods,
    pub(crate) endpoints: EndpointTable,
    pub(crate) unsettled: Unsettled,
    pub(crate) heard: Heard,
    pub(crate) writer: Writer,
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
        let (peers, cidrs) = Peers::restore(&config, datapath.as_ref())?;
        Ok(Self {
            policies: Policies::new(&config, &cidrs),
            peers,
            host: HostPolicy::restore(&config, datapath.as_ref())?,
            pods: Pods::default(),
            endpoints: EndpointTable::default(),
            unsettled: Unsettled::default(),
            heard: Heard::default(),
            writer: Writer::new(datapath, directory),
            progress: Progress::new(realised, changed),
            config,
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
            && let Some(others) = self.labels_of(endpoint.identity).cloned()
        {
            if self.unsettled.contested(endpoint.identity).is_none() {
                self.unsettled.contest(endpoint.identity, others);
            }
            self.unsettled.relabel.insert(id);
        }
        if endpoint.identity != Identity::INIT {
            self.know_identity(endpoint.identity, Some(Arc::clone(&endpoint.labels)));
            self.assert_identity(endpoint.identity);
        }
        self.policies.rules.touch([endpoint.identity]);
        self.writer
            .directory
            .set_endpoint(id, Some(endpoint.info()));
        let former = self.endpoints.insert(endpoint);
        self.attend();
        for address in addresses {
            self.refresh_address(address);
        }
        if let Some(former) = former {
            self.left_identity(former.identity);
        }
    }

    /// Whether an endpoint's policy is on audit.
    pub(crate) fn audits(&self, endpoint: &LocalEndpoint) -> bool {
        self.audit().audits(endpoint, &self.policies.rules)
    }

    /// What an operator should know of Pods whose annotation for audit has no effect.
    pub(crate) fn audit_notice(&self) -> Option<String> {
        self.audit().notice(&self.endpoints, &self.policies.rules)
    }

    /// Who is on audit.
    const fn audit(&self) -> Audit<'_> {
        Audit {
            config: &self.config,
            pods: &self.pods,
        }
    }

    /// Only what touches this node and its endpoints is worth its time.
    fn attend(&mut self) {
        let here = self.endpoints.values().map(|it| it.identity);
        let here = here.chain([Identity::OWN_NODE]).collect();
        self.policies.rules.attend(here);
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
        self.know_identity(identity, None);
        self.policies.rules.touch([identity]);
    }

    /// An identity's labels, for policies and for those who describe flows.
    fn know_identity(&mut self, identity: Identity, labels: Option<Arc<LabelSet>>) {
        self.policies
            .rules
            .set_identity(identity, labels.as_deref());
        self.writer.directory.set_labels(identity, labels);
    }

    /// The labels that policies know of an identity.
    pub(crate) fn labels_of(&self, identity: Identity) -> Option<&LabelSet> {
        self.policies.rules.engine().labels(identity)
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
            self.refresh_address(address);
        }
        self.writer.directory.set_endpoint(id, None);
        self.unsettled.forget(id);
        self.attend();
        self.left_identity(endpoint.identity);
        Some(endpoint)
    }

    /// Works out again who an address is.
    fn refresh_address(&mut self, address: IpAddr) {
        let found = self.peers.who_is(address, &self.endpoints, &self.unsettled);
        let (base, listing) = found.unzip();
        self.policies
            .rules
            .change(|engine| match base.filter(|base| base.in_cluster) {
                Some(base) => engine.set_address(address.into(), base.identity),
                None => engine.remove_address(address.into()),
            });
        self.peers.ipcache.set_host(address, base);
        self.writer.directory.set_address(address, listing);
    }

    /// Takes in the addresses at which the kernel takes packets for itself. True when they are others than before.
    pub(crate) fn set_device_addresses(&mut self, addresses: BTreeSet<IpNet>) -> bool {
        let changed = self.peers.nodes.set_devices(addresses);
        for prefix in &changed {
            self.refresh_address(prefix.addr());
        }
        !changed.is_empty()
    }
}
