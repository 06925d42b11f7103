//! The node's own policy over a fake kernel: what it may not cut.

use super::Sessions;
use crate::config::{ProtectedProtocol, ProtectedTraffic};
use crate::testing::{Node, identity};
use heddle_kube::store::{Kind, Store};
use heddle_model::NamespacedName;
use heddle_policy::Direction;
use serde_json::{Value, json};
use std::net::IpAddr;

fn host_policy(rules: &Value, annotations: &Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": { "name": "edge", "annotations": annotations },
        "spec": { "nodeSelector": {}, "ingress": [rules] },
    })
}

#[tokio::test]
async fn a_host_policy_that_would_end_a_session_waits_for_its_authors_word() {
    let node = Node::start().await;
    let logged_in = async |sessions: fn() -> Vec<IpAddr>| {
        let agent = node.agent();
        agent
            .on_ledger(move |ledger| ledger.host.sessions = Sessions(sessions))
            .await;
    };
    let in_force = || node.datapath.kernel().node_policy;
    let held_back = async || {
        let agent = node.agent();
        agent
            .on_ledger(|ledger| {
                let lock_outs = ledger.host.lock_outs().iter();
                lock_outs.map(|one| one.what.clone()).collect::<Vec<_>>()
            })
            .await
    };
    logged_in(|| vec!["192.0.2.7".parse().unwrap()]).await;
    let ssh = json!([{"ports": [{"port": "22", "protocol": "TCP"}]}]);
    let elsewhere = json!({"fromCIDR": ["198.51.100.0/24"], "toPorts": ssh});
    node.put(host_policy(&elsewhere, &json!({}))).await;
    node.settled().await;
    assert_eq!(in_force(), None);
    assert_eq!(held_back().await, ["the SSH session from 192.0.2.7"]);
    // Who logs out is to be able to come back.
    logged_in(Vec::new).await;
    node.put(identity(40_000, "client")).await;
    node.settled().await;
    assert_eq!(in_force(), None);
    // Whoever wrote it means it.
    let meant = json!({"heddle.dev/allow-lock-out": "true"});
    logged_in(|| vec!["192.0.2.7".parse().unwrap()]).await;
    node.put(host_policy(&elsewhere, &meant)).await;
    node.settled().await;
    assert!(in_force().is_some_and(|policy| policy.ingress_enforced));
    assert_eq!(held_back().await, Vec::<String>::new());
    // One that cuts nothing needs no word.
    let here = json!({"fromCIDR": ["192.0.2.0/24"], "toPorts": ssh});
    node.put(host_policy(&here, &json!({}))).await;
    node.settled().await;
    let policy = in_force().unwrap();
    assert_eq!(policy.entries.len(), 2, "{policy:?}");
    assert!(node.differences().await.is_empty());
    let name = NamespacedName::new("", "edge");
    let kind = Kind::CiliumClusterwideNetworkPolicy;
    node.store.delete(kind, &name, None).await.unwrap();
    node.settled().await;
    assert_eq!(in_force(), None);
}

#[tokio::test]
async fn no_part_of_a_protected_range_may_be_cut() {
    let mut node = Node::start().await;
    node.restart_with(|config| {
        let ranges = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24"];
        config.protected_traffic = ranges
            .map(|range| ProtectedTraffic {
                direction: Direction::Ingress,
                peer: range.parse().unwrap(),
                protocol: ProtectedProtocol::Tcp,
                port: 22,
            })
            .to_vec();
    })
    .await;
    node.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.2" }] },
    }))
    .await;
    let deny = async |denied: &Value| {
        node.put(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": { "name": "edge" },
            "spec": {
                "nodeSelector": {},
                "ingress": [{"fromEntities": ["all"]}],
                "ingressDeny": [denied],
            },
        }))
        .await;
        node.settled().await;
        node.datapath.kernel().node_policy.is_some()
    };
    for denied in [
        json!({"fromCIDR": ["10.1.0.0/16"]}),
        json!({"fromCIDR": ["10.1.2.3/32"]}),
        json!({"fromCIDRSet": [{"cidr": "8.0.0.0/5", "except": ["10.0.0.0/9"]}]}),
        json!({"fromCIDR": ["2001:db8:1::/48"]}),
        // Another node is in the range.
        json!({"fromEntities": ["remote-node"]}),
    ] {
        assert!(!deny(&denied).await, "{denied}");
    }
    // What lies beside them may be denied.
    let beside = json!({"fromCIDR": ["172.16.0.0/12", "11.0.0.0/8", "2001:db9::/32"]});
    assert!(deny(&beside).await);
}

#[tokio::test]
async fn this_nodes_own_addresses_in_a_protected_range_hold_no_policy_back() {
    let mut node = Node::start().await;
    node.restart_with(|config| {
        config.protected_traffic = vec![ProtectedTraffic {
            direction: Direction::Ingress,
            peer: "192.168.0.0/16".parse().unwrap(),
            protocol: ProtectedProtocol::Tcp,
            port: 6443,
        }];
    })
    .await;
    node.agent()
        .on_ledger(|ledger| {
            ledger.host.sessions = Sessions(|| vec!["192.168.0.1".parse().unwrap()])
        })
        .await;
    let api = json!([{"ports": [{"port": "6443", "protocol": "TCP"}]}]);
    let rules = json!({"fromCIDR": ["192.168.0.0/16"], "toPorts": api});
    node.put(host_policy(&rules, &json!({}))).await;
    node.settled().await;
    assert!(node.datapath.kernel().node_policy.is_some());
}
