//! Policies that are refused and were never valid: who is open because of them is said, and isolated where that
//! is the setting.

use crate::config::UnenforceablePolicies;
use crate::testing::{Node, eventually};
use heddle_kube::store::{Kind, Store};
use heddle_model::NamespacedName;
use serde_json::{Value, json};

/// A policy with L7 rules, which are not enforced yet.
fn l7_policy(selector: &Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "namespace": "shop", "name": "l7" },
        "spec": {
            "endpointSelector": selector,
            "ingress": [{ "toPorts": [{
                "ports": [{ "port": "80", "protocol": "TCP" }],
                "rules": { "http": [{ "method": "GET" }] },
            }] }],
        },
    })
}

const KEY: &str = "CiliumNetworkPolicy/shop/l7";

async fn pods(node: &Node) {
    for (container, app) in [("c1", "web"), ("c2", "db")] {
        node.pod("shop", app, &[("app", app)]).await;
        node.add(container, "shop", app).await.unwrap();
    }
}

fn isolated(node: &Node, endpoint: u16) -> bool {
    let kernel = node.datapath.kernel();
    kernel.policies[&endpoint].1.ingress_enforced
}

#[tokio::test]
async fn who_is_open_because_of_a_refused_policy_is_said() {
    let node = Node::start().await;
    pods(&node).await;
    node.put(l7_policy(&json!({ "matchLabels": { "app": "web" } })))
        .await;
    node.settled().await;
    assert!(!isolated(&node, 1));
    eventually("told in the report", || async {
        let report = node.report().await;
        let open = report.open.get(KEY).cloned().unwrap_or_default();
        open.count == 1 && open.pods == ["shop/web"] && report.kept.is_empty()
    })
    .await;
    // Where another policy isolates the pod it is not open.
    node.put(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": "shop", "name": "deny" },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
    }))
    .await;
    node.settled().await;
    eventually("closed in the report", || async {
        node.report().await.open.is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_refused_policy_isolates_whom_it_selects_where_that_is_the_setting() {
    let mut node = Node::start().await;
    node.restart_with(|config| {
        config.unenforceable_policies = UnenforceablePolicies::Isolate;
    })
    .await;
    pods(&node).await;
    node.put(l7_policy(&json!({ "matchLabels": { "app": "web" } })))
        .await;
    node.settled().await;
    assert!(isolated(&node, 1) && !isolated(&node, 2));
    eventually("told in the report", || async {
        let report = node.report().await;
        report.isolated == [KEY] && report.open.is_empty()
    })
    .await;
    // A selector that nobody can read stands for the whole namespace.
    let unreadable = json!({ "matchExpressions": [{ "key": "app", "operator": "Near" }] });
    node.put(l7_policy(&unreadable)).await;
    node.settled().await;
    assert!(isolated(&node, 1) && isolated(&node, 2));
    node.restart().await;
    assert!(isolated(&node, 1) && isolated(&node, 2));
    // Corrected, it is in force as it is written.
    let mut corrected = l7_policy(&json!({ "matchLabels": { "app": "db" } }));
    let ports = &mut corrected["spec"]["ingress"][0]["toPorts"][0];
    ports.as_object_mut().unwrap().remove("rules");
    node.put(corrected).await;
    node.settled().await;
    assert!(!isolated(&node, 1) && isolated(&node, 2));
    // Refused again, its last accepted version stays in force.
    node.put(l7_policy(&json!({ "matchLabels": { "app": "web" } })))
        .await;
    node.settled().await;
    assert!(!isolated(&node, 1) && isolated(&node, 2));
    // Gone, nobody is isolated any more.
    let name = NamespacedName::new("shop", "l7");
    let kind = Kind::CiliumNetworkPolicy;
    node.store.delete(kind, &name, None).await.unwrap();
    node.settled().await;
    assert!(!isolated(&node, 1) && !isolated(&node, 2));
    assert!(node.differences().await.is_empty());
}

/// The same policy without what is refused.
fn l4_policy(selector: &Value) -> Value {
    let mut policy = l7_policy(selector);
    let ports = &mut policy["spec"]["ingress"][0]["toPorts"][0];
    ports.as_object_mut().unwrap().remove("rules");
    policy
}

#[tokio::test]
async fn a_kept_version_that_cannot_be_read_or_is_anothers_leaves_nobody_open() {
    let mut node = Node::start().await;
    node.restart_with(|config| {
        config.unenforceable_policies = UnenforceablePolicies::Isolate;
    })
    .await;
    pods(&node).await;
    let (web, db) = (
        json!({ "matchLabels": { "app": "web" } }),
        json!({ "matchLabels": { "app": "db" } }),
    );
    let name = NamespacedName::new("shop", "l7");
    let kind = Kind::CiliumNetworkPolicy;
    // One of another version of this software, or a damaged one.
    node.put(l4_policy(&db)).await;
    node.put(l7_policy(&web)).await;
    node.settled().await;
    assert!(!isolated(&node, 1) && isolated(&node, 2));
    node.stop().await;
    let files = std::fs::read_dir(node.state().join("policies")).unwrap();
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    std::fs::write(&files[0], "{").unwrap();
    node.restart().await;
    assert!(isolated(&node, 1) && !isolated(&node, 2));
    node.store.delete(kind, &name, None).await.unwrap();
    node.settled().await;
    assert!(!isolated(&node, 1) && !isolated(&node, 2));

    // Of an object that goes while no agent runs, whose name another gets.
    node.put(l4_policy(&db)).await;
    node.put(l7_policy(&db)).await;
    node.settled().await;
    assert!(!isolated(&node, 1) && isolated(&node, 2));
    node.stop().await;
    node.store.delete(kind, &name, None).await.unwrap();
    node.put(l7_policy(&web)).await;
    node.restart().await;
    assert!(isolated(&node, 1) && !isolated(&node, 2));
}
