//! What one change costs on a node of a small cluster and on one of a large cluster, in turns. A benchmark, which
//! `make bench-growth` runs: a change must cost what it touches, not what there is.

use crate::config::AgentConfig;
use crate::directory::Directory;
use crate::ledger::Ledger;
use crate::testing::Node;
use heddle_kube::store::{Event, Kind, Object, Version};
use heddle_model::{Identity, NamespacedName};
use serde_json::{Value, json};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// How large a cluster is.
#[derive(Clone, Copy)]
struct Size {
    nodes: u32,
    /// Of other nodes.
    pods: u32,
    /// Blocks that policies tell apart, each of one rule.
    classes: u32,
}

const SMALL: Size = Size {
    nodes: 2,
    pods: 10,
    classes: 10,
};
const LARGE: Size = Size {
    nodes: 5_000,
    pods: 250_000,
    classes: 10_000,
};
/// Identities of other nodes' pods.
const IDENTITIES: u32 = 2_000;
/// Rules in one policy.
const RULES: u32 = 100;
const ROUNDS: usize = 201;
/// Names of what is measured.
const CHANGES: [&str; 6] = [
    "an address of another node's pod, new",
    "the same address, gone",
    "a pod of this node, gone",
    "an identity, new",
    "a flow with a pod",
    "a flow with the world",
];

fn applied(kind: Kind, namespace: &str, name: &str, value: Value) -> Event {
    Event::Applied(Object {
        kind,
        name: NamespacedName::new(namespace, name),
        version: Version::new("1"),
        value,
    })
}

fn node(number: u32) -> Event {
    let (high, low) = (number >> 8, number & 0xff);
    let name = format!("n{}", number + 2);
    let value = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "spec": { "podCIDRs": [format!("10.{}.{low}.0/24", 64 + high), format!("fd10:244:1:{number:x}::/64")] },
        "status": { "addresses": [
            { "type": "InternalIP", "address": format!("172.16.{high}.{low}") },
            { "type": "InternalIP", "address": format!("fd00::1:{number:x}") },
        ] },
    });
    applied(Kind::Node, "", &name, value)
}

fn address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a40_0000 + (pod / 250) * 256 + pod % 250 + 2)
}

fn pod(number: u32) -> Event {
    let name = format!("pod-{number}");
    let node = number / 250;
    let value = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": { "namespace": "far", "name": name },
        "status": {
            "identity": { "id": 20_000 + number % IDENTITIES }, "nodeName": format!("n{}", node + 2),
            "networking": {
                "node": format!("172.16.{}.{}", node >> 8, node & 0xff),
                "addressing": [{ "ipv4": address(number).to_string() }],
            },
        },
    });
    applied(Kind::CiliumEndpoint, "far", &name, value)
}

fn identity(number: u32) -> Event {
    let labels =
        json!({ "k8s:app": format!("app-{number}"), "k8s:io.kubernetes.pod.namespace": "far" });
    let value = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumIdentity",
        "metadata": { "name": number.to_string() }, "security-labels": labels,
    });
    applied(Kind::CiliumIdentity, "", &number.to_string(), value)
}

/// A rule for each block: each is a class of its own. The pods of this node are selected by the first policy alone.
fn policy(number: u32, classes: u32) -> Event {
    let blocks = (number * RULES..((number + 1) * RULES).min(classes)).map(|block| {
        let cidr = format!("198.{}.{}.{}/30", 18 + (block >> 14), (block >> 6) & 0xff, (block & 0x3f) << 2);
        json!({ "toCIDR": [cidr], "toPorts": [{ "ports": [{ "port": (1 + block % 60_000).to_string(), "protocol": "TCP" }] }] })
    });
    let name = format!("blocks-{number}");
    let app = if number == 0 { "web" } else { "elsewhere" };
    let value = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "name": name },
        "spec": { "endpointSelector": { "matchLabels": { "app": app } }, "egress": blocks.collect::<Vec<_>>() },
    });
    applied(Kind::CiliumClusterwideNetworkPolicy, "", &name, value)
}

fn give_room(config: &mut AgentConfig) {
    config.max_ipcache_entries = 2_000_000;
    // Rules that are told apart count more than the addresses of one rule do.
    config.max_policy_cidrs = 1_000_000;
}

/// A node with one pod in a cluster of a size.
async fn cluster(size: Size) -> Node {
    let mut cluster = Node::start().await;
    cluster.restart_with(give_room).await;
    cluster.pod("shop", "web", &[("app", "web")]).await;
    cluster.add("c0", "shop", "web").await.unwrap();
    let classes = cluster
        .agent()
        .on_ledger(move |ledger| {
            for number in 0..size.nodes {
                ledger.observe(node(number));
            }
            for number in 0..IDENTITIES.min(size.pods) {
                ledger.observe(identity(20_000 + number));
            }
            for number in 0..size.classes.div_ceil(RULES) {
                ledger.observe(policy(number, size.classes));
            }
            for number in 0..size.pods {
                ledger.observe(pod(number));
            }
            ledger.observe(Event::Synced { revision: 1 });
            assert!(ledger.reconcile());
            ledger.peers.ipcache.cidrs().len()
        })
        .await;
    assert!(classes >= size.classes as usize, "{classes} classes");
    cluster
}

fn microseconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64() * 1e6
}

fn describe(directory: &Directory, address: IpAddr) {
    black_box(directory.peer(black_box(address)));
}

/// One round: each change once, and back.
fn changes(ledger: &mut Ledger, size: Size, endpoint: u16) -> [f64; CHANGES.len()] {
    let new = size.nodes * 250 - 1;
    let appear = microseconds(|| {
        ledger.observe(pod(new));
        assert!(ledger.reconcile());
    });
    let Event::Applied(object) = pod(new) else {
        unreachable!()
    };
    let vanish = microseconds(|| {
        ledger.observe(Event::Deleted(object));
        assert!(ledger.reconcile());
    });
    let known = ledger.endpoints.get(endpoint).cloned().unwrap();
    let leave = microseconds(|| {
        ledger.forget_endpoint(endpoint);
        assert!(ledger.reconcile());
    });
    ledger.add_endpoint(known);
    assert!(ledger.reconcile());
    let learn = microseconds(|| {
        ledger.observe(identity(60_000));
        assert!(ledger.reconcile());
    });
    ledger.policies.rules.set_identity(Identity(60_000), None);
    assert!(ledger.policies.rules.is_compiled());
    let directory = &ledger.writer.directory;
    let far = microseconds(|| describe(directory, address(3).into()));
    let world = microseconds(|| describe(directory, Ipv4Addr::new(203, 0, 113, 9).into()));
    [appear, vanish, leave, learn, far, world]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test]
#[ignore = "a benchmark: make bench-growth"]
async fn a_change_costs_what_it_touches() {
    let clusters = [(cluster(SMALL).await, SMALL), (cluster(LARGE).await, LARGE)];
    for (cluster, _) in &clusters {
        cluster.pod("shop", "web2", &[("app", "web")]).await;
        cluster.add("c1", "shop", "web2").await.unwrap();
    }
    let mut rounds: [Vec<[f64; CHANGES.len()]>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for ((cluster, size), rounds) in clusters.iter().zip(&mut rounds) {
            let size = *size;
            let agent = cluster.agent();
            rounds.push(
                agent
                    .on_ledger(move |ledger| changes(ledger, size, 2))
                    .await,
            );
        }
    }
    println!("{ROUNDS} rounds in turns; medians in µs, and the median of the ratios");
    println!(
        "| One change | 2 nodes, 10 pods, 10 classes | 5,000 nodes, 250,000 pods, 10,000 classes | ratio |"
    );
    println!("|---|---|---|---|");
    for (at, change) in CHANGES.iter().enumerate() {
        let [mut small, mut large] = [0, 1]
            .map(|of: usize| -> Vec<f64> { rounds[of].iter().map(|round| round[at]).collect() });
        let mut ratios: Vec<f64> = small.iter().zip(&large).map(|(s, l)| l / s).collect();
        let (small, large) = (median(&mut small), median(&mut large));
        println!(
            "| {change} | {small:.1} | {large:.1} | {:.2} |",
            median(&mut ratios)
        );
    }
}
