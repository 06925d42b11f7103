//! What policies refer to by name: namespaces, services, CIDR groups.

use super::{Cluster, kind, of_kind};
use heddle_kube::{manifest::Manifest, pod, policy::CidrGroup, service};
use heddle_policy::ServiceFacts;
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

/// A Service with the addresses behind it.
#[derive(Default)]
pub(in super::super) struct Service {
    /// Its own labels.
    pub(in super::super) labels: BTreeMap<String, String>,
    /// The labels of the pods behind it.
    pub(in super::super) selector: Option<BTreeMap<String, String>>,
    /// Its own addresses.
    pub(in super::super) cluster_addresses: Vec<IpAddr>,
    /// The addresses that its EndpointSlices list.
    pub(in super::super) endpoints: Vec<IpAddr>,
}

impl Cluster {
    pub(super) fn add_facts(&mut self, manifests: &[Manifest], groups: Vec<CidrGroup>) {
        for manifest in of_kind(manifests, "Namespace") {
            let name = pod::name(&manifest.value).name;
            self.namespaces.insert(name, labels(manifest));
        }
        for manifest in of_kind(manifests, "Service") {
            let found = Service {
                labels: labels(manifest),
                selector: service::selector(&manifest.value),
                cluster_addresses: service::cluster_addresses(&manifest.value),
                endpoints: Vec::new(),
            };
            self.services.insert(pod::name(&manifest.value), found);
        }
        for manifest in manifests {
            let (name, addresses) = match kind(manifest) {
                "EndpointSlice" => (
                    service::of_slice(&manifest.value),
                    service::slice_addresses(&manifest.value),
                ),
                _ => continue,
            };
            if let Some(found) = name.and_then(|name| self.services.get_mut(&name)) {
                found.endpoints.extend(addresses);
            }
        }
        for (name, found) in &self.services {
            let facts = ServiceFacts {
                labels: found.labels.clone(),
                selector: found.selector.clone(),
                addresses: found.endpoints.iter().copied().map(IpNet::from).collect(),
            };
            self.engine.set_service(name.clone(), facts);
        }
        for group in groups {
            self.engine
                .set_cidr_group(&group.name, group.labels.clone(), group.cidrs.clone());
            self.groups.insert(group.name.clone(), group);
        }
    }

    /// The namespaces that the manifests speak of, written as objects or named by pods.
    pub(in super::super) fn known_namespaces(
        &self,
    ) -> BTreeMap<&str, Option<&BTreeMap<String, String>>> {
        let mut known: BTreeMap<&str, _> = self
            .pods
            .iter()
            .map(|pod| (pod.name.namespace.as_str(), None))
            .collect();
        for (name, labels) in &self.namespaces {
            known.insert(name, Some(labels));
        }
        known
    }
}

fn labels(manifest: &Manifest) -> BTreeMap<String, String> {
    pod::labels(&manifest.value)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
