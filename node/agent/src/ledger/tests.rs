//! What the store says, as it comes into force: policies, identities, nodes, and a restart at scale.

use crate::testing::{Node, eventually, identity};
use heddle_kube::store::{Kind, Store};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::Direction;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": "shop", "name": name }, "spec": spec,
    })
}

fn node_object(name: &str, number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "spec": { "podCIDRs": [format!("10.244.{number}.0/24"), format!("fd10:244:0:{number}::/64")] },
        "status": { "addresses": [
            { "type": "InternalIP", "address": format!("192.168.0.{number}") },
            { "type": "InternalIP", "address": format!("fd00::{number}") },
        ] },
    })
}

fn remote(name: &str, identity: u32, ipv4: &str) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": { "namespace": "shop", "name": name },
        "status": {
            "identity": { "id": identity }, "nodeName": "n2",
            "networking": { "node": "192.168.0.2", "addressing": [{ "ipv4": ipv4 }] },
        },
    })
}

#[tokio::test]
async fn a_policy_is_in_force_when_its_revision_is_realised() {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.put(identity(40_000, "client")).await;
    let only_client = json!({
        "podSelector": { "matchLabels": { "app": "web" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }],
                      "ports": [{ "port": 80 }] }],
    });
    node.put(policy("only-client", &only_client)).await;
    node.settled().await;
    let in_force = node.datapath.kernel().policies[&1].1.clone();
    let client = Identity(40_000);
    let lookup = |peer, port| in_force.lookup(Direction::Ingress, peer, Identity(0), 6, port);
    let entry = lookup(client, 80).unwrap();
    assert!(lookup(client, 81).is_none());
    assert!(lookup(Identity(40_001), 80).is_none());
    assert!(!in_force.egress_enforced);
    let rules = node.agent().directory.rules_of(entry.cookie);
    assert_eq!(rules[0].name, "only-client");
    let isolating = node.agent().directory.isolating(1, Direction::Ingress);
    assert_eq!(isolating[0].name, "only-client");

    let name = NamespacedName::new("shop", "only-client");
    eventually("told in the report", || async {
        let report = node.report().await;
        report.endpoints.get("NetworkPolicy/shop/only-client") == Some(&1)
    })
    .await;
    let revision = node.store.revision();
    node.settled().await;
    assert_eq!(
        node.store.revision(),
        revision,
        "the report is written once, and nothing on the policy"
    );

    node.store
        .delete(Kind::NetworkPolicy, &name, None)
        .await
        .unwrap();
    node.settled().await;
    assert!(!node.datapath.kernel().policies[&1].1.ingress_enforced);
    assert!(node.differences().await.is_empty());
}

#[tokio::test]
async fn a_refused_policy_leaves_its_accepted_version_in_force_also_over_a_restart() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let deny = json!({ "podSelector": {}, "policyTypes": ["Ingress"] });
    node.put(policy("p", &deny)).await;
    node.settled().await;
    let accepted = node.datapath.kernel().policies[&1].1.clone();
    assert!(accepted.ingress_enforced);
    let broken = json!({
        "podSelector": {}, "policyTypes": ["Ingress"],
        "ingress": [{ "from": [{ "ipBlock": { "cidr": "not-an-address" } }] }],
    });
    node.put(policy("p", &broken)).await;
    node.settled().await;
    for _ in 0..2 {
        assert_eq!(node.datapath.kernel().policies[&1].1, accepted);
        eventually("refused in the report", || async {
            node.report().await.kept == ["NetworkPolicy/shop/p"]
        })
        .await;
        let refused = node
            .agent()
            .on_ledger(|ledger| ledger.policies.refused().count())
            .await;
        assert_eq!(refused, 1);
        node.restart().await;
    }
    node.put(policy("p", &json!({ "podSelector": {}, "ingress": [{}] })))
        .await;
    node.settled().await;
    assert_ne!(node.datapath.kernel().policies[&1].1, accepted);
}

#[tokio::test]
async fn other_nodes_and_their_pods_are_in_the_ipcache() {
    let here = Node::start().await;
    here.put(node_object("n2", 2)).await;
    here.put(identity(40_000, "client")).await;
    here.put(remote("client", 40_000, "10.244.2.9")).await;
    here.settled().await;
    let kernel = here.datapath.kernel();
    let row = |prefix: &str| {
        let row = &kernel.peers[&prefix.parse().unwrap()];
        (
            row.identity.0,
            row.node.map(|node| node.to_string()),
            row.is_node,
        )
    };
    let second = Some("192.168.0.2".to_owned());
    assert_eq!(row("10.244.2.9/32"), (40_000, second.clone(), false));
    assert_eq!(row("192.168.0.2/32"), (6, second.clone(), true));
    assert_eq!(row("192.168.0.1/32"), (1, None, true));
    assert_eq!(row("10.244.0.1/32"), (1, None, true));
    assert_eq!(row("fd10:244::1/128"), (1, None, true));
    assert_eq!(row("10.244.0.0/16"), (3, None, false));
    assert_eq!(row("10.244.2.0/24"), (3, second, false));
    assert_eq!(row("0.0.0.0/0"), (9, None, false));
    assert_eq!(row("::/0"), (10, None, false));
    assert_eq!(kernel.routes.len(), 2);
    let peer = here
        .agent()
        .directory
        .peer("10.244.2.9".parse().unwrap())
        .unwrap();
    assert_eq!(peer.node.as_deref(), Some("n2"));
    assert_eq!(peer.labels.get("app"), Some("client"));

    // The address goes to another pod before its former owner is deleted: the newer claim counts.
    here.put(identity(40_001, "other")).await;
    here.put(remote("other", 40_001, "10.244.2.9")).await;
    here.store
        .delete(
            Kind::CiliumEndpoint,
            &NamespacedName::new("shop", "client"),
            None,
        )
        .await
        .unwrap();
    here.settled().await;
    let kernel = here.datapath.kernel();
    assert_eq!(
        kernel.peers[&"10.244.2.9/32".parse().unwrap()].identity,
        Identity(40_001)
    );
}

#[tokio::test]
async fn changed_labels_bring_another_identity_everywhere() {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    let given = node.add("c1", "shop", "web").await.unwrap();
    let before = node.datapath.kernel().facts[&1].identity;
    node.pod("shop", "web", &[("app", "api")]).await;
    node.settled().await;
    let kernel = node.datapath.kernel();
    let after = kernel.facts[&1].identity;
    assert_ne!(before, after);
    let prefix = format!("{}/32", given.addresses[0].address);
    assert_eq!(kernel.peers[&prefix.parse().unwrap()].identity, after);
    let published = node
        .store
        .get(Kind::CiliumEndpoint, &NamespacedName::new("shop", "web"))
        .await
        .unwrap();
    assert_eq!(published.value["status"]["identity"]["id"], after.0);
    assert!(node.differences().await.is_empty());
}

#[tokio::test]
async fn policy_cidrs_get_numbers_that_outlive_a_restart() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let spec = json!({
        "podSelector": {}, "policyTypes": ["Egress"],
        "egress": [{ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.244.0.0/25"] } }] }],
    });
    node.put(policy("cidrs", &spec)).await;
    node.settled().await;
    let before = node.datapath.kernel();
    let cidr = |prefix: &str| before.peers[&prefix.parse().unwrap()].cidr;
    assert_ne!(cidr("10.0.0.0/8"), Identity(0));
    assert_ne!(cidr("10.244.0.0/25"), cidr("10.244.0.0/16"));
    assert_eq!(before.facts[&1].cidr_ipv4, cidr("10.244.0.0/25"));
    assert!(node.differences().await.is_empty());
    node.restart().await;
    assert_eq!(node.datapath.kernel().peers, before.peers);
    assert_eq!(node.datapath.kernel().policies[&1].1, before.policies[&1].1);
}

#[tokio::test]
async fn a_failed_write_is_shown_and_made_good() {
    let here = Node::start().await;
    here.datapath
        .limit_peers(Some(here.datapath.kernel().peers.len()));
    here.put(node_object("n2", 2)).await;
    eventually("shown", || async {
        !here
            .agent()
            .on_ledger(|ledger| ledger.writer.failures.is_empty())
            .await
    })
    .await;
    let realised = here.agent().health.realised_revision();
    assert!(realised < here.store.revision());
    here.datapath.limit_peers(None);
    here.settled().await;
    assert!(here.differences().await.is_empty());
}

#[tokio::test]
async fn nothing_of_the_kernel_changes_before_the_store_was_heard() {
    let mut full = Node::start().await;
    full.pod("shop", "web", &[]).await;
    full.add("c1", "shop", "web").await.unwrap();
    full.stop().await;
    let before = full.datapath.kernel();
    full.datapath.take_calls();
    // The store comes up without this node's pod ranges: the operator is not back yet.
    full.replace_store();
    full.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.168.0.1" }] },
    }))
    .await;
    full.launch();
    let agent = full.agent();
    eventually("waiting for its ranges", || async {
        agent
            .health
            .must_be_ready()
            .is_err_and(|error| error.message.contains("podCIDRs"))
    })
    .await;
    assert_eq!(full.datapath.take_calls(), Vec::<String>::new());
    assert_eq!(full.datapath.kernel(), before);
    let error = full.add("c2", "shop", "web").await.unwrap_err();
    assert_eq!(error.code, "cni/not-ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_peers_and_two_hundred_policies_are_ready_soon() {
    let mut here = Node::start().await;
    here.pod("shop", "web", &[("app", "web")]).await;
    here.add("c1", "shop", "web").await.unwrap();
    here.put(node_object("n2", 2)).await;
    for i in 0..10_000_u32 {
        let number = 1_000 + i % 2_000;
        if i < 2_000 {
            here.put(identity(number, &format!("a{i}"))).await;
        }
        let address = format!("10.244.{}.{}", 2 + i / 250, 2 + i % 250);
        here.put(remote(&format!("p{i}"), number, &address)).await;
    }
    for i in 0..200 {
        let spec = json!({
            "podSelector": { "matchLabels": { "app": "web" } },
            "ingress": [
                { "from": [{ "podSelector": { "matchLabels": { "app": format!("a{i}") } } }] },
                { "from": [{ "ipBlock": { "cidr": format!("198.51.{i}.0/24") } }] },
            ],
        });
        here.put(policy(&format!("p{i}"), &spec)).await;
    }
    here.settled().await;
    let kernel = here.datapath.kernel();
    assert!(kernel.peers.len() > 10_200);
    here.stop().await;
    let started = Instant::now();
    here.restart().await;
    let took = started.elapsed();
    println!(
        "restart with {} ipcache rows and 200 policies: {took:?}",
        kernel.peers.len()
    );
    // The release build has 2 s on a quiet machine; this build is slower and shares its.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(here.datapath.kernel().peers, kernel.peers);
    assert_eq!(here.datapath.kernel().policies[&1].1, kernel.policies[&1].1);
}

/// A node with the pod `shop/web`, isolated by a policy about its labels, and the identity that it has.
async fn isolated_pod() -> (Node, Identity) {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let web =
        json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress"] });
    node.put(policy("isolate", &web)).await;
    node.settled().await;
    assert!(node.datapath.kernel().policies[&1].1.ingress_enforced);
    let identity = node.datapath.kernel().facts[&1].identity;
    (node, identity)
}

#[tokio::test]
async fn an_identity_in_use_is_made_again_when_it_is_deleted() {
    let (node, identity) = isolated_pod().await;
    let name = NamespacedName::new("", identity.to_string());
    let before = node.store.get(Kind::CiliumIdentity, &name).await.unwrap();
    node.store
        .delete(Kind::CiliumIdentity, &name, None)
        .await
        .unwrap();
    eventually("made again", || async {
        node.store.get(Kind::CiliumIdentity, &name).await.is_ok()
    })
    .await;
    let after = node.store.get(Kind::CiliumIdentity, &name).await.unwrap();
    assert_eq!(
        before.value["security-labels"],
        after.value["security-labels"]
    );
    node.settled().await;
    assert_eq!(node.datapath.kernel().facts[&1].identity, identity);
    assert!(node.datapath.kernel().policies[&1].1.ingress_enforced);
}

#[tokio::test]
async fn a_number_that_goes_to_other_labels_opens_no_pod_that_has_it() {
    let (mut node, number) = isolated_pod().await;
    // Whether it is deleted first or overwritten in place, and whether the agent is there or not.
    for (deleted, away) in [(true, false), (false, false), (true, true), (false, true)] {
        let held = node.datapath.kernel().facts[&1].identity;
        let name = NamespacedName::new("", held.to_string());
        if away {
            node.stop().await;
        }
        node.datapath.take_calls();
        if deleted {
            node.store
                .delete(Kind::CiliumIdentity, &name, None)
                .await
                .unwrap();
        }
        node.put(identity(held.0, "stranger")).await;
        if away {
            node.restart().await;
        }
        eventually("moved, or kept", || async {
            let object = node.store.get(Kind::CiliumIdentity, &name).await.unwrap();
            let has = node.datapath.kernel().facts[&1].identity;
            has != held || object.value["security-labels"]["k8s:app"] == "web"
        })
        .await;
        node.settled().await;
        let kernel = node.datapath.kernel();
        assert!(kernel.policies[&1].1.ingress_enforced, "{deleted} {away}");
        let has = kernel.facts[&1].identity;
        let labels = node
            .agent()
            .on_ledger(move |ledger| ledger.labels_of(has).cloned())
            .await
            .unwrap();
        assert_eq!(labels.get("app"), Some("web"));
        assert!(node.differences().await.is_empty());
        let published = node
            .store
            .get(Kind::CiliumEndpoint, &NamespacedName::new("shop", "web"))
            .await
            .unwrap();
        assert_eq!(published.value["status"]["identity"]["id"], has.0);
    }
    assert_ne!(node.datapath.kernel().facts[&1].identity, number);
}

#[tokio::test]
async fn a_number_in_conflict_gives_strangers_nothing_and_the_conflict_ends() {
    let (node, held) = isolated_pod().await;
    node.put(node_object("n2", 2)).await;
    // The pod cannot be moved: nothing but the watch works.
    node.wire.set_down(true);
    node.put(identity(held.0, "stranger")).await;
    node.put(remote("far", held.0, "10.244.2.7")).await;
    let far = "10.244.2.7/32".parse().unwrap();
    eventually("known", || async {
        node.datapath.kernel().peers.contains_key(&far)
    })
    .await;
    // Not unmanaged either: of such an address the tunnel would tell the number.
    assert_eq!(node.datapath.kernel().peers[&far].identity, Identity::INIT);
    let labels = {
        let parsed = heddle_kube::identity::parse_identity(&identity(held.0, "stranger"));
        parsed.unwrap().1
    };
    let taken = node
        .agent()
        .on_ledger(move |ledger| ledger.stands_for_others(held, &labels))
        .await;
    assert!(taken, "nobody else here gets it before it is left");
    node.wire.set_down(false);
    eventually("moved", || async {
        node.datapath.kernel().facts[&1].identity != held
    })
    .await;
    node.settled().await;
    assert_eq!(node.datapath.kernel().peers[&far].identity, held);
    let contested = node
        .agent()
        .on_ledger(|ledger| ledger.unsettled.contested_notice())
        .await;
    assert_eq!(contested, None);
}

#[tokio::test]
async fn others_learn_of_an_identity_though_the_store_was_away_when_it_changed() {
    let (node, held) = isolated_pod().await;
    let name = NamespacedName::new("shop", "web");
    let published = || async {
        let object = node.store.get(Kind::CiliumEndpoint, &name).await;
        object
            .ok()
            .map(|it| it.value["status"]["identity"]["id"].clone())
    };
    // The number of the new labels is known already, so that the store is needed for the endpoint alone.
    node.pod("shop", "other", &[("app", "quarantine")]).await;
    node.add("c2", "shop", "other").await.unwrap();
    node.settled().await;
    node.wire.set_down(true);
    node.pod("shop", "web", &[("app", "quarantine")]).await;
    eventually("moved", || async {
        node.datapath.kernel().facts[&1].identity != held
    })
    .await;
    let has = node.datapath.kernel().facts[&1].identity;
    assert_eq!(published().await, Some(json!(held.0)));
    node.wire.set_down(false);
    eventually("published", || async {
        published().await == Some(json!(has.0))
    })
    .await;
    // Nor is it lost when somebody deletes it.
    node.store
        .delete(Kind::CiliumEndpoint, &name, None)
        .await
        .unwrap();
    eventually("published again", || async {
        published().await == Some(json!(has.0))
    })
    .await;
}

#[tokio::test]
async fn an_identity_that_was_gone_before_its_endpoint_was_known_is_made_again() {
    let (mut node, held) = isolated_pod().await;
    node.stop().await;
    let number = NamespacedName::new("", held.to_string());
    let pod = NamespacedName::new("shop", "web");
    node.store
        .delete(Kind::CiliumIdentity, &number, None)
        .await
        .unwrap();
    node.store.delete(Kind::Pod, &pod, None).await.unwrap();
    node.restart().await;
    eventually("made again", || async {
        node.store.get(Kind::CiliumIdentity, &number).await.is_ok()
    })
    .await;
    assert_eq!(node.datapath.kernel().facts[&1].identity, held);
}

#[tokio::test]
async fn every_address_of_this_nodes_devices_is_the_node() {
    let mut node = Node::start().await;
    let rows = |node: &Node| {
        let peers = node.datapath.kernel().peers;
        let own = peers
            .values()
            .filter(|row| row.is_node && row.node.is_none());
        let mut own: Vec<String> = own.map(|row| row.prefix.to_string()).collect();
        own.sort();
        own
    };
    let before = rows(&node);
    // A second address, a broadcast, a bridge, an AnyIP prefix; a device's address among the pods' is a pod's.
    node.datapath.set_node_addresses(&[
        "172.31.1.9/32",
        "172.31.1.255/32",
        "2001:db8::9/128",
        "203.0.113.0/28",
        "10.244.7.7/32",
    ]);
    let expected = |more: &[&str]| {
        let more = more.iter().map(|row| (*row).to_owned());
        let mut all: Vec<String> = before.iter().cloned().chain(more).collect();
        all.sort();
        all
    };
    let here = [
        "172.31.1.255/32",
        "172.31.1.9/32",
        "2001:db8::9/128",
        "203.0.113.0/28",
    ];
    eventually("the node", || async { rows(&node) == expected(&here) }).await;
    node.datapath.take_calls();
    node.restart().await;
    let calls = node.datapath.take_calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("remove_peers")),
        "{calls:?}"
    );
    node.datapath.set_node_addresses(&[]);
    eventually("the world again", || async { rows(&node) == expected(&[]) }).await;
}

#[tokio::test]
async fn a_node_without_an_internal_address_is_not_taken_for_this_one() {
    let node = Node::start().await;
    let external = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": {},
            "status": { "addresses": [{ "type": "ExternalIP", "address": address }] },
        })
    };
    // The second lists this node's address, the third another's.
    node.put(node_object("n5", 5)).await;
    for (name, address) in [
        ("a2", "198.51.100.2"),
        ("a3", "192.168.0.1"),
        ("a4", "192.168.0.5"),
    ] {
        node.put(external(name, address)).await;
    }
    node.settled().await;
    let kernel = node.datapath.kernel();
    for (prefix, identity, underlay) in [
        (
            "198.51.100.2/32",
            Identity::REMOTE_NODE,
            Some("198.51.100.2"),
        ),
        ("192.168.0.1/32", Identity::HOST, None),
        ("192.168.0.5/32", Identity::REMOTE_NODE, Some("192.168.0.5")),
    ] {
        let row = &kernel.peers[&prefix.parse().unwrap()];
        let underlay = underlay.map(|address| address.parse().unwrap());
        assert_eq!((row.identity, row.node), (identity, underlay), "{prefix}");
    }
}

#[tokio::test]
async fn without_its_pod_object_a_restored_endpoint_keeps_the_labels_it_was_given() {
    let (mut node, held) = isolated_pod().await;
    node.stop().await;
    let pod = NamespacedName::new("shop", "web");
    node.store.delete(Kind::Pod, &pod, None).await.unwrap();
    node.put(identity(held.0, "stranger")).await;
    node.restart().await;
    node.settled().await;
    let kernel = node.datapath.kernel();
    assert!(kernel.policies[&1].1.ingress_enforced);
    assert_ne!(kernel.facts[&1].identity, held);
}

#[tokio::test]
async fn a_pods_own_annotation_puts_nothing_on_audit() {
    let (node, _) = isolated_pod().await;
    let annotate = async |value: &str| {
        let name = NamespacedName::new("shop", "web");
        let mut pod = node.store.get(Kind::Pod, &name).await.unwrap().value;
        pod["metadata"]["annotations"] = json!({ "heddle.dev/policy-audit": value });
        node.store.update(Kind::Pod, pod).await.unwrap();
        node.settled().await;
    };
    let is_on_audit = || node.datapath.kernel().policies[&1].1.audit;
    annotate("true").await;
    assert!(!is_on_audit());
    let notice = || node.agent().health.notice_about("policy-audit");
    eventually("told", || async { notice().is_some() }).await;
    assert!(notice().unwrap().contains("shop/web"));

    // The namespace's administrator allows it.
    let namespace = |allows: &str| {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "shop", "labels": { "kubernetes.io/metadata.name": "shop" },
                "annotations": { "heddle.dev/allow-policy-audit": allows } },
        })
    };
    node.put(namespace("true")).await;
    node.settled().await;
    assert!(is_on_audit());
    eventually("withdrawn", || async { notice().is_none() }).await;

    // No more once a cluster-wide policy is about the pod.
    node.put(json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "name": "above" },
        "spec": { "endpointSelector": {}, "ingressDeny": [{ "fromEntities": ["world"] }] },
    }))
    .await;
    node.settled().await;
    assert!(!is_on_audit());
    let above = NamespacedName::new("", "above");
    node.store
        .delete(Kind::CiliumClusterwideNetworkPolicy, &above, None)
        .await
        .unwrap();
    node.settled().await;
    assert!(is_on_audit());
    node.put(namespace("false")).await;
    node.settled().await;
    assert!(!is_on_audit());
}

#[tokio::test]
async fn every_address_of_a_node_is_the_node_and_the_internal_one_its_tunnel_end() {
    let node = Node::start().await;
    let mut other = self::node_object("n2", 2);
    let addresses = other["status"]["addresses"].as_array_mut().unwrap();
    addresses.insert(
        0,
        json!({ "type": "ExternalIP", "address": "198.51.100.2" }),
    );
    addresses.push(json!({ "type": "Other", "address": "2001:db8::2" }));
    addresses.push(json!({ "type": "Hostname", "address": "n2" }));
    node.put(other).await;
    node.settled().await;
    let kernel = node.datapath.kernel();
    for (prefix, underlay) in [
        ("192.168.0.2/32", "192.168.0.2"),
        ("198.51.100.2/32", "192.168.0.2"),
        ("2001:db8::2/128", "fd00::2"),
    ] {
        let row = &kernel.peers[&prefix.parse().unwrap()];
        assert_eq!(row.identity, Identity::REMOTE_NODE, "{prefix}");
        assert_eq!(row.node, Some(underlay.parse().unwrap()), "{prefix}");
        assert!(row.is_node && row.in_cluster);
    }
}

#[tokio::test]
async fn flows_name_only_policies_that_are_in_force() {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    let deny = json!({ "podSelector": {}, "policyTypes": ["Ingress"] });
    node.put(policy("first", &deny)).await;
    node.settled().await;
    let isolating = || {
        let found = node.agent().directory.isolating(1, Direction::Ingress);
        found.into_iter().map(|id| id.name).collect::<Vec<_>>()
    };
    assert_eq!(isolating(), ["first"]);
    // The kernel takes nothing any more: the first policy stays in force, and is the one that is named.
    node.datapath.set_dead(true);
    let open = json!({ "podSelector": {}, "ingress": [{ "ports": [{ "port": 80 }] }] });
    node.put(policy("second", &open)).await;
    eventually("tried", || async {
        node.agent()
            .on_ledger(|ledger| !ledger.writer.failures.is_empty())
            .await
    })
    .await;
    assert_eq!(isolating(), ["first"]);
    node.datapath.set_dead(false);
    node.settled().await;
    assert_eq!(isolating(), ["first", "second"]);
}
