//! Ports of pods on their node.

use crate::world::*;
use heddle_services::{HostPort, HostPortPod, Node, Protocol};

fn host_pod(text: &str, created: u64, ports: &[(&str, Protocol, u16, u16)]) -> HostPortPod {
    HostPortPod {
        name: name(text),
        uid: format!("uid of {text}"),
        created,
        addresses: vec![address("10.1.1.5"), address("fd01:1::5")],
        ports: ports
            .iter()
            .map(|(at, protocol, number, container_port)| HostPort {
                address: (!at.is_empty()).then(|| address(at)),
                number: *number,
                protocol: *protocol,
                container_port: *container_port,
            })
            .collect(),
    }
}

fn frontends(world: &World, text: &str) -> Vec<String> {
    shown(&world.0.outcome(&pod(text)).unwrap())
}

fn told(world: &World, text: &str) -> Vec<String> {
    problems(&world.0.outcome(&pod(text)).unwrap())
}

const TCP: Protocol = Protocol::Tcp;

#[test]
fn several_protocols_on_one_port_at_all_addresses_of_the_node() {
    let mut world = World::new();
    world.0.set_pod(host_pod(
        "d/dns",
        1,
        &[
            ("", Protocol::Udp, 53, 5353),
            ("", TCP, 53, 5354),
            ("", Protocol::Sctp, 53, 5355),
        ],
    ));
    assert_eq!(
        frontends(&world, "d/dns"),
        [
            "192.168.0.1:53/TCP HostPort -> 10.1.1.5:5354",
            "192.168.0.1:53/UDP HostPort -> 10.1.1.5:5353",
            "192.168.0.1:53/SCTP HostPort -> 10.1.1.5:5355",
            "[fd99::1]:53/TCP HostPort -> fd01:1::5:5354",
            "[fd99::1]:53/UDP HostPort -> fd01:1::5:5353",
            "[fd99::1]:53/SCTP HostPort -> fd01:1::5:5355",
        ]
    );
    assert_eq!(told(&world, "d/dns"), [""; 0]);
}

#[test]
fn a_host_ip_is_one_address_or_one_family_or_the_node_s_loopback() {
    let mut world = World::new();
    for (at, found) in [
        (
            "192.168.0.1",
            "192.168.0.1:80/TCP HostPort -> 10.1.1.5:8080",
        ),
        ("0.0.0.0", "192.168.0.1:80/TCP HostPort -> 10.1.1.5:8080"),
        ("::", "[fd99::1]:80/TCP HostPort -> fd01:1::5:8080"),
        (
            "127.0.0.1",
            "127.0.0.1:80/TCP HostPort internal -> 10.1.1.5:8080",
        ),
        ("::1", "[::1]:80/TCP HostPort internal -> fd01:1::5:8080"),
    ] {
        world
            .0
            .set_pod(host_pod("d/web", 1, &[(at, TCP, 80, 8080)]));
        assert_eq!(frontends(&world, "d/web"), [found], "{at}");
    }
    for other in [
        "192.168.0.2",
        "8.8.8.8",
        "10.96.0.1",
        "10.1.1.6",
        "169.254.1.1",
    ] {
        world
            .0
            .set_pod(host_pod("d/web", 1, &[(other, TCP, 80, 8080)]));
        assert!(frontends(&world, "d/web").is_empty(), "{other}");
        assert_eq!(
            told(&world, "d/web"),
            [format!(
                "spec.containers.ports.hostIP \"{other}\": is not an address of this node"
            )]
        );
    }
}

#[test]
fn of_two_pods_the_older_has_the_port_at_the_addresses_that_both_want() {
    let mut world = World::new();
    world
        .0
        .set_pod(host_pod("d/everywhere", 9, &[("", TCP, 80, 8080)]));
    world.0.take_changes();
    world
        .0
        .set_pod(host_pod("d/one", 1, &[("192.168.0.1", TCP, 80, 9090)]));
    assert_eq!(world.0.take_changes(), [pod("d/everywhere"), pod("d/one")]);
    assert_eq!(
        frontends(&world, "d/one"),
        ["192.168.0.1:80/TCP HostPort -> 10.1.1.5:9090"]
    );
    assert_eq!(
        frontends(&world, "d/everywhere"),
        ["[fd99::1]:80/TCP HostPort -> fd01:1::5:8080"]
    );
    assert_eq!(
        told(&world, "d/everywhere"),
        ["spec.containers.ports.hostPort \"192.168.0.1 TCP/80\": pod d/one has it as a host port"]
    );
    world.0.remove_pod(&name("d/one"));
    assert_eq!(world.0.take_changes(), [pod("d/everywhere"), pod("d/one")]);
    assert_eq!(frontends(&world, "d/everywhere").len(), 2);
    assert_eq!(world.0.outcome(&pod("d/one")), None);
}

#[test]
fn a_node_port_comes_before_a_host_port_but_not_at_the_loopback() {
    let mut world = World::new();
    world
        .0
        .set_pod(host_pod("d/a", 1, &[("", TCP, 30_080, 8080)]));
    world
        .0
        .set_pod(host_pod("d/b", 1, &[("127.0.0.1", TCP, 30_080, 8080)]));
    let mut object = written("d/web");
    object.kind = "NodePort".to_owned();
    object.ports[0].node_port = 30_080;
    world.0.take_changes();
    world.add(&object);
    assert_eq!(world.0.take_changes(), [service("d/web"), pod("d/a")]);
    assert!(frontends(&world, "d/a").is_empty());
    assert_eq!(told(&world, "d/a").len(), 2);
    assert!(told(&world, "d/a")[0].ends_with("Service d/web has it as a node port"));
    assert_eq!(frontends(&world, "d/b").len(), 1);
}

#[test]
fn a_port_that_a_node_port_gives_back_is_a_pod_s_again_at_its_one_address() {
    let mut world = World::new();
    let mut object = written("d/web");
    object.kind = "NodePort".to_owned();
    object.ports[0].node_port = 30_080;
    world.add(&object);
    world
        .0
        .set_pod(host_pod("d/one", 1, &[("192.168.0.1", TCP, 30_080, 8080)]));
    assert!(frontends(&world, "d/one").is_empty());
    world.0.take_changes();
    world.0.remove_service(&name("d/web"));
    assert_eq!(world.0.take_changes(), [service("d/web"), pod("d/one")]);
    assert_eq!(frontends(&world, "d/one").len(), 1);
}

#[test]
fn a_host_port_is_served_at_whatever_addresses_the_node_has() {
    let mut world = World::new();
    world
        .0
        .set_pod(host_pod("d/web", 1, &[("", TCP, 80, 8080)]));
    world.0.take_changes();
    world.0.set_node(Node {
        name: "n1".to_owned(),
        addresses: ["192.168.0.7", "127.0.0.1", "169.254.0.9", "fe80::1"]
            .map(address)
            .to_vec(),
        ..Node::default()
    });
    assert!(world.0.take_changes().contains(&pod("d/web")));
    assert_eq!(
        frontends(&world, "d/web"),
        ["192.168.0.7:80/TCP HostPort -> 10.1.1.5:8080"]
    );
}

#[test]
fn ports_that_are_none_and_pods_of_the_host_network_have_no_frontends() {
    let mut world = World::new();
    world.0.set_pod(host_pod(
        "d/web",
        1,
        &[("", TCP, 0, 8080), ("", TCP, 80, 0)],
    ));
    assert!(frontends(&world, "d/web").is_empty());
    assert_eq!(told(&world, "d/web").len(), 2);
    let mut own = host_pod("d/own", 1, &[("", TCP, 80, 80)]);
    own.addresses = vec![address("192.168.0.1")];
    world.0.set_pod(own);
    assert!(frontends(&world, "d/own").is_empty());
    // Once the node has another address, that one is the pod's alone.
    let mut looped = host_pod("d/looped", 1, &[("127.0.0.1", TCP, 81, 81)]);
    looped.addresses = vec![address("192.168.0.1")];
    world.0.set_pod(looped);
    assert!(frontends(&world, "d/looped").is_empty());
    world.0.take_changes();
    world.0.set_node(Node {
        name: "n1".to_owned(),
        zone: Some("a".to_owned()),
        addresses: vec![address("192.168.0.7")],
        ..Node::default()
    });
    assert!(world.0.take_changes().contains(&pod("d/looped")));
    assert_eq!(frontends(&world, "d/looped").len(), 1);
}
