//! What policies' status says of a live cluster: partly in force is not enforced, and who is open is named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_kube::store::{Kind, Store, embedded::Client};
use heddle_netns::{Lab, allow_only, eventually, idle, server};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

fn condition(lab: &Lab, kind: &str, name: &str, of: &str) -> Value {
    let object = lab.object(kind, name);
    let conditions = object["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.unwrap_or_default().into_iter();
    conditions.find(|one| one["type"] == of).unwrap_or_default()
}

/// A policy that only lets GET pass, which is not enforced yet. `lab apply` refuses it at the door, so it goes
/// past that, as it may in a cluster.
fn write_get_only(lab: &Lab) {
    let socket = format!("/run/heddle/labs/{}/store.sock", lab.name);
    let policy = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "get-only", "namespace": "default"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "shop"}},
            "ingress": [{"toPorts": [{
                "ports": [{"port": "8080", "protocol": "TCP"}],
                "rules": {"http": [{"method": "GET"}]},
            }]}],
        },
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Client::new(socket);
        store
            .create(Kind::CiliumNetworkPolicy, policy)
            .await
            .unwrap();
    });
}

#[test]
fn a_policy_reads_as_enforced_when_every_node_has_said_so_and_by_an_operator_that_works() {
    let lab = Lab::up(&[]);
    lab.apply(
        &[
            server("shop", "node-1"),
            idle("client", "node-1"),
            idle("stranger", "node-2"),
        ]
        .concat(),
    );
    let _ = lab.run(&["lab", "agent", "stop", "node-2"]).ok();
    let apply = ["lab", "apply", "--no-wait", "-f", "-"];
    let _ = lab.run_with(&apply, &allow_only("shop", "client")).ok();
    let enforced = || condition(&lab, "networkpolicy", "only-client-to-shop", "Enforced");
    eventually("said of one node", SOON, || {
        let enforced = enforced();
        enforced["status"] == "Unknown"
            && enforced["message"] == "enforced on 1 of 2 nodes; not heard from: node-2"
    });
    // The operator is killed; the one that the lab starts again goes on.
    std::fs::write(lab.cgroup().join("operator").join("cgroup.kill"), "1").unwrap();
    let _ = lab.run(&["lab", "agent", "start", "node-2"]).ok();
    eventually("said of both nodes", SOON, || {
        let enforced = enforced();
        enforced["status"] == "True" && enforced["message"] == "enforced on 2 of 2 nodes"
    });
}

#[test]
fn pods_that_a_refused_policy_leaves_open_are_named_or_isolated_where_that_is_the_setting() {
    let lab = Lab::up(&[]);
    let pods = [server("shop", "node-1"), idle("client", "node-2")].concat();
    lab.apply(&pods);
    write_get_only(&lab);
    eventually("named", SOON, || {
        let valid = condition(&lab, "ciliumnetworkpolicy", "get-only", "Valid");
        let message = valid["message"].as_str().unwrap_or_default();
        valid["status"] == "False" && message.ends_with("1 pod is open because of it: default/shop")
    });
    let address = lab.addresses("shop").remove(0);
    assert!(lab.connects("client", &address, 8080));
    let status = lab.run(&["status"]).ok().out;
    let warning =
        "1 pod is open because CiliumNetworkPolicy default/get-only is refused: default/shop";
    assert!(status.contains(warning), "{status}");
    drop(lab);

    let lab = Lab::with("agent: {unenforceablePolicies: isolate}", &[]);
    lab.apply(&pods);
    write_get_only(&lab);
    eventually("isolated", SOON, || {
        let valid = condition(&lab, "ciliumnetworkpolicy", "get-only", "Valid");
        let message = valid["message"].as_str().unwrap_or_default();
        message.contains("are isolated")
    });
    let address = lab.addresses("shop").remove(0);
    assert!(!lab.connects("client", &address, 8080));
}
