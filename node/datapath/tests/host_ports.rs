//! Host ports: the node's stack translates the destination, and each end's policy is about that end's own addresses.
//!
//! Needs root. The rules are those that the portmap plugin writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use bed::{Bed, Pod, allow_all};
use heddle_datapath::Datapath;
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction};

const SERVER: u32 = 300;
const PORT: u16 = 8080;

/// Anybody may come, and connections go to these identities only.
fn to_identities(identities: &[u32]) -> CompiledPolicy {
    let mut policy = allow_all();
    let egress = |direction| direction == Direction::Egress;
    let row = policy.entries.iter().find(|it| egress(it.key.direction));
    let row = *row.expect("a row");
    policy.entries.retain(|it| !egress(it.key.direction));
    policy.entries.extend(identities.iter().map(|identity| {
        let mut row = row;
        row.key.identity = Identity(*identity);
        row
    }));
    policy
}

/// Connections to the node's address become connections to the pod.
fn translate(bed: &Bed, server: &Pod) {
    let [v4, v6] = bed.node_addresses();
    let (node, port) = (bed.node(), PORT);
    let rule = format!("-t nat -A PREROUTING -p tcp --dport {port} -j DNAT --to-destination");
    assert!(bed::sh(&format!(
        "ip netns exec {node} iptables {rule} {}:{port} -d {v4}
         ip netns exec {node} ip6tables {rule} [{}]:{port} -d {v6}",
        server.ipv4, server.ipv6
    )));
}

fn check(overlay: bool, host_routing: bool) {
    let settings = |settings: &mut heddle_datapath::Settings| {
        settings.overlay = overlay;
        settings.host_routing = host_routing;
    };
    let bed = Bed::new(settings);
    let other = Bed::beside(&bed, settings);
    let (server, near) = (bed.pod(1, SERVER), bed.pod(2, 301));
    let far = other.pod(1, 302);
    bed.learn(&other, &[(&far, 302)]);
    other.learn(&bed, &[(&server, SERVER), (&near, 301)]);
    if !overlay {
        bed.tell_router();
        other.tell_router();
    }
    translate(&bed, &server);
    let mode = format!("overlay {overlay}, host routing {host_routing}");
    let mapped = bed.node_addresses().map(|address| address.to_string());
    for (bed, client, pod, node) in [(&bed, &near, 2, 1), (&other, &far, 1, 6)] {
        let set = |policy: &CompiledPolicy| bed.datapath.set_policy(pod, policy).unwrap();
        // On a busy machine a connection may take its time.
        let opens =
            |address: &str| (0..5).any(|_| bed.tcp(client, &server, address, PORT) == "hello");
        let is_shut = |address: &str| bed.tcp(client, &server, address, PORT).is_empty();
        for (to_node, own) in mapped.iter().zip(server.addresses()) {
            let what = format!("{mode}: pod {pod} behind node {node}, {to_node}");
            set(&allow_all());
            assert!(opens(to_node), "{what}: without policy");
            // What the client sends goes to the node; that the stack turns it into something else is not its affair.
            set(&to_identities(&[node]));
            assert!(opens(to_node), "{what}: the node is allowed");
            assert!(is_shut(&own), "{what}: the node is allowed");
            let mut stream = bed.connect(client, &server, to_node, PORT);
            assert!(stream.echoes(), "{what}: the node is allowed");
            set(&to_identities(&[SERVER]));
            assert!(
                !stream.answers(),
                "{what}: an answer to what is denied by now"
            );
            assert!(
                !stream.echoes(),
                "{what}: a request to what is denied by now"
            );
            assert!(is_shut(to_node), "{what}: the server is allowed");
            assert!(opens(&own), "{what}: the server is allowed");
        }
        set(&allow_all());
    }
}

#[test]
fn a_routed_fabric_with_host_routing() {
    check(false, true);
}

#[test]
fn a_routed_fabric_through_the_stack() {
    check(false, false);
}

#[test]
fn an_overlay_with_host_routing() {
    check(true, true);
}

#[test]
fn an_overlay_through_the_stack() {
    check(true, false);
}
