//! What stands beside the pods: nodes, namespaces, services, CIDR groups.

use super::{kind, of_kind};
use crate::{
    manifest::Manifest,
    pod::{self, list},
    policy::CidrGroup,
    service,
};
use heddle_verify::{GroupSpec, Inventory, NodeSpec, ServiceSpec};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn add(found: &mut Inventory, manifests: &[Manifest], groups: Vec<CidrGroup>) {
    for manifest in of_kind(manifests, "Namespace") {
        let name = pod::name(&manifest.value).name;
        found.namespaces.insert(name, labels(manifest));
    }
    found.nodes = of_kind(manifests, "Node").map(node).collect();
    for manifest in of_kind(manifests, "Service") {
        let service = ServiceSpec {
            labels: labels(manifest),
            selector: service::selector(&manifest.value),
            cluster_addresses: service::cluster_addresses(&manifest.value),
            endpoints: Vec::new(),
        };
        found.services.insert(pod::name(&manifest.value), service);
    }
    for manifest in manifests {
        if kind(manifest) != "EndpointSlice" {
            continue;
        }
        let name = service::of_slice(&manifest.value);
        if let Some(service) = name.and_then(|name| found.services.get_mut(&name)) {
            let addresses = service::slice_addresses(&manifest.value);
            service.endpoints.extend(addresses);
        }
    }
    for group in groups {
        let spec = GroupSpec {
            labels: group.labels,
            cidrs: group.cidrs,
        };
        found.groups.insert(group.name, spec);
    }
}

fn node(manifest: &Manifest) -> NodeSpec {
    let mut node = NodeSpec {
        name: pod::name(&manifest.value).name,
        labels: labels(manifest),
        ..NodeSpec::default()
    };
    for entry in list(&manifest.value, "/status/addresses") {
        let internal = entry.get("type").and_then(Value::as_str) == Some("InternalIP");
        let address = entry.get("address").and_then(Value::as_str);
        if let (true, Some(Ok(address))) = (internal, address.map(str::parse)) {
            node.addresses.push(address);
        }
    }
    let single = manifest.value.pointer("/spec/podCIDR");
    for range in list(&manifest.value, "/spec/podCIDRs").iter().chain(single) {
        if let Some(Ok(range)) = range.as_str().map(str::parse::<IpNet>)
            && !node.pod_ranges.contains(&range.trunc())
        {
            node.pod_ranges.push(range.trunc());
        }
    }
    node
}

fn labels(manifest: &Manifest) -> BTreeMap<String, String> {
    owned(pod::labels(&manifest.value))
}

/// Labels of their own.
pub(super) fn owned(labels: Vec<(&str, &str)>) -> BTreeMap<String, String> {
    let labels = labels.into_iter();
    labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
