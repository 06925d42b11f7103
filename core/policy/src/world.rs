//! What policies refer to by name, and where the cluster's addresses are: facts that come and go.

use crate::{
    CidrChange, CidrGroupRef, CidrScope, EndpointSelector, Engine, NodeFacts, ServiceFacts,
    ServiceRef,
    cidr::Area,
    facts::{CidrGroup, PrefixSet, matches},
    link::{SpecNo, Touched},
};
use heddle_model::{Identity, NamespacedName};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Everything whose addresses rules mean without writing them.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamedAddresses {
    groups: BTreeMap<String, CidrGroup>,
    services: BTreeMap<NamespacedName, ServiceFacts>,
    nodes: BTreeMap<String, NodeFacts>,
}

impl NamedAddresses {
    /// The prefixes that an area's terms stand for.
    pub(crate) fn blocks(&self, area: &Area) -> Vec<Arc<PrefixSet>> {
        match area {
            Area::Block(cidr) => vec![Arc::new(PrefixSet::new([cidr.block]))],
            Area::Group { by, .. } => self
                .groups
                .iter()
                .filter(|(name, group)| names_group(by, name, &group.labels))
                .map(|(_, group)| Arc::clone(&group.prefixes))
                .collect(),
            Area::Services(by) => self
                .services
                .iter()
                .filter(|(name, facts)| names_service(by, name, facts))
                .map(|(_, facts)| Arc::new(PrefixSet::new(facts.outside().iter().copied())))
                .collect(),
            Area::Nodes(selector) => self
                .nodes
                .values()
                .filter(|facts| matches(selector, &facts.labels))
                .map(|facts| facts.addresses.iter().copied().map(IpNet::from))
                .map(|addresses| Arc::new(PrefixSet::new(addresses)))
                .collect(),
        }
    }
}

fn names_group(by: &CidrGroupRef, name: &str, labels: &BTreeMap<String, String>) -> bool {
    match by {
        CidrGroupRef::Name(wanted) => wanted == name,
        CidrGroupRef::Labels(selector) => matches(selector, labels),
    }
}

fn names_service(by: &ServiceRef, name: &NamespacedName, facts: &ServiceFacts) -> bool {
    match by {
        ServiceRef::Name(wanted) => wanted == name,
        ServiceRef::Labels {
            selector,
            namespace,
        } => {
            namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == name.namespace)
                && matches(selector, &facts.labels)
        }
    }
}

impl Engine {
    /// Sets what a CIDR group lists; returns the identities to compile again.
    ///
    /// Costs what differs from what it listed before, however long the list is.
    pub fn set_cidr_group(
        &mut self,
        name: &str,
        labels: BTreeMap<String, String>,
        cidrs: Vec<IpNet>,
    ) -> BTreeSet<Identity> {
        let prefixes = PrefixSet::new(cidrs);
        let before = self.named_addresses.groups.get(name);
        if before.is_some_and(|old| old.labels == labels && *old.prefixes == prefixes) {
            return BTreeSet::new();
        }
        let mut either = vec![labels.clone()];
        either.extend(before.map(|old| old.labels.clone()));
        let prefixes = Arc::new(prefixes);
        self.named_addresses
            .groups
            .insert(name.to_owned(), CidrGroup { labels, prefixes });
        self.groups_changed(name, &either)
    }

    /// The labels and prefixes of a CIDR group.
    pub fn cidr_group(&self, name: &str) -> Option<(&BTreeMap<String, String>, Vec<IpNet>)> {
        let group = self.named_addresses.groups.get(name)?;
        Some((&group.labels, group.prefixes.iter().collect()))
    }

    /// Forgets a CIDR group: what refers to it selects nothing. Returns the identities to compile again.
    pub fn remove_cidr_group(&mut self, name: &str) -> BTreeSet<Identity> {
        match self.named_addresses.groups.remove(name) {
            Some(group) => self.groups_changed(name, &[group.labels]),
            None => BTreeSet::new(),
        }
    }

    fn groups_changed(
        &mut self,
        name: &str,
        labels: &[BTreeMap<String, String>],
    ) -> BTreeSet<Identity> {
        let depends = |area: &Area| match area {
            Area::Group { by, .. } => labels.iter().any(|labels| names_group(by, name, labels)),
            _ => false,
        };
        for (number, area) in self.cidrs.areas_that(depends) {
            let blocks = self.named_addresses.blocks(&area);
            self.cidrs.set_blocks(number, blocks);
        }
        self.finish(Touched::default(), true)
    }

    /// Sets what is known of a service; returns the identities to compile again.
    pub fn set_service(&mut self, name: NamespacedName, facts: ServiceFacts) -> BTreeSet<Identity> {
        if self.named_addresses.services.get(&name) == Some(&facts) {
            return BTreeSet::new();
        }
        let before = self
            .named_addresses
            .services
            .insert(name.clone(), facts.clone());
        let mut either = vec![facts];
        either.extend(before);
        self.services_changed(&name, &either)
    }

    /// Forgets a service: what refers to it selects nothing. Returns the identities to compile again.
    pub fn remove_service(&mut self, name: &NamespacedName) -> BTreeSet<Identity> {
        match self.named_addresses.services.remove(name) {
            Some(facts) => self.services_changed(name, &[facts]),
            None => BTreeSet::new(),
        }
    }

    fn services_changed(
        &mut self,
        name: &NamespacedName,
        facts: &[ServiceFacts],
    ) -> BTreeSet<Identity> {
        if self.with_services.is_empty() {
            return BTreeSet::new();
        }
        let means = |by: &ServiceRef| facts.iter().any(|facts| names_service(by, name, facts));
        let depends = |area: &Area| matches!(area, Area::Services(by) if means(by));
        for (number, area) in self.cidrs.areas_that(depends) {
            let blocks = self.named_addresses.blocks(&area);
            self.cidrs.set_blocks(number, blocks);
        }
        let users: BTreeSet<SpecNo> = self
            .with_services
            .iter()
            .filter(|(by, _)| means(by))
            .flat_map(|(_, users)| users.iter().copied())
            .collect();
        let mut touched = Touched::default();
        for user in users {
            self.relink_services(user);
            self.touch(user, &mut touched);
        }
        self.finish(touched, true)
    }

    /// Sets what is known of a node, under its name; returns the identities to compile again.
    pub fn set_node(&mut self, name: &str, facts: NodeFacts) -> BTreeSet<Identity> {
        let nodes = &mut self.named_addresses.nodes;
        if nodes.get(name) == Some(&facts) {
            return BTreeSet::new();
        }
        let before = nodes.insert(name.to_owned(), facts.clone());
        self.nodes_changed(&[Some(facts), before])
    }

    /// Forgets a node; returns the identities to compile again.
    pub fn remove_node(&mut self, name: &str) -> BTreeSet<Identity> {
        let before = self.named_addresses.nodes.remove(name);
        self.nodes_changed(&[before])
    }

    fn nodes_changed(&mut self, facts: &[Option<NodeFacts>]) -> BTreeSet<Identity> {
        let depends = |area: &Area| match area {
            Area::Nodes(selector) => facts
                .iter()
                .flatten()
                .any(|facts| matches(selector, &facts.labels)),
            _ => false,
        };
        for (number, area) in self.cidrs.areas_that(depends) {
            let blocks = self.named_addresses.blocks(&area);
            self.cidrs.set_blocks(number, blocks);
        }
        self.finish(Touched::default(), true)
    }

    /// The pods behind the services that a term names.
    pub(crate) fn pods_behind(&self, services: &ServiceRef) -> Vec<EndpointSelector> {
        if let ServiceRef::Name(name) = services {
            let pods = self
                .named_addresses
                .services
                .get(name)
                .and_then(|facts| facts.pods(name));
            return pods.into_iter().flatten().collect();
        }
        self.named_addresses
            .services
            .iter()
            .filter(|(name, facts)| names_service(services, name, facts))
            .filter_map(|(name, facts)| facts.pods(name)?.ok())
            .collect()
    }

    /// Says who the addresses of a prefix inside the cluster are: a pod's or node's address, or a pod range
    /// (`Identity::UNMANAGED`). Returns the identities to compile again.
    ///
    /// It matters only where rules that pass meet rules about addresses of the cluster, and where a rule names a
    /// port towards such addresses: there the answer depends on a peer's identity and its address together, and
    /// addresses of different identities get CIDR identities of their own. An address that nobody told is denied
    /// by the first, and has no named ports for the second.
    pub fn set_address(&mut self, prefix: IpNet, identity: Identity) -> BTreeSet<Identity> {
        self.cidrs.set_base(prefix, Some(identity));
        self.finish(Touched::default(), true)
    }

    /// Forgets who the addresses of a prefix are; returns the identities to compile again.
    pub fn remove_address(&mut self, prefix: IpNet) -> BTreeSet<Identity> {
        self.cidrs.set_base(prefix, None);
        self.finish(Touched::default(), true)
    }

    /// Gives a prefix the number it had before a restart; call it before the policies are set, and after
    /// [`Engine::stage_cidrs`]. A number out of range, or one that is in use for other prefixes, is not taken.
    pub fn restore_cidr(&mut self, prefix: IpNet, scope: CidrScope, identity: Identity) {
        self.cidrs.restore(prefix, scope, identity);
    }

    /// From now on CIDR identities change in steps that suit a running datapath, and
    /// [`Engine::take_cidr_changes`] tells them.
    ///
    /// Policy rows name CIDR identities and the ipcache says which addresses bear them; both cannot be written
    /// at once. A change of rules therefore only parts classes of prefixes, and never joins any. For each
    /// batch of changes, the agent
    ///
    /// 1. makes the changes, keeping the identities they touch, and takes the CIDR changes;
    /// 2. writes the policies in force once more, where a change is `fresh`: with rows for `after` that are
    ///    copies of those for `before` (none where `before` is 0);
    /// 3. writes the ipcache in the order of the changes: every prefix, and every address inside it that has a
    ///    row of its own, bears what now covers it; prefixes that are not `named` any more lose their row;
    /// 4. compiles the touched identities and writes their policies; only now does any verdict change;
    /// 5. calls [`Engine::settle_cidrs`], takes the CIDR changes, and writes these to the ipcache; rows for
    ///    them are in force already, and say the same as those they replace;
    /// 6. compiles and writes what `settle_cidrs` touched: that only takes rows away that no address needs.
    ///
    /// At no step does an address bear a number that a policy in force has no or the wrong rows for.
    pub fn stage_cidrs(&mut self) {
        self.cidrs.stage();
    }

    /// The prefixes whose CIDR identity changed since this was asked last, in the order to write them in (an
    /// address never finds the row of a prefix that it has left or not yet come to); empty unless
    /// [`Engine::stage_cidrs`] was called. The caller is bound to bring them into the ipcache.
    pub fn take_cidr_changes(&mut self) -> Vec<CidrChange> {
        self.cidrs.take_changes()
    }

    /// Joins what has become alike, and forgets prefixes that no rule names any more; returns the
    /// identities to compile again. Does nothing while CIDR changes wait to be taken.
    pub fn settle_cidrs(&mut self) -> BTreeSet<Identity> {
        let mut touched = Touched::default();
        for region in self.cidrs.settle() {
            self.touch_region(region, &mut touched);
        }
        self.resolve(touched)
    }
}
