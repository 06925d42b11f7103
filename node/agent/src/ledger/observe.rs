//! What the store says, taken into the ledger.

use super::audit::{allows_audit, is_on_audit};
use super::{Age, Ledger, NodeView, RemoteEndpoint};
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
                self.is_listing = true;
                self.claims_heard += 1;
            }
            Event::Synced { .. } => {
                self.is_listing = false;
                for (kind, name) in gone {
                    self.deleted(kind, &name);
                }
                self.heard.all_said();
            }
        }
    }

    fn applied(&mut self, object: Object) {
        match object.kind {
            Kind::Namespace => {
                let labels = string_map(&object.value["metadata"]["labels"]);
                self.set_audit_namespace(&object.name.name, allows_audit(&object.value));
                self.set_namespace(&object.name.name, Some(labels));
            }
            Kind::Node => {
                let node = node_view(&object.value);
                self.set_node(object.name.name, Some(node));
            }
            Kind::Pod => {
                let workload = heddle_kube::pod::workload(&object.value);
                self.directory.set_workload(&object.name, workload);
                self.set_pod(object);
            }
            Kind::CiliumCIDRGroup => self.set_cidr_group(&object),
            Kind::Service => self.set_service(&object),
            Kind::EndpointSlice => self.set_slice(&object),
            kind if kind.is_policy() => self.set_policy_object(&object),
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
                self.directory.set_workload(name, None);
            }
            Kind::CiliumCIDRGroup => self.remove_cidr_group(&name.name),
            Kind::Service => self.remove_service(name),
            Kind::EndpointSlice => self.remove_slice(name),
            kind if kind.is_policy() => self.remove_policy_object(kind, name),
            Kind::CiliumIdentity => {
                if let Ok(number) = name.name.parse() {
                    self.remove_identity(Identity(number));
                }
            }
            Kind::CiliumEndpoint => {
                self.remove_remote(name);
                if let Some(here) = self.by_pod(name).filter(|it| it.attached && !it.leaving) {
                    // Whoever deleted it was wrong.
                    self.unsettled.republish.insert(here.record.endpoint);
                }
            }
            _ => {}
        }
    }

    fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            // Its pods keep their labels until they are gone themselves.
            None => {
                self.namespaces.remove(name);
                return;
            }
        };
        let here = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| endpoint.record.pod.namespace == name)
            .map(|(id, _)| *id);
        self.unsettled.relabel.extend(here);
    }

    fn set_node(&mut self, name: String, node: Option<NodeView>) {
        let before = self.nodes.get(&name).cloned();
        if before == node {
            return;
        }
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for view in before.iter().chain(&node) {
            addresses.extend(&view.addresses);
            addresses.extend(view.pod_cidrs.iter().filter_map(super::first_address));
        }
        for endpoint in self.remote.values() {
            if endpoint.node_name.as_deref() == Some(&name) {
                addresses.extend(&endpoint.addresses);
            }
        }
        self.tell_engine_of_node(&name, node.as_ref());
        match node {
            Some(node) => self.nodes.insert(name, node),
            None => self.nodes.remove(&name),
        };
        self.ranges_changed = true;
        for address in addresses {
            self.refresh_host(address);
        }
    }

    /// What policies want to know of a node; of this one, whether they are about it.
    fn tell_engine_of_node(&mut self, name: &str, node: Option<&NodeView>) {
        let touched = match node {
            Some(node) => {
                let facts = NodeFacts {
                    labels: node.labels.clone(),
                    addresses: node.addresses.clone(),
                };
                self.engine.set_node(name, facts)
            }
            None => self.engine.remove_node(name),
        };
        self.touched.extend(touched);
        if let Some(node) = node.filter(|_| name == self.config.node_name) {
            let labels = node.labels.iter();
            let labels = labels.map(|(key, value)| (key.as_str(), value.as_str()));
            let labels = LabelSet::of_node(labels);
            self.touched
                .extend(self.engine.set_identity(Identity::OWN_NODE, labels));
            // Its annotations count too.
            self.touched.insert(Identity::OWN_NODE);
        }
    }

    fn set_pod(&mut self, object: Object) {
        let here = object.value["spec"]["nodeName"].as_str() == Some(&self.config.node_name);
        let endpoint = self.by_pod(&object.name).map(|it| it.record.endpoint);
        if let Some(id) = endpoint {
            self.unsettled.relabel.insert(id);
            let before = self.pods.get(&object.name);
            if before.is_none_or(|pod| is_on_audit(&pod.value) != is_on_audit(&object.value)) {
                let identity = self.endpoints.get(&id).map(|endpoint| endpoint.identity);
                self.touched.extend(identity);
            }
        }
        if here || endpoint.is_some() {
            self.pods.insert(object.name.clone(), object);
        } else {
            self.pods.remove(&object.name);
        }
    }

    fn set_remote(&mut self, object: Object) {
        let name = object.name.clone();
        match remote_endpoint(&object) {
            // This node's endpoints are known at first hand.
            Some(mut endpoint) if endpoint.node_name.as_deref() != Some(&self.config.node_name) => {
                endpoint.age.heard = match self.remote.get(&name) {
                    Some(before)
                        if before.age.uid == endpoint.age.uid
                            && before.addresses == endpoint.addresses =>
                    {
                        before.age.heard
                    }
                    _ => {
                        self.claims_heard += u64::from(!self.is_listing);
                        self.claims_heard
                    }
                };
                let mut addresses = self.drop_claims(&name);
                for address in &endpoint.addresses {
                    self.claims
                        .entry(*address)
                        .or_default()
                        .insert((endpoint.age.clone(), name.clone()));
                }
                addresses.extend(&endpoint.addresses);
                self.remote.insert(name, endpoint);
                for address in addresses {
                    self.refresh_host(address);
                }
            }
            _ => self.remove_remote(&name),
        }
    }

    fn remove_remote(&mut self, name: &NamespacedName) {
        let addresses = self.drop_claims(name);
        self.remote.remove(name);
        for address in addresses {
            self.refresh_host(address);
        }
    }

    fn drop_claims(&mut self, name: &NamespacedName) -> BTreeSet<IpAddr> {
        let Some(endpoint) = self.remote.get(name) else {
            return BTreeSet::new();
        };
        let addresses: BTreeSet<IpAddr> = endpoint.addresses.iter().copied().collect();
        for address in &addresses {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(&(endpoint.age.clone(), name.clone()));
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        addresses
    }
}

/// A JSON object's string values.
pub(crate) fn string_map(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
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
        labels: string_map(&value["metadata"]["labels"]),
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
