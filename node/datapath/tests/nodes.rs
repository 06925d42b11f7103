//! Real packets between two nodes, over a routed fabric and over the overlay, with host routing and
//! without, both families.
//!
//! Needs root. Everything lives in network namespaces that the tests make and remove.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use bed::{Bed, Pod, allow_all, deny_all};
use heddle_datapath::Datapath;

struct Pair {
    one: Bed,
    two: Bed,
    a: Pod,
    b: Pod,
}

fn pair(overlay: bool, host_routing: bool) -> Pair {
    let set = |settings: &mut heddle_datapath::Settings| {
        settings.overlay = overlay;
        settings.host_routing = host_routing;
    };
    let one = Bed::new(set);
    let two = Bed::beside(&one, set);
    let a = one.pod(1, 300);
    let b = two.pod(1, 301);
    one.learn(&two, &[(&b, 301)]);
    two.learn(&one, &[(&a, 300)]);
    if !overlay {
        one.tell_router();
        two.tell_router();
    }
    Pair { one, two, a, b }
}

fn for_each_mode(test: impl Fn(&mut Pair, &str)) {
    for overlay in [false, true] {
        for host_routing in [true, false] {
            let mut pair = pair(overlay, host_routing);
            test(
                &mut pair,
                &format!("overlay {overlay}, host routing {host_routing}"),
            );
        }
    }
}

#[test]
fn pods_and_nodes_reach_each_other() {
    for_each_mode(|pair, mode| {
        for address in pair.b.addresses() {
            assert!(
                pair.one.ping(&pair.a, &address),
                "pod to pod {address}: {mode}"
            );
            assert_eq!(
                pair.one.tcp(&pair.a, &pair.b, &address, 8080),
                "hello",
                "{address}: {mode}"
            );
            assert!(
                pair.one.ping_from_node(&address),
                "node to far pod {address}: {mode}"
            );
            assert!(
                pair.two.ping_from_node(&address),
                "node to own pod {address}: {mode}"
            );
        }
        for node in [&pair.one, &pair.two] {
            for address in node.node_addresses() {
                assert!(
                    pair.one.ping(&pair.a, &address.to_string()),
                    "pod to node {address}: {mode}"
                );
            }
        }
        if !mode.starts_with("overlay true") {
            for address in ["172.31.1.1", "fd31:1::1"] {
                assert!(
                    pair.one.ping(&pair.a, address),
                    "pod to outside {address}: {mode}"
                );
            }
        }
    });
}

#[test]
fn the_node_answers_for_packets_that_lived_too_long() {
    for_each_mode(|pair, mode| {
        let dropped = || pair.one.drops(196) + pair.two.drops(196);
        let before = dropped();
        for address in pair.b.addresses() {
            let said = bed::said(&format!(
                "ip netns exec {} ping -n -c1 -W2 -t1 {address} || true",
                pair.a.netns
            ));
            assert!(
                said.contains("exceeded"),
                "{address}: {mode}: {said}: {:?}",
                pair.one.datapath.metrics()
            );
        }
        if mode.ends_with("host routing true") {
            assert_eq!(dropped() - before, 2, "{mode}");
        }
    });
}

#[test]
fn large_packets_cross() {
    for_each_mode(|pair, mode| {
        for address in pair.b.addresses() {
            // The largest datagram: many fragments.
            let most = ["-c1", "-s", "65000"];
            assert!(
                Bed::ping_with(&pair.a.netns, &most, &address),
                "large datagram to {address}: {mode}: {:?} {:?}",
                pair.one.datapath.metrics(),
                pair.two.datapath.metrics()
            );
            let received = pair.one.transfer(&pair.a, &pair.b, &address, 1 << 20);
            assert_eq!(received, 1 << 20, "stream to {address}: {mode}");
        }
    });
}

#[test]
fn the_far_ends_policy_is_enforced_and_a_new_deny_cuts() {
    for_each_mode(|pair, mode| {
        for address in pair.b.addresses() {
            let mut stream = pair.one.connect(&pair.a, &pair.b, &address, 9000);
            assert!(stream.echoes(), "{mode}");
            pair.two.datapath.set_policy(1, &deny_all()).unwrap();
            assert!(
                !stream.echoes(),
                "established connection to {address} survives a deny: {mode}"
            );
            assert!(pair.one.is_silent(&pair.a, &address), "{mode}");
            pair.two.datapath.set_policy(1, &allow_all()).unwrap();
            assert!(pair.one.ping(&pair.a, &address), "{mode}");
        }
    });
}

#[test]
fn an_agents_restart_loses_nothing() {
    for_each_mode(|pair, mode| {
        let address = pair.b.addresses()[0].clone();
        let mut stream = pair.one.connect(&pair.a, &pair.b, &address, 9000);
        let mut pings = std::process::Command::new("ip")
            .args([
                "netns",
                "exec",
                &pair.a.netns,
                "ping",
                "-n",
                "-q",
                "-i",
                "0.005",
                "-c",
                "300",
                &address,
            ])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        pair.one.reopen();
        pair.two.reopen();
        assert!(pings.wait().unwrap().success());
        let mut said = String::new();
        std::io::Read::read_to_string(&mut pings.stdout.take().unwrap(), &mut said).unwrap();
        assert!(said.contains(" 0% packet loss"), "{mode}: {said}");
        assert!(stream.echoes(), "{mode}");
    });
}

#[test]
fn a_forged_source_is_refused() {
    let pair = pair(true, true);
    let before = pair.two.drops(132) + pair.two.drops(170);
    // The outside host takes a pod's address and sends to the other pod natively; with an overlay no
    // pod's packet comes that way.
    let router = pair.one.outside();
    assert!(bed::sh(&format!(
        "ip -n {router} addr add {a}/32 dev lo; ip -n {router} route add {b}/32 via 172.31.2.2",
        a = pair.a.ipv4,
        b = pair.b.ipv4
    )));
    let source = pair.a.ipv4.to_string();
    assert!(!Bed::ping_with(
        router,
        &["-W1", "-c1", "-I", &source],
        &pair.b.ipv4.to_string()
    ));
    assert!(pair.two.drops(132) + pair.two.drops(170) > before);
    // Encapsulated by somebody who is no node.
    let before = pair.two.drops(170);
    assert!(bed::sh(&format!(
        "ip netns exec {router} bash -c 'echo encapsulated >/dev/udp/172.31.2.2/8472'"
    )));
    assert_eq!(pair.two.drops(170), before + 1);
}
