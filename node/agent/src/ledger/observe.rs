//! What the store says, taken into the ledger.

use super::Ledger;
use crate::addresses::nodes::NodeView;
use crate::addresses::remote::{Age, RemoteEndpoint};
use crate::audit::{allows_audit, is_on_audit};
use heddle_kube::pod;
use heddle_kube::store::{Event, Kind, Object};
use heddle_model::{Identity, IdentityScope, LabelSet, NamespacedName, Source};
use heddle_policy::NodeFacts;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Ledger {
    /// Takes in one event. `Synced` after a `Restarted` removes what was not said again.
    pub(crate) fn observe(&mut self, event: Event) {
        let gone = self.heard.note(&event);
        match event {
            Event::Applied(object) => self.applied(object),
            Event::Deleted(object) => self.deleted(object.kind, &object.name),
            Event::Restarted => {
                self.peers.remote.begin_list();
            }
            Event::Synced { .. } => {
                self.peers.remote.end_list();
                for (kind, name) in gone {
                    self.deleted(kind, &name);
                }
                self.heard.all_said(self.policies.take_heard());
            }
        }
    }

    fn applied(&mut self, object: Object) {
        match object.kind {
            Kind::Namespace => {
                let labels = pod::label_map(&object.value);
                self.set_audit_namespace(&object.name.name, allows_audit(&object.value));
                self.set_namespace(&object.name.name, Some(labels));
            }
            Kind::Node => {
                let node = node_view(&object.value);
                self.set_node(object.name.name, Some(node));
            }
            Kind::Pod => {
                let workload = pod::workload(&object.value);
                self.writer.directory.set_workload(&object.name, workload);
                self.set_pod(object);
            }
            Kind::CiliumCIDRGroup => self.policies.set_group(&object),
            kind @ (Kind::Service | Kind::EndpointSlice) => {
                self.policies.set_service(kind, &object.name, Some(&object));
            }
            kind if kind.is_policy() => {
                if self.policies.set(&object) {
                    self.host.reconsider();
                    self.policies.rules.touch([Identity::OWN_NODE]);
                }
            }
            Kind::CiliumIdentity => {
                match (identity_of(&object), object.name.name.parse()) {
                    (Some((identity, labels)), _) => self.set_identity(identity, labels),
                    // What cannot be read says nothing of its number any more.
                    (None, Ok(number)) => self.remove_identity(Identity(number)),
                    (None, Err(_)) => {}
                }
            }
            Kind::CiliumEndpoint => self.set_remote(object),
            _ => {}
        }
    }

    fn deleted(&mut self, kind: Kind, name: &NamespacedName) {
        match kind {
            Kind::Namespace => {
                self.set_audit_namespace(&name.name, false);
                self.set_namespace(&name.name, None);
            }
            Kind::Node => self.set_node(name.name.clone(), None),
            Kind::Pod => {
                self.pods.remove(name);
                self.writer.directory.set_workload(name, None);
            }
            Kind::CiliumCIDRGroup => self.policies.remove_group(&name.name),
            Kind::Service | Kind::EndpointSlice => self.policies.set_service(kind, name, None),
            kind if kind.is_policy() => self.policies.remove(kind, name),
            Kind::CiliumIdentity => {
                if let Ok(number) = name.name.parse() {
                    self.remove_identity(Identity(number));
                }
            }
            Kind::CiliumEndpoint => {
                self.remove_remote(name);
                if let Some(here) = self
                    .endpoints
                    .by_pod(name)
                    .filter(|it| it.attached && !it.leaving)
                {
                    // Whoever deleted it was wrong.
                    self.unsettled.republish.insert(here.record.endpoint);
                }
            }
            _ => {}
        }
    }

    fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        let Some(labels) = labels else {
            return self.pods.remove_namespace(name);
        };
        if self.pods.set_namespace(name, labels) {
            let here = self.endpoints.in_namespace(name);
            self.unsettled.relabel.extend(here);
        }
    }

    fn set_node(&mut self, name: String, node: Option<NodeView>) {
        if self.peers.nodes.get(&name) == node.as_ref() {
            return;
        }
        self.tell_engine_of_node(&name, node.as_ref());
        let pods = self.peers.remote.addresses_on(&name);
        let mut addresses: BTreeSet<IpAddr> = pods.collect();
        addresses.extend(self.peers.nodes.set(name, node));
        for address in addresses {
            self.refresh_address(address);
        }
    }

    /// What policies want to know of a node; of this one, whether they are about it.
    fn tell_engine_of_node(&mut self, name: &str, node: Option<&NodeView>) {
        let rules = &mut self.policies.rules;
        rules.change(|engine| match node {
            Some(node) => {
                let facts = NodeFacts {
                    labels: node.labels.clone(),
                    addresses: node.addresses.clone(),
                };
                engine.set_node(name, facts)
            }
            None => engine.remove_node(name),
        });
        if let Some(node) = node.filter(|_| name == self.config.node_name) {
            let labels = node.labels.iter();
            let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
            let labels = LabelSet::of_node(labels);
            rules.set_identity(Identity::OWN_NODE, Some(&labels));
            // Its annotations count too.
            rules.touch([Identity::OWN_NODE]);
        }
    }

    /// Whether a Namespace lets its pods be on audit.
    fn set_audit_namespace(&mut self, name: &str, allows: bool) {
        if self.pods.set_allows_audit(name, allows) {
            let here = self.endpoints.values();
            let here = here.filter(|it| it.record.pod.namespace == name);
            self.policies.rules.touch(here.map(|it| it.identity));
        }
    }

    fn set_pod(&mut self, object: Object) {
        let here = object.value["spec"]["nodeName"].as_str() == Some(&self.config.node_name);
        let endpoint = self
            .endpoints
            .by_pod(&object.name)
            .map(|it| it.record.endpoint);
        if let Some(id) = endpoint {
            self.unsettled.relabel.insert(id);
            let before = self.pods.get(&object.name);
            if before.is_none_or(|pod| is_on_audit(&pod.value) != is_on_audit(&object.value)) {
                let identity = self.endpoints.get(id).map(|endpoint| endpoint.identity);
                self.policies.rules.touch(identity);
            }
        }
        if here || endpoint.is_some() {
            self.pods.set(object);
        } else {
            self.pods.remove(&object.name);
        }
    }

    fn set_remote(&mut self, object: Object) {
        let name = object.name.clone();
        match remote_endpoint(&object) {
            // This node's endpoints are known at first hand.
            Some(endpoint) if endpoint.node_name.as_deref() != Some(&self.config.node_name) => {
                for address in self.peers.remote.set(name, endpoint) {
                    self.refresh_address(address);
                }
            }
            _ => self.remove_remote(&name),
        }
    }

    fn remove_remote(&mut self, name: &NamespacedName) {
        for address in self.peers.remote.remove(name) {
            self.refresh_address(address);
        }
    }
}

fn node_view(value: &Value) -> NodeView {
    // Whatever its type, an address is the node. The internal ones come first: they are the underlay.
    let listed = |internal: bool| {
        let all = value["status"]["addresses"]
            .as_array()
            .into_iter()
            .flatten();
        all.filter(move |address| (address["type"] == "InternalIP") == internal)
            .filter_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok())
            .filter(|address| !address.is_unspecified() && !address.is_loopback())
            .filter(|address| !address.is_multicast())
    };
    let internal: Vec<IpAddr> = listed(true).collect();
    let internal_count = internal.len();
    let ranges = value["spec"]["podCIDRs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|range| range.as_str()?.parse().ok());
    NodeView {
        labels: pod::label_map(value),
        on_audit: is_on_audit(value),
        addresses: internal.into_iter().chain(listed(false)).collect(),
        internal_count,
        pod_cidrs: ranges.collect(),
    }
}

fn identity_of(object: &Object) -> Option<(Identity, LabelSet)> {
    let (identity, labels) = heddle_kube::identity::parse_identity(&object.value)?;
    // Only cluster-scope numbers live in the store: nothing written there can pose as a reserved one.
    if identity.scope() != IdentityScope::Cluster {
        tracing::warn!(identity = %object.name.name, "ignored: not a number of the cluster scope");
        return None;
    }
    if labels
        .iter()
        .any(|(source, _, _)| source == Source::Reserved)
    {
        tracing::warn!(identity = %object.name.name, "ignored: it claims reserved labels");
        return None;
    }
    Some((identity, labels))
}

fn remote_endpoint(object: &Object) -> Option<RemoteEndpoint> {
    let status = &object.value["status"];
    let identity = Identity(u32::try_from(status["identity"]["id"].as_u64()?).ok()?);
    if identity.scope() != IdentityScope::Cluster {
        return None;
    }
    let addresses = status["networking"]["addressing"]
        .as_array()?
        .iter()
        .flat_map(|pair| [&pair["ipv4"], &pair["ipv6"]])
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect();
    Some(RemoteEndpoint {
        age: Age::of(&object.value),
        identity,
        addresses,
        node_name: status["nodeName"].as_str().map(str::to_owned),
        node_address: status["networking"]["node"]
            .as_str()
            .and_then(|address| address.parse().ok()),
    })
}
