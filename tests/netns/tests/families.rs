//! Labs of one address family: pods reach each other on one node and across two, and policy denies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, allow_only, idle, server};

fn check(family: &str, fabric: &str) {
    let lab = Lab::up(&["--families", family, "--fabric", fabric]);
    let is_own = |address: &str| address.contains(':') == (family == "6");
    let status = lab.run(&["lab", "status", "-o", "json"]).ok().json();
    for node in status["nodes"].as_array().unwrap() {
        let ranges = node["podCIDRs"].as_array().unwrap();
        assert_eq!(ranges.len(), 1, "{status}");
        assert!(is_own(ranges[0].as_str().unwrap()), "{status}");
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
    let servers: Vec<String> = ["near", "far"]
        .iter()
        .map(|pod| {
            let addresses = lab.addresses(pod);
            assert!(
                addresses.len() == 1 && is_own(&addresses[0]),
                "{addresses:?}"
            );
            addresses[0].clone()
        })
        .collect();
    let reaches = |pod: &str| -> Vec<bool> {
        let to = servers.iter();
        to.map(|address| lab.connects(pod, address, 8080)).collect()
    };
    assert_eq!(reaches("client"), [true, true], "IPv{family} {fabric}");
    assert_eq!(reaches("stranger"), [true, true], "IPv{family} {fabric}");
    lab.apply(&[allow_only("near", "client"), allow_only("far", "client")].concat());
    assert_eq!(reaches("client"), [true, true], "IPv{family} {fabric}");
    assert_eq!(reaches("stranger"), [false, false], "IPv{family} {fabric}");
    let denied = lab.flows(&["--verdict", "DROPPED", "--from-pod", "default/stranger"]);
    assert!(
        denied
            .iter()
            .any(|line| line["flow"]["IP"]["ipVersion"] == format!("IPv{family}")),
        "{denied:?}"
    );
    let said = lab.run(&["diff"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn ipv4_alone() {
    check("4", "routed");
}

#[test]
fn ipv6_alone() {
    check("6", "routed");
}

#[test]
fn ipv6_alone_encapsulated() {
    check("6", "vxlan");
}
