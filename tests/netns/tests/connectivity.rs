//! `heddle connectivity test`: all as expected in a healthy lab, the right probes named in a broken one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, Said};
use serde_json::Value;
use std::time::{Duration, Instant};

fn test(lab: &Lab, options: &[&str]) -> Said {
    lab.run(&[&["connectivity", "test", "-o", "json"], options].concat())
}

fn namespaces(lab: &Lab) -> Vec<String> {
    let said = lab.run(&["lab", "get", "ns", "-o", "json"]).ok().json();
    let items = said["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Nothing of a test is left.
fn is_clean(lab: &Lab) {
    let left = namespaces(lab);
    assert!(
        !left.iter().any(|name| name.starts_with("connectivity")),
        "{left:?}"
    );
    let pods = lab
        .run(&["lab", "get", "pods", "-A", "-o", "json"])
        .ok()
        .json();
    assert_eq!(pods["items"].as_array().unwrap().len(), 0, "{pods}");
}

fn differing(report: &Value) -> Vec<Value> {
    let scenarios = report["scenarios"].as_array().unwrap();
    let probes = scenarios
        .iter()
        .flat_map(|scenario| scenario["probes"].as_array().unwrap());
    probes
        .filter(|probe| probe["passed"] != true)
        .cloned()
        .collect()
}

fn check(fabric: &str) {
    let lab = Lab::up(&["--fabric", fabric]);

    // Two at once do not meet.
    let start = Instant::now();
    let both = std::thread::scope(|scope| {
        [(); 2]
            .map(|()| scope.spawn(|| test(&lab, &[])))
            .map(|one| one.join().unwrap())
    });
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    for said in both {
        assert_eq!(said.code, 0, "{said:?}");
        let report = said.json();
        assert_eq!(report["failed"], 0, "{report}");
        let scenarios = report["scenarios"].as_array().unwrap();
        assert_eq!(scenarios.len(), 6, "{report}");
        let skipped = scenarios[0]["skipped"].as_array().unwrap();
        assert_eq!(skipped.len(), usize::from(fabric == "vxlan"), "{skipped:?}");
        for probe in scenarios
            .iter()
            .flat_map(|one| one["probes"].as_array().unwrap())
        {
            for key in ["from", "to", "probe", "family", "expected", "seen"] {
                assert!(probe[key].is_string(), "{probe}");
            }
            assert!(probe["milliseconds"].is_u64(), "{probe}");
        }
    }
    is_clean(&lab);

    // node-1 loses its way to the others.
    let _ = lab
        .on("node-1", "ip route del default; ip -6 route del default")
        .ok();
    let said = test(&lab, &[]);
    assert_eq!(said.code, 1, "{said:?}");
    let report = said.json();
    let wrong = differing(&report);
    assert!(!wrong.is_empty(), "{report}");
    let on = |end: &Value, node: &str| end.as_str().unwrap().ends_with(node);
    for probe in &wrong {
        // What stays on one node goes on.
        assert_ne!(
            on(&probe["from"], "node-1"),
            on(&probe["to"], "node-1"),
            "{probe}"
        );
        assert!(
            probe["why"]
                .as_str()
                .unwrap()
                .starts_with("heddle policy why --from "),
            "{probe}"
        );
    }
    for (from, to) in [
        ("client-node-1", "server-node-2"),
        ("client-node-2", "server-node-1"),
    ] {
        assert!(
            wrong
                .iter()
                .any(|probe| on(&probe["from"], from) && on(&probe["to"], to)),
            "{from} to {to}: {wrong:?}"
        );
    }
    assert!(
        report["scenarios"][0]["passed"].as_u64().unwrap() > 0,
        "{report}"
    );
    is_clean(&lab);
}

#[test]
fn routed() {
    check("routed");
}

#[test]
fn vxlan() {
    check("vxlan");
}

#[test]
fn one_node_says_what_it_skips_and_an_interrupted_test_leaves_nothing() {
    let lab = Lab::up(&["--nodes", "1"]);
    let said = lab.run(&["connectivity", "test", "-o", "junit"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("<testsuites "), "{said:?}");
    assert!(
        said.out
            .contains("<skipped message=\"the lab has one node\"/>"),
        "{said:?}"
    );

    let child = lab
        .command(&["connectivity", "test"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    heddle_netns::eventually("the test has begun", Duration::from_secs(20), || {
        namespaces(&lab)
            .iter()
            .any(|name| name.starts_with("connectivity"))
    });
    // The shell's own `kill`: the program is of a package that setup does not install.
    let sent = std::process::Command::new("bash")
        .args(["-c", &format!("kill -INT {}", child.id())])
        .status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(words.contains("error[lab/interrupted]"), "{words}");
    is_clean(&lab);

    // What cannot be run is not an answer.
    let _ = lab.run(&["lab", "agent", "stop", "node-1"]).ok();
    let said = test(&lab, &["--timeout", "2s"]);
    assert_eq!(said.code, 3, "{said:?}");
    let _ = lab.run(&["lab", "agent", "start", "node-1"]).ok();
    let said = lab.run(&["connectivity", "test", "--lab", "absent"]);
    assert_eq!(said.code, 3, "{said:?}");
}
