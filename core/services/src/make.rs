//! What an EndpointSlice controller does: a Service's pods to slices, of which a change alters as few as it can.

mod hints;
mod place;
#[cfg(test)]
mod tests;

pub use hints::{HintsRefused, NodeCapacity};

use crate::problem::Problems;
use crate::{
    AddressFault, Conditions, DEFAULT_WEIGHT, Distribution, Endpoint, EndpointSlice, Family, Fault,
    Hints, Problem, Protocol, Service, ServicePort, ServiceType, SlicePort, Target,
};
use heddle_model::{DeclaredPort, NamespacedName};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Endpoints that a slice is filled up to (kube-controller-manager, `--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS_PER_SLICE: usize = 100;

/// A pod that a Service selects, and that has not run to its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pod {
    /// Its name. A pod of another namespace than the Service's is none of its endpoints.
    pub name: NamespacedName,
    /// Its addresses (`status.podIPs`); the first of each family counts.
    pub addresses: Vec<IpAddr>,
    /// The ports that its containers declare.
    pub ports: Vec<DeclaredPort>,
    /// Its condition `Ready`.
    pub ready: bool,
    /// Whether it has a `deletionTimestamp`.
    pub terminating: bool,
    /// The node it is on.
    pub node: Option<String>,
    /// The zone of that node.
    pub zone: Option<String>,
    /// `spec.hostname`; empty if it is not there.
    pub hostname: String,
    /// `spec.subdomain`; empty if it is not there.
    pub subdomain: String,
}

/// The slices of a Service.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Made {
    /// The slices, in the order of their names. Former ones that are not among them are to be deleted.
    pub slices: Vec<EndpointSlice>,
    /// Pods and ports that could not be used.
    pub problems: Vec<Problem>,
    /// Families whose endpoints have no hints although `service.kubernetes.io/topology-mode` asks for them, and why.
    pub hints_refused: Vec<(Family, HintsRefused)>,
}

/// Endpoints by the names of their pods.
type ByPod = BTreeMap<Arc<str>, Endpoint>;

/// The slices for a Service and the pods that it selects.
///
/// `former` are the slices that this function made before; each keeps its endpoints as long as they belong to it, so
/// that a change to one pod changes one slice. Without any, the slices depend on the pods alone. The hints of
/// `topology-mode: Auto` are an exception: they depend on how many pods there are in each zone, and may move with any.
///
/// A Service without a selector has the slices that somebody else writes: nothing is made for it.
pub fn make_slices(
    service: &Service,
    pods: &[Pod],
    nodes: &[NodeCapacity],
    former: &[EndpointSlice],
) -> Made {
    let mut made = Made::default();
    if !service.has_selector || service.kind == ServiceType::ExternalName {
        return made;
    }
    let mut problems = Problems::default();
    let namespace = &service.name.namespace;
    let mut sorted: Vec<&Pod> = pods.iter().collect();
    sorted.retain(|pod| pod.name.namespace == *namespace);
    sorted.sort_by_key(|pod| &pod.name);
    sorted.dedup_by_key(|pod| &pod.name);
    let ports = ports_of(service, &sorted, &mut problems);
    let by_group = place::Former::new(service, former);
    let mut names = place::FreeNames::beside(former);
    for family in &service.families {
        let mut endpoints = ByPod::new();
        let mut groups: BTreeMap<&[SlicePort], ByPod> = BTreeMap::new();
        for pod in &sorted {
            if let Some(endpoint) = endpoint_of(service, pod, *family, &mut problems) {
                endpoints.insert(pod.name.name.as_str().into(), endpoint);
            }
        }
        if service.topology_auto
            && let Err(refused) = hints::by_capacity(&mut endpoints, nodes)
        {
            made.hints_refused.push((*family, refused));
        }
        for (pod, endpoint) in endpoints {
            let ports = ports.get(&*pod).map_or(&[][..], Vec::as_slice);
            groups.entry(ports).or_default().insert(pod, endpoint);
        }
        for (ports, endpoints) in groups {
            let group = place::Group {
                service,
                family: *family,
                ports,
            };
            made.slices
                .extend(group.place(endpoints, &by_group, &mut names));
        }
    }
    made.slices.sort_by(|a, b| a.name.cmp(&b.name));
    made.problems = problems.into_list();
    made
}

/// The ports that each pod has of the Service's, by the pod's name.
fn ports_of<'a>(
    service: &Service,
    pods: &[&'a Pod],
    problems: &mut Problems,
) -> BTreeMap<&'a str, Vec<SlicePort>> {
    let mut found: BTreeMap<&str, Vec<SlicePort>> = BTreeMap::new();
    for (at, port) in service.ports.iter().enumerate() {
        let mut without = Vec::new();
        for pod in pods {
            match number_in(port, pod) {
                None => without.push(&pod.name),
                Some(number) => found.entry(&pod.name.name).or_default().push(SlicePort {
                    name: Arc::clone(&port.name),
                    protocol: port.protocol,
                    number,
                }),
            }
        }
        if let (Some(example), Target::Name(name)) = (without.first(), &port.target) {
            let fault = Fault::NoSuchContainerPort {
                pods: without.len(),
                example: (**example).clone(),
            };
            problems.add(format!("spec.ports[{at}].targetPort"), name, fault);
        }
    }
    for ports in found.values_mut() {
        ports.sort();
    }
    found
}

/// The number that a Service's port has in a pod.
fn number_in(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target {
        Target::Number(number) => Some(*number),
        Target::Name(name) => {
            let mut declared = pod.ports.iter();
            let found = declared.find(|declared| {
                declared.name == **name
                    && Protocol::named(&declared.protocol) == Some(port.protocol)
                    && declared.number > 0
            });
            found.map(|declared| declared.number)
        }
    }
}

/// A pod's endpoint in a family, with the hints of `trafficDistribution`; `None` without an address of the family.
fn endpoint_of(
    service: &Service,
    pod: &Pod,
    family: Family,
    problems: &mut Problems,
) -> Option<Endpoint> {
    let mut addresses = pod.addresses.iter().copied();
    let address = addresses.find(|address| Family::of(*address) == family)?;
    if let Some(fault) = AddressFault::of(address) {
        let field = format!("pod {}: status.podIPs", pod.name);
        problems.add(field, &address.to_string(), Fault::Unusable(fault));
        return None;
    }
    // As the EndpointSlice controller has it: a pod that terminates is not ready, unless readiness does not matter.
    let conditions = Conditions {
        ready: service.publish_not_ready || (pod.ready && !pod.terminating),
        serving: pod.ready,
        terminating: pod.terminating,
    };
    let node: Option<Arc<str>> = pod.node.as_deref().map(Arc::from);
    let zone: Option<Arc<str>> = pod.zone.as_deref().map(Arc::from);
    let named = !pod.hostname.is_empty() && pod.subdomain == service.name.name;
    // The annotation wins over the field (KEP-4444, interaction with topology-mode), and endpoints that are not
    // ready have no hints.
    let distribution = service
        .distribution
        .filter(|_| conditions.ready && !service.topology_auto);
    let hints = distribution.map(|distribution| Hints {
        zones: zone.iter().cloned().collect(),
        nodes: match distribution {
            Distribution::SameZone => Vec::new(),
            Distribution::SameNode => node.iter().cloned().collect(),
        },
    });
    Some(Endpoint {
        address,
        conditions,
        weight: DEFAULT_WEIGHT,
        node,
        zone,
        pod: Some(pod.name.name.as_str().into()),
        hostname: named.then(|| pod.hostname.as_str().into()),
        hints: hints
            .filter(|hints| *hints != Hints::default())
            .map(Arc::new),
    })
}
