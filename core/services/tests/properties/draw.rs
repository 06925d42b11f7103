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
/// Addresses that Services claim to have from outside.
const CLAIMED: [&str; 6] = [
    "203.0.113.1",
    "203.0.113.2",
    "10.96.0.1",
    "192.168.0.1",
    "10.1.0.5",
    "fd96::1",
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
    (
        select(vec!["10.1.0.5", "10.1.0.6", "10.1.0.7"]),
        select(vec![8080_u16, 8080, 9090]),
    )
        .prop_map(|(address, port)| BackendKey {
            address: address.parse().unwrap(),
            port,
            protocol: Protocol::Tcp,
        })
}

fn ports() -> impl Strategy<Value = Vec<WrittenPort>> {
    let port = |name: &'static str| {
        let protocol = text(&["TCP", "TCP", "TCP", "UDP"]);
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
    let cluster_ips = select(vec![
        vec!["10.96.0.1"],
        vec!["10.96.0.1"],
        vec!["10.96.0.2"],
        vec!["10.96.0.2", "fd96::1"],
        vec!["fd96::1"],
        vec!["203.0.113.2"],
        vec!["None"],
    ]);
    let cluster_ips = cluster_ips.prop_map(|words| words.into_iter().map(str::to_owned).collect());
    let places = (cluster_ips, texts(&CLAIMED, 2), texts(&CLAIMED, 2), ports());
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

/// Whose traffic the endpoints of a slice are meant for: mostly all of them say so, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hinted {
    Not,
    ByZone,
    ByNode,
}

fn endpoint(addresses: &'static [&'static str]) -> impl Strategy<Value = WrittenEndpoint> {
    let ready = (true, true, false);
    let conditions = select(vec![
        ready,
        ready,
        ready,
        (false, false, false),
        (false, true, true),
        (false, true, true),
        (false, false, true),
    ]);
    let place = (text(&["", "n0", "n0", "n1"]), text(&ZONES), text(&NODES));
    let weight = select(vec![100_i64, 100, 100, 100, 7, 0]);
    (text(addresses), conditions, place, weight).prop_map(
        |(address, (ready, serving, terminating), (node, zone, for_node), weight)| {
            WrittenEndpoint {
                addresses: vec![address],
                ready: Some(ready),
                serving: Some(serving),
                terminating: Some(terminating),
                node,
                for_zones: vec![zone],
                for_nodes: vec![for_node],
                weight: Some(weight),
                ..WrittenEndpoint::default()
            }
        },
    )
}

fn endpoints() -> impl Strategy<Value = (String, Vec<WrittenEndpoint>)> {
    const V4: [&str; 8] = [
        "10.1.0.5",
        "10.1.0.6",
        "10.1.0.7",
        "10.1.0.8",
        "192.168.0.1",
        "10.96.0.1",
        "203.0.113.2",
        "fd01::5",
    ];
    const V6: [&str; 3] = ["fd01::5", "fd01::6", "fd96::1"];
    let of = |family: &'static str, addresses| {
        let endpoints = prop::collection::vec(endpoint(addresses), 0..5);
        endpoints.prop_map(move |endpoints| (family.to_owned(), endpoints))
    };
    prop_oneof![4 => of("IPv4", &V4), 1 => of("IPv6", &V6)]
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let ports = select(vec![
        vec![("a", 8080_i64)],
        vec![("a", 8080)],
        vec![("a", 9090)],
        vec![("a", 8080), ("b", 9090)],
        vec![],
    ]);
    let hinted = select(vec![
        Hinted::Not,
        Hinted::ByZone,
        Hinted::ByZone,
        Hinted::ByNode,
    ]);
    let protocol = text(&["TCP", "TCP", "TCP", "UDP"]);
    let owner = text(&["s", "s", "t"]);
    (
        slice_name(),
        owner,
        ports,
        protocol,
        endpoints(),
        hinted,
        0..4_usize,
    )
        .prop_map(
            |(name, service, ports, protocol, (family, mut endpoints), hinted, odd)| {
                for (at, endpoint) in endpoints.iter_mut().enumerate() {
                    if hinted == Hinted::Not || (at == 3 && odd == 3) {
                        endpoint.for_zones.clear();
                    }
                    if hinted != Hinted::ByNode {
                        endpoint.for_nodes.clear();
                    }
                }
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
            },
        )
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
    // A look after nearly each event: what one change forgets to name, the next may name by chance.
    let anything = prop_oneof![
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
        2 => (service_name(), key(), probe)
            .prop_map(|(name, key, probe)| Event::Probe(name, key, probe)),
        12 => Just(Event::Look),
    ];
    // Few endpoints, and much coming and going of those who want the same addresses and ports.
    let disputes = prop_oneof![
        6 => service().prop_map(Event::Service),
        4 => service_name().prop_map(Event::NoService),
        2 => slice().prop_map(Event::Slice),
        4 => node().prop_map(Event::Node),
        3 => text(&NODES).prop_map(Event::NoNode),
        5 => pod().prop_map(Event::Pod),
        3 => pod_name().prop_map(Event::NoPod),
        20 => Just(Event::Look),
    ];
    prop_oneof![
        prop::collection::vec(anything, 1..60),
        prop::collection::vec(disputes, 1..80),
        preferences(),
    ]
}

/// One Service that is there all the time, and all that may be said of its endpoints.
fn preferences() -> impl Strategy<Value = Vec<Event>> {
    let written = |policy: String| WrittenService {
        name: NamespacedName::new("x", "s"),
        cluster_ips: vec!["10.96.0.1".to_owned()],
        ports: vec![WrittenPort {
            name: "a".to_owned(),
            port: 80,
            ..WrittenPort::default()
        }],
        internal_policy: policy,
        ..WrittenService::default()
    };
    let service = text(&["Cluster", "Cluster", "Cluster", "Local"]);
    let service = service
        .prop_map(move |policy| Event::Service(written(policy).read(&cluster())))
        .boxed();
    const PODS: [&str; 4] = ["10.1.0.5", "10.1.0.6", "10.1.0.7", "192.168.0.1"];
    let endpoints = prop::collection::vec(endpoint(&PODS), 1..4);
    let slice = (select(vec!["s-1", "s-2"]), endpoints, any::<bool>()).prop_map(
        |(name, mut endpoints, by_node)| {
            for endpoint in endpoints.iter_mut().filter(|_| !by_node) {
                endpoint.for_nodes.clear();
            }
            let written = WrittenEndpointSlice {
                name: NamespacedName::new("x", name),
                service: "s".to_owned(),
                family: "IPv4".to_owned(),
                ports: vec![WrittenSlicePort {
                    name: "a".to_owned(),
                    port: Some(8080),
                    ..WrittenSlicePort::default()
                }],
                endpoints,
            };
            Event::Slice(written.read().unwrap().unwrap())
        },
    );
    let node = (prop::option::of(text(&ZONES)), any::<bool>()).prop_map(|(zone, is_first)| {
        Event::Node(Node {
            name: if is_first { "n0" } else { "n1" }.to_owned(),
            zone,
            addresses: vec!["192.168.0.1".parse().unwrap()],
            pod_ranges: Vec::new(),
        })
    });
    let states = vec![
        AdminState::None,
        AdminState::None,
        AdminState::Up,
        AdminState::Down,
    ];
    let admin =
        (address(), select(states)).prop_map(|(address, state)| Event::Admin(None, address, state));
    let probes = select(vec![Probe::Unknown, Probe::Up, Probe::Down]);
    let probe = (key(), probes)
        .prop_map(|(key, probe)| Event::Probe(NamespacedName::new("x", "s"), key, probe));
    let no_slice = select(vec!["s-1", "s-2"]).prop_map(|name| NamespacedName::new("x", name));
    let event = prop_oneof![
        1 => service.clone(),
        4 => slice,
        1 => no_slice.prop_map(Event::NoSlice),
        3 => node,
        1 => Just(Event::NoNode("n1".to_owned())),
        1 => admin,
        2 => probe,
        8 => Just(Event::Look),
    ];
    (service, prop::collection::vec(event, 1..40)).prop_map(|(first, mut events)| {
        events.insert(0, first);
        events
    })
}
