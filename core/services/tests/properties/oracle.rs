//! The rules written a second time: no index and no order of steps, but lists of everything and questions to them.

use crate::HERE;
use crate::model::Model;
use heddle_model::NamespacedName;
use heddle_services::{
    AdminState, BackendState, ClusterIps, Conditions, Family, Hints, InReason, IngressMode, Kind,
    Node, OutReason, Outcome, Probe, Protocol, Scope, Service, ServicePort, Subject, TrafficPolicy,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

type States = BTreeMap<(IpAddr, u16), BackendState>;

/// What of an outcome the oracle knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    /// Frontends, with the states of all of their backends.
    frontends: BTreeMap<(IpAddr, u16, Protocol, Scope), (Kind, States)>,
    addresses: BTreeSet<IpAddr>,
    healthy: Option<usize>,
}

impl Seen {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let mut frontends = BTreeMap::new();
        for frontend in &outcome.frontends {
            let backends = outcome.selections[frontend.selection].backends.iter();
            let states =
                backends.map(|backend| ((backend.key.address, backend.key.port), backend.state));
            let key = (
                frontend.address,
                frontend.port,
                frontend.protocol,
                frontend.scope,
            );
            let before = frontends.insert(key, (frontend.kind, states.collect()));
            assert_eq!(before, None, "{key:?} is there once");
        }
        Self {
            frontends,
            addresses: outcome.addresses.iter().copied().collect(),
            healthy: outcome.health_check.map(|check| check.local),
        }
    }
}

/// Somebody's wish for a port of an address, or for all of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Wish {
    kind: Kind,
    created: u64,
    subject: Subject,
    /// `None`: every address of this node.
    address: Option<IpAddr>,
    /// `None`: every port.
    port: Option<(Protocol, u16)>,
}

fn here(model: &Model) -> Vec<IpAddr> {
    model
        .nodes
        .get(HERE)
        .map(|node| node.addresses.clone())
        .unwrap_or_default()
}

fn is_served(service: &Service) -> bool {
    service.ignored().is_none()
}

fn cluster_ips(service: &Service) -> &[IpAddr] {
    match &service.cluster_ips {
        ClusterIps::Headless => &[],
        ClusterIps::At(addresses) => addresses,
    }
}

fn vips(service: &Service) -> Vec<IpAddr> {
    let vips = service
        .ingress
        .iter()
        .filter(|ingress| ingress.mode == IngressMode::Vip);
    vips.map(|ingress| ingress.address).collect()
}

fn wishes(model: &Model) -> Vec<Wish> {
    let mut found = Vec::new();
    for service in model.services.values().filter(|service| is_served(service)) {
        let mut wish = |kind, address, port| {
            found.push(Wish {
                kind,
                created: service.created,
                subject: Subject::Service(Arc::new(service.name.clone())),
                address,
                port,
            });
        };
        for address in cluster_ips(service) {
            wish(Kind::ClusterIp, Some(*address), None);
        }
        for port in &service.ports {
            let number = Some((port.protocol, port.number));
            vips(service)
                .into_iter()
                .for_each(|address| wish(Kind::LoadBalancer, Some(address), number));
            service
                .external_ips
                .iter()
                .for_each(|address| wish(Kind::ExternalIp, Some(*address), number));
            if let Some(node_port) = port.node_port {
                wish(Kind::NodePort, None, Some((port.protocol, node_port)));
            }
        }
        if let Some(port) = service.health_check_port {
            wish(Kind::HealthCheck, None, Some((Protocol::Tcp, port)));
        }
    }
    for pod in model.pods.values() {
        for port in pod.ports.iter().filter(|port| port.container_port > 0) {
            found.push(Wish {
                kind: Kind::HostPort,
                created: pod.created,
                subject: Subject::Pod(Arc::new(pod.name.clone())),
                address: port.address.filter(|address| !address.is_unspecified()),
                port: Some((port.protocol, port.number)),
            });
        }
    }
    found
}

fn is_of_nodes_or_pods(model: &Model, address: IpAddr) -> bool {
    let owns = |node: &Node| {
        node.addresses.contains(&address)
            || node.pod_ranges.iter().any(|range| range.contains(&address))
    };
    model.nodes.values().any(owns)
}

/// Whether somebody may have anything at an address that is not the node's.
fn may_share(model: &Model, wishes: &[Wish], wish: &Wish, address: IpAddr) -> bool {
    let others_cluster_ip = wishes
        .iter()
        .any(|other| other.kind == Kind::ClusterIp && other.address == Some(address));
    let others_balancer = model
        .services
        .values()
        .filter(|service| is_served(service))
        .any(|service| {
            vips(service).contains(&address)
                && service.name.namespace != wish.subject.name().namespace
        });
    let somebody_s = is_of_nodes_or_pods(model, address) || others_cluster_ip;
    !somebody_s && (wish.kind != Kind::ExternalIp || !others_balancer)
}

/// Whether a wish comes true at an address (`None`: of the node as a whole).
fn comes_true(model: &Model, wishes: &[Wish], wish: &Wish, address: Option<IpAddr>) -> bool {
    let at_node = |address: IpAddr| here(model).contains(&address);
    let rivals = wishes.iter().filter(|other| other.port == wish.port);
    let first = match (wish.kind, address) {
        (Kind::ClusterIp, Some(address)) => {
            let owned = is_of_nodes_or_pods(model, address);
            rivals
                .filter(|other| {
                    !owned && other.kind == Kind::ClusterIp && other.address == Some(address)
                })
                .min()
        }
        (Kind::LoadBalancer | Kind::ExternalIp, Some(address)) => rivals
            .filter(|other| matches!(other.kind, Kind::LoadBalancer | Kind::ExternalIp))
            .filter(|other| {
                other.address == Some(address) && may_share(model, wishes, other, address)
            })
            .min(),
        (Kind::HostPort, Some(address)) => rivals
            .filter(|other| match other.address {
                None => at_node(address),
                Some(at) => at == address && other.kind == Kind::HostPort,
            })
            .min(),
        _ => rivals.filter(|other| other.address.is_none()).min(),
    };
    first.is_some_and(|first| first.subject == wish.subject && first.kind == wish.kind)
}

/// An endpoint of a port.
#[derive(Clone, Debug)]
struct Flat {
    address: IpAddr,
    port: u16,
    conditions: Conditions,
    weight: u16,
    is_here: bool,
    hints: Hints,
    refused: Option<OutReason>,
    admin: AdminState,
    probe: Probe,
}

fn flat(model: &Model, service: &Service, port: &ServicePort, family: Family) -> Vec<Flat> {
    let wishes = wishes(model);
    let mut found: BTreeMap<(IpAddr, u16), Flat> = BTreeMap::new();
    for slice in model
        .slices
        .values()
        .filter(|slice| slice.service == service.name && slice.family == family)
    {
        let number = slice
            .ports
            .iter()
            .find(|known| known.name == port.name && known.protocol == port.protocol)
            .map_or(0, |known| known.number);
        for endpoint in &slice.endpoints {
            let address = endpoint.address;
            let owner = model
                .nodes
                .values()
                .filter(|node| node.addresses.contains(&address));
            let names: Vec<&str> = owner.map(|node| &*node.name).collect();
            let is_cluster_ip = wishes.iter().any(|wish| {
                wish.kind == Kind::ClusterIp
                    && wish.address == Some(address)
                    && !is_of_nodes_or_pods(model, address)
            });
            let is_own = endpoint
                .node
                .as_deref()
                .is_some_and(|node| names.contains(&node));
            let refused = if !service.families.contains(&family) {
                Some(OutReason::WrongFamily)
            } else if number == 0 {
                Some(OutReason::NoSuchPort)
            } else if !names.is_empty() && !is_own {
                Some(OutReason::NodeAddress)
            } else if is_cluster_ip {
                Some(OutReason::ServiceAddress)
            } else {
                None
            };
            let key = heddle_services::BackendKey {
                address,
                port: number,
                protocol: port.protocol,
            };
            let own = model
                .admin
                .get(&(Some(service.name.clone()), address))
                .copied()
                .unwrap_or_default();
            let admin = if own == AdminState::None {
                model
                    .admin
                    .get(&(None, address))
                    .copied()
                    .unwrap_or_default()
            } else {
                own
            };
            let flat = Flat {
                address,
                port: number,
                conditions: endpoint.conditions,
                weight: endpoint.weight,
                is_here: endpoint.node.as_deref() == Some(HERE),
                hints: endpoint.hints.as_deref().cloned().unwrap_or_default(),
                refused,
                admin,
                probe: model
                    .probes
                    .get(&(service.name.clone(), key))
                    .copied()
                    .unwrap_or_default(),
            };
            let rank = |flat: &Flat| (flat.conditions.ready, flat.conditions.serving);
            match found.get(&(address, number)) {
                Some(known) if rank(known) >= rank(&flat) => {}
                _ => drop(found.insert((address, number), flat)),
            }
        }
    }
    let with_port: BTreeSet<IpAddr> = found
        .keys()
        .filter(|key| key.1 > 0)
        .map(|key| key.0)
        .collect();
    found.retain(|key, _| key.1 > 0 || !with_port.contains(&key.0));
    found.into_values().collect()
}

fn unfit(flat: &Flat) -> Option<OutReason> {
    let Conditions {
        ready,
        serving,
        terminating,
    } = flat.conditions;
    match (flat.refused, flat.weight, flat.admin) {
        (Some(reason), _, _) => Some(reason),
        (_, 0, _) => Some(OutReason::NoWeight),
        (_, _, AdminState::Down) => Some(OutReason::AdminDown),
        (_, _, AdminState::Drain { deadline }) => Some(OutReason::Draining { deadline }),
        _ if ready || (serving && terminating) => None,
        _ if terminating => Some(OutReason::NotServing),
        _ => Some(OutReason::NotReady),
    }
}

fn fails(flat: &Flat) -> bool {
    flat.probe == Probe::Down && flat.admin != AdminState::Up
}

/// The state of each endpoint: it is out by the first of the sets that it is not in.
fn states(all: &[Flat], policy: TrafficPolicy, zone: Option<&str>) -> States {
    let local = policy == TrafficPolicy::Local;
    let reachable: Vec<&Flat> = all
        .iter()
        .filter(|flat| unfit(flat).is_none() && (flat.is_here || !local))
        .collect();
    let any_ready = reachable.iter().any(|flat| flat.conditions.ready);
    let alive: Vec<&&Flat> = reachable
        .iter()
        .filter(|flat| flat.conditions.ready || !any_ready)
        .collect();
    let any_passes = alive.iter().any(|flat| !fails(flat));
    let sound: Vec<&&&Flat> = alive
        .iter()
        .filter(|flat| !any_passes || !fails(flat))
        .collect();
    let for_here = |flat: &Flat| flat.hints.nodes.iter().any(|node| **node == *HERE);
    let for_zone = |flat: &Flat| flat.hints.zones.iter().any(|name| Some(&**name) == zone);
    let may_prefer = !local && any_ready;
    let by_node = may_prefer
        && sound.iter().all(|flat| !flat.hints.nodes.is_empty())
        && sound.iter().any(|flat| for_here(flat));
    let by_zone = may_prefer
        && !by_node
        && sound.iter().all(|flat| !flat.hints.zones.is_empty())
        && sound.iter().any(|flat| for_zone(flat));
    let state = |flat: &Flat| {
        if let Some(reason) = unfit(flat) {
            BackendState::Out(reason)
        } else if local && !flat.is_here {
            BackendState::Out(OutReason::OtherNode)
        } else if any_ready && !flat.conditions.ready {
            BackendState::Out(OutReason::Terminating)
        } else if any_passes && fails(flat) {
            BackendState::Out(OutReason::ProbeDown)
        } else if by_node && !for_here(flat) {
            BackendState::Out(OutReason::HintedForOtherNodes)
        } else if by_zone && !for_zone(flat) {
            BackendState::Out(OutReason::HintedForOtherZones)
        } else if !any_passes {
            BackendState::In(InReason::AllProbesDown)
        } else if !any_ready {
            BackendState::In(InReason::NothingReady)
        } else {
            BackendState::In(match (flat.admin, flat.probe) {
                (AdminState::Up, _) => InReason::AdminUp,
                (_, Probe::Up) => InReason::ProbeUp,
                _ => InReason::Ready,
            })
        }
    };
    all.iter()
        .map(|flat| ((flat.address, flat.port), state(flat)))
        .collect()
}

/// What becomes of a subject.
pub(crate) fn expect(model: &Model, subject: &Subject) -> Seen {
    match subject {
        Subject::Service(name) => expect_service(model, subject, &model.services[&**name]),
        Subject::Pod(name) => expect_pod(model, subject, name),
    }
}

fn expect_service(model: &Model, subject: &Subject, service: &Service) -> Seen {
    let mut seen = Seen::default();
    if !is_served(service) {
        return seen;
    }
    let zone = model.nodes.get(HERE).and_then(|node| node.zone.as_deref());
    let everything = wishes(model);
    for wish in everything.iter().filter(|wish| wish.subject == *subject) {
        let places = match wish.address {
            Some(address) => vec![address],
            None => here(model),
        };
        if wish.kind == Kind::HealthCheck {
            if comes_true(model, &everything, wish, None) {
                seen.healthy = Some(healthy(model, service));
            }
            continue;
        }
        for address in places {
            let family = Family::of(address);
            let true_here = match wish.address {
                Some(address) => comes_true(model, &everything, wish, Some(address)),
                None => comes_true(model, &everything, wish, None),
            };
            if wish.kind == Kind::ClusterIp && true_here {
                seen.addresses.insert(address);
            }
            // All ports of a load balancer's address are the Service's to refuse, whoever has some of them.
            if wish.kind == Kind::LoadBalancer && may_share(model, &everything, wish, address) {
                seen.addresses.insert(address);
            }
            if !true_here || !service.families.contains(&family) {
                continue;
            }
            for port in &service.ports {
                let number = match (wish.kind, wish.port) {
                    (Kind::NodePort, Some((protocol, number))) => (protocol == port.protocol
                        && port.node_port == Some(number))
                    .then_some(number),
                    (_, Some(wanted)) => {
                        (wanted == (port.protocol, port.number)).then_some(port.number)
                    }
                    (_, None) => Some(port.number),
                };
                let Some(number) = number else { continue };
                let all = flat(model, service, port, family);
                let mut add = |scope, policy| {
                    let key = (address, number, port.protocol, scope);
                    seen.frontends
                        .insert(key, (wish.kind, states(&all, policy, zone)));
                };
                let local = service.external_policy == TrafficPolicy::Local;
                if wish.kind == Kind::ClusterIp {
                    add(Scope::Both, service.internal_policy);
                } else if local {
                    add(Scope::Internal, TrafficPolicy::Cluster);
                    add(Scope::External, TrafficPolicy::Local);
                } else {
                    add(Scope::Both, TrafficPolicy::Cluster);
                }
            }
        }
    }
    seen
}

fn healthy(model: &Model, service: &Service) -> usize {
    let count = |family: &Family| {
        let of_ports = service
            .ports
            .iter()
            .flat_map(|port| flat(model, service, port, *family));
        let well = of_ports.filter(|flat| {
            unfit(flat).is_none() && flat.conditions.ready && flat.is_here && !fails(flat)
        });
        well.map(|flat| flat.address).collect::<BTreeSet<_>>().len()
    };
    service.families.iter().map(count).max().unwrap()
}

fn expect_pod(model: &Model, subject: &Subject, name: &NamespacedName) -> Seen {
    let mut seen = Seen::default();
    let everything = wishes(model);
    let pod = &model.pods[name];
    let mut ports = pod.ports.clone();
    // Of two for one place the first by all of their fields counts.
    ports.sort();
    for port in ports.iter().filter(|port| port.container_port > 0) {
        let is_loopback = port.address.is_some_and(|address| address.is_loopback());
        let places: Vec<IpAddr> = match port.address {
            Some(address) if is_loopback => vec![address],
            Some(address) if !address.is_unspecified() => here(model)
                .into_iter()
                .filter(|own| *own == address)
                .collect(),
            Some(any) => here(model)
                .into_iter()
                .filter(|own| own.is_ipv4() == any.is_ipv4())
                .collect(),
            None => here(model),
        };
        for address in places {
            let own = pod
                .addresses
                .iter()
                .find(|own| own.is_ipv4() == address.is_ipv4() && !here(model).contains(own));
            let wish = Wish {
                kind: Kind::HostPort,
                created: pod.created,
                subject: subject.clone(),
                address: None,
                port: Some((port.protocol, port.number)),
            };
            if let Some(own) = own
                && comes_true(model, &everything, &wish, Some(address))
            {
                let scope = if is_loopback {
                    Scope::Internal
                } else {
                    Scope::Both
                };
                let state = BackendState::In(InReason::Ready);
                let states = BTreeMap::from([((*own, port.container_port), state)]);
                let key = (address, port.number, port.protocol, scope);
                seen.frontends
                    .entry(key)
                    .or_insert((Kind::HostPort, states));
            }
        }
    }
    seen
}
