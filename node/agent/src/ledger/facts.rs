//! What policies refer to by name: CIDR groups and services.

use super::Ledger;
use heddle_kube::policy::{Problem, parse_cidr_group};
use heddle_kube::service;
use heddle_kube::store::Object;
use heddle_model::NamespacedName;
use heddle_policy::ServiceFacts;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Groups, services and their endpoints as the store has them.
#[derive(Debug, Default)]
pub(crate) struct NamedFacts {
    /// Services, without addresses.
    services: BTreeMap<NamespacedName, ServiceFacts>,
    /// EndpointSlices: the service each belongs to, and its addresses.
    slices: BTreeMap<NamespacedName, (NamespacedName, Vec<IpNet>)>,
    /// Groups whose present content is refused; what they listed before still counts.
    refused: BTreeMap<String, Problem>,
}

impl NamedFacts {
    /// Refused groups, each with its first error.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, &Problem)> {
        let named = |(name, problem)| (format!("CiliumCIDRGroup {name}"), problem);
        self.refused.iter().map(named)
    }

    /// What is known of a service with the addresses of its slices.
    fn service(&self, name: &NamespacedName) -> Option<ServiceFacts> {
        let mut facts = self.services.get(name)?.clone();
        let mine = self.slices.values().filter(|(of, _)| of == name);
        let addresses: BTreeSet<IpNet> =
            mine.flat_map(|(_, addresses)| addresses).copied().collect();
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
                let touched = self.engine.set_cidr_group(name, group.labels, group.cidrs);
                self.touched.extend(touched);
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

    pub(super) fn remove_cidr_group(&mut self, name: &str, revision: u64) {
        self.named.refused.remove(name);
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
            let addresses = addresses.map(IpNet::from).collect();
            self.named
                .slices
                .insert(object.name.clone(), (of.clone(), addresses));
            self.service_changed(&of, object.revision);
        }
    }

    pub(super) fn remove_slice(&mut self, name: &NamespacedName, revision: u64) {
        if let Some((of, _)) = self.named.slices.remove(name) {
            self.service_changed(&of, revision);
        }
    }

    fn service_changed(&mut self, name: &NamespacedName, revision: u64) {
        let touched = match self.named.service(name) {
            Some(facts) => self.engine.set_service(name.clone(), facts),
            None => self.engine.remove_service(name),
        };
        self.touched.extend(touched);
        self.policy_revision = self.policy_revision.max(revision);
    }
}
