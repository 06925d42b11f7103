//! Computes outcomes: endpoints to selections, claims to frontends.

mod endpoints;
mod host_port;

pub(crate) use endpoints::Endpoints;
pub(crate) use host_port::{host_port_claims, host_port_outcome};

use crate::conflict::{Claim, Claims, Place, Spot};
use crate::outcome::{Frontend, HealthCheck, NoBackend, Outcome, Scope};
use crate::problem::Problems;
use crate::select::Viewpoint;
use crate::{
    ClusterIps, Family, Fault, IngressMode, Kind, MAX_BACKENDS, Protocol, Service, ServicePort,
    Sources, Subject, TrafficPolicy,
};
use std::net::IpAddr;

/// What a Service's frontends take from others.
pub(crate) fn claims_of(service: &Service) -> Vec<Claim> {
    let mut claims = Vec::new();
    let ClusterIps::At(cluster_ips) = &service.cluster_ips else {
        return claims;
    };
    if service.ignored().is_some() {
        return claims;
    }
    claims.extend(cluster_ips.iter().map(|address| Claim::ClusterIp(*address)));
    for address in load_balancer_addresses(service) {
        claims.push(Claim::LoadBalancer(address));
    }
    for (address, kind) in shared_addresses(service) {
        for port in &service.ports {
            let spot = Spot {
                place: Place::Address(address),
                protocol: port.protocol,
                port: port.number,
            };
            claims.push(Claim::Port(spot, kind));
        }
    }
    for port in &service.ports {
        if let Some(number) = port.node_port {
            claims.push(Claim::Port(on_node(port.protocol, number), Kind::NodePort));
        }
    }
    if let Some(number) = service.health_check_port {
        claims.push(Claim::Port(
            on_node(Protocol::Tcp, number),
            Kind::HealthCheck,
        ));
    }
    claims.sort();
    claims.dedup();
    claims
}

/// Addresses whose packets come to nodes. One that a proxy has is left to it.
fn load_balancer_addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let vips = service
        .ingress
        .iter()
        .filter(|ingress| ingress.mode == IngressMode::Vip);
    vips.map(|ingress| ingress.address)
}

/// Addresses that Services may share by ports.
fn shared_addresses(service: &Service) -> impl Iterator<Item = (IpAddr, Kind)> {
    let balanced = load_balancer_addresses(service).map(|address| (address, Kind::LoadBalancer));
    let external = service.external_ips.iter();
    balanced.chain(external.map(|address| (*address, Kind::ExternalIp)))
}

const fn on_node(protocol: Protocol, port: u16) -> Spot {
    Spot {
        place: Place::Node,
        protocol,
        port,
    }
}

/// Computes the outcome of a Service.
pub(crate) fn outcome(
    subject: &Subject,
    service: &Service,
    endpoints: &Endpoints<'_>,
    claims: &Claims,
    viewpoint: Viewpoint<'_>,
) -> Outcome {
    let mut problems = Problems::default();
    problems.extend(&service.problems);
    let ignored = service.ignored();
    let mut outcome = Outcome {
        subject: subject.clone(),
        uid: service.uid.clone(),
        frontends: Vec::new(),
        selections: Vec::new(),
        addresses: Vec::new(),
        affinity_timeout: service.affinity_timeout,
        sources: service.sources.clone(),
        health_check: None,
        problems: Vec::new(),
        ignored,
    };
    if outcome.ignored.is_none() {
        endpoints.report(service, claims, &mut problems);
        let mut balancer = Balancer {
            subject,
            service,
            claims,
            viewpoint,
            endpoints,
            outcome: &mut outcome,
            problems: &mut problems,
        };
        balancer.balance();
        outcome.frontends.sort();
    }
    outcome.problems = problems.into_list();
    outcome
}

/// One Service's outcome while it is computed.
struct Balancer<'a> {
    subject: &'a Subject,
    service: &'a Service,
    claims: &'a Claims,
    viewpoint: Viewpoint<'a>,
    endpoints: &'a Endpoints<'a>,
    outcome: &'a mut Outcome,
    problems: &'a mut Problems,
}

impl Balancer<'_> {
    fn balance(&mut self) {
        let cluster_ips = self.cluster_ips();
        let shared = self.shared();
        let service = self.service;
        for port in &service.ports {
            let node_port = self.node_port(port);
            let shared = self.ports_at(&shared, port);
            for family in self.endpoints.families(service) {
                let places = self.select(port, family);
                if !service.families.contains(&family) {
                    continue;
                }
                let of_family = |address: &IpAddr| Family::of(*address) == family;
                for address in cluster_ips.iter().copied().filter(of_family) {
                    let place = (address, port.number, Kind::ClusterIp);
                    self.add(port, place, Scope::Both, places.internal);
                }
                for (address, kind) in &shared {
                    if of_family(address) {
                        self.add_outside(port, (*address, port.number, *kind), &places);
                    }
                }
                if let Some(number) = node_port {
                    for address in self.claims.here().filter(of_family) {
                        self.add_outside(port, (address, number, Kind::NodePort), &places);
                    }
                }
            }
        }
        self.health_check();
    }

    fn cluster_ips(&mut self) -> Vec<IpAddr> {
        let ClusterIps::At(addresses) = &self.service.cluster_ips else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for address in addresses {
            match self.claims.cluster_ip(self.subject, *address) {
                Ok(()) => found.push(*address),
                Err(fault) => self
                    .problems
                    .add("spec.clusterIPs", &address.to_string(), fault),
            }
        }
        self.outcome.addresses.extend(&found);
        found
    }

    /// Addresses of load balancers and external IPs that it may have ports at.
    fn shared(&mut self) -> Vec<(IpAddr, Kind)> {
        let mut found = Vec::new();
        for (address, kind) in shared_addresses(self.service) {
            match self.claims.shared_address(self.subject, address, kind) {
                Ok(()) => found.push((address, kind)),
                Err(fault) => self
                    .problems
                    .add(field_of(kind), &address.to_string(), fault),
            }
        }
        let balanced = found.iter().filter(|(_, kind)| *kind == Kind::LoadBalancer);
        self.outcome
            .addresses
            .extend(balanced.map(|(address, _)| address));
        found
    }

    /// Those of the addresses at which it has this port.
    fn ports_at(&mut self, shared: &[(IpAddr, Kind)], port: &ServicePort) -> Vec<(IpAddr, Kind)> {
        let mut found = Vec::new();
        for (address, kind) in shared {
            let spot = Spot {
                place: Place::Address(*address),
                protocol: port.protocol,
                port: port.number,
            };
            match self.claims.port(self.subject, spot, *kind) {
                Ok(()) => found.push((*address, *kind)),
                Err(fault) => {
                    let shown = format!("{address} {}/{}", port.protocol, port.number);
                    self.problems.add(field_of(*kind), &shown, fault);
                }
            }
        }
        found
    }

    fn node_port(&mut self, port: &ServicePort) -> Option<u16> {
        let number = port.node_port?;
        self.has_node_port(port.protocol, number, Kind::NodePort)
            .then_some(number)
    }

    fn has_node_port(&mut self, protocol: Protocol, number: u16, kind: Kind) -> bool {
        match self
            .claims
            .port(self.subject, on_node(protocol, number), kind)
        {
            Ok(()) => true,
            Err(fault) => {
                let shown = format!("{protocol}/{number}");
                self.problems.add(field_of(kind), &shown, fault);
                false
            }
        }
    }

    /// Computes the selections of a port that its frontends use.
    fn select(&mut self, port: &ServicePort, family: Family) -> Places {
        let service = self.service;
        let outside = service.has_outside();
        let external = service.external_policy;
        let wants = |policy| {
            service.internal_policy == policy
                || (outside && (external == policy || policy == TrafficPolicy::Cluster))
        };
        let candidates = self
            .endpoints
            .candidates(service, port, family, self.claims);
        if candidates.left_out > 0 {
            let fault = Fault::TooMany {
                count: candidates.count() + candidates.left_out,
                most: MAX_BACKENDS,
            };
            let field = format!("endpoints of port {}/{}", port.protocol, port.number);
            self.problems.add(field, family.name(), fault);
        }
        let mut at = [None; 2];
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            if wants(policy) {
                at[policy as usize] = Some(self.outcome.selections.len());
                let selection = candidates.select(service, port, family, policy, self.viewpoint);
                self.outcome.selections.push(selection);
            }
        }
        let place_of = |policy: TrafficPolicy| at[policy as usize].unwrap_or_default();
        Places {
            internal: place_of(service.internal_policy),
            external: place_of(external),
            cluster: place_of(TrafficPolicy::Cluster),
        }
    }

    /// A frontend for traffic from outside. With `externalTrafficPolicy: Local`, connections from inside of the
    /// cluster use backends of all nodes, as in kube-proxy's `KUBE-EXT` chains.
    fn add_outside(&mut self, port: &ServicePort, place: (IpAddr, u16, Kind), places: &Places) {
        if places.external == places.cluster {
            self.add(port, place, Scope::Both, places.cluster);
        } else {
            self.add(port, place, Scope::External, places.external);
            self.add(port, place, Scope::Internal, places.cluster);
        }
    }

    fn add(
        &mut self,
        port: &ServicePort,
        place: (IpAddr, u16, Kind),
        scope: Scope,
        selection: usize,
    ) {
        let (address, number, kind) = place;
        self.outcome.frontends.push(Frontend {
            address,
            port: number,
            protocol: port.protocol,
            scope,
            kind,
            selection,
            restricted: kind == Kind::LoadBalancer && self.service.sources != Sources::Everybody,
        });
    }

    fn health_check(&mut self) {
        if let Some(port) = self.service.health_check_port
            && self.has_node_port(Protocol::Tcp, port, Kind::HealthCheck)
        {
            let local = self
                .endpoints
                .healthy_here(self.service, self.claims, self.viewpoint);
            self.outcome.health_check = Some(HealthCheck { port, local });
        }
    }
}

/// Where the selections of a port and family are.
struct Places {
    internal: usize,
    external: usize,
    cluster: usize,
}

const fn field_of(kind: Kind) -> &'static str {
    match kind {
        Kind::ClusterIp => "spec.clusterIPs",
        Kind::LoadBalancer => "status.loadBalancer.ingress",
        Kind::ExternalIp => "spec.externalIPs",
        Kind::NodePort => "spec.ports.nodePort",
        Kind::HealthCheck => "spec.healthCheckNodePort",
        Kind::HostPort => "spec.containers.ports.hostPort",
    }
}

/// What is done with a connection when no backend is in.
pub(super) const fn no_backend(elsewhere: bool) -> NoBackend {
    if elsewhere {
        NoBackend::Drop
    } else {
        NoBackend::Reject
    }
}
