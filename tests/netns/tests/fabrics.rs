//! Two nodes over both fabrics, in both routing modes: who reaches whom, and what Heddle says of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, allow_only, eventually, idle, server};
use std::time::Duration;

fn check(options: &[&str], routed: bool) {
    let lab = Lab::up(options);
    let status = lab.run(&["lab", "status", "-o", "json"]).ok().json();
    for node in status["nodes"].as_array().unwrap() {
        assert_eq!(node["agent"]["ready"], true, "{status}");
        assert_eq!(node["podCIDRs"].as_array().unwrap().len(), 2, "{status}");
    }
    lab.apply(
        &[
            server("near", "node-1"),
            server("far", "node-2"),
            idle("client", "node-1"),
            idle("stranger", "node-2"),
        ]
        .concat(),
    );
    let near = lab.addresses("near");
    let far = lab.addresses("far");
    assert_eq!((near.len(), far.len()), (2, 2));
    for address in near.iter().chain(&far) {
        for pod in ["client", "stranger"] {
            assert!(
                lab.connects(pod, address, 8080),
                "{pod} to {address} {options:?}"
            );
        }
        // A health probe's way in, from the pod's own node, and from the other.
        for node in ["node-1", "node-2"] {
            let line = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/8080'");
            let said = lab.run(&["lab", "node-exec", node, "--", "bash", "-c", &line]);
            assert_eq!(said.code, 0, "{node} to {address} {options:?}: {said:?}");
        }
    }
    for node in status["nodes"].as_array().unwrap() {
        for address in node["addresses"].as_array().unwrap() {
            let said = lab.exec(
                "client",
                &format!("ping -n -c1 -W2 {}", address.as_str().unwrap()),
            );
            assert_eq!(
                said.code, 0,
                "client to node {address} {options:?}: {said:?}"
            );
        }
    }
    if routed {
        for address in status["world"]["addresses"].as_array().unwrap() {
            let said = lab.exec(
                "client",
                &format!("ping -n -c1 -W2 {}", address.as_str().unwrap()),
            );
            assert_eq!(said.code, 0, "client to world {address}: {said:?}");
        }
    }

    for (server, addresses) in [("near", &near), ("far", &far)] {
        lab.apply(&allow_only(server, "client"));
        for address in addresses {
            assert!(lab.connects("client", address, 8080), "{options:?}");
            assert!(!lab.connects("stranger", address, 8080), "{options:?}");
            assert!(
                !lab.connects("client", address, 8081),
                "another port, {options:?}"
            );
            // The server's own node always gets in.
            let own = if server == "near" { "node-1" } else { "node-2" };
            let line = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/8080'");
            assert_eq!(
                lab.run(&["lab", "node-exec", own, "--", "bash", "-c", &line])
                    .code,
                0
            );
        }
        let dropped = || {
            lab.flows(&[
                "--verdict",
                "DROPPED",
                "--from-pod",
                "default/stranger",
                "--to-pod",
                &format!("default/{server}"),
            ])
        };
        eventually(
            "the denied connection is told",
            Duration::from_secs(2),
            || {
                dropped().iter().any(|line| {
                    let flow = &line["flow"];
                    flow["drop_reason_desc"] == "POLICY_DENIED"
                        && flow["traffic_direction"] == "INGRESS"
                        && flow["source"]["pod_name"] == "stranger"
                        && flow["destination"]["pod_name"] == server
                        && flow["ingress_denied_by"][0]["name"]
                            == format!("only-client-to-{server}")
                })
            },
        );
        let allowed = || {
            lab.flows(&[
                "--verdict",
                "FORWARDED",
                "--from-pod",
                "default/client",
                "--to-pod",
                &format!("default/{server}"),
            ])
        };
        eventually(
            "the allowed connection names its policy",
            Duration::from_secs(2),
            || {
                allowed().iter().any(|line| {
                    line["flow"]["ingress_allowed_by"][0]["name"]
                        == format!("only-client-to-{server}")
                })
            },
        );
    }
    let said = lab.run(&["diff"]);
    assert_eq!(said.code, 0, "{said:?}");
    let endpoints = lab.run(&["endpoint", "list", "-o", "json"]).ok().json();
    assert_eq!(endpoints.as_array().unwrap().len(), 4, "{endpoints}");

    let said = lab
        .run(&[
            "lab",
            "delete",
            "networkpolicy",
            "only-client-to-near",
            "-n",
            "default",
        ])
        .ok();
    assert!(lab.connects("stranger", &near[0], 8080), "{said:?}");
}

#[test]
fn routed() {
    check(&["--fabric", "routed"], true);
}

#[test]
fn routed_through_the_stack() {
    check(&["--fabric", "routed", "--host-routing", "off"], true);
}

#[test]
fn vxlan() {
    check(&["--fabric", "vxlan"], false);
}

#[test]
fn vxlan_through_the_stack() {
    check(&["--fabric", "vxlan", "--host-routing", "off"], false);
}
