//! Slices for clusters without a controller: which endpoints, in which slices, with which hints.

use super::*;
use crate::{ClusterFacts, WrittenPort, WrittenService};
use std::collections::BTreeSet;

fn service(change: impl FnOnce(&mut WrittenService)) -> Service {
    let mut written = WrittenService {
        name: NamespacedName::new("default", "web"),
        has_selector: true,
        ports: vec![WrittenPort {
            port: 80,
            target: "8080".to_owned(),
            ..WrittenPort::default()
        }],
        ..WrittenService::default()
    };
    change(&mut written);
    let cluster = ClusterFacts {
        families: Family::ALL.to_vec(),
        ..ClusterFacts::default()
    };
    written.read(&cluster)
}

fn pod(number: usize) -> Pod {
    Pod {
        name: NamespacedName::new("default", format!("pod-{number:04}")),
        addresses: vec![
            std::net::Ipv4Addr::from(0x0a00_0001 + number as u32).into(),
            std::net::Ipv6Addr::from((0xfd00_u128 << 112) + number as u128 + 1).into(),
        ],
        ready: true,
        node: Some(format!("n{}", number % 10)),
        zone: Some(["a", "b", "c"][number % 3].to_owned()),
        ..Pod::default()
    }
}

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(pod).collect()
}

fn make(service: &Service, pods: &[Pod], former: &[EndpointSlice]) -> Vec<EndpointSlice> {
    let made = make_slices(service, pods, &[], former);
    assert_eq!(made.problems, []);
    made.slices
}

fn differing(before: &[EndpointSlice], after: &[EndpointSlice]) -> usize {
    let changed = after.iter().filter(|slice| !before.contains(slice)).count();
    let names: BTreeSet<&NamespacedName> = after.iter().map(|slice| &slice.name).collect();
    let gone = before
        .iter()
        .filter(|slice| !names.contains(&slice.name))
        .count();
    changed + gone
}

fn members(slices: &[EndpointSlice]) -> Vec<Arc<str>> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut names: Vec<Arc<str>> = endpoints
        .filter_map(|endpoint| endpoint.pod.clone())
        .collect();
    names.sort();
    names
}

#[test]
fn slices_have_at_most_a_hundred_endpoints_of_one_family() {
    let dual = service(|written| written.family_policy = "RequireDualStack".to_owned());
    let slices = make(&dual, &pods(250), &[]);
    let sizes: Vec<(Family, usize)> = slices
        .iter()
        .map(|slice| (slice.family, slice.endpoints.len()))
        .collect();
    let (v4, v6) = (Family::V4, Family::V6);
    assert_eq!(
        sizes,
        [
            (v4, 100),
            (v4, 100),
            (v4, 50),
            (v6, 100),
            (v6, 100),
            (v6, 50)
        ]
    );
    assert_eq!(slices[0].name.name, "web-ipv4-0");
    assert_eq!(slices[0].ports[0].number, 8080);
    assert!(slices.iter().all(|slice| {
        slice
            .endpoints
            .iter()
            .all(|endpoint| Family::of(endpoint.address) == slice.family)
    }));
}

#[test]
fn conditions_are_those_of_the_endpoint_slice_controller() {
    for (ready, terminating, publish, found) in [
        (true, false, false, (true, true, false)),
        (false, false, false, (false, false, false)),
        (true, true, false, (false, true, true)),
        (false, true, false, (false, false, true)),
        (false, false, true, (true, false, false)),
        (false, true, true, (true, false, true)),
    ] {
        let service = service(|written| written.publish_not_ready = publish);
        let pod = Pod {
            ready,
            terminating,
            ..pod(0)
        };
        let slices = make(&service, &[pod], &[]);
        let Conditions {
            ready,
            serving,
            terminating,
        } = slices[0].endpoints[0].conditions;
        assert_eq!((ready, serving, terminating), found);
    }
}

#[test]
fn a_named_target_port_is_what_each_pod_calls_it() {
    let declared = |name: &str, protocol: &str, number| DeclaredPort {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        number,
    };
    let service = service(|written| {
        written.ports = vec![
            WrittenPort {
                name: "web".to_owned(),
                port: 80,
                target: "http".to_owned(),
                ..WrittenPort::default()
            },
            WrittenPort {
                name: "metrics".to_owned(),
                port: 9090,
                target: "9090".to_owned(),
                ..WrittenPort::default()
            },
        ];
    });
    let mut pods = pods(4);
    pods[0].ports = vec![declared("http", "TCP", 8080)];
    pods[1].ports = vec![declared("http", "TCP", 8081), declared("http", "UDP", 1)];
    pods[2].ports = vec![declared("http", "", 8080)];
    pods[3].ports = vec![declared("http", "UDP", 8080)];
    let made = make_slices(&service, &pods, &[], &[]);
    let shown: Vec<String> = made
        .slices
        .iter()
        .map(|slice| {
            let ports: Vec<_> = slice
                .ports
                .iter()
                .map(|port| port.number.to_string())
                .collect();
            format!(
                "{} of {}",
                members(std::slice::from_ref(slice)).join(" "),
                ports.join(" ")
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "pod-0003 of 9090",
            "pod-0000 pod-0002 of 9090 8080",
            "pod-0001 of 9090 8081"
        ]
    );
    assert_eq!(
        made.problems[0].to_string(),
        "spec.ports[0].targetPort \"http\": 1 of the Service's pods have no such port, default/pod-0003 for one"
    );
}

#[test]
fn the_same_input_gives_the_same_slices_in_any_order() {
    let service = service(|_| {});
    let mut shuffled = pods(230);
    let slices = make(&service, &shuffled, &[]);
    shuffled.reverse();
    shuffled.rotate_left(77);
    assert_eq!(make(&service, &shuffled, &[]), slices);
    let mut former = slices.clone();
    former.reverse();
    assert_eq!(make(&service, &shuffled, &former), slices);
    assert_eq!(differing(&slices, &make(&service, &shuffled, &slices)), 0);
}

#[test]
fn one_pod_s_change_changes_one_slice() {
    let service = service(|_| {});
    let all = pods(1000);
    let slices = make(&service, &all, &[]);
    assert_eq!(slices.len(), 10);
    for number in [0, 1, 499, 999] {
        let mut unready = all.clone();
        unready[number].ready = false;
        assert_eq!(differing(&slices, &make(&service, &unready, &slices)), 1);
        let mut gone = all.clone();
        gone.remove(number);
        let without = make(&service, &gone, &slices);
        assert_eq!(differing(&slices, &without), 1);
        // Its successor goes where there is room, and a replacement at once goes to the place of the former.
        gone.push(pod(5000 + number));
        assert_eq!(differing(&without, &make(&service, &gone, &without)), 1);
        assert_eq!(differing(&slices, &make(&service, &gone, &slices)), 1);
    }
    let mut more = all.clone();
    more.push(pod(1000));
    let grown = make(&service, &more, &slices);
    assert_eq!((differing(&slices, &grown), grown.len()), (1, 11));
}

#[test]
fn what_is_new_fills_the_fullest_slice_with_room_and_empty_slices_go() {
    let service = service(|_| {});
    let slices = make(&service, &pods(200), &[]);
    // Twenty go from the first slice, fifty from the second.
    let kept = |number: &usize| !(0..20).contains(number) && !(100..150).contains(number);
    let mut fewer: Vec<Pod> = (0..200).filter(kept).map(pod).collect();
    let slices = make(&service, &fewer, &slices);
    fewer.extend((300..310).map(pod));
    let filled = make(&service, &fewer, &slices);
    let sizes: Vec<usize> = filled.iter().map(|slice| slice.endpoints.len()).collect();
    assert_eq!(sizes, [90, 50]);
    let left: Vec<Pod> = fewer
        .into_iter()
        .filter(|pod| *pod.name.name >= *"pod-0300")
        .collect();
    let last = make(&service, &left, &filled);
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].name, filled[0].name);
}

#[test]
fn slices_that_were_made_otherwise_are_put_right() {
    let service = service(|_| {});
    let mut slices = make(&service, &pods(150), &[]);
    // Too many in one, an endpoint in two, a stranger.
    let moved = slices[1].endpoints.clone();
    slices[0].endpoints.extend(moved.into_iter().take(40));
    let mut stranger = slices[0].endpoints[0].clone();
    stranger.pod = None;
    slices[1].endpoints.push(stranger);
    let right = make(&service, &pods(150), &slices);
    assert_eq!(members(&right).len(), 150);
    assert!(
        right
            .iter()
            .all(|slice| slice.endpoints.len() <= MAX_ENDPOINTS_PER_SLICE)
    );
    assert_eq!(differing(&right, &make(&service, &pods(150), &right)), 0);
}

#[test]
fn names_of_slices_are_never_those_of_others() {
    let service = service(|_| {});
    let mut former = make(&service, &pods(1), &[]);
    former[0].service = NamespacedName::new("default", "other");
    let slices = make(&service, &pods(1), &former);
    assert_eq!(slices[0].name.name, "web-ipv4-1");
}

#[test]
fn pods_that_all_call_a_port_otherwise_have_a_slice_each() {
    let service = service(|written| written.ports[0].target = "http".to_owned());
    let mut odd = pods(3000);
    for (number, pod) in odd.iter_mut().enumerate() {
        pod.ports = vec![DeclaredPort {
            name: "http".to_owned(),
            protocol: "TCP".to_owned(),
            number: number as u16 + 1,
        }];
    }
    let slices = make(&service, &odd, &[]);
    assert_eq!(slices.len(), 3000);
    assert_eq!(make(&service, &odd, &slices), slices);
}

#[test]
fn services_without_a_selector_have_the_slices_that_others_write() {
    let written = service(|written| written.has_selector = false);
    assert_eq!(make_slices(&written, &pods(3), &[], &[]), Made::default());
    let external = service(|written| written.kind = "ExternalName".to_owned());
    assert_eq!(make_slices(&external, &pods(3), &[], &[]), Made::default());
}

#[test]
fn a_headless_service_without_ports_has_slices_without_ports() {
    let headless = service(|written| {
        written.cluster_ips = vec!["None".to_owned()];
        written.ports.clear();
    });
    let slices = make(&headless, &pods(2), &[]);
    assert_eq!(
        (
            slices.len(),
            slices[0].ports.len(),
            slices[0].endpoints.len()
        ),
        (1, 0, 2)
    );
}

#[test]
fn a_host_name_is_of_pods_whose_subdomain_is_the_service() {
    let service = service(|_| {});
    let mut pods = pods(2);
    for pod in &mut pods {
        pod.hostname = pod.name.name.clone();
    }
    pods[0].subdomain = "web".to_owned();
    pods[1].subdomain = "db".to_owned();
    let slices = make(&service, &pods, &[]);
    assert_eq!(slices[0].endpoints[0].hostname.as_deref(), Some("pod-0000"));
    assert_eq!(slices[0].endpoints[1].hostname, None);
}

#[test]
fn a_pod_of_another_namespace_is_no_endpoint() {
    let service = service(|_| {});
    let mut stranger = pod(1);
    stranger.name.namespace = "other".to_owned();
    let slices = make(&service, &[pod(0), stranger], &[]);
    assert_eq!(members(&slices), ["pod-0000".into()]);
}

#[test]
fn a_pod_s_address_that_no_host_has_is_refused() {
    let service = service(|_| {});
    let mut pods = pods(2);
    pods[0].addresses = vec!["127.0.0.1".parse().unwrap()];
    let made = make_slices(&service, &pods, &[], &[]);
    assert_eq!(members(&made.slices), ["pod-0001".into()]);
    assert_eq!(
        made.problems[0].fault,
        Fault::Unusable(AddressFault::Loopback)
    );
}

/// The hints of each endpoint, as `ZONES/NODES`; `-` for none.
fn hints_of(slices: &[EndpointSlice]) -> Vec<String> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let shown = endpoints.map(|endpoint| match endpoint.hints.as_deref() {
        None => "-".to_owned(),
        Some(Hints { zones, nodes }) => format!("{}/{}", zones.join(" "), nodes.join(" ")),
    });
    shown.collect()
}

#[test]
fn traffic_distribution_hints_at_the_own_zone_and_node() {
    let mut pods = pods(4);
    pods[2].ready = false;
    pods[3].zone = None;
    for (word, found) in [
        ("", ["-", "-", "-", "-"]),
        ("PreferClose", ["a/", "b/", "-", "-"]),
        ("PreferSameZone", ["a/", "b/", "-", "-"]),
        ("PreferSameNode", ["a/n0", "b/n1", "-", "/n3"]),
    ] {
        let service = service(|written| written.distribution = word.to_owned());
        assert_eq!(hints_of(&make(&service, &pods, &[])), found, "{word}");
    }
}

fn nodes(zones: &[(&str, u64)]) -> Vec<NodeCapacity> {
    let nodes = zones.iter().map(|(zone, cpus)| NodeCapacity {
        zone: Some((*zone).to_owned()),
        millicpu: cpus * 1000,
        ready: true,
        control_plane: false,
    });
    nodes.collect()
}

fn auto() -> Service {
    service(|written| {
        let name = WrittenService::TOPOLOGY_MODE[1].to_owned();
        written.annotations.insert(name, "Auto".to_owned());
        written.distribution = "PreferSameNode".to_owned();
    })
}

/// Endpoints per zone by their own zones, and by their hints.
fn zones_of(slices: &[EndpointSlice]) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let (mut own, mut hinted) = (BTreeMap::new(), BTreeMap::new());
    for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
        *own.entry(endpoint.zone.as_deref().unwrap().to_owned())
            .or_default() += 1;
        let zone = &endpoint.hints.as_deref().unwrap().zones[0];
        *hinted.entry(zone.to_string()).or_default() += 1;
    }
    (own, hinted)
}

#[test]
fn auto_gives_each_zone_its_share_of_the_cpus() {
    let in_zones = |zones: &[(&str, usize)]| {
        let mut pods = Vec::new();
        for (zone, count) in zones {
            for _ in 0..*count {
                pods.push(Pod {
                    zone: Some((*zone).to_owned()),
                    ..pod(pods.len())
                });
            }
        }
        pods
    };
    let counts = |found: &[(&str, usize)]| -> BTreeMap<String, usize> {
        found
            .iter()
            .map(|(zone, count)| ((*zone).to_owned(), *count))
            .collect()
    };
    for (pods, cpus, hinted) in [
        // Even already.
        (
            &[("a", 3), ("b", 3), ("c", 3)][..],
            &[("a", 4), ("b", 4), ("c", 4)][..],
            &[("a", 3), ("b", 3), ("c", 3)][..],
        ),
        // One zone has all: it gives to the others.
        (
            &[("a", 9)],
            &[("a", 4), ("b", 4), ("c", 4)],
            &[("a", 3), ("b", 3), ("c", 3)],
        ),
        // By CPUs and not by zones.
        (
            &[("a", 5), ("b", 5)],
            &[("a", 8), ("b", 2)],
            &[("a", 8), ("b", 2)],
        ),
        // Less than half an endpoint does not move.
        (
            &[("a", 5), ("b", 5)],
            &[("a", 52), ("b", 48)],
            &[("a", 5), ("b", 5)],
        ),
    ] {
        let made = make_slices(&auto(), &in_zones(pods), &nodes(cpus), &[]);
        assert_eq!(made.hints_refused, []);
        let (own, found) = zones_of(&made.slices);
        assert_eq!(own, counts(pods));
        assert_eq!(found, counts(hinted), "{pods:?} on {cpus:?}");
    }
}

#[test]
fn auto_gives_no_hints_where_they_would_overload_a_zone() {
    let mut without_zone = pods(6);
    without_zone[3].zone = None;
    let mut unready = pods(6);
    unready.iter_mut().skip(1).for_each(|pod| pod.ready = false);
    let three = [("a", 4), ("b", 4), ("c", 4)];
    let mut unknown = nodes(&three);
    unknown[1].zone = None;
    let mut control_plane = nodes(&three);
    control_plane
        .iter_mut()
        .skip(1)
        .for_each(|node| node.control_plane = true);
    let mut asleep = nodes(&three);
    asleep
        .iter_mut()
        .skip(1)
        .for_each(|node| node.ready = false);
    for (pods, nodes, why) in [
        (pods(6), vec![], HintsRefused::TooFewZones(0)),
        (pods(6), nodes(&[("a", 4)]), HintsRefused::TooFewZones(1)),
        (pods(6), control_plane, HintsRefused::TooFewZones(1)),
        (pods(6), asleep, HintsRefused::TooFewZones(1)),
        (pods(6), unknown, HintsRefused::UnknownCapacity),
        (
            pods(6),
            nodes(&[("a", 4), ("b", 0)]),
            HintsRefused::UnknownCapacity,
        ),
        (
            without_zone,
            nodes(&three),
            HintsRefused::NoZone {
                pod: "pod-0003".into(),
            },
        ),
        (
            unready,
            nodes(&three),
            HintsRefused::TooFewEndpoints {
                endpoints: 1,
                zones: 3,
            },
        ),
        (
            pods(4),
            nodes(&three),
            HintsRefused::Overload {
                endpoints: 4,
                zones: 3,
            },
        ),
    ] {
        let made = make_slices(&auto(), &pods, &nodes, &[]);
        assert_eq!(made.hints_refused, [(Family::V4, why.clone())], "{why}");
        assert!(
            hints_of(&made.slices).iter().all(|hints| hints == "-"),
            "{why}"
        );
    }
}

#[test]
fn auto_wins_over_traffic_distribution_and_leaves_out_what_is_not_ready() {
    let mut pods = pods(10);
    pods[9].ready = false;
    let three = nodes(&[("a", 4), ("b", 4), ("c", 4)]);
    let made = make_slices(&auto(), &pods, &three, &[]);
    let hints = hints_of(&made.slices);
    assert_eq!(hints[..3], ["a/", "b/", "c/"]);
    assert_eq!(hints[9], "-");
}
