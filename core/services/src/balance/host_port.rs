//! Ports of pods on this node (`hostPort`), served without the portmap plugin.

use super::{field_of, no_backend, on_node};
use crate::conflict::{Claim, Claims, Place, Spot};
use crate::outcome::{Backend, Frontend, Outcome, Scope, Selection};
use crate::problem::Problems;
use crate::{
    AddressFault, Algorithm, BackendKey, BackendState, DEFAULT_WEIGHT, Family, Fault, HostPort,
    HostPortPod, InReason, Kind, MAX_PORTS, Sources, Subject, Topology, TrafficPolicy,
};
use std::net::IpAddr;
use std::sync::Arc;

/// Where a host port is wanted.
#[derive(Clone, Copy)]
enum At {
    /// At all addresses of the node, of one family if the port says so.
    Everywhere(Option<Family>),
    /// At one address.
    One(IpAddr),
}

impl At {
    fn of(port: &HostPort) -> Self {
        match port.address {
            None => Self::Everywhere(None),
            Some(address) if address.is_unspecified() => {
                Self::Everywhere(Some(Family::of(address)))
            }
            Some(address) => Self::One(address),
        }
    }

    /// The claim on a port there.
    fn spot(self, port: &HostPort) -> Spot {
        let everywhere = on_node(port.protocol, port.number);
        match self {
            Self::Everywhere(_) => everywhere,
            Self::One(address) => Spot {
                place: Place::Address(address),
                ..everywhere
            },
        }
    }

    /// The addresses of the node that it means.
    fn addresses(self, claims: &Claims) -> Vec<IpAddr> {
        match self {
            Self::Everywhere(family) => claims
                .here()
                .filter(|address| family.is_none_or(|family| family == Family::of(*address)))
                .collect(),
            Self::One(address) if claims.is_here(address) => vec![address],
            Self::One(_) => Vec::new(),
        }
    }
}

/// The ports of a pod that are used.
fn used(pod: &HostPortPod) -> Vec<&HostPort> {
    let ports = pod.ports.iter().take(MAX_PORTS);
    let mut ports: Vec<&HostPort> = ports.filter(|port| is_usable(port)).collect();
    ports.sort();
    ports.dedup_by_key(|port| (port.address, port.number, port.protocol));
    ports
}

const fn is_usable(port: &HostPort) -> bool {
    port.number > 0 && port.container_port > 0
}

/// What a pod's host ports take from others.
pub(crate) fn host_port_claims(pod: &HostPortPod) -> Vec<Claim> {
    let spots = used(pod).into_iter().map(|port| At::of(port).spot(port));
    let mut claims: Vec<Claim> = spots
        .map(|spot| Claim::Port(spot, Kind::HostPort))
        .collect();
    claims.sort();
    claims.dedup();
    claims
}

/// Computes the outcome of a pod with host ports. Its readiness does not matter: the port is the pod's own.
pub(crate) fn host_port_outcome(
    subject: &Subject,
    pod: &HostPortPod,
    node: &Arc<str>,
    claims: &Claims,
) -> Outcome {
    let mut problems = Problems::default();
    report_unused(pod, claims, &mut problems);
    let mut frontends: Vec<Frontend> = Vec::new();
    let mut selections = Vec::new();
    for port in used(pod) {
        for family in Family::ALL {
            // A pod whose address is the node's own has the port by itself.
            let mut own = pod.addresses.iter().copied();
            let backend = own.find(|address| {
                let is_free = AddressFault::of(*address).is_none() && !claims.is_here(*address);
                is_free && Family::of(*address) == family
            });
            let mut served = At::of(port).addresses(claims);
            served.retain(|address| Family::of(*address) == family);
            let Some(backend) = backend.filter(|_| !served.is_empty()) else {
                continue;
            };
            let selection = selections.len();
            selections.push(selection_of(pod, port, backend, node));
            for address in served {
                let frontend = frontend_of(port, address, selection);
                match claims.port(subject, spot_of(&frontend), Kind::HostPort) {
                    Ok(()) => frontends.push(frontend),
                    Err(fault) => {
                        let shown = format!("{address} {}/{}", port.protocol, port.number);
                        problems.add(field_of(Kind::HostPort), &shown, fault);
                    }
                }
            }
        }
    }
    frontends.sort();
    // The same port at all addresses and at one of them: the former is the first.
    frontends.dedup_by_key(|frontend| spot_of(frontend));
    Outcome {
        subject: subject.clone(),
        uid: pod.uid.clone(),
        ignored: None,
        frontends,
        selections,
        addresses: Vec::new(),
        affinity_timeout: None,
        sources: Sources::Everybody,
        health_check: None,
        problems: problems.into_list(),
    }
}

fn report_unused(pod: &HostPortPod, claims: &Claims, problems: &mut Problems) {
    let field = field_of(Kind::HostPort);
    let (count, most) = (pod.ports.len(), MAX_PORTS);
    if count > most {
        problems.add(field, "", Fault::TooMany { count, most });
    }
    for port in pod.ports.iter().take(most) {
        if !is_usable(port) {
            let shown = format!(
                "{}/{} to {}",
                port.protocol, port.number, port.container_port
            );
            problems.add(field, &shown, Fault::NotAPort);
        }
    }
    for port in used(pod) {
        if let At::One(address) = At::of(port)
            && !claims.is_here(address)
        {
            let field = "spec.containers.ports.hostIP";
            problems.add(field, &address.to_string(), Fault::NotThisNode);
        }
    }
}

const fn spot_of(frontend: &Frontend) -> Spot {
    Spot {
        place: Place::Address(frontend.address),
        protocol: frontend.protocol,
        port: frontend.port,
    }
}

fn frontend_of(port: &HostPort, address: IpAddr, selection: usize) -> Frontend {
    let is_loopback = AddressFault::of(address).is_some();
    Frontend {
        address,
        port: port.number,
        protocol: port.protocol,
        scope: if is_loopback {
            Scope::Internal
        } else {
            Scope::Both
        },
        kind: Kind::HostPort,
        selection,
        restricted: false,
    }
}

fn selection_of(pod: &HostPortPod, port: &HostPort, address: IpAddr, node: &Arc<str>) -> Selection {
    let backend = Backend {
        key: BackendKey {
            address,
            port: port.container_port,
            protocol: port.protocol,
        },
        weight: DEFAULT_WEIGHT,
        node: Some(Arc::clone(node)),
        zone: None,
        pod: Some(pod.name.name.as_str().into()),
        state: BackendState::In(InReason::Ready),
    };
    Selection {
        port_name: "".into(),
        port: port.number,
        protocol: port.protocol,
        family: Family::of(address),
        policy: TrafficPolicy::Cluster,
        topology: Topology::Ignored,
        algorithm: Algorithm::Random,
        backends: vec![backend],
        left_out: 0,
        no_backend: no_backend(false),
    }
}
