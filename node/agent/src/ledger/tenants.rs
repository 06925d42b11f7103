//! What one namespace writes stops, opens and delays nobody else.

use crate::testing::{Node, eventually};
use heddle_kube::objects::Metadata;
use heddle_kube::store::{Kind, Store};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::{Direction, EntryVerdict};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Egress of the pods `app` to these addresses.
fn to_addresses(namespace: &str, name: &str, app: &str, cidrs: &[String]) -> Value {
    let to: Vec<Value> = cidrs
        .iter()
        .map(|cidr| json!({ "ipBlock": { "cidr": cidr } }))
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "podSelector": { "matchLabels": { "app": app } }, "policyTypes": ["Egress"],
                  "egress": [{ "to": to }] },
    })
}

fn addresses(first: u8, count: usize) -> Vec<String> {
    (0..count)
        .map(|at| format!("{first}.{}.{}.0/24", at / 250, at % 250))
        .collect()
}

/// A rule for each address, all with the same two ports: rules that are told apart have entries of their own.
fn rules_of_two_ports(cidrs: Vec<String>) -> Vec<Value> {
    let ports = json!([{ "port": 80 }, { "port": 443 }]);
    let rules = cidrs.into_iter();
    rules
        .map(|cidr| json!({ "to": [{ "ipBlock": { "cidr": cidr } }], "ports": ports }))
        .collect()
}

async fn namespace(node: &Node, name: &str) {
    node.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
        .await;
}

/// What the kernel does with a packet of an endpoint to an address outside the cluster.
fn reaches(node: &Node, endpoint: u16, address: &str) -> bool {
    let kernel = node.datapath.kernel();
    let address: IpAddr = address.parse().unwrap();
    let rows = kernel.peers.values();
    let row = rows
        .filter(|row| row.prefix.contains(&address))
        .max_by_key(|row| row.prefix.prefix_len())
        .unwrap();
    let policy = &kernel.policies[&endpoint].1;
    let found = policy.lookup(Direction::Egress, row.identity, row.cidr, 6, 443);
    found.is_some_and(|entry| entry.verdict == EntryVerdict::Allow)
}

#[tokio::test]
async fn addresses_beyond_a_namespaces_budget_are_its_own_matter() {
    let mut node = Node::start().await;
    node.restart_with(|config| {
        config.max_policy_cidrs = 200;
        config.max_cidrs_per_namespace = 120;
    })
    .await;
    namespace(&node, "evil").await;
    for (container, namespace, app) in [("c1", "shop", "web"), ("c2", "evil", "mallory")] {
        node.pod(namespace, app, &[("app", app)]).await;
        node.add(container, namespace, app).await.unwrap();
    }
    for (name, first) in [("one", 20), ("two", 21), ("three", 22)] {
        let flood = to_addresses("evil", name, "mallory", &addresses(first, 80));
        node.put(flood).await;
    }
    let web = to_addresses("shop", "web", "web", &["203.0.113.0/24".to_owned()]);
    node.put(web).await;
    node.settled().await;
    assert!(reaches(&node, 1, "203.0.113.9"));
    assert!(!reaches(&node, 1, "198.51.100.9"));
    // One fits. The others are in force without their addresses, and isolate as they say.
    let all = [
        ("one", "20.0.0.1"),
        ("two", "21.0.0.1"),
        ("three", "22.0.0.1"),
    ];
    let fitting = |node: &Node| {
        let fitting = all.iter().filter(|(_, address)| reaches(node, 2, address));
        fitting.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(fitting(&node).len(), 1);
    let oldest = fitting(&node)[0];
    let beyond = node
        .agent()
        .on_ledger(|ledger| ledger.policies.beyond_budget())
        .await;
    assert_eq!(beyond.len(), 2, "{beyond:?}");
    assert!(
        !beyond
            .iter()
            .any(|one| one.contains(&format!("evil/{oldest}:")) || one.contains("shop/web"))
    );
    assert!(node.datapath.kernel().peers.len() < 120);

    // A restart comes to the same answer, and it heals by itself when the first goes.
    node.restart().await;
    assert_eq!(fitting(&node), [oldest]);
    let gone = NamespacedName::new("evil", oldest);
    node.store
        .delete(Kind::NetworkPolicy, &gone, None)
        .await
        .unwrap();
    node.settled().await;
    let next = fitting(&node);
    assert!(next.len() == 1 && next != [oldest]);
    let beyond = node
        .agent()
        .on_ledger(|ledger| ledger.policies.beyond_budget())
        .await;
    assert_eq!(beyond.len(), 1, "{beyond:?}");
    assert!(node.differences().await.is_empty());
}

#[tokio::test]
async fn a_deny_beyond_the_budget_denies_all_outside() {
    let mut node = Node::start().await;
    node.restart_with(|config| config.max_cidrs_per_namespace = 50)
        .await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.put(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "namespace": "shop", "name": "feed" },
        "spec": { "endpointSelector": {}, "egress": [{ "toEntities": ["all"] }],
                  "egressDeny": [{ "toCIDR": addresses(20, 60) }] },
    }))
    .await;
    node.settled().await;
    assert!(!reaches(&node, 1, "20.0.0.1") && !reaches(&node, 1, "198.51.100.9"));
    let host = node.datapath.kernel().policies[&1].1.clone();
    let inside = host.lookup(
        Direction::Egress,
        Identity::REMOTE_NODE,
        Identity(0),
        6,
        443,
    );
    assert_eq!(inside.unwrap().verdict, EntryVerdict::Allow);
}

#[tokio::test]
async fn a_policy_that_does_not_fit_stops_nobody_else_and_is_never_wider_than_before() {
    let node = Node::start().await;
    for (container, app) in [("c1", "big"), ("c2", "small")] {
        node.pod("shop", app, &[("app", app)]).await;
        node.add(container, "shop", app).await.unwrap();
    }
    let [x, y] = ["198.51.100.0/24", "203.0.113.0/24"].map(str::to_owned);
    node.put(to_addresses("shop", "big", "big", std::slice::from_ref(&x)))
        .await;
    node.put(to_addresses(
        "shop",
        "small",
        "small",
        std::slice::from_ref(&y),
    ))
    .await;
    node.settled().await;
    assert!(reaches(&node, 1, "198.51.100.9") && !reaches(&node, 1, "203.0.113.9"));

    // Its next version does not fit: twenty addresses have an entry more than the one that does not count.
    node.datapath.limit_rows(Some(15));
    let mut large = to_addresses("shop", "big", "big", &[]);
    large["spec"]["egress"] = rules_of_two_ports(addresses(20, 20)).into();
    node.put(large).await;
    // Others go on, and wait for nothing.
    node.put(to_addresses("shop", "small", "small", &[x, y]))
        .await;
    node.settled().await;
    assert!(reaches(&node, 2, "198.51.100.9") && reaches(&node, 2, "203.0.113.9"));
    // As much of it is in force as fits, and nothing of the former version.
    assert!(!reaches(&node, 1, "203.0.113.9") && !reaches(&node, 1, "198.51.100.9"));
    let allowed = |node: &Node| {
        let all = (0..20).map(|at| format!("20.0.{at}.1"));
        all.filter(|address| reaches(node, 1, address)).count()
    };
    assert!((1..20).contains(&allowed(&node)), "{}", allowed(&node));
    // Its pods start all the same.
    node.pod("shop", "big2", &[("app", "big")]).await;
    node.add("c3", "shop", "big2").await.unwrap();
    let told = node
        .agent()
        .on_ledger(|ledger| super::not_in_force(ledger))
        .await;
    assert_eq!(told[0].pod.as_deref(), Some("big"));
    assert_eq!(told[0].policies, ["NetworkPolicy shop/big"]);

    node.datapath.limit_rows(None);
    eventually("healed", || async {
        allowed(&node) == 20 && !reaches(&node, 1, "198.51.100.9")
    })
    .await;
    assert!(node.differences().await.is_empty());
}

#[tokio::test]
async fn one_namespaces_identities_are_bounded_and_nobody_waits_for_them() {
    let mut node = Node::start().await;
    node.restart_with(|config| config.max_identities_per_namespace = 3)
        .await;
    namespace(&node, "evil").await;
    for at in 0..3 {
        let name = format!("p{at}");
        node.pod("evil", &name, &[("n", &name)]).await;
        node.add(&name, "evil", &name).await.unwrap();
    }
    node.settled().await;
    node.pod("evil", "p3", &[("n", "p3")]).await;
    let refused = node.add_within("p3", "evil", "p3", 2).await.unwrap_err();
    assert_eq!(refused.code, "identity/too-many");
    // Labels that run pods had already are no new identity.
    node.pod("evil", "p4", &[("n", "p0")]).await;
    node.add("p4", "evil", "p4").await.unwrap();
    // New labels of a running pod wait; others' changes do not.
    node.pod("evil", "p0", &[("n", "other")]).await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.put(to_addresses(
        "shop",
        "web",
        "web",
        &["203.0.113.0/24".to_owned()],
    ))
    .await;
    node.settled().await;
    let told = node
        .agent()
        .on_ledger(|ledger| super::not_in_force(ledger))
        .await;
    assert_eq!((told.len(), told[0].pod.as_deref()), (1, Some("p0")));
    node.pod("evil", "p0", &[("n", "p0")]).await;
    node.settled().await;
    eventually("healed", || async {
        node.agent()
            .on_ledger(|ledger| super::not_in_force(ledger).is_empty())
            .await
    })
    .await;
}

#[tokio::test]
async fn a_namespaces_label_counts_whatever_its_pods_do_with_theirs() {
    let mut node = Node::start().await;
    node.restart_with(|config| config.new_identities_per_minute = 1)
        .await;
    node.pod("shop", "web", &[("n", "first")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    // The pod changes its labels until it may not any more.
    for at in 0..6 {
        node.pod("shop", "web", &[("n", &format!("n{at}"))]).await;
        node.settled().await;
    }
    assert_eq!(
        node.agent()
            .on_ledger(|ledger| super::not_in_force(ledger).len())
            .await,
        1
    );
    node.put(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { "quarantine": "true" } },
    }))
    .await;
    node.settled().await;
    let identity = node.datapath.kernel().facts[&1].identity;
    let labels = node
        .agent()
        .on_ledger(move |ledger| ledger.labels_of(identity).cloned())
        .await
        .unwrap();
    let quarantine = "io.cilium.k8s.namespace.labels.quarantine";
    assert_eq!(labels.get(quarantine), Some("true"), "{labels}");
}

#[tokio::test]
async fn nobody_pads_its_policies_until_those_above_them_do_not_fit() {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let mut padding = to_addresses("shop", "padding", "web", &[]);
    let rules = rules_of_two_ports(addresses(20, 20)).into_iter();
    padding["spec"]["egress"] = rules.chain([json!({})]).collect();
    node.put(padding).await;
    node.settled().await;
    let size = node.datapath.kernel().policies[&1].1.size();
    assert!(size > 0);
    node.datapath.limit_rows(Some(size));
    node.put(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "name": "above" },
        "spec": { "endpointSelector": {}, "egressDeny": [{ "toCIDR": ["203.0.113.0/24"], "toPorts": [{ "ports": [
                      { "port": "22", "protocol": "TCP" }, { "port": "443", "protocol": "TCP" }] }] }] },
    }))
    .await;
    node.settled().await;
    assert!(!reaches(&node, 1, "203.0.113.9"));
    let told = node
        .agent()
        .on_ledger(|ledger| super::not_in_force(ledger))
        .await;
    assert_eq!(told[0].pod.as_deref(), Some("web"));
}

/// Ten ports of half the IPv4 addresses, and a neighbour with a rule for each of 300 addresses among them.
#[tokio::test]
async fn how_finely_others_tell_addresses_apart_takes_no_room_in_ones_policy() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let mut wide = to_addresses("shop", "wide", "web", &["0.0.0.0/1".to_owned()]);
    let ports = (440..450).map(|port| json!({ "port": port * 7, "protocol": "TCP" }));
    let ports: Vec<Value> = ports.chain([json!({ "port": 443 })]).collect();
    wide["spec"]["egress"][0]["ports"] = ports.into();
    node.put(wide).await;
    node.settled().await;
    let size = |node: &Node| node.datapath.kernel().policies[&1].1.size();
    let alone = size(&node);
    node.datapath.limit_rows(Some(alone));
    let mut many = to_addresses("evil", "many", "nobody", &[]);
    many["spec"]["egress"] = rules_of_two_ports(addresses(20, 300)).into();
    namespace(&node, "evil").await;
    node.put(many).await;
    node.settled().await;
    assert_eq!(size(&node), alone);
    for address in ["20.0.7.1", "20.1.49.1", "21.0.0.1"] {
        assert!(reaches(&node, 1, address), "{address}");
    }
    assert!(!reaches(&node, 1, "203.0.113.9"));
    let told = node
        .agent()
        .on_ledger(|ledger| super::not_in_force(ledger))
        .await;
    assert_eq!(told, []);
    assert!(node.differences().await.is_empty());
    node.restart().await;
    assert!(reaches(&node, 1, "20.0.7.1"));
}

#[tokio::test]
async fn a_host_policy_that_does_not_fit_holds_nobody_back() {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let own = NamespacedName::new("", "n1");
    let mut object = node.store.get(Kind::Node, &own).await.unwrap().value;
    object["metadata"]["labels"] = json!({ "role": "edge" });
    node.store.update(Kind::Node, object).await.unwrap();
    let edge = |ports: u16| {
        let ports: Vec<Value> = (1..ports)
            .map(|port| json!({ "ports": [{ "port": port.to_string(), "protocol": "TCP" }] }))
            .collect();
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": { "name": "edge" },
            "spec": { "nodeSelector": { "matchLabels": { "role": "edge" } },
                      "ingress": [{ "fromCIDR": ["0.0.0.0/0"], "toPorts": ports }] },
        })
    };
    node.put(edge(10)).await;
    node.settled().await;
    let size = node.datapath.kernel().node_policy.unwrap().size();
    node.datapath.limit_rows(Some(size));
    // How finely others tell addresses apart costs it nothing.
    let mut many = to_addresses("shop", "many", "nobody", &[]);
    many["spec"]["egress"] = rules_of_two_ports(addresses(20, 50)).into();
    node.put(many).await;
    node.settled().await;
    let not_in_force = async || {
        node.agent()
            .on_ledger(|ledger| super::not_in_force(ledger))
            .await
    };
    assert_eq!(not_in_force().await, []);
    node.put(edge(20)).await;
    node.settled().await;
    assert_eq!(not_in_force().await.len(), 1);
    assert_eq!(node.datapath.kernel().node_policy.unwrap().size(), size);
    let web = to_addresses("shop", "web", "web", &["203.0.113.0/24".to_owned()]);
    node.put(web).await;
    node.settled().await;
    assert!(reaches(&node, 1, "203.0.113.9") && !reaches(&node, 1, "198.51.100.9"));
    node.put(edge(10)).await;
    node.settled().await;
    eventually("healed", async || not_in_force().await.is_empty()).await;
}

#[tokio::test]
async fn what_a_group_listed_before_it_grew_too_large_counts_over_a_restart() {
    let mut node = Node::start().await;
    node.restart_with(|config| config.max_policy_cidrs = 100)
        .await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let group = |count: usize| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": { "name": "feed" },
            "spec": { "externalCIDRs": addresses(20, count) },
        })
    };
    node.put(group(10)).await;
    node.put(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "name": "deny" },
        "spec": { "endpointSelector": {}, "egress": [{ "toEntities": ["all"] }],
                  "egressDeny": [{ "toCIDRSet": [{ "cidrGroupRef": "feed" }] }] },
    }))
    .await;
    node.put(group(200)).await;
    node.settled().await;
    assert!(!reaches(&node, 1, "20.0.0.1") && reaches(&node, 1, "20.0.50.1"));
    node.restart().await;
    assert!(!reaches(&node, 1, "20.0.0.1"));
    node.put(group(50)).await;
    node.settled().await;
    assert!(!reaches(&node, 1, "20.0.40.1"));
}

#[tokio::test]
async fn what_a_group_lists_that_another_object_crowds_out_counts_over_a_restart() {
    let mut node = Node::start().await;
    node.restart_with(|config| config.max_policy_cidrs = 100)
        .await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let group = |name: &str, octet: u8, count: usize| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": { "name": name },
            "spec": { "externalCIDRs": addresses(octet, count) },
        })
    };
    let groups = [("a", 20), ("b", 30)];
    for (name, octet) in groups {
        node.put(group(name, octet, 40)).await;
    }
    node.put(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "name": "deny" },
        "spec": { "endpointSelector": {}, "egress": [{ "toEntities": ["all"] }],
                  "egressDeny": [{ "toCIDRSet": [{ "cidrGroupRef": "a" }, { "cidrGroupRef": "b" }] }] },
    }))
    .await;
    node.settled().await;
    // Objects of the same second are ordered by their numbers, which are drawn.
    let age = async |name: &str| {
        let name = NamespacedName::new("", name);
        let object = node.store.get(Kind::CiliumCIDRGroup, &name).await.unwrap();
        Metadata::of(&object.value).age()
    };
    let [older, younger] = if age("a").await < age("b").await {
        groups
    } else {
        [groups[1], groups[0]]
    };
    let denied = format!("{}.0.0.1", younger.1);
    node.put(group(older.0, older.1, 80)).await;
    node.settled().await;
    assert!(!reaches(&node, 1, &denied));
    node.restart().await;
    assert!(!reaches(&node, 1, &denied));
    // With room again, it is in force as it is written, and nothing is kept of it.
    node.put(group(older.0, older.1, 10)).await;
    node.settled().await;
    assert!(!reaches(&node, 1, &denied));
    let kept = std::fs::read_dir(node.state().join("groups")).unwrap();
    assert_eq!(kept.count(), 0);
}

#[tokio::test]
async fn a_group_that_shrinks_to_a_part_of_what_it_listed_still_counts() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let group = |cidr: &str| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": { "name": "feed" },
            "spec": { "externalCIDRs": [cidr] },
        })
    };
    node.put(group("0.0.0.0/0")).await;
    node.put(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "namespace": "shop", "name": "to-feed" },
        "spec": { "endpointSelector": {}, "egress": [{ "toCIDRSet": [{ "cidrGroupRef": "feed" }] }] },
    }))
    .await;
    node.settled().await;
    assert!(reaches(&node, 1, "20.0.0.1"));
    for cidr in ["20.0.0.0/8", "20.0.0.0/16", "20.0.0.0/8", "0.0.0.0/0"] {
        node.put(group(cidr)).await;
        node.settled().await;
        assert!(reaches(&node, 1, "20.0.0.1"), "{cidr}");
        assert_eq!(reaches(&node, 1, "198.51.100.1"), cidr == "0.0.0.0/0");
        assert!(node.differences().await.is_empty(), "{cidr}");
    }
    node.restart().await;
    assert!(reaches(&node, 1, "20.0.0.1"));
}

/// A node with a pod `web` of each of two namespaces: endpoint 1 of `shop`, 2 of `other`.
async fn two_tenants() -> Node {
    let node = Node::start().await;
    for (container, namespace) in [("c1", "shop"), ("c2", "other")] {
        node.pod(namespace, "web", &[("app", "web")]).await;
        node.add(container, namespace, "web").await.unwrap();
    }
    node
}

#[tokio::test]
async fn a_block_that_another_divides_waits_for_a_policy_whose_write_failed() {
    let node = two_tenants().await;
    let wide = ["198.51.100.0/24".to_owned()];
    node.put(to_addresses("shop", "wide", "web", &wide)).await;
    node.settled().await;
    node.datapath.take_calls();
    node.datapath.fail_once("set_policy", false);
    let part = ["198.51.100.128/25".to_owned()];
    node.put(to_addresses("other", "part", "web", &part)).await;
    node.settled().await;
    let calls = node.datapath.take_calls();
    let rows = calls.iter().position(|call| call.starts_with("set_peers"));
    let before = &calls[..rows.expect("the part has a row")];
    let writes = before.iter().filter(|call| *call == "set_policy 1");
    assert_eq!(writes.count(), 2, "what failed, and again: {calls:?}");
    let kernel = node.datapath.kernel();
    let number = kernel.peers[&part[0].parse().unwrap()].cidr;
    let policy = &kernel.policies[&1].1;
    let allowed = policy.lookup(Direction::Egress, Identity::WORLD, number, 6, 443);
    assert!(allowed.is_some());
    assert!(node.differences().await.is_empty());
}

#[tokio::test]
async fn a_policy_in_doubt_is_written_before_a_block_is_divided() {
    let node = two_tenants().await;
    let wide = ["198.51.100.0/24".to_owned()];
    node.put(to_addresses("other", "wide", "web", &wide)).await;
    node.settled().await;
    // Whether the kernel has the new policy is not known; the former one says nothing of the block.
    node.datapath.set_dead(true);
    node.put(to_addresses("shop", "wide", "web", &wide)).await;
    eventually("tried", || async {
        node.agent()
            .on_ledger(|ledger| ledger.endpoints.get(1).is_some_and(|it| it.policy_in_doubt))
            .await
    })
    .await;
    let part = ["198.51.100.128/25".to_owned()];
    node.put(to_addresses("other", "part", "web", &part)).await;
    node.datapath.take_calls();
    node.datapath.set_dead(false);
    node.settled().await;
    let calls = node.datapath.take_calls();
    let rows = calls.iter().rposition(|call| call.starts_with("set_peers"));
    let before = &calls[..rows.expect("the part has a row")];
    assert!(
        before.iter().any(|call| call == "set_policy 1"),
        "{calls:?}"
    );
    assert!(node.differences().await.is_empty());
}
