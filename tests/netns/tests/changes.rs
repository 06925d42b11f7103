//! A lab that changes while it is used: the agents are killed over VXLAN, and a Deployment is replaced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, allow_only, eventually, idle, server};
use serde_json::Value;
use std::time::{Duration, Instant};

const REPLICAS: usize = 3;

fn deployment(edition: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {REPLICAS}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - name: echo\n        image: heddle/echo\n        \
         env: [{{name: EDITION, value: {edition}}}]\n        ports: [{{containerPort: 8080}}]\n        \
         readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}\n"
    )
}

/// The Deployment's pods that are not ending: edition, readiness, IPv4 address.
fn pods(lab: &Lab) -> Vec<(String, bool, String)> {
    let list = lab
        .run(&["lab", "get", "pods", "-l", "app=web", "-o", "json"])
        .ok()
        .json();
    let items = list["items"].as_array().unwrap().iter();
    items
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let ready = pod["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|one| one["type"] == "Ready" && one["status"] == "True");
            (
                text(&pod["spec"]["containers"][0]["env"][0]["value"]),
                ready,
                text(&pod["status"]["podIPs"][0]["ip"]),
            )
        })
        .collect()
}

#[test]
fn over_vxlan_nothing_is_lost_without_agents_and_a_rolling_replace_keeps_policy_in_force() {
    let lab = Lab::up(&["--fabric", "vxlan"]);
    lab.apply(
        &[
            server("far", "node-2"),
            idle("client", "node-1"),
            idle("stranger", "node-1"),
        ]
        .concat(),
    );
    lab.apply(&[allow_only("far", "client"), allow_only("web", "client")].concat());
    lab.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ping, namespace: default}\nspec:\n  \
         podSelector: {matchLabels: {app: far}}\n  ingress:\n  - from: [{podSelector: {matchLabels: {app: client}}}]\n",
    );
    agents_are_killed(&lab);
    deployment_is_replaced(&lab);
    flows_say_what_they_are_about(&lab);
}

fn agents_are_killed(lab: &Lab) {
    const WITHOUT: Duration = Duration::from_secs(5);
    let far = lab.addresses("far");
    // For as long as the agents are away, and through their return.
    let pings: Vec<_> = far
        .iter()
        .map(|address| lab.start("client", &format!("ping -n -q -i 0.01 -c 1000 {address}")))
        .collect();
    for node in ["node-1", "node-2"] {
        let _ = lab.run(&["lab", "agent", "kill", node]).ok();
    }
    let killed = Instant::now();
    while killed.elapsed() < WITHOUT {
        for address in &far {
            assert!(
                lab.connects("client", address, 8080),
                "client loses {address}"
            );
            assert!(
                !lab.connects("stranger", address, 8080),
                "stranger reaches {address}"
            );
        }
    }
    for node in ["node-1", "node-2"] {
        let _ = lab.run(&["lab", "agent", "start", node]).ok();
    }
    for ping in pings {
        let output = ping.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
    eventually("nothing differs", Duration::from_secs(10), || {
        lab.run(&["diff"]).code == 0
    });
}

fn deployment_is_replaced(lab: &Lab) {
    lab.apply(&deployment("first"));
    let before = pods(lab);
    assert!(
        before.len() == REPLICAS && before.iter().all(|(_, ready, _)| *ready),
        "{before:?}"
    );
    let _ = lab
        .run_with(
            &["lab", "apply", "--no-wait", "-f", "-"],
            &deployment("second"),
        )
        .ok();
    let mut replaced = false;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !replaced {
        assert!(Instant::now() < deadline, "not replaced: {:?}", pods(lab));
        let now = pods(lab);
        let ready = now.iter().filter(|(_, ready, _)| *ready).count();
        assert!(ready >= REPLICAS, "fewer are ready than wanted: {now:?}");
        for (_, _, address) in now.iter().filter(|(_, ready, _)| *ready) {
            assert!(
                !lab.connects("stranger", address, 8080),
                "stranger reaches {address}: {now:?}"
            );
        }
        replaced = now.len() == REPLICAS
            && now
                .iter()
                .all(|(edition, ready, _)| *ready && edition == "second");
    }
    let after = pods(lab);
    for (_, _, address) in &after {
        assert!(lab.connects("client", address, 8080), "client to {address}");
        assert!(
            before.iter().all(|(_, _, old)| old != address),
            "a freed address rests: {before:?} {after:?}"
        );
    }
    for (_, _, address) in &before {
        assert!(!lab.connects("client", address, 8080), "{address} is gone");
    }
    let deployment = lab.object("deployment", "web");
    assert_eq!(
        deployment["status"]["updatedReplicas"], REPLICAS,
        "{deployment}"
    );
}

fn flows_say_what_they_are_about(lab: &Lab) {
    let allowed = || {
        lab.flows(&[
            "--type",
            "policy-verdict",
            "--from-pod",
            "default/client",
            "--port",
            "8080",
        ])
    };
    eventually(
        "a verdict says what decided",
        Duration::from_secs(5),
        || {
            allowed().iter().any(|line| {
                let flow = &line["flow"];
                flow["destination"]["workloads"]
                == serde_json::json!([{"name": "web", "kind": "Deployment"}])
                && flow["traffic_direction"] == "INGRESS"
                // The client's identity, and the port.
                && flow["policy_match_type"] == 2
                && flow["interface"]["name"].as_str().is_some_and(|name| !name.is_empty())
            })
        },
    );
    // Across nodes the tunnel device has seen it.
    let names: Vec<String> = lab
        .flows(&["--to-pod", "default/far"])
        .iter()
        .filter_map(|line| {
            line["flow"]["interface"]["name"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert!(
        !names.is_empty() && names.iter().all(|name| !name.is_empty()),
        "{names:?}"
    );
}
