//! The endpoints of this node, and who has which number, attachment and address.

use super::record::{AttachmentKey, Record};
use crate::directory::{EndpointInfo, PolicyListing};
use heddle_datapath::Facts;
use heddle_model::{Identity, LabelSet, NamespacedName};
use heddle_policy::CompiledPolicy;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Highest endpoint id: the one after it is the node's own.
pub(crate) const LAST_ENDPOINT_ID: u16 = (heddle_abi::HOST_ENDPOINT - 1) as u16;

/// A local pod's endpoint.
#[derive(Clone, Debug)]
pub(crate) struct LocalEndpoint {
    pub(crate) record: Record,
    pub(crate) identity: Identity,
    pub(crate) labels: Arc<LabelSet>,
    pub(crate) facts: Option<Facts>,
    pub(crate) wished: Option<Arc<CompiledPolicy>>,
    /// What the kernel was given last, or, while that is in doubt, before.
    pub(crate) policy: Option<Arc<CompiledPolicy>>,
    /// The last write of its policy failed: the kernel may have what it should replace, or what was to be written.
    pub(crate) policy_in_doubt: bool,
    /// What is to be said of the wished policy once it is in force.
    pub(crate) listing: Option<Arc<PolicyListing>>,
    pub(crate) attached: bool,
    /// It is being removed: nothing is written for it any more.
    pub(crate) leaving: bool,
    /// Store revision up to which policy is in force.
    pub(crate) policy_revision: u64,
    /// Why its policy could not be brought into force.
    pub(crate) failure: Option<String>,
    /// A policy that did not fit.
    pub(crate) too_large: Option<TooLarge>,
}

/// A policy that does not fit.
#[derive(Clone, Debug)]
pub(crate) struct TooLarge {
    pub(crate) whole: Arc<CompiledPolicy>,
    /// As much of it as fits.
    pub(crate) part: Arc<CompiledPolicy>,
    pub(crate) reason: String,
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
            policy_in_doubt: false,
            listing: None,
            attached: false,
            leaving: false,
            policy_revision: 0,
            failure: None,
            too_large: None,
        }
    }

    /// Whether the kernel has this policy for it, for certain.
    pub(crate) fn has_policy(&self, policy: &Arc<CompiledPolicy>) -> bool {
        !self.policy_in_doubt && self.policy.as_ref() == Some(policy)
    }

    /// Whether its wished policy is in force.
    pub(crate) fn has_wished(&self) -> bool {
        let wished = self.wished.as_ref();
        wished.is_some_and(|wished| self.has_policy(wished))
    }

    /// Whether of its wished policy, which does not fit, as much is in force as fits.
    pub(crate) fn has_part_of_wished(&self) -> bool {
        let too_large = self.too_large.as_ref();
        too_large.is_some_and(|too_large| {
            self.wished.as_ref() == Some(&too_large.whole) && self.has_policy(&too_large.part)
        })
    }

    pub(crate) const fn state(&self) -> &'static str {
        match (&self.failure, self.attached) {
            (Some(_), _) => "not-ready",
            (None, false) => "creating",
            (None, true) => "ready",
        }
    }

    /// What those who describe flows are told of it.
    pub(crate) fn info(&self) -> EndpointInfo {
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

/// Every endpoint of this node.
#[derive(Debug, Default)]
pub(crate) struct EndpointTable {
    endpoints: BTreeMap<u16, LocalEndpoint>,
    keys: HashMap<AttachmentKey, u16>,
    addresses: HashMap<IpAddr, u16>,
    /// Endpoint ids that are taken, in use or about to be.
    ids: BTreeSet<u16>,
    last_id: u16,
}

impl EndpointTable {
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

    /// Makes an endpoint known, or replaces it; the one that had its id.
    pub(crate) fn insert(&mut self, endpoint: LocalEndpoint) -> Option<LocalEndpoint> {
        let id = endpoint.record.endpoint;
        self.ids.insert(id);
        self.keys.insert(endpoint.record.key.clone(), id);
        for address in endpoint.record.addresses() {
            self.addresses.insert(address, id);
        }
        self.endpoints.insert(id, endpoint)
    }

    /// Forgets an endpoint; also the addresses that are nobody's here now.
    pub(crate) fn remove(&mut self, id: u16) -> Option<(LocalEndpoint, Vec<IpAddr>)> {
        let endpoint = self.endpoints.remove(&id)?;
        self.keys.remove(&endpoint.record.key);
        let mut addresses: Vec<IpAddr> = endpoint.record.addresses().collect();
        addresses.retain(|address| self.addresses.get(address) == Some(&id));
        for address in &addresses {
            self.addresses.remove(address);
        }
        Some((endpoint, addresses))
    }

    pub(crate) fn get(&self, id: u16) -> Option<&LocalEndpoint> {
        self.endpoints.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u16) -> Option<&mut LocalEndpoint> {
        self.endpoints.get_mut(&id)
    }

    pub(crate) fn contains(&self, id: u16) -> bool {
        self.endpoints.contains_key(&id)
    }

    pub(crate) fn by_key(&self, key: &AttachmentKey) -> Option<&LocalEndpoint> {
        self.endpoints.get(self.keys.get(key)?)
    }

    /// A pod's endpoint, the attached one before one that is about to be.
    pub(crate) fn by_pod(&self, pod: &NamespacedName) -> Option<&LocalEndpoint> {
        self.endpoints
            .values()
            .filter(|endpoint| endpoint.record.pod == *pod)
            .max_by_key(|endpoint| endpoint.attached)
    }

    /// The endpoint that has an address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&LocalEndpoint> {
        self.endpoints.get(self.addresses.get(&address)?)
    }

    /// Every endpoint, by id.
    pub(crate) fn values(&self) -> impl Iterator<Item = &LocalEndpoint> {
        self.endpoints.values()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut LocalEndpoint> {
        self.endpoints.values_mut()
    }

    /// Every endpoint with its id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &LocalEndpoint)> {
        self.endpoints.iter().map(|(id, endpoint)| (*id, endpoint))
    }

    /// Endpoints that are to be as wished.
    pub(crate) fn staying(&self) -> impl Iterator<Item = (u16, &LocalEndpoint)> {
        self.iter().filter(|(_, it)| !it.leaving)
    }

    /// Endpoints that are to be as wished.
    pub(crate) fn staying_mut(&mut self) -> impl Iterator<Item = &mut LocalEndpoint> {
        self.values_mut().filter(|it| !it.leaving)
    }

    /// Ids of the endpoints whose pods are in a namespace.
    pub(crate) fn in_namespace<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u16> + 'a {
        let here = self.iter();
        let here = here.filter(move |(_, it)| it.record.pod.namespace == name);
        here.map(|(id, _)| id)
    }

    /// Whether some endpoint has an identity.
    pub(crate) fn bears(&self, identity: Identity) -> bool {
        self.values().any(|it| it.identity == identity)
    }

    /// The labels of the endpoints that have an identity.
    pub(crate) fn labels_of(&self, identity: Identity) -> Option<Arc<LabelSet>> {
        self.values()
            .find(|it| it.identity == identity && !it.labels.is_empty())
            .map(|it| Arc::clone(&it.labels))
    }

    /// Whether another endpoint has an endpoint's identity for other labels.
    pub(crate) fn has_with_other_labels(&self, endpoint: &LocalEndpoint) -> bool {
        !endpoint.labels.is_empty()
            && self.iter().any(|(id, other)| {
                id != endpoint.record.endpoint
                    && other.identity == endpoint.identity
                    && !other.labels.is_empty()
                    && other.labels != endpoint.labels
            })
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}
