//! Services and the addresses behind them, as far as policies refer to them.

use super::Rules;
use heddle_kube::store::Object;
use heddle_kube::{pod, service};
use heddle_model::NamespacedName;
use heddle_policy::ServiceFacts;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses of a service that policies see at most, in the order of the addresses.
const MOST_ADDRESSES: usize = 4_096;

/// Services and their endpoints as the store has them.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// Services, without addresses.
    services: BTreeMap<NamespacedName, ServiceFacts>,
    /// The addresses of the EndpointSlices of each service.
    slices: BTreeMap<NamespacedName, BTreeMap<NamespacedName, Vec<IpNet>>>,
    /// The service that each EndpointSlice belongs to.
    service_of: BTreeMap<NamespacedName, NamespacedName>,
}

impl Services {
    /// A Service as the store has it; `None` when it is gone.
    pub(super) fn set(
        &mut self,
        name: &NamespacedName,
        object: Option<&Object>,
        rules: &mut Rules,
    ) {
        match object {
            Some(object) => {
                let facts = ServiceFacts {
                    labels: pod::label_map(&object.value),
                    selector: service::selector(&object.value),
                    addresses: Vec::new(),
                };
                self.services.insert(name.clone(), facts);
            }
            None => {
                self.services.remove(name);
            }
        }
        self.changed(name, rules);
    }

    /// An EndpointSlice as the store has it; `None` when it is gone.
    pub(super) fn set_slice(
        &mut self,
        name: &NamespacedName,
        object: Option<&Object>,
        rules: &mut Rules,
    ) {
        if let Some(of) = self.service_of.remove(name) {
            if let Some(slices) = self.slices.get_mut(&of) {
                slices.remove(name);
                if slices.is_empty() {
                    self.slices.remove(&of);
                }
            }
            self.changed(&of, rules);
        }
        let Some(object) = object else { return };
        if let Some(of) = service::of_slice(&object.value) {
            let addresses = service::slice_addresses(&object.value).into_iter();
            let addresses = addresses.map(IpNet::from).collect();
            let slices = self.slices.entry(of.clone()).or_default();
            slices.insert(name.clone(), addresses);
            self.service_of.insert(name.clone(), of.clone());
            self.changed(&of, rules);
        }
    }

    fn changed(&self, name: &NamespacedName, rules: &mut Rules) {
        rules.change(|engine| match self.facts(name) {
            Some(facts) => engine.set_service(name.clone(), facts),
            None => engine.remove_service(name),
        });
    }

    /// What is known of a service with the addresses of its slices.
    fn facts(&self, name: &NamespacedName) -> Option<ServiceFacts> {
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
