//! A small cluster for tests: two nodes in two zones, and short ways to write Services and slices.

use heddle_model::NamespacedName;
use heddle_services::{
    BackendKey, ClusterFacts, EndpointSlice, Family, Frontend, Node, Outcome, Protocol, Scope,
    Services, Subject, WrittenEndpoint, WrittenEndpointSlice, WrittenIngress, WrittenPort,
    WrittenService, WrittenSlicePort,
};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) fn name(text: &str) -> NamespacedName {
    text.parse().unwrap()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn service(text: &str) -> Subject {
    Subject::Service(Arc::new(name(text)))
}

pub(crate) fn pod(text: &str) -> Subject {
    Subject::Pod(Arc::new(name(text)))
}

pub(crate) fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

pub(crate) fn key(text: &str) -> BackendKey {
    let (socket, protocol) = text.split_once('/').unwrap();
    let socket: std::net::SocketAddr = socket.parse().unwrap();
    BackendKey {
        address: socket.ip(),
        port: socket.port(),
        protocol: Protocol::named(protocol).unwrap(),
    }
}

/// A Service with the port 80 to 8080 at 10.96.0.1.
pub(crate) fn written(text: &str) -> WrittenService {
    WrittenService {
        name: name(text),
        uid: format!("uid of {text}"),
        created: 100,
        cluster_ips: texts(&["10.96.0.1"]),
        ports: vec![port("", 80)],
        has_selector: true,
        ..WrittenService::default()
    }
}

pub(crate) fn port(name: &str, number: i64) -> WrittenPort {
    WrittenPort {
        name: name.to_owned(),
        port: number,
        target: "8080".to_owned(),
        ..WrittenPort::default()
    }
}

pub(crate) fn vip(text: &str) -> WrittenIngress {
    WrittenIngress {
        ip: text.to_owned(),
        mode: String::new(),
    }
}

pub(crate) fn cluster() -> ClusterFacts {
    ClusterFacts {
        families: Family::ALL.to_vec(),
        ..ClusterFacts::default()
    }
}

/// An endpoint by words: an address, `@NODE`, `zone=Z` and `node=N` (hints), `unready`, `serving` (and terminating),
/// `gone` (terminating, not serving), `w=WEIGHT`, `pod=NAME`.
pub(crate) fn endpoint(words: &str) -> WrittenEndpoint {
    let mut endpoint = WrittenEndpoint::default();
    for word in words.split_whitespace() {
        match word {
            "unready" => {
                (endpoint.ready, endpoint.serving) = (Some(false), Some(false));
            }
            "serving" => {
                (endpoint.ready, endpoint.terminating) = (Some(false), Some(true));
            }
            "gone" => {
                endpoint.ready = Some(false);
                endpoint.serving = Some(false);
                endpoint.terminating = Some(true);
            }
            _ => match (word.strip_prefix('@'), word.split_once('=')) {
                (Some(node), _) => endpoint.node = node.to_owned(),
                (_, Some(("zone", zone))) => endpoint.for_zones.push(zone.to_owned()),
                (_, Some(("node", node))) => endpoint.for_nodes.push(node.to_owned()),
                (_, Some(("w", weight))) => endpoint.weight = Some(weight.parse().unwrap()),
                (_, Some(("pod", pod))) => endpoint.pod = pod.to_owned(),
                _ => endpoint.addresses.push(word.to_owned()),
            },
        }
    }
    endpoint
}

/// A slice with TCP port 8080 under the empty name.
pub(crate) fn slice(text: &str, service: &str, endpoints: &[&str]) -> WrittenEndpointSlice {
    let is_v6 = endpoints.first().is_some_and(|words| words.contains("::"));
    WrittenEndpointSlice {
        name: name(text),
        service: service.to_owned(),
        family: if is_v6 { "IPv6" } else { "IPv4" }.to_owned(),
        ports: vec![slice_port("", "TCP", 8080)],
        endpoints: endpoints.iter().map(|words| endpoint(words)).collect(),
    }
}

pub(crate) fn slice_port(name: &str, protocol: &str, number: i64) -> WrittenSlicePort {
    WrittenSlicePort {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        port: Some(number),
    }
}

pub(crate) fn read(slice: &WrittenEndpointSlice) -> EndpointSlice {
    slice.read().unwrap().unwrap()
}

/// A cluster as node `n1` (192.168.0.1, zone `a`) sees it, beside node `n2` (192.168.0.2, zone `b`).
pub(crate) struct World(pub(crate) Services);

impl World {
    pub(crate) fn new() -> Self {
        let mut services = Services::new("n1");
        for (number, zone) in [(1, "a"), (2, "b")] {
            services.set_node(Node {
                name: format!("n{number}"),
                zone: Some(zone.to_owned()),
                addresses: vec![
                    address(&format!("192.168.0.{number}")),
                    address(&format!("fd99::{number}")),
                ],
                pod_ranges: vec![
                    format!("10.1.{number}.0/24").parse().unwrap(),
                    format!("fd01:{number}::/64").parse().unwrap(),
                ],
            });
        }
        Self(services)
    }

    pub(crate) fn add(&mut self, written: &WrittenService) -> &mut Self {
        self.0.set_service(written.read(&cluster()));
        self
    }

    pub(crate) fn slice(&mut self, written: &WrittenEndpointSlice) -> &mut Self {
        self.0.set_slice(read(written));
        self
    }

    pub(crate) fn outcome(&self, text: &str) -> Outcome {
        self.0.outcome(&service(text)).unwrap()
    }

    /// The frontends of a Service with the backends that take their connections.
    pub(crate) fn frontends(&self, text: &str) -> Vec<String> {
        shown(&self.outcome(text))
    }

    /// The backends of the first selection with their codes.
    pub(crate) fn states(&self, text: &str) -> Vec<String> {
        states(&self.outcome(text), 0)
    }

    /// The problems of a Service, as `FIELD VALUE: FAULT`.
    pub(crate) fn problems(&self, text: &str) -> Vec<String> {
        problems(&self.outcome(text))
    }
}

pub(crate) fn problems(outcome: &Outcome) -> Vec<String> {
    outcome.problems.iter().map(ToString::to_string).collect()
}

pub(crate) fn states(outcome: &Outcome, selection: usize) -> Vec<String> {
    let backends = outcome.selections[selection].backends.iter();
    backends
        .map(|backend| format!("{} {}", backend.key, backend.state.code()))
        .collect()
}

/// `ADDRESS:PORT/PROTOCOL KIND SCOPE -> BACKENDS`.
pub(crate) fn shown(outcome: &Outcome) -> Vec<String> {
    let show = |frontend: &Frontend| {
        let key = BackendKey {
            address: frontend.address,
            port: frontend.port,
            protocol: frontend.protocol,
        };
        let backends: Vec<String> = outcome.selections[frontend.selection]
            .active()
            .map(|backend| format!("{}:{}", backend.key.address, backend.key.port))
            .collect();
        let scope = match frontend.scope {
            Scope::Both => "",
            Scope::Internal => " internal",
            Scope::External => " external",
        };
        let restricted = if frontend.restricted {
            " restricted"
        } else {
            ""
        };
        format!(
            "{key} {:?}{scope}{restricted} -> {}",
            frontend.kind,
            backends.join(" ")
        )
    };
    outcome.frontends.iter().map(show).collect()
}
