//! The objects that there are, and the events that make them: what everything else is computed from.

use crate::HERE;
use crate::draw::Event;
use heddle_model::NamespacedName;
use heddle_services::{
    AdminState, BackendKey, EndpointSlice, HostPortPod, Node, Probe, Service, Services,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything that is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) services: BTreeMap<NamespacedName, Service>,
    pub(crate) slices: BTreeMap<NamespacedName, EndpointSlice>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) pods: BTreeMap<NamespacedName, HostPortPod>,
    pub(crate) admin: BTreeMap<(Option<NamespacedName>, IpAddr), AdminState>,
    pub(crate) probes: BTreeMap<(NamespacedName, BackendKey), Probe>,
}

impl Model {
    pub(crate) fn apply(&mut self, event: &Event) {
        match event.clone() {
            Event::Service(service) => drop(self.services.insert(service.name.clone(), service)),
            Event::NoService(name) => drop(self.services.remove(&name)),
            Event::Slice(slice) => drop(self.slices.insert(slice.name.clone(), slice)),
            Event::NoSlice(name) => drop(self.slices.remove(&name)),
            Event::Node(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Event::NoNode(name) => drop(self.nodes.remove(&name)),
            Event::Pod(pod) => drop(self.pods.insert(pod.name.clone(), pod)),
            Event::NoPod(name) => drop(self.pods.remove(&name)),
            Event::Admin(name, address, state) => {
                self.admin.insert((name, address), state);
            }
            Event::Probe(name, key, probe) => drop(self.probes.insert((name, key), probe)),
            Event::Look => {}
        }
    }

    /// The events that make what is there.
    fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .services
            .values()
            .cloned()
            .map(Event::Service)
            .collect();
        events.extend(self.slices.values().cloned().map(Event::Slice));
        events.extend(self.nodes.values().cloned().map(Event::Node));
        events.extend(self.pods.values().cloned().map(Event::Pod));
        for ((name, address), state) in &self.admin {
            events.push(Event::Admin(name.clone(), *address, *state));
        }
        for ((name, key), probe) in &self.probes {
            events.push(Event::Probe(name.clone(), *key, *probe));
        }
        events
    }

    /// The events that take away all that is there.
    pub(crate) fn removals(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .services
            .keys()
            .cloned()
            .map(Event::NoService)
            .collect();
        events.extend(self.slices.keys().cloned().map(Event::NoSlice));
        events.extend(self.nodes.keys().cloned().map(Event::NoNode));
        events.extend(self.pods.keys().cloned().map(Event::NoPod));
        for (name, address) in self.admin.keys() {
            events.push(Event::Admin(name.clone(), *address, AdminState::None));
        }
        for (name, key) in self.probes.keys() {
            events.push(Event::Probe(name.clone(), *key, Probe::Unknown));
        }
        events
    }

    /// All of it at once, in an order that a number chooses.
    pub(crate) fn anew(&self, order: u64) -> Services {
        let mut events = self.events();
        let mut state = order;
        for left in (1..events.len()).rev() {
            // Knuth's multiplier: any spread will do.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(order | 1);
            events.swap(left, (state >> 33) as usize % (left + 1));
        }
        let mut services = Services::new(HERE);
        for event in &events {
            event.apply(&mut services);
        }
        services
    }
}
