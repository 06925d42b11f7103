//! Objects with any text and any number: nothing panics, and no address that is refused is ever used.

use crate::HERE;
use crate::draw::cluster;
use heddle_model::NamespacedName;
use heddle_services::{
    AddressFault, Family, HostPort, HostPortPod, Kind, MAX_PROBLEMS, Node, Protocol, Scope,
    Services, WrittenEndpoint, WrittenEndpointSlice, WrittenIngress, WrittenPort, WrittenService,
    WrittenSlicePort,
};
use proptest::prelude::*;
use std::net::IpAddr;

/// Text that an address may be, or may look like.
fn address_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => any::<IpAddr>().prop_map(|address| address.to_string()),
        2 => any::<[u8; 4]>().prop_map(|bytes| IpAddr::from(bytes).to_string()),
        2 => any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!("::ffff:{a}.{b}.{c}.{d}")),
        2 => any::<u16>().prop_map(|last| format!("fe80::{last:x}")),
        2 => any::<u8>().prop_map(|last| format!("169.254.169.{last}")),
        1 => any::<u8>().prop_map(|last| format!("127.0.0.{last}")),
        1 => Just("192.168.0.1".to_owned()),
        1 => Just("None".to_owned()),
        1 => ".{0,20}",
    ]
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("Local".to_owned()),
        Just("LoadBalancer".to_owned()),
        Just("NodePort".to_owned()),
        Just("ClientIP".to_owned()),
        Just("IPv4".to_owned()),
        Just("IPv6".to_owned()),
        Just("UDP".to_owned()),
        Just("RequireDualStack".to_owned()),
        ".{0,10}",
    ]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -2..70_000_i64, 29_990..32_780_i64]
}

fn list<T: Strategy>(item: T) -> impl Strategy<Value = Vec<T::Value>> {
    prop::collection::vec(item, 0..4)
}

fn service() -> impl Strategy<Value = WrittenService> {
    let port = (word(), word(), number(), word(), number()).prop_map(
        |(name, protocol, port, target, node_port)| WrittenPort {
            name,
            protocol,
            port,
            target,
            node_port,
        },
    );
    let ingress = (address_text(), word()).prop_map(|(ip, mode)| WrittenIngress { ip, mode });
    let words = (word(), word(), word(), word(), word(), word());
    let places = (
        list(address_text()),
        list(word()),
        list(port),
        list(address_text()),
        list(ingress),
    );
    let rest = (list(address_text()), prop::option::of(number()), number());
    (words, places, rest).prop_map(|(words, places, rest)| WrittenService {
        name: NamespacedName::new("d", "web"),
        kind: words.0,
        family_policy: words.1,
        session_affinity: words.2,
        internal_policy: words.3,
        external_policy: words.4,
        distribution: words.5,
        cluster_ips: places.0,
        families: places.1,
        ports: places.2,
        external_ips: places.3,
        ingress: places.4,
        source_ranges: rest.0,
        affinity_timeout: rest.1,
        health_check_port: rest.2,
        ..WrittenService::default()
    })
}

fn slice() -> impl Strategy<Value = WrittenEndpointSlice> {
    let endpoint = (
        list(address_text()),
        any::<Option<bool>>(),
        any::<Option<bool>>(),
        word(),
        list(word()),
        any::<Option<i64>>(),
    )
        .prop_map(
            |(addresses, ready, terminating, node, for_zones, weight)| WrittenEndpoint {
                addresses,
                ready,
                terminating,
                node,
                for_zones,
                weight,
                ..WrittenEndpoint::default()
            },
        );
    let port = (word(), word(), any::<Option<i64>>()).prop_map(|(name, protocol, port)| {
        WrittenSlicePort {
            name,
            protocol,
            port,
        }
    });
    (word(), list(port), prop::collection::vec(endpoint, 0..10)).prop_map(
        |(family, ports, endpoints)| WrittenEndpointSlice {
            name: NamespacedName::new("d", "web-1"),
            service: "web".to_owned(),
            family,
            ports,
            endpoints,
        },
    )
}

fn pod() -> impl Strategy<Value = HostPortPod> {
    let port = (any::<Option<IpAddr>>(), any::<u16>(), any::<u16>()).prop_map(
        |(address, number, container_port)| HostPort {
            address,
            number,
            protocol: Protocol::Tcp,
            container_port,
        },
    );
    (list(any::<IpAddr>()), list(port)).prop_map(|(addresses, ports)| HostPortPod {
        name: NamespacedName::new("d", "pod"),
        uid: String::new(),
        created: 0,
        addresses,
        ports,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_object_panics_and_no_refused_address_is_used(
        service in service(),
        slices in list(slice()),
        pod in pod(),
    ) {
        let mut services = Services::new(HERE);
        let own: [IpAddr; 2] = ["192.168.0.1".parse().unwrap(), "fd99::1".parse().unwrap()];
        services.set_node(Node {
            name: HERE.to_owned(),
            addresses: own.to_vec(),
            ..Node::default()
        });
        let read = service.read(&cluster());
        prop_assert!(read.problems.len() <= MAX_PROBLEMS);
        services.set_service(read);
        for slice in slices {
            if let Ok(Some(slice)) = slice.read() {
                prop_assert!(slice.problems.len() <= MAX_PROBLEMS);
                services.set_slice(slice);
            }
        }
        services.set_pod(pod);
        for subject in services.take_changes() {
            let Some(outcome) = services.outcome(&subject) else {
                continue;
            };
            for frontend in &outcome.frontends {
                let fault = AddressFault::of(frontend.address);
                let for_the_node = frontend.kind == Kind::HostPort && frontend.scope == Scope::Internal;
                prop_assert!(fault.is_none() || (for_the_node && fault == Some(AddressFault::Loopback)));
                prop_assert!(frontend.port > 0);
                let of_node = matches!(frontend.kind, Kind::NodePort | Kind::HostPort);
                prop_assert!(of_node || !own.contains(&frontend.address));
                prop_assert!(frontend.selection < outcome.selections.len());
            }
            for selection in &outcome.selections {
                for backend in &selection.backends {
                    prop_assert_eq!(AddressFault::of(backend.key.address), None);
                    prop_assert_eq!(Family::of(backend.key.address), selection.family);
                }
                for backend in selection.active() {
                    prop_assert!(backend.key.port > 0);
                    let elsewhere = backend.node.as_deref() != Some(HERE);
                    prop_assert!(!(own.contains(&backend.key.address) && elsewhere));
                }
            }
            for problem in &outcome.problems {
                prop_assert!(!problem.to_string().is_empty() && problem.value.chars().count() <= 64);
            }
        }
    }
}
