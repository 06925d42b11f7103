//! Everything that is known of Services on a node, and whose outcome a change may have changed.

mod pool;
#[cfg(test)]
mod tests;

use crate::balance::{Endpoints, claims_of, host_port_claims, host_port_outcome, outcome};
use crate::conflict::{Claim, Claims, Touched};
use crate::outcome::{Behind, Outcome};
use crate::select::Viewpoint;
use crate::{
    AddressFault, AdminState, BackendKey, EndpointSlice, HostPortPod, Node, Probe, Service, Subject,
};
use heddle_model::NamespacedName;
use pool::Pools;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// What is known by the name of a Service; its parts come in any order.
#[derive(Clone, Debug, Default)]
struct Entry {
    service: Option<Service>,
    /// Names of its slices, sorted. Most Services have one.
    slices: Vec<Arc<NamespacedName>>,
    admin: BTreeMap<IpAddr, AdminState>,
    probes: BTreeMap<BackendKey, Probe>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.service.is_none()
            && self.slices.is_empty()
            && self.admin.is_empty()
            && self.probes.is_empty()
    }
}

/// Services, EndpointSlices, nodes and pods with host ports, as one node sees them.
///
/// Objects are set and removed in any order. [`Services::take_changes`] names those whose [`Outcome`] may have changed
/// since it was last asked; nothing is computed for the others. What a change costs depends on the objects that it
/// touches, and by logarithms on how many there are.
#[derive(Debug)]
pub struct Services {
    here: Arc<str>,
    // Tables of a map are half empty now and then: large values are elsewhere.
    entries: HashMap<Arc<NamespacedName>, Box<Entry>>,
    slices: HashMap<Arc<NamespacedName>, Box<EndpointSlice>>,
    /// Which slices have an endpoint with an address.
    slices_with: BTreeSet<(IpAddr, Arc<NamespacedName>)>,
    nodes: HashMap<Arc<str>, Node>,
    pods: HashMap<Arc<NamespacedName>, HostPortPod>,
    admin_everywhere: BTreeMap<IpAddr, AdminState>,
    claims: Claims,
    pools: Pools,
    changed: BTreeSet<Subject>,
}

impl Services {
    /// Nothing, as seen from the node with this name.
    pub fn new(node: &str) -> Self {
        Self {
            here: node.into(),
            entries: HashMap::new(),
            slices: HashMap::new(),
            slices_with: BTreeSet::new(),
            nodes: HashMap::new(),
            pods: HashMap::new(),
            admin_everywhere: BTreeMap::new(),
            claims: Claims::default(),
            pools: Pools::default(),
            changed: BTreeSet::new(),
        }
    }

    /// Enters a Service in place of the one of its name.
    pub fn set_service(&mut self, service: Service) {
        let name = self.key(&service.name);
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        if entry.service.as_ref() == Some(&service) {
            return;
        }
        let wanted = Claimed::by_service(&service);
        let former = entry.service.replace(service);
        let former = former.as_ref().map(Claimed::by_service).unwrap_or_default();
        self.reclaim(Subject::Service(name), &former, &wanted);
    }

    /// Forgets a Service. Its slices stay, for one of the same name that may come.
    pub fn remove_service(&mut self, name: &NamespacedName) {
        let Some((name, entry)) = entry_of(&mut self.entries, name) else {
            return;
        };
        if let Some(former) = entry.service.take() {
            self.drop_if_empty(&name);
            let former = Claimed::by_service(&former);
            self.reclaim(Subject::Service(name), &former, &Claimed::default());
        }
    }

    /// Enters a slice in place of the one of its name.
    pub fn set_slice(&mut self, mut slice: EndpointSlice) {
        let name = match self.slices.get_key_value(&slice.name) {
            Some((_, known)) if **known == slice => return,
            Some((name, _)) => Arc::clone(name),
            None => Arc::new(slice.name.clone()),
        };
        self.pools.share(&mut slice);
        let former = self.slices.get(&name);
        if let Some(former) = former.filter(|former| former.service != slice.service) {
            let service = former.service.clone();
            self.detach(&service, &name);
        }
        let service = self.key(&slice.service);
        let entry = self.entries.entry(Arc::clone(&service)).or_default();
        if let Err(at) = entry.slices.binary_search(&name) {
            entry.slices.reserve_exact(1);
            entry.slices.insert(at, Arc::clone(&name));
        }
        let addresses = addresses_of(&slice);
        let former = self.slices.insert(Arc::clone(&name), Box::new(slice));
        let known = former.as_deref().map(addresses_of).unwrap_or_default();
        for address in known.difference(&addresses) {
            self.slices_with.remove(&(*address, Arc::clone(&name)));
        }
        for address in addresses.difference(&known) {
            self.slices_with.insert((*address, Arc::clone(&name)));
        }
        self.changed.insert(Subject::Service(service));
    }

    /// Forgets a slice.
    pub fn remove_slice(&mut self, name: &NamespacedName) {
        let Some((name, slice)) = self.slices.remove_entry(name) else {
            return;
        };
        for address in addresses_of(&slice) {
            self.slices_with.remove(&(address, Arc::clone(&name)));
        }
        self.detach(&slice.service, &name);
    }

    /// Enters a node in place of the one of its name.
    pub fn set_node(&mut self, node: Node) {
        let name: Arc<str> = node.name.as_str().into();
        let former = self.nodes.get(&name);
        if former == Some(&node) {
            return;
        }
        let former = former.cloned().unwrap_or_default();
        self.nodes.insert(Arc::clone(&name), node.clone());
        self.move_node(&name, &former, &node);
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) {
        if let Some((name, former)) = self.nodes.remove_entry(name) {
            self.move_node(&name, &former, &Node::default());
        }
    }

    /// Enters a pod of this node with host ports in place of the one of its name.
    pub fn set_pod(&mut self, pod: HostPortPod) {
        let name = Arc::new(pod.name.clone());
        if self.pods.get(&name) == Some(&pod) {
            return;
        }
        let wanted = Claimed::by_pod(&pod);
        let former = self.pods.insert(Arc::clone(&name), pod);
        let former = former.as_ref().map(Claimed::by_pod).unwrap_or_default();
        self.reclaim(Subject::Pod(name), &former, &wanted);
    }

    /// Forgets a pod with host ports.
    pub fn remove_pod(&mut self, name: &NamespacedName) {
        if let Some((name, former)) = self.pods.remove_entry(name) {
            let former = Claimed::by_pod(&former);
            self.reclaim(Subject::Pod(name), &former, &Claimed::default());
        }
    }

    /// Sets what an operator wants of the backends with an address: in one Service, or in every one that has no state of
    /// its own for the address. It stays until it is set to [`AdminState::None`], whatever becomes of the endpoint:
    /// who sets it knows whether it is meant for the next pod with that address.
    pub fn set_admin(
        &mut self,
        service: Option<&NamespacedName>,
        address: IpAddr,
        state: AdminState,
    ) {
        let Some(service) = service else {
            if set_or_default(&mut self.admin_everywhere, address, state) {
                self.touch_endpoints(address);
            }
            return;
        };
        let name = self.key(service);
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        if set_or_default(&mut entry.admin, address, state) {
            self.changed.insert(Subject::Service(Arc::clone(&name)));
        }
        self.drop_if_empty(&name);
    }

    /// Sets what the health check of a Service says of a backend. It stays until it is set to [`Probe::Unknown`].
    pub fn set_probe(&mut self, service: &NamespacedName, backend: BackendKey, probe: Probe) {
        let name = self.key(service);
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        if set_or_default(&mut entry.probes, backend, probe) {
            self.changed.insert(Subject::Service(Arc::clone(&name)));
        }
        self.drop_if_empty(&name);
    }

    /// Those whose outcome may have changed since this was last asked, in order. One that is gone has no outcome.
    pub fn take_changes(&mut self) -> Vec<Subject> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// Computes the outcome of a Service or a pod; `None` for one that is not known.
    pub fn outcome(&self, subject: &Subject) -> Option<Outcome> {
        match subject {
            Subject::Pod(name) => {
                let pod = self.pods.get(name)?;
                Some(host_port_outcome(subject, pod, &self.here, &self.claims))
            }
            Subject::Service(name) => {
                let entry = self.entries.get(name)?;
                let service = entry.service.as_ref()?;
                let node = self.nodes.get(&self.here);
                let viewpoint = Viewpoint {
                    node: &self.here,
                    zone: node.and_then(|node| node.zone.as_deref()),
                };
                let endpoints = self.endpoints(entry);
                Some(outcome(
                    subject,
                    service,
                    &endpoints,
                    &self.claims,
                    viewpoint,
                ))
            }
        }
    }

    /// Every Service and every pod with host ports, in no order.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> + '_ {
        let services = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.service.is_some());
        let services = services.map(|(name, _)| Subject::Service(Arc::clone(name)));
        services.chain(self.pods.keys().map(|name| Subject::Pod(Arc::clone(name))))
    }

    /// The Service with this name.
    pub fn service(&self, name: &NamespacedName) -> Option<&Service> {
        self.entries.get(name)?.service.as_ref()
    }

    /// What stands behind a Service, headless ones too, from no node's point of view: what policy's `toServices` means, and
    /// where a packet to it can end. `None` for one that is not known.
    pub fn behind(&self, name: &NamespacedName) -> Option<Vec<Behind>> {
        let entry = self.entries.get(name)?;
        let service = entry.service.as_ref()?;
        Some(self.endpoints(entry).behind(service, &self.claims))
    }

    /// The Services that have an endpoint with an address, in order.
    pub fn services_with(&self, address: IpAddr) -> BTreeSet<NamespacedName> {
        let slices = self.slices_at(address);
        slices.map(|slice| slice.service.clone()).collect()
    }

    fn slices_at(&self, address: IpAddr) -> impl Iterator<Item = &EndpointSlice> {
        // The empty name comes before every other.
        let from = (address, Arc::new(NamespacedName::default()));
        let found = self.slices_with.range(from..);
        found
            .take_while(move |(at, _)| *at == address)
            .filter_map(|(_, name)| self.slices.get(name).map(Box::as_ref))
    }

    fn endpoints<'a>(&'a self, entry: &'a Entry) -> Endpoints<'a> {
        let slices = entry.slices.iter();
        Endpoints {
            slices: slices
                .filter_map(|name| self.slices.get(name).map(Box::as_ref))
                .collect(),
            admin: &entry.admin,
            admin_everywhere: &self.admin_everywhere,
            probes: &entry.probes,
        }
    }

    /// The name as entries have it, so that all that refers to it is one allocation.
    fn key(&self, name: &NamespacedName) -> Arc<NamespacedName> {
        match self.entries.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(name.clone()),
        }
    }

    fn drop_if_empty(&mut self, name: &NamespacedName) {
        if self.entries.get(name).is_some_and(|entry| entry.is_empty()) {
            self.entries.remove(name);
        }
    }

    /// Takes a slice from a Service.
    fn detach(&mut self, service: &NamespacedName, slice: &Arc<NamespacedName>) {
        if let Some((name, entry)) = entry_of(&mut self.entries, service) {
            entry.slices.retain(|known| known != slice);
            self.changed.insert(Subject::Service(Arc::clone(&name)));
            self.drop_if_empty(&name);
        }
    }

    /// Replaces what a subject claims.
    fn reclaim(&mut self, subject: Subject, former: &Claimed, wanted: &Claimed) {
        for (list, other, add) in [(former, wanted, false), (wanted, former, true)] {
            let stays = |claim: &&Claim| {
                list.created == other.created && other.claims.binary_search(claim).is_ok()
            };
            for claim in list.claims.iter().filter(|claim| !stays(claim)) {
                let touched = self.claims.set(&subject, list.created, *claim, add);
                self.touch(touched);
            }
        }
        self.changed.insert(subject);
    }

    fn move_node(&mut self, name: &Arc<str>, former: &Node, node: &Node) {
        let addresses = |node: &Node| {
            let addresses = node.addresses.iter().copied();
            let of_hosts = addresses.filter(|address| AddressFault::of(*address).is_none());
            of_hosts.collect::<BTreeSet<_>>()
        };
        let ranges = |node: &Node| {
            let ranges = node.pod_ranges.iter().map(ipnet::IpNet::trunc);
            ranges.collect::<BTreeSet<_>>()
        };
        for (address, add) in changes(&addresses(former), &addresses(node)) {
            let touched = self.claims.set_node_address(address, name, add);
            self.touch(touched);
        }
        for (range, add) in changes(&ranges(former), &ranges(node)) {
            let touched = self.claims.set_pod_range(range, add);
            self.touch(touched);
        }
        if *name == self.here {
            if let Some(subjects) = self.claims.set_here(addresses(node)) {
                self.changed.extend(subjects);
                let pods = self.pods.keys().map(|name| Subject::Pod(Arc::clone(name)));
                self.changed.extend(pods);
            }
            if former.zone != node.zone {
                let all: Vec<Subject> = self.subjects().collect();
                self.changed.extend(all);
            }
        }
    }

    fn touch(&mut self, touched: Touched) {
        self.changed.extend(touched.subjects);
        for address in touched.addresses {
            self.touch_endpoints(address);
        }
    }

    /// The Services with an endpoint at an address may have another outcome.
    fn touch_endpoints(&mut self, address: IpAddr) {
        let services = self.slices_at(address).map(|slice| &slice.service);
        let services: Vec<Subject> = services
            .map(|name| Subject::Service(self.key(name)))
            .collect();
        self.changed.extend(services);
    }
}

/// What a subject claims, sorted, with its age.
#[derive(Default)]
struct Claimed {
    created: u64,
    claims: Vec<Claim>,
}

impl Claimed {
    fn by_service(service: &Service) -> Self {
        Self {
            created: service.created,
            claims: claims_of(service),
        }
    }

    fn by_pod(pod: &HostPortPod) -> Self {
        Self {
            created: pod.created,
            claims: host_port_claims(pod),
        }
    }
}

fn addresses_of(slice: &EndpointSlice) -> BTreeSet<IpAddr> {
    slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address)
        .collect()
}

/// An entry that is there, with its name as the map has it.
fn entry_of<'a>(
    entries: &'a mut HashMap<Arc<NamespacedName>, Box<Entry>>,
    name: &NamespacedName,
) -> Option<(Arc<NamespacedName>, &'a mut Entry)> {
    let (key, _) = entries.get_key_value(name)?;
    let key = Arc::clone(key);
    entries.get_mut(name).map(|entry| (key, &mut **entry))
}

/// Sets a value, of which the default is not kept. Whether that changed anything.
fn set_or_default<K: Ord, V: Copy + Default + PartialEq>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
) -> bool {
    let before = if value == V::default() {
        map.remove(&key)
    } else {
        map.insert(key, value)
    };
    before.unwrap_or_default() != value
}

/// What is to be taken back (false) and to be entered (true) to get from one set to another.
fn changes<T: Ord + Copy>(former: &BTreeSet<T>, wanted: &BTreeSet<T>) -> Vec<(T, bool)> {
    let gone = former.difference(wanted).map(|value| (*value, false));
    let new = wanted.difference(former).map(|value| (*value, true));
    gone.chain(new).collect()
}
