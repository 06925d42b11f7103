//! Host policies as a person applies them: who is kept out, who is never cut off, what is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, eventually, idle, server};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A pod in its node's network that serves on port 9000.
const ON_THE_NODE: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: exporter, labels: {app: exporter}}
spec:
  nodeName: node-1
  hostNetwork: true
  containers:
  - {name: echo, image: heddle/echo, ports: [{containerPort: 9000}]}
";
const LABELLED: &str = "---
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {role: edge}}
";

fn policy(rules: &str, annotations: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: edge, annotations: \
         {{{annotations}}}}}\nspec:\n  nodeSelector: {{matchLabels: {{role: edge}}}}\n{rules}"
    )
}

fn addresses(lab: &Lab, node: usize) -> Vec<String> {
    let status = lab.run(&["lab", "status", "-o", "json"]).ok().json();
    let list = status["nodes"][node]["addresses"].as_array().unwrap();
    let text = |one: &Value| one["address"].as_str().or(one.as_str()).unwrap().to_owned();
    list.iter().map(text).collect()
}

fn opens(lab: &Lab, node: &str, address: &str, port: u16) -> bool {
    let line = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    lab.on(node, &line).code == 0
}

fn host_policy(lab: &Lab) -> Value {
    let status = lab.run(&["status", "--node", "node-1", "-o", "json"]).ok();
    status.json()["hostPolicy"].clone()
}

#[test]
fn a_host_policy_keeps_out_whom_it_says_and_never_those_who_mend_it() {
    let lab = Lab::with(
        "agent: {protectedTraffic: [{direction: egress, peer: 192.0.2.0/24, protocol: TCP, port: 6443}]}\n",
        &["--nodes", "2"],
    );
    lab.apply(
        &[
            LABELLED,
            ON_THE_NODE,
            &server("web", "node-1"),
            &idle("client", "node-2"),
            &idle("near", "node-1"),
        ]
        .concat(),
    );
    let node = addresses(&lab, 0);
    let reach = |lab: &Lab| -> Vec<bool> {
        let of = |address: &String| {
            [
                lab.connects("client", address, 9000),
                lab.connects("near", address, 9000),
                opens(lab, "node-2", address, 9000),
            ]
        };
        node.iter().flat_map(of).collect()
    };
    assert_eq!(reach(&lab), [true; 6]);
    // Only the pods of the node's own namespace by their label, and the health of its pods.
    let web = lab.addresses("web").remove(0);
    assert!(opens(&lab, "node-1", &web, 8080));
    let ingress = "  ingress:\n  - fromEndpoints: [{matchLabels: {app: near}}]\n    toPorts: [{ports: [{port: '9000', protocol: TCP}]}]\n";
    lab.apply(&policy(ingress, ""));
    assert_eq!(reach(&lab), [false, true, false, false, true, false]);
    assert_eq!(host_policy(&lab)["ingress"], "enforced");
    assert!(opens(&lab, "node-1", &web, 8080), "its answers come back");
    assert!(
        lab.connects("client", &web, 8080),
        "pods are none of its business"
    );
    denials_name_the_policy(&lab);

    // Egress that forgets what the node lives by is not put in force, and says so.
    let egress = "  egress:\n  - toEndpoints: [{matchLabels: {app: client}}]\n";
    let said = lab.run_with(&["lab", "apply", "-f", "-"], &policy(egress, ""));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("policy/lock-out"), "{said:?}");
    let cut = host_policy(&lab)["lockOuts"].clone();
    let cut: Vec<&str> = cut
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["traffic"].as_str().unwrap())
        .collect();
    assert_eq!(
        cut,
        [
            "TCP/6443 to 192.0.2.0/24 (protectedTraffic)",
            // Of both its addresses.
            "the probes of pod default/web on port 8080"
        ]
    );
    assert_eq!(
        reach(&lab),
        [false, true, false, false, true, false],
        "the former stays"
    );
    let enforcement =
        || lab.object("ciliumclusterwidenetworkpolicy", "edge")["status"]["enforcement"].clone();
    eventually("the object says so", SOON, || {
        let held_back = &enforcement()["lockOuts"][0];
        held_back["node"] == "node-1"
            && held_back["traffic"]
                .as_array()
                .is_some_and(|it| it.len() == 2)
    });
    assert_eq!(
        enforcement()["nodes"],
        1,
        "on the node that it is not about"
    );
    assert_ne!(
        lab.run(&["diff", "--node", "node-1"]).code,
        0,
        "wished is not in force"
    );

    // Whoever means it says so.
    lab.apply(&policy(egress, "heddle.dev/allow-lock-out: 'true'"));
    assert!(!opens(&lab, "node-1", &web, 8080));
    assert_eq!(host_policy(&lab)["lockOuts"].as_array().unwrap().len(), 0);
    eventually("told as in force", SOON, || {
        let enforcement = enforcement();
        (&enforcement["nodes"], &enforcement["endpoints"]) == (&2.into(), &1.into())
    });
    eventually("in force", SOON, || {
        lab.run(&["diff", "--node", "node-1"]).code == 0
    });

    // What it lives by allowed, it is put in force without more words.
    let wide = format!("{egress}  - toEntities: [cluster]\n  - toCIDR: [192.0.2.0/24]\n");
    lab.apply(&policy(&wide, ""));
    assert!(opens(&lab, "node-1", &web, 8080));
    assert_eq!(reach(&lab), [true; 6], "ingress is open again");

    // It outlives its agent, and the store forgets it for all.
    lab.apply(&policy(ingress, ""));
    let _ = lab.run(&["lab", "agent", "kill", "node-1"]).ok();
    assert_eq!(reach(&lab), [false, true, false, false, true, false]);
    let _ = lab.run(&["lab", "agent", "start", "node-1"]).ok();
    assert_eq!(reach(&lab), [false, true, false, false, true, false]);
    let _ = lab
        .run(&["lab", "delete", "ciliumclusterwidenetworkpolicy", "edge"])
        .ok();
    assert_eq!(reach(&lab), [true; 6]);
}

/// The denial stands in the flows with the node as its end, and the policy that isolates it.
#[test]
fn every_address_of_a_node_is_the_node() {
    for fabric in ["routed", "vxlan"] {
        let config = "hostRouting: false\n";
        let lab = Lab::with(config, &["--nodes", "1", "--fabric", fabric]);
        lab.apply(
            &[
                LABELLED,
                ON_THE_NODE,
                &idle("near", "node-1"),
                &idle("other", "node-1"),
            ]
            .concat(),
        );
        // Addresses that no Node object lists, of both families.
        let second = ["198.18.0.7", "fd00:dead::7"];
        for address in second {
            let line = format!("ip address add {address} dev lo");
            let _ = lab.on("node-1", &line).ok();
        }
        let reach = |pod: &str| {
            let mut all = addresses(&lab, 0);
            all.extend(second.map(str::to_owned));
            all.iter()
                .map(|address| lab.connects(pod, address, 9000))
                .collect::<Vec<_>>()
        };
        assert_eq!(reach("other"), [true; 4]);
        let ingress = "  ingress:\n  - fromEndpoints: [{matchLabels: {app: near}}]\n";
        lab.apply(&policy(ingress, ""));
        eventually("the second addresses are the node", SOON, || {
            reach("other") == [false; 4]
        });
        assert_eq!(reach("near"), [true; 4]);
        // One that comes later, while the policy is in force.
        let _ = lab.on("node-1", "ip address add 198.18.0.8 dev lo").ok();
        eventually("the new address is the node", SOON, || {
            !lab.connects("other", "198.18.0.8", 9000)
        });
        assert!(lab.connects("near", "198.18.0.8", 9000));
    }
}

fn denials_name_the_policy(lab: &Lab) {
    let node = addresses(lab, 0).remove(0);
    eventually("the denial is told", SOON, || {
        assert!(!lab.connects("client", &node, 9000));
        lab.flows(&["--verdict", "DROPPED", "--port", "9000"])
            .iter()
            .any(|line| {
                let flow = &line["flow"];
                flow["traffic_direction"] == "INGRESS"
                    && flow["destination"]["identity"] == 1
                    && flow["source"]["pod_name"] == "client"
                    && flow["ingress_denied_by"][0]["name"] == "edge"
                    && flow["extensions"]["value"]["nearest"][0]["failed"] == "peer"
                    && flow["extensions"]["value"]["nearest"][0]["rule"]
                        == "CiliumClusterwideNetworkPolicy edge ingress[0]"
            })
    });
}

#[test]
fn on_audit_denials_are_told_and_pass() {
    let lab = Lab::with(
        "agent: {policyAudit: host, allowPodAudit: true}\n",
        &["--nodes", "2"],
    );
    lab.apply(
        &[
            LABELLED,
            ON_THE_NODE,
            &server("web", "node-1"),
            &idle("client", "node-2"),
        ]
        .concat(),
    );
    lab.apply(&policy("  ingress: [{}]\n  egress: [{}]\n", ""));
    let node = addresses(&lab, 0);
    for address in &node {
        assert!(lab.connects("client", address, 9000));
    }
    let status = host_policy(&lab);
    assert_eq!(
        (&status["ingress"], &status["audit"]),
        (&Value::from("enforced"), &Value::from(true))
    );
    // A pod that is annotated is on audit too where its namespace permits it; its neighbours are not.
    lab.apply("---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {heddle.dev/allow-policy-audit: 'true'}}\n");
    let web = lab.addresses("web").remove(0);
    let isolate = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none, namespace: default}\nspec: {podSelector: {}}\n";
    lab.apply(isolate);
    assert!(!lab.connects("client", &web, 8080));
    let annotated = server("web", "node-1").replace(
        "metadata: {name: web,",
        "metadata: {name: web, annotations: {heddle.dev/policy-audit: 'true'},",
    );
    lab.apply(&annotated);
    eventually("audit begins", SOON, || lab.connects("client", &web, 8080));
    eventually("audits are told", SOON, || {
        let flows = lab.flows(&["--verdict", "AUDIT"]);
        let told = |name: &str, port: u64| {
            flows.iter().any(|line| {
                let flow = &line["flow"];
                flow["ingress_denied_by"][0]["name"] == name
                    && flow["l4"]["TCP"]["destination_port"] == port
            })
        };
        told("edge", 9000) && told("none", 8080)
    });
    lab.apply(&server("web", "node-1").replace(
        "metadata: {name: web,",
        "metadata: {name: web, annotations: {},",
    ));
    eventually("audit ends", SOON, || !lab.connects("client", &web, 8080));
}

#[test]
fn enforcement_modes_are_settings_of_the_agent() {
    let isolate = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none, namespace: default}\nspec: {podSelector: {matchLabels: {app: web}}}\n";
    for (mode, without, with) in [("always", false, false), ("never", true, true)] {
        let lab = Lab::with(
            &format!("agent: {{policyEnforcement: {mode}}}\n"),
            &["--nodes", "1"],
        );
        lab.apply(&[server("web", "node-1"), idle("client", "node-1")].concat());
        let web = lab.addresses("web").remove(0);
        assert_eq!(lab.connects("client", &web, 8080), without, "{mode}");
        assert!(opens(&lab, "node-1", &web, 8080), "{mode}: its node");
        lab.apply(isolate);
        assert_eq!(lab.connects("client", &web, 8080), with, "{mode}");
    }
    // Without the node's own way in, only what rules allow.
    let lab = Lab::with("agent: {allowLocalhost: policy}\n", &["--nodes", "1"]);
    let unprobed = server("web", "node-1");
    lab.apply(unprobed.split("    readinessProbe").next().unwrap());
    let web = lab.addresses("web").remove(0);
    eventually("it serves", SOON, || opens(&lab, "node-1", &web, 8080));
    lab.apply(isolate);
    assert!(!opens(&lab, "node-1", &web, 8080));
}
