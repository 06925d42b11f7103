//! Traffic policies, topology, conditions, affinity, sources, health checks, and what operators and probes say.

use crate::world::*;
use heddle_services::{AdminState, NoBackend, Node, Probe, Topology, WrittenService};

fn load_balancer() -> WrittenService {
    let mut object = written("d/web");
    object.kind = "LoadBalancer".to_owned();
    object.ports[0].node_port = 30_080;
    object.ingress = vec![vip("203.0.113.1")];
    object.external_ips = texts(&["203.0.113.9"]);
    object
}

const BOTH_NODES: [&str; 2] = ["10.1.1.5 @n1", "10.1.2.5 @n2"];

#[test]
fn external_local_has_two_scopes_and_internal_traffic_uses_every_backend() {
    let mut object = load_balancer();
    object.external_policy = "Local".to_owned();
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &BOTH_NODES));
    assert_eq!(
        world.frontends("d/web"),
        [
            "10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080 10.1.2.5:8080",
            "192.168.0.1:30080/TCP NodePort internal -> 10.1.1.5:8080 10.1.2.5:8080",
            "192.168.0.1:30080/TCP NodePort external -> 10.1.1.5:8080",
            "203.0.113.1:80/TCP LoadBalancer internal -> 10.1.1.5:8080 10.1.2.5:8080",
            "203.0.113.1:80/TCP LoadBalancer external -> 10.1.1.5:8080",
            "203.0.113.9:80/TCP ExternalIp internal -> 10.1.1.5:8080 10.1.2.5:8080",
            "203.0.113.9:80/TCP ExternalIp external -> 10.1.1.5:8080",
        ]
    );
}

#[test]
fn internal_local_is_about_cluster_ips_only() {
    let mut object = load_balancer();
    object.internal_policy = "Local".to_owned();
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &BOTH_NODES));
    let frontends = world.frontends("d/web");
    assert_eq!(frontends[0], "10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080");
    let all = |text: &String| text.ends_with("-> 10.1.1.5:8080 10.1.2.5:8080");
    assert!(frontends[1..].iter().all(all), "{frontends:?}");
    assert_eq!(frontends.len(), 4);
}

#[test]
fn local_without_backends_drops_while_others_have_some_and_else_rejects() {
    let mut object = written("d/web");
    object.internal_policy = "Local".to_owned();
    let mut world = World::new();
    world
        .add(&object)
        .slice(&slice("d/web-1", "web", &["10.1.2.5 @n2"]));
    let selection = |world: &World| world.outcome("d/web").selections.remove(0);
    assert_eq!(selection(&world).active().count(), 0);
    assert_eq!(selection(&world).no_backend, NoBackend::Drop);
    assert_eq!(
        world.states("d/web"),
        ["10.1.2.5:8080/TCP Down_Local_OtherNode"]
    );
    world.slice(&slice("d/web-1", "web", &["10.1.2.5 @n2 unready"]));
    assert_eq!(selection(&world).no_backend, NoBackend::Reject);
}

#[test]
fn a_service_without_endpoints_keeps_its_frontends_and_rejects() {
    let mut world = World::new();
    world.add(&written("d/web"));
    assert_eq!(world.frontends("d/web"), ["10.96.0.1:80/TCP ClusterIp -> "]);
    assert_eq!(
        world.outcome("d/web").selections[0].no_backend,
        NoBackend::Reject
    );
}

#[test]
fn terminating_endpoints_serve_only_when_nothing_else_is_left() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &["10.1.1.5", "10.1.1.6 serving"]));
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Up_Ready",
            "10.1.1.6:8080/TCP Down_Terminating"
        ]
    );
    world.slice(&slice(
        "d/web-1",
        "web",
        &["10.1.1.5 unready", "10.1.1.6 serving", "10.1.1.7 gone"],
    ));
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Down_NotReady",
            "10.1.1.6:8080/TCP Up_Terminating_NothingReady",
            "10.1.1.7:8080/TCP Down_Terminating_NotServing",
        ]
    );
}

#[test]
fn topology_hints_prefer_the_node_then_the_zone_then_everywhere() {
    let mut world = World::new();
    world.add(&written("d/web"));
    for (endpoints, topology, used) in [
        (
            [
                "10.1.1.5 zone=a node=n1",
                "10.1.2.5 zone=a node=n2",
                "10.1.3.5 zone=b node=n3",
            ],
            Topology::SameNode,
            "10.1.1.5:8080",
        ),
        (
            [
                "10.1.1.5 zone=a node=n3",
                "10.1.2.5 zone=a node=n2",
                "10.1.3.5 zone=b node=n3",
            ],
            Topology::SameZone,
            "10.1.1.5:8080 10.1.2.5:8080",
        ),
        (
            ["10.1.1.5 zone=b", "10.1.2.5 zone=b", "10.1.3.5 zone=c"],
            Topology::Ignored,
            "10.1.1.5:8080 10.1.2.5:8080 10.1.3.5:8080",
        ),
        (
            ["10.1.1.5 zone=a", "10.1.2.5 zone=b", "10.1.3.5"],
            Topology::Ignored,
            "10.1.1.5:8080 10.1.2.5:8080 10.1.3.5:8080",
        ),
    ] {
        world.slice(&slice("d/web-1", "web", &endpoints));
        assert_eq!(
            world.outcome("d/web").selections[0].topology,
            topology,
            "{endpoints:?}"
        );
        let wanted = format!("10.96.0.1:80/TCP ClusterIp -> {used}");
        assert_eq!(world.frontends("d/web"), [wanted], "{endpoints:?}");
    }
}

#[test]
fn the_zone_is_that_of_this_node_and_follows_it() {
    let mut world = World::new();
    world.add(&written("d/web")).slice(&slice(
        "d/web-1",
        "web",
        &["10.1.1.5 zone=a", "10.1.2.5 zone=b"],
    ));
    assert_eq!(
        world.frontends("d/web"),
        ["10.96.0.1:80/TCP ClusterIp -> 10.1.1.5:8080"]
    );
    world.0.take_changes();
    world.0.set_node(Node {
        name: "n1".to_owned(),
        zone: Some("b".to_owned()),
        ..Node::default()
    });
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(
        world.frontends("d/web"),
        ["10.96.0.1:80/TCP ClusterIp -> 10.1.2.5:8080"]
    );
}

#[test]
fn session_affinity_has_its_time_out() {
    let mut object = written("d/web");
    let mut world = World::new();
    assert_eq!(world.add(&object).outcome("d/web").affinity_timeout, None);
    object.session_affinity = "ClientIP".to_owned();
    object.affinity_timeout = Some(90);
    assert_eq!(
        world.add(&object).outcome("d/web").affinity_timeout,
        Some(90)
    );
}

#[test]
fn source_ranges_are_about_load_balancer_addresses() {
    let mut object = load_balancer();
    object.source_ranges = texts(&["192.0.2.0/24"]);
    let mut world = World::new();
    let restricted: Vec<bool> = world
        .add(&object)
        .frontends("d/web")
        .iter()
        .map(|text| text.contains("LoadBalancer restricted"))
        .collect();
    assert_eq!(restricted, [false, false, true, false]);
    let sources = world.outcome("d/web").sources;
    assert!(sources.admit(address("192.0.2.1")) && !sources.admit(address("192.0.3.1")));
    object.annotations.insert(
        WrittenService::SOURCE_RANGES_POLICY.to_owned(),
        "deny".to_owned(),
    );
    let sources = world.add(&object).outcome("d/web").sources;
    assert!(!sources.admit(address("192.0.2.1")) && sources.admit(address("192.0.3.1")));
}

#[test]
fn a_health_check_port_counts_what_is_ready_on_this_node() {
    let mut object = load_balancer();
    object.external_policy = "Local".to_owned();
    object.health_check_port = 32_100;
    let mut world = World::new();
    let local = |world: &World| world.outcome("d/web").health_check.unwrap().local;
    world.add(&object);
    assert_eq!(world.outcome("d/web").health_check.unwrap().port, 32_100);
    for (endpoints, count) in [
        (&["10.1.1.5 @n1", "10.1.1.6 @n1", "10.1.2.5 @n2"][..], 2),
        (&["10.1.1.5 @n1 serving", "10.1.2.5 @n2"], 0),
        (&["10.1.1.5 @n1 unready"], 0),
        (&[], 0),
    ] {
        world.slice(&slice("d/web-1", "web", endpoints));
        assert_eq!(local(&world), count, "{endpoints:?}");
    }
    world.slice(&slice("d/web-1", "web", &["10.1.1.5 @n1", "10.1.1.6 @n1"]));
    world
        .0
        .set_admin(None, address("10.1.1.5"), AdminState::Down);
    assert_eq!(local(&world), 1);
    world
        .0
        .set_probe(&name("d/web"), key("10.1.1.6:8080/TCP"), Probe::Down);
    assert_eq!(local(&world), 0);
}

#[test]
fn admin_states_are_of_one_service_or_of_all_and_the_own_one_wins() {
    let mut world = World::new();
    let mut other = written("d/other");
    other.cluster_ips = texts(&["10.96.0.2"]);
    world
        .add(&written("d/web"))
        .add(&other)
        .slice(&slice("d/web-1", "web", &BOTH_NODES))
        .slice(&slice("d/other-1", "other", &BOTH_NODES));
    world.0.take_changes();
    world
        .0
        .set_admin(Some(&name("d/web")), address("10.1.1.5"), AdminState::Down);
    assert_eq!(world.0.take_changes(), [service("d/web")]);
    assert_eq!(world.states("d/web")[0], "10.1.1.5:8080/TCP Down_Admin");
    assert_eq!(world.states("d/other")[0], "10.1.1.5:8080/TCP Up_Ready");
    let drain = AdminState::Drain { deadline: 1234 };
    world.0.set_admin(None, address("10.1.1.5"), drain);
    assert_eq!(
        world.0.take_changes(),
        [service("d/other"), service("d/web")]
    );
    assert_eq!(
        world.states("d/other")[0],
        "10.1.1.5:8080/TCP Down_Admin_Draining"
    );
    assert_eq!(world.states("d/web")[0], "10.1.1.5:8080/TCP Down_Admin");
    // The same again changes nothing.
    world.0.set_admin(None, address("10.1.1.5"), drain);
    assert_eq!(world.0.take_changes(), []);
}

#[test]
fn all_down_by_hand_is_no_backend_and_all_down_by_probes_is_all() {
    let mut world = World::new();
    world
        .add(&written("d/web"))
        .slice(&slice("d/web-1", "web", &BOTH_NODES));
    for backend in ["10.1.1.5:8080/TCP", "10.1.2.5:8080/TCP"] {
        world.0.set_probe(&name("d/web"), key(backend), Probe::Down);
    }
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Up_Probe_AllDownIsUp",
            "10.1.2.5:8080/TCP Up_Probe_AllDownIsUp"
        ]
    );
    for backend in ["10.1.1.5", "10.1.2.5"] {
        world.0.set_admin(None, address(backend), AdminState::Down);
    }
    assert_eq!(
        world.states("d/web"),
        [
            "10.1.1.5:8080/TCP Down_Admin",
            "10.1.2.5:8080/TCP Down_Admin"
        ]
    );
    assert_eq!(world.frontends("d/web"), ["10.96.0.1:80/TCP ClusterIp -> "]);
}
