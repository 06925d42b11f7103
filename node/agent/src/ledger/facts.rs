//! What policies refer to by name: CIDR groups and services.

use super::Ledger;
use super::budget::made;
use heddle_kube::policy::{CidrGroup, Problem, parse_cidr_group};
use heddle_kube::service;
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use heddle_policy::ServiceFacts;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Groups, services and their endpoints as the store has them.
#[derive(Debug, Default)]
pub(crate) struct NamedFacts {
    /// Services, without addresses.
    services: BTreeMap<NamespacedName, ServiceFacts>,
    /// EndpointSlices of services.
    slices: BTreeMap<NamespacedName, Slice>,
    /// Groups whose present content is refused; what they listed before still counts.
    refused: BTreeMap<String, Problem>,
    /// Groups that list more than fits; what they listed before still counts.
    too_large: BTreeMap<String, CidrGroup>,
}

/// An EndpointSlice of a service.
#[derive(Debug)]
struct Slice {
    of: NamespacedName,
    addresses: Vec<IpNet>,
    /// When it was made.
    made: String,
}

impl NamedFacts {
    /// Refused groups, each with its first error.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, &Problem)> {
        let named = |(name, problem)| (format!("CiliumCIDRGroup {name}"), problem);
        self.refused.iter().map(named)
    }

    /// What is known of a service with the addresses of its slices, as far as these fit.
    fn service(
        &self,
        name: &NamespacedName,
        fits: impl Fn(&NamespacedName) -> bool,
    ) -> Option<ServiceFacts> {
        let mut facts = self.services.get(name)?.clone();
        let mine = self.slices.iter().filter(|(_, slice)| slice.of == *name);
        let mine = mine.filter(|(slice, _)| fits(slice));
        let addresses: BTreeSet<IpNet> = mine
            .flat_map(|(_, slice)| &slice.addresses)
            .copied()
            .collect();
        facts.addresses = addresses.into_iter().collect();
        Some(facts)
    }
}

impl Ledger {
    pub(super) fn set_cidr_group(&mut self, object: &Object) {
        let name = &object.name.name;
        match parse_cidr_group(&object.value) {
            Ok(group) => {
                self.named.refused.remove(name);
                let key = (Kind::CiliumCIDRGroup, object.name.clone());
                let cost = group.cidrs.len();
                self.named.too_large.insert(name.clone(), group);
                let changed = self
                    .cidr_budget
                    .set(key.clone(), "", &made(&object.value), cost);
                self.group_budget_changed(name);
                if !self.cidr_budget.admits(&key) {
                    tracing::error!(group = %name, "CIDR group not taken in, what it listed before still counts: all groups and cluster-wide policies name more addresses than fit (maxPolicyCidrs)");
                }
                self.budget_changed(changed);
            }
            Err(problems) => {
                if let Some(problem) = problems.into_iter().next() {
                    tracing::error!(
                        group = %name, code = %problem.code, field = %problem.field,
                        "CIDR group refused, what it listed before still counts: {}", problem.message
                    );
                    self.named.refused.insert(name.clone(), problem);
                }
            }
        }
        self.policy_revision = self.policy_revision.max(object.revision);
    }

    /// The addresses of a group fit now, or do not any more: then what is in force stays.
    pub(super) fn group_budget_changed(&mut self, name: &str) {
        let key = (Kind::CiliumCIDRGroup, NamespacedName::new("", name));
        if self.cidr_budget.admits(&key)
            && let Some(group) = self.named.too_large.remove(name)
        {
            let touched = self.engine.set_cidr_group(name, group.labels, group.cidrs);
            self.touched.extend(touched);
        }
    }

    pub(super) fn remove_cidr_group(&mut self, name: &str, revision: u64) {
        self.named.refused.remove(name);
        self.named.too_large.remove(name);
        let key = (Kind::CiliumCIDRGroup, NamespacedName::new("", name));
        let changed = self.cidr_budget.remove(&key);
        self.budget_changed(changed);
        self.touched.extend(self.engine.remove_cidr_group(name));
        self.policy_revision = self.policy_revision.max(revision);
    }

    pub(super) fn set_service(&mut self, object: &Object) {
        let labels = super::string_map(&object.value["metadata"]["labels"]);
        let facts = ServiceFacts {
            labels,
            selector: service::selector(&object.value),
            addresses: Vec::new(),
        };
        self.named.services.insert(object.name.clone(), facts);
        self.service_changed(&object.name, object.revision);
    }

    pub(super) fn remove_service(&mut self, name: &NamespacedName, revision: u64) {
        self.named.services.remove(name);
        self.service_changed(name, revision);
    }

    pub(super) fn set_slice(&mut self, object: &Object) {
        self.remove_slice(&object.name, object.revision);
        if let Some(of) = service::of_slice(&object.value) {
            let addresses = service::slice_addresses(&object.value).into_iter();
            let slice = Slice {
                of: of.clone(),
                addresses: addresses.map(IpNet::from).collect(),
                made: made(&object.value),
            };
            self.named.slices.insert(object.name.clone(), slice);
            self.service_changed(&of, object.revision);
        }
    }

    pub(super) fn remove_slice(&mut self, name: &NamespacedName, revision: u64) {
        if let Some(slice) = self.named.slices.remove(name) {
            let changed = self
                .cidr_budget
                .remove(&(Kind::EndpointSlice, name.clone()));
            self.budget_changed(changed);
            self.service_changed(&slice.of, revision);
        }
    }

    /// The addresses of a slice fit now, or do not any more: then its service is as if it had them not.
    pub(super) fn slice_budget_changed(&mut self, name: &NamespacedName) {
        if let Some(of) = self.named.slices.get(name).map(|slice| slice.of.clone()) {
            self.tell_engine_of_service(&of);
        }
    }

    fn service_changed(&mut self, name: &NamespacedName, revision: u64) {
        // Addresses count where there is no selector.
        let facts = self.named.services.get(name);
        let counts =
            facts.is_some_and(|facts| facts.selector.as_ref().is_none_or(BTreeMap::is_empty));
        let slices = self.named.slices.iter();
        let costs: Vec<_> = slices
            .filter(|(_, slice)| slice.of == *name)
            .map(|(slice, it)| {
                let cost = if counts { it.addresses.len() } else { 0 };
                (slice.clone(), it.made.clone(), cost)
            })
            .collect();
        let mut changed = BTreeSet::new();
        for (slice, made, cost) in costs {
            let key = (Kind::EndpointSlice, slice);
            changed.extend(self.cidr_budget.set(key, &name.namespace, &made, cost));
        }
        self.tell_engine_of_service(name);
        self.budget_changed(changed);
        self.policy_revision = self.policy_revision.max(revision);
    }

    fn tell_engine_of_service(&mut self, name: &NamespacedName) {
        let fits = |slice: &NamespacedName| {
            let key = (Kind::EndpointSlice, slice.clone());
            self.cidr_budget.admits(&key)
        };
        let touched = match self.named.service(name, fits) {
            Some(facts) => self.engine.set_service(name.clone(), facts),
            None => self.engine.remove_service(name),
        };
        self.touched.extend(touched);
    }
}
