//! Draws clusters in which everything is in everybody's way: few names, few addresses, few ports.

use heddle_model::NamespacedName;
use heddle_services::{
    AdminState, BackendKey, ClusterFacts, EndpointSlice, Family, HostPort, HostPortPod, Node,
    Probe, Protocol, Service, Services, WrittenEndpoint, WrittenEndpointSlice, WrittenIngress,
    WrittenPort, WrittenService, WrittenSlicePort,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::net::IpAddr;

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Service(Service),
    NoService(NamespacedName),
    Slice(EndpointSlice),
    NoSlice(NamespacedName),
    Node(Node),
    NoNode(String),
    Pod(HostPortPod),
    NoPod(NamespacedName),
    Admin(Option<NamespacedName>, IpAddr, AdminState),
    Probe(NamespacedName, BackendKey, Probe),
    /// Somebody computes what is said to have changed.
    Look,
}

impl Event {
    pub(crate) fn apply(&self, services: &mut Services) {
        match self.clone() {
            Self::Service(service) => services.set_service(service),
            Self::NoService(name) => services.remove_service(&name),
            Self::Slice(slice) => services.set_slice(slice),
            Self::NoSlice(name) => services.remove_slice(&name),
            Self::Node(node) => services.set_node(node),
            Self::NoNode(name) => services.remove_node(&name),
            Self::Pod(pod) => services.set_pod(pod),
            Self::NoPod(name) => services.remove_pod(&name),
            Self::Admin(name, address, state) => services.set_admin(name.as_ref(), address, state),
            Self::Probe(name, key, probe) => services.set_probe(&name, key, probe),
            Self::Look => {}
        }
    }
}

/// Addresses of everything: Services, nodes, pods, the world. Anybody may claim any of them.
const ADDRESSES: [&str; 10] = [
    "10.96.0.1",
    "10.96.0.2",
    "192.168.0.1",
    "192.168.0.2",
    "10.1.0.5",
    "10.1.0.6",
    "203.0.113.1",
    "203.0.113.2",
    "fd96::1",
    "fd01::5",
];
const RANGES: [&str; 4] = ["10.1.0.4/31", "10.1.0.0/24", "203.0.113.2/32", "fd01::/64"];
const NODES: [&str; 4] = ["n0", "n0", "n1", "n2"];
const ZONES: [&str; 2] = ["a", "b"];
const PORTS: [u16; 2] = [80, 30_080];

pub(crate) fn cluster() -> ClusterFacts {
    ClusterFacts {
        families: Family::ALL.to_vec(),
        ..ClusterFacts::default()
    }
}

fn text(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    select(words).prop_map(str::to_owned)
}

fn texts(words: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    subsequence(words, 0..=most).prop_map(|words| words.into_iter().map(str::to_owned).collect())
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(|text| text.parse().unwrap())
}

fn service_name() -> impl Strategy<Value = NamespacedName> {
    (select(&["x", "y"][..]), select(&["s", "t"][..]))
        .prop_map(|(namespace, name)| NamespacedName::new(namespace, name))
}

fn slice_name() -> impl Strategy<Value = NamespacedName> {
    (select(&["x", "y"][..]), select(&["s-1", "s-2", "t-1"][..]))
        .prop_map(|(namespace, name)| NamespacedName::new(namespace, name))
}

fn pod_name() -> impl Strategy<Value = NamespacedName> {
    select(&["p", "q"][..]).prop_map(|name| NamespacedName::new("x", name))
}

fn key() -> impl Strategy<Value = BackendKey> {
    (address(), select(&[8080_u16, 9090][..])).prop_map(|(address, port)| BackendKey {
        address,
        port,
        protocol: Protocol::Tcp,
    })
}

fn ports() -> impl Strategy<Value = Vec<WrittenPort>> {
    let port = |name: &'static str| {
        let protocol = text(&["TCP", "TCP", "UDP"]);
        (
            select(&PORTS[..]),
            protocol,
            select(&[0_i64, 30_080, 30_081][..]),
        )
            .prop_map(move |(port, protocol, node_port)| WrittenPort {
                name: name.to_owned(),
                protocol,
                port: port.into(),
                node_port,
                ..WrittenPort::default()
            })
    };
    prop_oneof![
        3 => port("a").prop_map(|one| vec![one]),
        1 => (port("a"), port("b")).prop_map(|(one, other)| vec![one, other]),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let identity = (service_name(), 0..3_u64, 0..2_u8);
    let places = (
        texts(&["10.96.0.1", "fd96::1", "203.0.113.2", "None"], 2),
        texts(&ADDRESSES, 2),
        texts(&ADDRESSES, 2),
        ports(),
    );
    let policies = (
        text(&[
            "ClusterIP",
            "NodePort",
            "LoadBalancer",
            "LoadBalancer",
            "ExternalName",
        ]),
        text(&["Cluster", "Local"]),
        text(&["Cluster", "Local"]),
        select(&[0_i64, 30_080][..]),
        any::<bool>(),
    );
    (identity, places, policies).prop_map(|(identity, places, policies)| {
        let (name, created, uid) = identity;
        let (cluster_ips, external_ips, ingress, ports) = places;
        let (kind, internal_policy, external_policy, health_check_port, is_other) = policies;
        let mut written = WrittenService {
            name,
            created,
            uid: uid.to_string(),
            cluster_ips,
            external_ips,
            ingress: ingress
                .into_iter()
                .map(|ip| WrittenIngress {
                    ip,
                    mode: String::new(),
                })
                .collect(),
            ports,
            kind,
            internal_policy,
            external_policy,
            health_check_port,
            family_policy: "PreferDualStack".to_owned(),
            has_selector: true,
            ..WrittenService::default()
        };
        if is_other && uid == 1 && created == 2 {
            written
                .labels
                .insert(WrittenService::PROXY_NAME.to_owned(), "other".to_owned());
        }
        written.read(&cluster())
    })
}

fn endpoint() -> impl Strategy<Value = WrittenEndpoint> {
    let conditions = select(
        &[
            (true, true, false),
            (true, true, false),
            (false, false, false),
            (false, true, true),
            (false, false, true),
        ][..],
    );
    let place = (text(&["", "n0", "n1"]), texts(&ZONES, 2), texts(&NODES, 2));
    let weight = select(&[100_i64, 100, 100, 7, 0][..]);
    (text(&ADDRESSES), conditions, place, weight, 0..3_u8).prop_map(
        |(address, (ready, serving, terminating), (node, zones, nodes), weight, hinted)| {
            WrittenEndpoint {
                addresses: vec![address],
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
                node,
                for_zones: if hinted == 0 { Vec::new() } else { zones },
                for_nodes: if hinted < 2 { Vec::new() } else { nodes },
                weight: Some(weight),
                ..WrittenEndpoint::default()
            }
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let ports = subsequence(vec![("a", 8080_i64), ("b", 9090), ("a", 9090)], 0..=2);
    let protocol = text(&["TCP", "TCP", "UDP"]);
    let endpoints = prop::collection::vec(endpoint(), 0..5);
    (
        slice_name(),
        text(&["s", "t"]),
        text(&["IPv4", "IPv4", "IPv6"]),
        ports,
        protocol,
        endpoints,
    )
        .prop_map(|(name, service, family, ports, protocol, endpoints)| {
            let ports = ports.into_iter().map(|(name, number)| WrittenSlicePort {
                name: name.to_owned(),
                protocol: protocol.clone(),
                port: Some(number),
            });
            let written = WrittenEndpointSlice {
                name,
                service,
                family,
                ports: ports.collect(),
                endpoints,
            };
            written.read().unwrap().unwrap()
        })
}

fn node() -> impl Strategy<Value = Node> {
    let zone = prop::option::of(text(&ZONES));
    (
        text(&NODES),
        zone,
        texts(&["192.168.0.1", "192.168.0.2", "203.0.113.1", "fd96::1"], 3),
        texts(&RANGES, 2),
    )
        .prop_map(|(name, zone, addresses, ranges)| Node {
            name,
            zone,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            pod_ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        })
}

fn pod() -> impl Strategy<Value = HostPortPod> {
    let places = [
        "192.168.0.1",
        "192.168.0.1",
        "192.168.0.1",
        "203.0.113.1",
        "127.0.0.1",
        "0.0.0.0",
        "fd96::1",
        "::",
    ];
    let at = prop::option::of(select(places.to_vec()).prop_map(|text| text.parse().unwrap()));
    let numbers = (
        select(&[30_080_u16, 30_081][..]),
        select(&[8080_u16, 9090, 0][..]),
    );
    let protocol = select(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp][..]);
    let port = (at, numbers, protocol).prop_map(|(address, (number, container_port), protocol)| {
        HostPort {
            address,
            number,
            protocol,
            container_port,
        }
    });
    let addresses = texts(&["10.1.0.5", "fd01::5", "192.168.0.1"], 2);
    (
        pod_name(),
        0..3_u64,
        addresses,
        prop::collection::vec(port, 0..4),
    )
        .prop_map(|(name, created, addresses, ports)| HostPortPod {
            name,
            uid: String::new(),
            created,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ports,
        })
}

pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    let admin = select(
        &[
            AdminState::None,
            AdminState::Up,
            AdminState::Down,
            AdminState::Drain { deadline: 5 },
        ][..],
    );
    let probe = select(&[Probe::Unknown, Probe::Up, Probe::Down, Probe::Down][..]);
    let event = prop_oneof![
        6 => service().prop_map(Event::Service),
        2 => service_name().prop_map(Event::NoService),
        6 => slice().prop_map(Event::Slice),
        1 => slice_name().prop_map(Event::NoSlice),
        3 => node().prop_map(Event::Node),
        1 => text(&NODES).prop_map(Event::NoNode),
        3 => pod().prop_map(Event::Pod),
        1 => pod_name().prop_map(Event::NoPod),
        1 => (prop::option::of(service_name()), address(), admin)
            .prop_map(|(name, address, state)| Event::Admin(name, address, state)),
        2 => (service_name(), key(), probe).prop_map(|(name, key, probe)| Event::Probe(name, key, probe)),
        2 => Just(Event::Look),
    ];
    prop::collection::vec(event, 1..60)
}
