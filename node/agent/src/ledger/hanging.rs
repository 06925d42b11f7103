//! Nothing that waits for the store stands between a policy and the kernel.

use crate::testing::{Node, eventually, soon};
use heddle_kube::store::{Kind, Store};
use heddle_model::NamespacedName;
use heddle_rpc::cni::DelParams;
use heddle_rpc::pending;
use serde_json::{Value, json};

fn deny(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "podSelector": {}, "policyTypes": ["Ingress"] },
    })
}

async fn node_with_pod() -> Node {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.settled().await;
    node
}

fn is_isolated(node: &Node) -> bool {
    node.datapath.kernel().policies[&1].1.ingress_enforced
}

fn realised(node: &Node) -> u64 {
    node.agent().health.realised_revision()
}

/// For how many endpoints the node has reported a policy to be in force.
async fn reported(node: &Node, policy: &str) -> Option<u64> {
    let name = NamespacedName::new("", "n1");
    let object = node.store.get(Kind::NodePolicyReport, &name).await.ok()?;
    object.value["status"]["endpoints"][format!("NetworkPolicy/shop/{policy}")].as_u64()
}

#[tokio::test]
async fn a_deny_is_in_force_while_the_nodes_report_cannot_be_written() {
    let node = node_with_pod().await;
    node.wire.set_hanging(true);
    node.put(deny("shop", "first")).await;
    node.settled().await;
    node.put(deny("shop", "deny")).await;
    soon("denied", || async { is_isolated(&node) }).await;
    // The report is no part of what is in force.
    node.settled().await;
    assert_eq!(reported(&node, "deny").await, None);
    node.wire.set_hanging(false);
    eventually("reported", || async {
        reported(&node, "deny").await == Some(1)
    })
    .await;
}

#[tokio::test]
async fn a_deny_is_in_force_while_a_pods_new_labels_wait_for_their_identity() {
    let node = node_with_pod().await;
    node.pod("shop", "api", &[("app", "api")]).await;
    node.add("c2", "shop", "api").await.unwrap();
    node.settled().await;
    let before = node.datapath.kernel().facts[&1].identity;
    node.wire.set_hanging(true);
    let settled = realised(&node);
    node.pod("shop", "web", &[("app", "new")]).await;
    let wanted = node.store.revision();
    node.put(deny("shop", "deny")).await;
    soon("denied", || async { is_isolated(&node) }).await;
    assert!((settled..wanted).contains(&realised(&node)));
    // Nor does a pod wait that gets labels whose identity is known.
    node.pod("shop", "api", &[("app", "web")]).await;
    soon("moved", || async {
        node.datapath.kernel().facts[&2].identity == before
    })
    .await;
    assert_eq!(node.datapath.kernel().facts[&1].identity, before);
    node.wire.set_hanging(false);
    node.settled().await;
    assert_ne!(node.datapath.kernel().facts[&1].identity, before);
    assert!(realised(&node) >= wanted);
}

#[tokio::test]
async fn a_deny_is_in_force_while_a_removal_waits_for_the_store() {
    let node = node_with_pod().await;
    node.pod("shop", "old", &[("app", "old")]).await;
    node.add("c2", "shop", "old").await.unwrap();
    node.settled().await;
    node.wire.set_hanging(true);
    let deletion = DelParams {
        container_id: "c2".into(),
        interface: "eth0".into(),
    };
    let queue = pending::directory(&node.state().join(crate::SOCKET));
    pending::record(&queue, &deletion).unwrap();
    eventually("out of the kernel", || async {
        !node.datapath.kernel().facts.contains_key(&2)
    })
    .await;
    node.put(deny("shop", "deny")).await;
    soon("denied", || async { is_isolated(&node) }).await;
    node.wire.set_hanging(false);
    let old = NamespacedName::new("shop", "old");
    eventually("removed", || async {
        node.store.get(Kind::CiliumEndpoint, &old).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn what_could_not_be_reported_is_reported_later() {
    let node = node_with_pod().await;
    node.wire.set_down(true);
    for name in ["a", "b", "c"] {
        node.put(deny("shop", name)).await;
    }
    node.settled().await;
    eventually("tried", || async { node.wire.refused_writes() > 0 }).await;
    node.wire.set_down(false);
    for name in ["a", "b", "c"] {
        eventually(name, || async { reported(&node, name).await == Some(1) }).await;
    }
}
