//! What flows say of who took part and who decided.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::Lab;
use serde_json::Value;
use std::time::{Duration, Instant};

fn pod(name: &str, app: &str, node: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{app}"}}}},
            "spec": {{"nodeName": "{node}", "containers": [{{"name": "c", "image": "heddle/echo",
                      "ports": [{{"containerPort": 8080}}]}}]}}}}
---
"#
    )
}

/// The flows that a filter shows, once there are some of both families.
fn flows(lab: &Lab, filter: &[&str]) -> Vec<Value> {
    let arguments = [&["observe", "--last", "100", "-o", "jsonpb"], filter].concat();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let lines = lab.run(&arguments).ok().json_lines();
        let flows: Vec<Value> = lines
            .into_iter()
            .filter(|line| !line["flow"].is_null())
            .map(|mut line| line["flow"].take())
            .collect();
        let has = |family| flows.iter().any(|flow| flow["IP"]["ipVersion"] == family);
        if has("IPv4") && has("IPv6") {
            return flows;
        }
        assert!(
            Instant::now() < deadline,
            "not of both families by {filter:?}: {flows:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn named(list: &Value) -> Vec<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|it| it["name"].as_str().unwrap()).collect()
}

#[test]
fn denied_flows_are_found_by_the_labels_of_pods_that_no_policy_is_about() {
    let lab = Lab::up(&[]);
    lab.apply(
        &(pod("server", "server", "node-1")
            + r#"
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
 "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]}}
"#),
    );
    // They come after the policy, and no rule selects them.
    lab.apply(&(pod("near", "debug", "node-1") + &pod("far", "debug-far", "node-2")));
    for (client, app) in [("near", "debug"), ("far", "debug-far")] {
        for address in lab.addresses("server") {
            assert!(!lab.connects(client, &address, 8080), "{client} {address}");
        }
        let label = format!("app={app}");
        for filter in [["--from-label", &label], ["--label", &label]] {
            let found = flows(
                &lab,
                &[&["--node", "node-1", "--verdict", "DROPPED"], &filter[..]].concat(),
            );
            for flow in &found {
                assert_eq!(flow["source"]["pod_name"], client, "{flow}");
                assert_eq!(named(&flow["ingress_denied_by"]), ["closed"], "{flow}");
            }
        }
    }
}

/// A client that may send what it likes, a server, and a policy of this specification; no connection opens.
fn with_denier(spec: &str) -> Lab {
    let lab = Lab::up(&["--nodes", "1"]);
    let policies = format!(
        r#"
{{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {{"name": "out"}},
 "spec": {{"podSelector": {{"matchLabels": {{"app": "client"}}}}, "policyTypes": ["Egress"], "egress": [{{}}]}}}}
---
{{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {{"name": "denier", "namespace": "default"}},
 "spec": {spec}}}
"#
    );
    lab.apply(
        &(pod("client", "client", "node-1") + &pod("server", "server", "node-1") + &policies),
    );
    for address in lab.addresses("server") {
        assert!(!lab.connects("client", &address, 8080), "{address}");
    }
    lab
}

#[test]
fn a_denier_is_not_named_among_those_that_allowed() {
    let lab = with_denier(
        r#"{"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"fromEntities": ["all"]}],
            "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}]}]}"#,
    );
    for flow in flows(&lab, &["--verdict", "DROPPED", "--from-pod", "client"]) {
        assert_eq!(named(&flow["ingress_denied_by"]), ["denier"], "{flow}");
        assert_eq!(named(&flow["egress_allowed_by"]), ["out"], "{flow}");
        assert_eq!(named(&flow["ingress_allowed_by"]), [""; 0], "{flow}");
    }
}

#[test]
fn an_egress_denier_is_named_beside_nobody_who_allowed() {
    let lab = with_denier(
        r#"{"endpointSelector": {"matchLabels": {"app": "client"}}, "egress": [{"toEntities": ["all"]}],
            "egressDeny": [{"toEndpoints": [{"matchLabels": {"app": "server"}}]}]}"#,
    );
    for flow in flows(&lab, &["--verdict", "DROPPED", "--from-pod", "client"]) {
        assert_eq!(flow["drop_reason_desc"], "POLICY_DENY", "{flow}");
        assert_eq!(flow["traffic_direction"], "EGRESS", "{flow}");
        assert_eq!(named(&flow["egress_denied_by"]), ["denier"], "{flow}");
        assert_eq!(named(&flow["egress_allowed_by"]), [""; 0], "{flow}");
        assert_eq!(named(&flow["ingress_denied_by"]), [""; 0], "{flow}");
    }
}
