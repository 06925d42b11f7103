//! The endpoints of a Service, from all of its slices, as candidates for its ports.

use super::no_backend;
use crate::conflict::Claims;
use crate::outcome::{Backend, Behind, MAX_BACKENDS, Selection};
use crate::problem::Problems;
use crate::select::{Candidate, Viewpoint, choose};
use crate::{
    AdminState, Algorithm, BackendKey, Endpoint, EndpointSlice, Family, Fault, OutReason, Probe,
    Protocol, Service, ServicePort, Target, TrafficPolicy,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// The Service of the API server. Its endpoints are addresses of nodes, and say no node's name; the API server writes
/// them itself.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// What is known of a Service's endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints<'a> {
    /// Its slices, in the order of their names.
    pub(crate) slices: Vec<&'a EndpointSlice>,
    /// Admin states that are the Service's own.
    pub(crate) admin: &'a BTreeMap<IpAddr, AdminState>,
    /// Admin states for every Service.
    pub(crate) admin_everywhere: &'a BTreeMap<IpAddr, AdminState>,
    /// Results of its health checks.
    pub(crate) probes: &'a BTreeMap<BackendKey, Probe>,
}

/// The candidates for a port and family, in the order of their keys.
#[derive(Clone, Debug)]
pub(super) struct Candidates<'a> {
    keys: Vec<BackendKey>,
    candidates: Vec<Candidate<'a>>,
    /// How many more there are than are used.
    pub(super) left_out: usize,
}

impl<'a> Endpoints<'a> {
    /// The families that the Service has, and those that its slices have besides, to say why they are out.
    pub(super) fn families(&self, service: &Service) -> BTreeSet<Family> {
        let of_slices = self.slices.iter().map(|slice| slice.family);
        service.families.iter().copied().chain(of_slices).collect()
    }

    /// Every endpoint of a family for a port, each once.
    ///
    /// Who writes slices moves endpoints between them, and may show one twice for a moment: the copy that is
    /// more usable counts, and of two such the one in the slice that comes first by name. An endpoint without the
    /// port is nothing to say of when another slice has it with the port.
    pub(super) fn candidates(
        &self,
        service: &Service,
        port: &ServicePort,
        family: Family,
        claims: &Claims,
    ) -> Candidates<'a> {
        let is_of = service.families.contains(&family);
        let mut found: Vec<(BackendKey, Candidate<'a>)> = Vec::new();
        for slice in self.slices.iter().filter(|slice| slice.family == family) {
            let number = slice.port(&port.name, port.protocol);
            for endpoint in &slice.endpoints {
                let key = BackendKey {
                    address: endpoint.address,
                    port: number.unwrap_or_default(),
                    protocol: port.protocol,
                };
                let excluded = match number {
                    _ if !is_of => Some(OutReason::WrongFamily),
                    None => Some(OutReason::NoSuchPort),
                    Some(_) => refusal(service, endpoint, claims),
                };
                found.push((key, self.candidate(endpoint, key, excluded)));
            }
        }
        // The sort is stable: copies keep the order of their slices' names.
        found.sort_by_key(|(key, candidate)| {
            let conditions = candidate.endpoint.conditions;
            (*key, Reverse((conditions.ready, conditions.serving)))
        });
        found.dedup_by_key(|(key, _)| *key);
        let mut kept = Candidates {
            keys: Vec::with_capacity(found.len()),
            candidates: Vec::with_capacity(found.len()),
            left_out: 0,
        };
        for (key, candidate) in found {
            // Without a port, a key is the first of its address.
            let superseded = kept
                .keys
                .last()
                .is_some_and(|last| last.port == 0 && last.address == key.address);
            if superseded {
                kept.keys.pop();
                kept.candidates.pop();
            }
            kept.keys.push(key);
            kept.candidates.push(candidate);
        }
        kept.left_out = kept.keys.len().saturating_sub(MAX_BACKENDS);
        kept.keys.truncate(MAX_BACKENDS);
        kept.candidates.truncate(MAX_BACKENDS);
        kept
    }

    fn candidate(
        &self,
        endpoint: &'a Endpoint,
        key: BackendKey,
        excluded: Option<OutReason>,
    ) -> Candidate<'a> {
        let own = self.admin.get(&key.address);
        let admin = own.or_else(|| self.admin_everywhere.get(&key.address));
        Candidate {
            endpoint,
            excluded,
            admin: admin.copied().unwrap_or_default(),
            probe: self.probes.get(&key).copied().unwrap_or_default(),
        }
    }

    /// Endpoints of this node that a load balancer outside may count on. A pod of two families is one: they are those
    /// of the family that has more.
    pub(super) fn healthy_here(
        &self,
        service: &Service,
        claims: &Claims,
        viewpoint: Viewpoint<'_>,
    ) -> usize {
        let of_family = |family: &Family| {
            let mut healthy = BTreeSet::new();
            for port in &service.ports {
                let found = self.candidates(service, port, *family, claims);
                let with_keys = found.keys.iter().zip(&found.candidates);
                let here = with_keys.filter(|(_, one)| one.is_healthy_on(viewpoint.node));
                healthy.extend(here.map(|(key, _)| key.address));
            }
            healthy.len()
        };
        service.families.iter().map(of_family).max().unwrap_or(0)
    }

    /// Reports what could not be used of slices, and endpoints whose addresses are somebody else's.
    pub(super) fn report(&self, service: &Service, claims: &Claims, problems: &mut Problems) {
        for slice in &self.slices {
            for problem in &slice.problems {
                let mut problem = problem.clone();
                problem.field = format!("EndpointSlice {}: {}", slice.name.name, problem.field);
                problems.push(problem);
            }
            for endpoint in &slice.endpoints {
                if let Err(fault) = admit(service, endpoint, claims) {
                    let field = format!("EndpointSlice {}: endpoints", slice.name.name);
                    problems.add(field, &endpoint.address.to_string(), fault);
                }
            }
        }
    }

    /// The backends of a Service for somebody on no particular node. A Service without ports, which only a headless one
    /// can be, has those of its slices.
    pub(crate) fn behind(&self, service: &Service, claims: &Claims) -> Vec<Behind> {
        let of_slices = || {
            let ports = self.slices.iter().flat_map(|slice| slice.ports.iter());
            let distinct: BTreeSet<(&Arc<str>, Protocol)> =
                ports.map(|port| (&port.name, port.protocol)).collect();
            let as_service = distinct.into_iter().map(|(name, protocol)| ServicePort {
                name: Arc::clone(name),
                protocol,
                number: 0,
                target: Target::Number(0),
                node_port: None,
            });
            as_service.collect::<Vec<_>>()
        };
        let own = service.ports.clone();
        let ports = if own.is_empty() { of_slices() } else { own };
        let mut found = Vec::new();
        for port in &ports {
            for family in &service.families {
                let candidates = self.candidates(service, port, *family, claims);
                let choice = choose(&candidates.candidates, TrafficPolicy::Cluster, None);
                let with_keys = candidates.keys.iter().zip(&candidates.candidates);
                let with_states = with_keys.zip(choice.states);
                found.extend(with_states.map(|((key, candidate), state)| Behind {
                    key: *key,
                    pod: candidate.endpoint.pod.clone(),
                    state,
                }));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

impl Candidates<'_> {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }

    /// The backends for a policy.
    pub(super) fn select(
        &self,
        service: &Service,
        port: &ServicePort,
        family: Family,
        policy: TrafficPolicy,
        viewpoint: Viewpoint<'_>,
    ) -> Selection {
        let choice = choose(&self.candidates, policy, Some(viewpoint));
        let with_keys = self.keys.iter().zip(&self.candidates);
        let with_states = with_keys.zip(&choice.states);
        let backends: Vec<Backend> = with_states
            .map(|((key, Candidate { endpoint, .. }), state)| Backend {
                key: *key,
                weight: endpoint.weight,
                node: endpoint.node.clone(),
                zone: endpoint.zone.clone(),
                pod: endpoint.pod.clone(),
                state: *state,
            })
            .collect();
        Selection {
            port_name: Arc::clone(&port.name),
            port: port.number,
            protocol: port.protocol,
            family,
            policy,
            topology: choice.topology,
            algorithm: algorithm(service, &backends),
            no_backend: no_backend(choice.elsewhere),
            backends,
            left_out: self.left_out,
        }
    }
}

/// As the Service says, but by Maglev where weights differ: a random choice knows nothing of them.
fn algorithm(service: &Service, backends: &[Backend]) -> Algorithm {
    let mut weights = backends
        .iter()
        .filter(|backend| backend.state.is_in())
        .map(|backend| backend.weight);
    let first = weights.next();
    if weights.any(|weight| Some(weight) != first) {
        Algorithm::Maglev
    } else {
        service.algorithm
    }
}

/// Whether an endpoint's address is its own.
fn admit(service: &Service, endpoint: &Endpoint, claims: &Claims) -> Result<(), Fault> {
    let name = (&*service.name.namespace, &*service.name.name);
    let node = endpoint.node.as_deref();
    claims.endpoint(endpoint.address, node, name == API_SERVER)
}

fn refusal(service: &Service, endpoint: &Endpoint, claims: &Claims) -> Option<OutReason> {
    match admit(service, endpoint, claims) {
        Ok(()) => None,
        Err(Fault::NodeAddress { .. }) => Some(OutReason::NodeAddress),
        Err(_) => Some(OutReason::ServiceAddress),
    }
}
