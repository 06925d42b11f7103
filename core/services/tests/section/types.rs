//! Types of Services, families, ports and protocols.

use crate::world::*;
use heddle_services::{Algorithm, ClusterFacts, Ignored, WrittenService};

#[test]
fn cluster_ip() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["10.1.1.5 @n1", "10.1.2.5 @n2"]));
    assert_eq!(
        world.frontends("d/web"),
        ["10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080 10.1.2.5:8080"]
    );
    let outcome = world.outcome("d/web");
    // A connection to another port of the address is refused, and never sent to the fabric.
    assert_eq!(outcome.addresses, [address("10.96.0.1")]);
    assert_eq!(outcome.uid, "uid of d/web");
    assert_eq!(world.problems("d/web"), [""; 0]);
}

#[test]
fn headless_has_no_frontends_and_still_has_backends_behind_it() {
    let mut world = World::new();
    let mut object = written("d/web");
    object.cluster_ips = texts(&["None"]);
    object.ports.clear();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.1.5 pod=web-0"]));
    let outcome = world.outcome("d/web");
    assert_eq!(outcome.ignored, Some(Ignored::Headless));
    assert!(outcome.frontends.is_empty() && outcome.addresses.is_empty());
    let behind = world.0.behind(&name("d/web")).unwrap();
    assert_eq!(behind.len(), 1);
    assert_eq!(behind[0].key, key("10.1.1.5:8080/TCP"));
    assert_eq!(behind[0].pod.as_deref(), Some("web-0"));
}

#[test]
fn node_port_is_served_at_every_address_of_this_node_and_at_no_other_node_s() {
    let mut world = World::new();
    let mut object = written("d/web");
    object.kind = "NodePort".to_owned();
    object.ports[0].node_port = 30_080;
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.2.5 @n2"]));
    assert_eq!(
        world.frontends("d/web"),
        [
            "10.96.0.1:80/TCP ClusterIp -> 10.1.2.5:8080",
            "192.168.0.1:30080/TCP NodePort -> 10.1.2.5:8080",
        ]
    );
}

#[test]
fn load_balancer_addresses_come_from_the_status_and_a_proxy_s_are_left_to_it() {
    let mut world = World::new();
    let mut object = written("d/web");
    object.kind = "LoadBalancer".to_owned();
    object.ports[0].node_port = 30_080;
    object.ingress = vec![vip("203.0.113.1"), vip("203.0.113.2"), vip("")];
    object.ingress[1].mode = "Proxy".to_owned();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.1.5"]));
    assert_eq!(
        world.frontends("d/web"),
        [
            "10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080",
            "192.168.0.1:30080/TCP NodePort -> 10.1.1.5:8080",
            "203.0.113.1:80/TCP LoadBalancer -> 10.1.1.5:8080",
        ]
    );
    let addresses = [address("10.96.0.1"), address("203.0.113.1")];
    assert_eq!(world.outcome("d/web").addresses, addresses);
}

#[test]
fn load_balancer_class_says_who_gives_addresses_and_nothing_about_those_that_are_there() {
    let mut object = written("d/web");
    object.kind = "LoadBalancer".to_owned();
    object.ingress = vec![vip("203.0.113.1")];
    let mut world = World::new();
    let without = world.add(&object).frontends("d/web");
    object.load_balancer_class = "example.com/other".to_owned();
    assert_eq!(world.add(&object).frontends("d/web"), without);
    let service = world.0.service(&name("d/web")).unwrap();
    assert_eq!(
        service.load_balancer_class.as_deref(),
        Some("example.com/other")
    );
}

#[test]
fn a_load_balancer_without_allocated_node_ports_has_those_that_were_asked_for() {
    let mut object = written("d/web");
    object.kind = "LoadBalancer".to_owned();
    object.allocate_node_ports = Some(false);
    object.ports = vec![port("a", 80), port("b", 81)];
    object.ports[1].node_port = 30_081;
    let mut world = World::new();
    let frontends = world.add(&object).frontends("d/web");
    assert!(frontends.contains(&"192.168.0.1:30081/TCP NodePort -> ".to_owned()));
    assert_eq!(frontends.len(), 3);
    assert!(!world.0.service(&name("d/web")).unwrap().allocate_node_ports);
}

#[test]
fn external_ips() {
    let mut object = written("d/web");
    object.external_ips = texts(&["203.0.113.9"]);
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.1.5"]));
    assert_eq!(
        world.frontends("d/web")[1],
        "203.0.113.9:80/TCP ExternalIp -> 10.1.1.5:8080"
    );
    // The address leads to nodes by somebody else's doing: its other ports are not the Service's.
    assert_eq!(world.outcome("d/web").addresses, [address("10.96.0.1")]);
}

#[test]
fn external_name_is_ignored() {
    let mut object = written("d/web");
    object.kind = "ExternalName".to_owned();
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.1.5"]));
    let outcome = world.outcome("d/web");
    assert_eq!(outcome.ignored, Some(Ignored::ExternalName));
    assert!(outcome.frontends.is_empty());
}

#[test]
fn dual_stack_serves_each_family_by_its_own_endpoints() {
    let mut object = written("d/web");
    object.kind = "NodePort".to_owned();
    object.family_policy = "RequireDualStack".to_owned();
    object.families = texts(&["IPv6", "IPv4"]);
    object.cluster_ips = texts(&["fd96::1", "10.96.0.1"]);
    object.ports[0].node_port = 30_080;
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.1.5"]))
        .slice(&slice("d/web-2", "web", &["fd01:1::5"]));
    assert_eq!(
        world.frontends("d/web"),
        [
            "10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080",
            "192.168.0.1:30080/TCP NodePort -> 10.1.1.5:8080",
            "[fd96::1]:80/TCP ClusterIp -> fd01:1::5:8080",
            "[fd99::1]:30080/TCP NodePort -> fd01:1::5:8080",
        ]
    );
}

#[test]
fn endpoints_of_a_family_that_the_service_does_not_have_say_so() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["10.1.1.5"]))
        .slice(&slice("d/web-2", "web", &["fd01:1::5"]));
    assert_eq!(
        world.frontends("d/web"),
        ["10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080"]
    );
    let outcome = world.outcome("d/web");
    assert_eq!(
        states(&outcome, 1),
        ["[fd01:1::5]:8080/TCP Down_WrongFamily"]
    );
}

#[test]
fn named_target_ports_may_differ_from_pod_to_pod() {
    let mut object = written("d/web");
    object.ports = vec![port("http", 80)];
    object.ports[0].target = "web".to_owned();
    let mut one = slice("d/web-1", "web", &["10.1.1.5"]);
    one.ports = vec![slice_port("http", "TCP", 8080)];
    let mut other = slice("d/web-2", "web", &["10.1.1.6"]);
    other.ports = vec![slice_port("http", "TCP", 9090)];
    let mut none = slice("d/web-3", "web", &["10.1.1.7"]);
    none.ports.clear();
    let mut world = World::new();
    world.add(&object).slice(&one).slice(&other).slice(&none);
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Up_Ready",
            "10.1.1.6:9090/TCP Up_Ready",
            "10.1.1.7:0/TCP Down_NoSuchPort",
        ]
    );
}

#[test]
fn several_ports_of_several_protocols_on_one_number() {
    let mut object = written("d/dns");
    object.ports = vec![
        port("udp", 53),
        port("tcp", 53),
        port("sctp", 53),
        port("metrics", 9153),
    ];
    object.ports[0].protocol = "UDP".to_owned();
    object.ports[2].protocol = "SCTP".to_owned();
    let mut endpoints = slice("d/dns-1", "dns", &["10.1.1.5"]);
    endpoints.ports = vec![
        slice_port("udp", "UDP", 5353),
        slice_port("tcp", "TCP", 5354),
        slice_port("sctp", "SCTP", 5355),
        slice_port("metrics", "TCP", 9153),
    ];
    let mut world = World::new();
    world.add(&object).slice(&endpoints);
    assert_eq!(
        world.frontends("d/dns"),
        [
            "10.96.0.1:53/TCP ClusterIp -> 10.1.1.5:5354",
            "10.96.0.1:53/UDP ClusterIp -> 10.1.1.5:5353",
            "10.96.0.1:53/SCTP ClusterIp -> 10.1.1.5:5355",
            "10.96.0.1:9153/TCP ClusterIp -> 10.1.1.5:9153",
        ]
    );
}

#[test]
fn services_without_selector_have_the_slices_that_somebody_writes() {
    let mut object = written("d/db");
    object.has_selector = false;
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/by-hand", "db", &["198.51.100.7"]));
    assert_eq!(
        world.frontends("d/db"),
        ["10.96.0.1:80/TCP ClusterIp -> 198.51.100.7:8080"]
    );
}

#[test]
fn another_proxy_s_services_are_left_to_it_and_take_nothing_from_ours() {
    let mut other = written("d/other");
    other.created = 1;
    other
        .labels
        .insert(WrittenService::PROXY_NAME.to_owned(), "kube-vip".to_owned());
    let mut world = World::new();
    world.add(&other).add(&written("d/web"));
    let outcome = world.outcome("d/other");
    assert_eq!(
        outcome.ignored,
        Some(Ignored::OtherProxy("kube-vip".to_owned()))
    );
    assert!(outcome.frontends.is_empty());
    // The same cluster IP, which the older one would have.
    assert_eq!(world.frontends("d/web").len(), 1);
    assert_eq!(world.problems("d/web"), [""; 0]);
    let ours = ClusterFacts {
        proxy_name: Some("kube-vip".to_owned()),
        ..cluster()
    };
    world.0.set_service(other.read(&ours));
    assert_eq!(world.frontends("d/other").len(), 1);
}

#[test]
fn the_algorithm_is_chosen_by_annotation_and_weights_ask_for_maglev() {
    let mut object = written("d/web");
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.1.5", "10.1.1.6"]));
    assert_eq!(
        world.outcome("d/web").selections[0].algorithm,
        Algorithm::Random
    );
    object
        .annotations
        .insert(WrittenService::ALGORITHM.to_owned(), "maglev".to_owned());
    world.add(&object);
    assert_eq!(
        world.outcome("d/web").selections[0].algorithm,
        Algorithm::Maglev
    );
    object.annotations.clear();
    world.add(&object).slice(&slice(
        "d/web-1",
        "web",
        &["10.1.1.5 w=300", "10.1.1.6 w=100"],
    ));
    let selection = world.outcome("d/web").selections.remove(0);
    assert_eq!(selection.algorithm, Algorithm::Maglev);
    let maglev = selection.maglev(heddle_services::MaglevConfig::default());
    let heavy = maglev.table().iter().filter(|at| **at == 0).count();
    assert!((12_285..=12_287).contains(&heavy), "{heavy}");
    // A weight of 0 takes no new connections; the rest is even again.
    world.slice(&slice(
        "d/web-1",
        "web",
        &["10.1.1.5 w=0", "10.1.1.6 w=100"],
    ));
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Down_NoWeight",
            "10.1.1.6:8080/TCP Up_Ready"
        ]
    );
    assert_eq!(
        world.outcome("d/web").selections[0].algorithm,
        Algorithm::Random
    );
}
