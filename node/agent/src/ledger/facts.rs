//! What policies refer to by name: CIDR groups and services.

use super::Ledger;
use super::budget::made;
use heddle_kube::policy::{CidrGroup, Problem, parse_cidr_group};
use heddle_kube::service;
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use heddle_policy::ServiceFacts;
use heddle_rpc::durable::{file_stem, make_private_directory, write_durably};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Addresses of a service that policies see at most, in the order of the addresses.
const MOST_ADDRESSES: usize = 4_096;

/// Groups, services and their endpoints as the store has them.
#[derive(Debug, Default)]
pub(crate) struct NamedFacts {
    /// Services, without addresses.
    services: BTreeMap<NamespacedName, ServiceFacts>,
    /// The addresses of the EndpointSlices of each service.
    slices: BTreeMap<NamespacedName, BTreeMap<NamespacedName, Vec<IpNet>>>,
    /// The service that each EndpointSlice belongs to.
    service_of: BTreeMap<NamespacedName, NamespacedName>,
    /// Groups whose present content is refused; what they listed before still counts.
    refused: BTreeMap<String, Problem>,
    /// Groups that list more than fits; what they listed before still counts.
    too_large: BTreeMap<String, CidrGroup>,
}

/// A group in the budget of addresses.
fn group_key(name: &str) -> (Kind, NamespacedName) {
    (Kind::CiliumCIDRGroup, NamespacedName::new("", name))
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
        let slices = self.slices.get(name).into_iter().flatten();
        let addresses: BTreeSet<IpNet> = slices
            .flat_map(|(_, addresses)| addresses)
            .copied()
            .collect();
        facts.addresses = addresses.into_iter().take(MOST_ADDRESSES).collect();
        Some(facts)
    }
}

impl Ledger {
    pub(super) fn set_cidr_group(&mut self, object: &Object) {
        let name = &object.name.name;
        match parse_cidr_group(&object.value) {
            Ok(group) => {
                self.named.refused.remove(name);
                let key = group_key(name);
                let cost = group.cidrs.len();
                self.named.too_large.insert(name.clone(), group);
                let changed = self
                    .cidr_budget
                    .set(key.clone(), "", &made(&object.value), cost);
                self.group_budget_changed(name);
                if self.cidr_budget.admits(&key) {
                    let _ = std::fs::remove_file(self.kept_group(name));
                } else {
                    self.keep_group(name);
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
                self.keep_group(name);
            }
        }
        self.heard.note_policy();
    }

    /// The addresses of a group fit now, or do not any more: then what is in force stays.
    pub(super) fn group_budget_changed(&mut self, name: &str) {
        let key = group_key(name);
        if self.cidr_budget.admits(&key)
            && let Some(group) = self.named.too_large.remove(name)
        {
            let touched = self.engine.set_cidr_group(name, group.labels, group.cidrs);
            self.touched.extend(touched);
        }
    }

    fn kept_group(&self, name: &str) -> PathBuf {
        let groups = self.config.state_dir.join("groups");
        groups.join(format!("{}.json", file_stem(name, "accepted")))
    }

    /// What a group lists that is not taken in stays as it was, also over a restart of the agent.
    fn keep_group(&mut self, name: &str) {
        let path = self.kept_group(name);
        if let Some(group) = self.engine.cidr_group(name) {
            let kept = serde_json::to_vec(&group)
                .map_err(std::io::Error::from)
                .and_then(|content| {
                    make_private_directory(&self.config.state_dir.join("groups"))?;
                    write_durably(&path, &content)
                });
            if let Err(error) = kept {
                tracing::error!(group = %name, %error, "what it listed before cannot be kept over a restart");
            }
            return;
        }
        let kept = std::fs::read(&path).ok();
        if let Some((labels, cidrs)) = kept.and_then(|kept| serde_json::from_slice(&kept).ok()) {
            let touched = self.engine.set_cidr_group(name, labels, cidrs);
            self.touched.extend(touched);
        }
    }

    pub(super) fn remove_cidr_group(&mut self, name: &str) {
        self.named.refused.remove(name);
        self.named.too_large.remove(name);
        let _ = std::fs::remove_file(self.kept_group(name));
        let key = group_key(name);
        let changed = self.cidr_budget.remove(&key);
        self.budget_changed(changed);
        self.touched.extend(self.engine.remove_cidr_group(name));
        self.heard.note_policy();
    }

    pub(super) fn set_service(&mut self, object: &Object) {
        let labels = super::string_map(&object.value["metadata"]["labels"]);
        let facts = ServiceFacts {
            labels,
            selector: service::selector(&object.value),
            addresses: Vec::new(),
        };
        self.named.services.insert(object.name.clone(), facts);
        self.service_changed(&object.name);
    }

    pub(super) fn remove_service(&mut self, name: &NamespacedName) {
        self.named.services.remove(name);
        self.service_changed(name);
    }

    pub(super) fn set_slice(&mut self, object: &Object) {
        self.remove_slice(&object.name);
        if let Some(of) = service::of_slice(&object.value) {
            let addresses = service::slice_addresses(&object.value).into_iter();
            let addresses = addresses.map(IpNet::from).collect();
            let slices = self.named.slices.entry(of.clone()).or_default();
            slices.insert(object.name.clone(), addresses);
            self.named
                .service_of
                .insert(object.name.clone(), of.clone());
            self.service_changed(&of);
        }
    }

    pub(super) fn remove_slice(&mut self, name: &NamespacedName) {
        if let Some(of) = self.named.service_of.remove(name) {
            if let Some(slices) = self.named.slices.get_mut(&of) {
                slices.remove(name);
                if slices.is_empty() {
                    self.named.slices.remove(&of);
                }
            }
            self.service_changed(&of);
        }
    }

    fn service_changed(&mut self, name: &NamespacedName) {
        let touched = match self.named.service(name) {
            Some(facts) => self.engine.set_service(name.clone(), facts),
            None => self.engine.remove_service(name),
        };
        self.touched.extend(touched);
        self.heard.note_policy();
    }
}
