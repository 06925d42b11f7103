//! Several that want the same address and port: the same one has it on every node, and the others are told.

use crate::world::*;
use heddle_services::{Node, WrittenService};

fn external(text: &str, created: u64, ip: &str) -> WrittenService {
    let mut object = written(text);
    object.cluster_ips = texts(&["None"]);
    object.cluster_ips.clear();
    object.created = created;
    object.external_ips = texts(&[ip]);
    object
}

fn balanced(text: &str, created: u64, ip: &str) -> WrittenService {
    let mut object = external(text, created, ip);
    object.external_ips.clear();
    object.kind = "LoadBalancer".to_owned();
    object.ingress = vec![vip(ip)];
    object
}

#[test]
fn of_two_with_one_cluster_ip_the_older_has_it_and_then_the_first_by_name() {
    let mut world = World::new();
    let mut younger = written("a/younger");
    younger.created = 200;
    world
        .add(&younger)
        .add(&written("b/older"))
        .add(&written("c/same-age"));
    assert_eq!(world.frontends("b/older").len(), 1);
    for loser in ["a/younger", "c/same-age"] {
        assert!(world.frontends(loser).is_empty());
        assert_eq!(
            world.problems(loser),
            ["spec.clusterIPs \"10.96.0.1\": Service b/older has it as a cluster IP"]
        );
        assert!(world.outcome(loser).addresses.is_empty());
    }
    world.0.take_changes();
    world.0.remove_service(&name("b/older"));
    let all = ["a/younger", "b/older", "c/same-age"].map(service);
    assert_eq!(world.0.take_changes(), all);
    assert_eq!(world.frontends("c/same-age").len(), 1);
    assert_eq!(
        world.problems("a/younger"),
        ["spec.clusterIPs \"10.96.0.1\": Service c/same-age has it as a cluster IP"]
    );
}

#[test]
fn an_external_ip_never_takes_a_cluster_ip_at_any_port() {
    let mut world = World::new();
    let mut attacker = external("evil/grab", 1, "10.96.0.1");
    attacker.ports = vec![port("", 53)];
    world.add(&attacker).add(&written("victim/dns"));
    assert!(world.frontends("evil/grab").is_empty());
    assert_eq!(
        world.problems("evil/grab"),
        ["spec.externalIPs \"10.96.0.1\": is the cluster IP of Service victim/dns"]
    );
    assert_eq!(world.problems("victim/dns"), [""; 0]);
}

#[test]
fn an_external_ip_never_takes_a_node_s_or_a_pod_s_address() {
    let mut world = World::new();
    for (ip, told) in [
        ("192.168.0.1", "is an address of node n1"),
        ("192.168.0.2", "is an address of node n2"),
        ("10.1.2.77", "is in the pod range 10.1.2.0/24"),
        ("fd01:1::5", "is in the pod range fd01:1::/64"),
    ] {
        let mut object = external("evil/grab", 1, ip);
        object.family_policy = "RequireDualStack".to_owned();
        object.ports[0].port = 22;
        world.add(&object);
        assert!(world.frontends("evil/grab").is_empty(), "{ip}");
        assert_eq!(
            world.problems("evil/grab"),
            [format!("spec.externalIPs \"{ip}\": {told}")]
        );
    }
}

#[test]
fn an_address_pool_that_overlaps_pods_or_nodes_gives_no_frontends() {
    let mut world = World::new();
    let mut object = written("d/web");
    object.kind = "LoadBalancer".to_owned();
    object.cluster_ips = texts(&["10.1.1.9"]);
    object.ingress = vec![vip("192.168.0.2"), vip("203.0.113.1")];
    world.add(&object);
    assert_eq!(
        world.frontends("d/web"),
        ["203.0.113.1:80/TCP LoadBalancer -> "]
    );
    assert_eq!(
        world.problems("d/web"),
        [
            "spec.clusterIPs \"10.1.1.9\": is in the pod range 10.1.1.0/24",
            "status.loadBalancer.ingress \"192.168.0.2\": is an address of node n2",
        ]
    );
    // The ranges of a node that goes are free again, and one that comes takes its own.
    world.0.take_changes();
    world.0.remove_node("n1");
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(world.frontends("d/web").len(), 2);
    world.0.set_node(Node {
        name: "n9".to_owned(),
        pod_ranges: vec!["203.0.113.0/28".parse().unwrap()],
        ..Node::default()
    });
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(world.frontends("d/web"), ["10.1.1.9:80/TCP ClusterIp -> "]);
}

#[test]
fn an_external_ip_never_takes_another_namespace_s_load_balancer_address() {
    let mut world = World::new();
    let mut own = external("victim/more", 1, "203.0.113.1");
    own.ports[0].port = 81;
    let mut attacker = external("evil/grab", 1, "203.0.113.1");
    attacker.ports[0].port = 443;
    world
        .add(&own)
        .add(&attacker)
        .add(&balanced("victim/web", 50, "203.0.113.1"));
    assert!(world.frontends("evil/grab").is_empty());
    assert_eq!(
        world.problems("evil/grab"),
        ["spec.externalIPs \"203.0.113.1\": is a load balancer's address of namespace victim"]
    );
    assert_eq!(
        world.frontends("victim/more"),
        ["203.0.113.1:81/TCP ExternalIp -> "]
    );
    world.0.take_changes();
    world.0.remove_service(&name("victim/web"));
    assert!(world.0.take_changes().contains(&service("evil/grab")));
    assert_eq!(world.frontends("evil/grab").len(), 1);
}

#[test]
fn load_balancers_share_an_address_by_ports_and_the_older_has_a_common_one() {
    let mut world = World::new();
    let mut more = balanced("b/more", 50, "203.0.113.1");
    more.ports = vec![port("a", 80), port("b", 443)];
    world.add(&balanced("a/web", 60, "203.0.113.1")).add(&more);
    assert!(world.frontends("a/web").is_empty());
    assert_eq!(
        world.problems("a/web"),
        [
            "status.loadBalancer.ingress \"203.0.113.1 TCP/80\": Service b/more has it as a load balancer's address"
        ]
    );
    assert_eq!(world.frontends("b/more").len(), 2);
    // The address is refused at while one of them has it.
    assert_eq!(
        world.outcome("a/web").addresses,
        world.outcome("b/more").addresses
    );
}

#[test]
fn a_load_balancer_s_port_comes_before_an_external_ip_of_its_namespace() {
    let mut world = World::new();
    world
        .add(&external("a/old", 1, "203.0.113.1"))
        .add(&balanced("a/web", 60, "203.0.113.1"));
    assert!(world.frontends("a/old").is_empty());
    assert_eq!(world.frontends("a/web").len(), 1);
}

#[test]
fn of_two_external_ips_the_older_has_the_port() {
    let mut world = World::new();
    world
        .add(&external("a/new", 9, "203.0.113.1"))
        .add(&external("b/old", 1, "203.0.113.1"));
    assert!(world.frontends("a/new").is_empty());
    assert_eq!(
        world.problems("a/new"),
        ["spec.externalIPs \"203.0.113.1 TCP/80\": Service b/old has it as an external IP"]
    );
    // Another protocol on the same port is another port.
    let mut udp = external("a/new", 9, "203.0.113.1");
    udp.ports[0].protocol = "UDP".to_owned();
    assert_eq!(world.add(&udp).frontends("a/new").len(), 1);
}

#[test]
fn of_two_with_one_node_port_the_older_has_it() {
    let mut world = World::new();
    for (text, created, ip) in [("a/new", 9, "10.96.0.1"), ("b/old", 1, "10.96.0.2")] {
        let mut object = written(text);
        object.kind = "NodePort".to_owned();
        object.created = created;
        object.cluster_ips = texts(&[ip]);
        object.ports[0].node_port = 30_080;
        world.add(&object);
    }
    assert_eq!(world.frontends("a/new"), ["10.96.0.1:80/TCP ClusterIp -> "]);
    assert_eq!(
        world.problems("a/new"),
        ["spec.ports.nodePort \"TCP/30080\": Service b/old has it as a node port"]
    );
    assert_eq!(world.frontends("b/old").len(), 2);
}

#[test]
fn a_health_check_port_that_a_node_port_has_is_not_served() {
    let mut world = World::new();
    let mut object = balanced("d/web", 1, "203.0.113.1");
    object.external_policy = "Local".to_owned();
    object.health_check_port = 30_080;
    world.add(&object);
    assert!(world.outcome("d/web").health_check.is_some());
    let mut other = written("d/other");
    other.kind = "NodePort".to_owned();
    other.ports[0].node_port = 30_080;
    world.0.take_changes();
    world.add(&other);
    assert_eq!(
        world.0.take_changes(),
        [service("d/other"), service("d/web")]
    );
    assert_eq!(world.outcome("d/web").health_check, None);
    assert_eq!(
        world.problems("d/web"),
        ["spec.healthCheckNodePort \"TCP/30080\": Service d/other has it as a node port"]
    );
}

#[test]
fn an_external_ip_that_is_the_own_cluster_ip_or_load_balancer_s_is_told() {
    let mut world = World::new();
    let mut object = balanced("d/web", 1, "203.0.113.1");
    object.cluster_ips = texts(&["10.96.0.1"]);
    object.external_ips = texts(&["10.96.0.1", "203.0.113.1"]);
    world.add(&object);
    assert_eq!(
        world.frontends("d/web"),
        [
            "10.96.0.1:80/TCP ClusterIp -> ",
            "203.0.113.1:80/TCP LoadBalancer -> "
        ]
    );
    assert_eq!(world.problems("d/web").len(), 2);
}

#[test]
fn ten_thousand_that_want_one_address_are_decided_once_each() {
    let mut world = World::new();
    for number in 0..10_000 {
        world.add(&external(
            &format!("evil/grab-{number}"),
            number,
            "203.0.113.1",
        ));
    }
    assert_eq!(world.0.take_changes().len(), 10_000);
    assert_eq!(world.frontends("evil/grab-0").len(), 1);
    // One that has no chance changes nobody's outcome but its own.
    world.add(&external("evil/late", 99_999, "203.0.113.1"));
    assert_eq!(world.0.take_changes(), [service("evil/late")]);
}

#[test]
fn a_service_is_told_of_a_namespace_that_has_the_address_while_it_has_it() {
    let mut world = World::new();
    world.add(&external("a/own", 1, "203.0.113.1"));
    for namespace in ["a", "b", "c"] {
        world.add(&balanced(&format!("{namespace}/web"), 50, "203.0.113.1"));
    }
    let told = |world: &World| world.problems("a/own").remove(0);
    assert!(told(&world).ends_with("of namespace b"), "{}", told(&world));
    world.0.take_changes();
    world.0.remove_service(&name("b/web"));
    assert!(world.0.take_changes().contains(&service("a/own")));
    assert!(told(&world).ends_with("of namespace c"), "{}", told(&world));
}

#[test]
fn an_external_ip_that_may_not_be_does_not_keep_others_from_the_port() {
    let mut world = World::new();
    let mut balancer = balanced("b/web", 50, "203.0.113.1");
    balancer.ports[0].port = 443;
    world
        .add(&balancer)
        .add(&external("a/first", 1, "203.0.113.1"))
        .add(&external("b/second", 9, "203.0.113.1"));
    assert!(world.frontends("a/first").is_empty());
    assert_eq!(
        world.frontends("b/second"),
        ["203.0.113.1:80/TCP ExternalIp -> "]
    );
}
