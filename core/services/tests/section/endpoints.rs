//! Endpoints: hostile addresses, many of them, several slices, and what stands behind a Service.

use crate::world::*;
use heddle_services::{MAX_BACKENDS, MAX_SLICE_ENDPOINTS, Node};
use std::collections::BTreeSet;

#[test]
fn addresses_of_nodes_loopback_and_link_local_are_refused_and_reported() {
    let mut world = World::new();
    let hostile = [
        "127.0.0.1",
        "169.254.169.254",
        "192.168.0.2",
        "fd00::1",
        "10.1.1.5",
    ];
    world
        .add(&written("d/web"))
        .slice(&slice("d/bad", "web", &hostile[..3]));
    let mut endpoints = slice("d/bad", "web", &[]);
    endpoints.endpoints = hostile.map(endpoint).to_vec();
    world.slice(&endpoints);
    assert_eq!(
        world.frontends("d/web"),
        ["10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080"]
    );
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Up_Ready",
            "192.168.0.2:8080/TCP Down_Refused_NodeAddress"
        ]
    );
    assert_eq!(
        world.problems("d/web"),
        [
            "EndpointSlice bad: endpoints[0].addresses[0] \"127.0.0.1\": cannot be used: it is a loopback address",
            "EndpointSlice bad: endpoints[1].addresses[0] \"169.254.169.254\": cannot be used: it is a link-local address",
            "EndpointSlice bad: endpoints[3].addresses[0] \"fd00::1\": is IPv6, and that family is not the object's",
            "EndpointSlice bad: endpoints \"192.168.0.2\": is an address of node n2",
        ]
    );
}

#[test]
fn a_pod_of_the_host_network_has_its_own_node_s_address() {
    let mut world = World::new();
    world.add(&written("d/web"));
    world.slice(&slice("d/web-1", "web", &["192.168.0.2 @n2"]));
    assert_eq!(world.states("d/web"), ["192.168.0.2:8080/TCP Up_Ready"]);
    world.slice(&slice("d/web-1", "web", &["192.168.0.2 @n1"]));
    assert_eq!(
        world.states("d/web"),
        ["192.168.0.2:8080/TCP Down_Refused_NodeAddress"]
    );
}

#[test]
fn the_api_server_s_own_service_has_addresses_of_nodes_and_no_other_may() {
    let mut world = World::new();
    world.add(&written("default/kubernetes"));
    world.slice(&slice("default/kubernetes", "kubernetes", &["192.168.0.2"]));
    assert_eq!(
        world.states("default/kubernetes"),
        ["192.168.0.2:8080/TCP Up_Ready"]
    );
    world.add(&written("tenant/kubernetes"));
    world.slice(&slice("tenant/kubernetes", "kubernetes", &["192.168.0.2"]));
    assert_eq!(
        world.states("tenant/kubernetes"),
        ["192.168.0.2:8080/TCP Down_Refused_NodeAddress"]
    );
}

#[test]
fn an_endpoint_on_a_cluster_ip_is_refused_while_a_service_has_it() {
    let mut world = World::new();
    let mut victim = written("victim/db");
    victim.cluster_ips = texts(&["10.96.0.7"]);
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["10.96.0.7"]));
    assert_eq!(world.states("d/web"), ["10.96.0.7:8080/TCP Up_Ready"]);
    world.0.take_changes();
    world.add(&victim);
    assert_eq!(
        world.0.take_changes(),
        [service("d/web"), service("victim/db")]
    );
    assert_eq!(
        world.states("d/web"),
        ["10.96.0.7:8080/TCP Down_Refused_ServiceAddress"]
    );
    assert!(world.problems("d/web")[0].contains("the cluster IP of Service victim/db"));
    world.0.remove_service(&name("victim/db"));
    assert_eq!(world.states("d/web"), ["10.96.0.7:8080/TCP Up_Ready"]);
}

#[test]
fn a_node_that_comes_takes_its_address_from_endpoints() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["192.168.0.3"]));
    assert_eq!(world.states("d/web"), ["192.168.0.3:8080/TCP Up_Ready"]);
    world.0.take_changes();
    world.0.set_node(Node {
        name: "n3".to_owned(),
        addresses: vec![address("192.168.0.3")],
        ..Node::default()
    });
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(
        world.states("d/web"),
        ["192.168.0.3:8080/TCP Down_Refused_NodeAddress"]
    );
    world.0.remove_node("n3");
    assert_eq!(world.states("d/web"), ["192.168.0.3:8080/TCP Up_Ready"]);
}

#[test]
fn of_nodes_with_one_address_each_has_its_own_pods_there() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["192.168.0.2 @n9"]));
    assert_eq!(
        world.states("d/web"),
        ["192.168.0.2:8080/TCP Down_Refused_NodeAddress"]
    );
    world.0.take_changes();
    world.0.set_node(Node {
        name: "n9".to_owned(),
        addresses: vec![address("192.168.0.2")],
        ..Node::default()
    });
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(world.states("d/web"), ["192.168.0.2:8080/TCP Up_Ready"]);
}

#[test]
fn an_endpoint_is_free_again_when_its_address_turns_out_to_be_a_pod_s() {
    let mut world = World::new();
    let mut other = written("d/other");
    other.cluster_ips = texts(&["10.7.0.1"]);
    world
        .add(&other)
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["10.7.0.1"]));
    assert_eq!(
        world.states("d/web"),
        ["10.7.0.1:8080/TCP Down_Refused_ServiceAddress"]
    );
    world.0.take_changes();
    world.0.set_node(Node {
        name: "n7".to_owned(),
        pod_ranges: vec!["10.7.0.0/24".parse().unwrap()],
        ..Node::default()
    });
    assert_eq!(
        world.0.take_changes(),
        [service("d/other"), service("d/web")]
    );
    assert_eq!(world.states("d/web"), ["10.7.0.1:8080/TCP Up_Ready"]);
    assert!(world.frontends("d/other").is_empty());
}

#[test]
fn an_endpoint_in_two_slices_is_one_and_the_more_usable_copy_counts() {
    let mut world = World::new();
    world.add(&written("d/web"));
    world.slice(&slice("d/a", "web", &["10.1.1.5 unready", "10.1.1.6 @n1"]));
    world.slice(&slice("d/b", "web", &["10.1.1.5", "10.1.1.6 @n2"]));
    assert_eq!(
        world.states("d/web"),
        ["10.1.1.5:8080/TCP Up_Ready", "10.1.1.6:8080/TCP Up_Ready"]
    );
    let nodes: Vec<_> = world.outcome("d/web").selections[0]
        .backends
        .iter()
        .map(|backend| backend.node.clone())
        .collect();
    assert_eq!(nodes, [None, Some("n1".into())]);
    // A copy without the port says nothing beside one with it.
    let mut without = slice("d/0", "web", &["10.1.1.5"]);
    without.ports.clear();
    world.slice(&without);
    assert_eq!(world.states("d/web")[0], "10.1.1.5:8080/TCP Up_Ready");
}

fn many(count: usize) -> World {
    let mut world = World::new();
    world.add(&written("d/web"));
    let addresses: Vec<String> = (0..count)
        .map(|number| std::net::Ipv4Addr::from(0x0a02_0000 + number as u32).to_string())
        .collect();
    for (at, part) in addresses.chunks(MAX_SLICE_ENDPOINTS).enumerate() {
        let part: Vec<&str> = part.iter().map(String::as_str).collect();
        world.slice(&slice(&format!("d/web-{at}"), "web", &part));
    }
    world
}

#[test]
fn ten_thousand_endpoints_in_one_service() {
    let outcome = many(10_000).outcome("d/web");
    assert_eq!(outcome.selections[0].active().count(), 10_000);
    assert_eq!(
        (outcome.selections[0].left_out, outcome.problems.len()),
        (0, 0)
    );
}

#[test]
fn endpoints_beyond_the_limit_are_left_out_by_their_addresses_and_reported() {
    let world = many(MAX_BACKENDS + 500);
    let outcome = world.outcome("d/web");
    let selection = &outcome.selections[0];
    assert_eq!(
        (selection.backends.len(), selection.left_out),
        (MAX_BACKENDS, 500)
    );
    let last = std::net::Ipv4Addr::from(0x0a02_0000 + MAX_BACKENDS as u32 - 1);
    assert_eq!(selection.backends.last().unwrap().key.address, last);
    assert_eq!(
        world.problems("d/web"),
        ["endpoints of port TCP/80 \"IPv4\": has 16884 entries; the first 16384 are used"]
    );
}

#[test]
fn a_service_that_is_deleted_and_made_again_in_one_breath_is_another() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["10.1.1.5"]));
    world.0.take_changes();
    world.0.remove_service(&name("d/web"));
    let mut again = written("d/web");
    again.uid = "another".to_owned();
    again.created = 200;
    again.cluster_ips = texts(&["10.96.0.2"]);
    world.add(&again);
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(world.outcome("d/web").uid, "another");
    assert_eq!(
        world.frontends("d/web"),
        ["10.96.0.2:80/TCP ClusterIp -> 10.1.1.5:8080"]
    );
}

#[test]
fn a_slice_that_changes_its_service_changes_both() {
    let mut world = World::new();
    let mut other = written("d/other");
    other.cluster_ips = texts(&["10.96.0.2"]);
    world
        .add(&written("d/web"))
        .add(&other)
        .slice(&slice("d/s", "web", &["10.1.1.5"]));
    world.0.take_changes();
    world.slice(&slice("d/s", "other", &["10.1.1.5"]));
    assert_eq!(
        world.0.take_changes(),
        [service("d/other"), service("d/web")]
    );
    assert_eq!(world.states("d/web"), [""; 0]);
    assert_eq!(world.states("d/other"), ["10.1.1.5:8080/TCP Up_Ready"]);
    world.0.remove_slice(&name("d/s"));
    assert_eq!(world.states("d/other"), [""; 0]);
}

#[test]
fn behind_a_service_stands_what_its_frontends_lead_to() {
    let mut world = World::new();
    let mut object = written("d/web");
    object.internal_policy = "Local".to_owned();
    world.add(&object).slice(&slice(
        "d/web-1",
        "web",
        &[
            "10.1.1.5 @n1",
            "10.1.2.5 @n2",
            "10.1.2.6 unready",
            "192.168.0.2",
        ],
    ));
    let behind = world.0.behind(&name("d/web")).unwrap();
    let shown: Vec<String> = behind
        .iter()
        .map(|behind| format!("{} {}", behind.key, behind.state.code()))
        .collect();
    assert_eq!(
        shown,
        [
            "10.1.1.5:8080/TCP Up_Ready",
            "10.1.2.5:8080/TCP Up_Ready",
            "10.1.2.6:8080/TCP Down_NotReady",
            "192.168.0.2:8080/TCP Down_Refused_NodeAddress",
        ]
    );
    assert_eq!(world.0.behind(&name("d/none")), None);
    let services = world.0.services_with(address("10.1.2.5"));
    assert_eq!(services, BTreeSet::from([name("d/web")]));
    assert!(world.0.services_with(address("10.1.2.99")).is_empty());
    world.slice(&slice("d/web-1", "web", &["10.1.1.5 @n1"]));
    assert!(world.0.services_with(address("10.1.2.5")).is_empty());
}
