//! `heddle policy`, as people and scripts use it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: n1
  containers: [{name: c, image: heddle/echo, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: n2, containers: [{name: c, image: heddle/idle}]}
status: {podIPs: [{ip: 10.9.0.7}, {ip: "fd00:9::7"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}}
spec: {nodeName: n1, containers: [{name: c, image: heddle/idle}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: kube-system}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, image: heddle/idle}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: http}]
    - from: [{ipBlock: {cidr: 10.9.0.0/16}}]
      ports: [{port: 9000}]
    - from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
"#;

fn heddle(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heddle"))
        .arg("policy")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("heddle runs")
}

fn shop() -> tempfile::TempDir {
    with("shop.yaml", SHOP)
}

fn with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    folder
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {output:?}");
    })
}

fn decide(from: &str, to: &str, rest: &[&str]) -> (Option<i32>, Value) {
    let folder = shop();
    let mut arguments = vec![
        "decide",
        "-f",
        "shop.yaml",
        "--from",
        from,
        "--to",
        to,
        "-o",
        "json",
    ];
    arguments.extend(rest);
    let output = heddle(folder.path(), &arguments);
    (output.status.code(), json(&output))
}

#[test]
fn decide_allows_and_names_the_rule() {
    let (code, answer) = decide(
        "shop/client",
        "shop/web",
        &["--port", "8080", "--protocol", "TCP"],
    );
    assert_eq!(code, Some(0));
    assert_eq!(answer["verdict"], "allow");
    assert_eq!(answer["from"]["pod"], "shop/client");
    assert_eq!(answer["from"]["ip"], "10.9.0.7");
    assert_eq!(answer["from"]["labels"]["app"], "client");
    assert_eq!(answer["protocol"], "TCP");
    assert_eq!(answer["port"], 8080);
    assert_eq!(answer["egress"]["because"], "not-enforced");
    assert_eq!(answer["egress"]["enforced"], false);
    let ingress = &answer["ingress"];
    assert_eq!(ingress["because"], "rule");
    assert_eq!(
        ingress["rules"],
        serde_json::json!([{"kind": "NetworkPolicy", "namespace": "shop", "name": "web",
            "section": "ingress", "index": 0, "action": "allow"}])
    );
    assert_eq!(ingress["isolatedBy"][0]["name"], "web");
}

#[test]
fn decide_denies_and_names_what_came_near() {
    let (code, answer) = decide("shop/client", "shop/web", &["--port", "81"]);
    assert_eq!(code, Some(1));
    let ingress = &answer["ingress"];
    assert_eq!(ingress["because"], "default-deny");
    assert_eq!(ingress["rules"], serde_json::json!([]));
    assert_eq!(ingress["isolatedBy"][0]["kind"], "NetworkPolicy");
    let nearest = &ingress["nearest"][0];
    assert_eq!(nearest["failed"], "port");
    assert_eq!(nearest["rule"]["index"], 0);
    assert_eq!(nearest["wanted"], "TCP/http");
    assert_eq!(nearest["got"], "TCP/81");
}

#[test]
fn decide_knows_every_kind_of_peer() {
    let port = ["--port", "8080"];
    for (from, to, rest, expected) in [
        // ipBlock selects pods by their addresses.
        ("shop/client", "shop/web", ["--port", "9000"], "rule"),
        ("10.9.0.7", "shop/web", ["--port", "9000"], "rule"),
        ("default/stranger", "shop/web", port, "default-deny"),
        ("192.0.2.1", "shop/web", port, "rule"),
        ("192.0.2.200", "shop/web", port, "default-deny"),
        ("2001:db8::1", "shop/web", port, "default-deny"),
        ("world", "shop/web", port, "default-deny"),
        ("host:n1", "shop/web", port, "reserved"),
        ("host:n2", "shop/web", port, "default-deny"),
        ("kube-system/agent", "shop/web", port, "reserved"),
        ("remote-node", "shop/web", port, "default-deny"),
        ("kube-apiserver", "shop/web", port, "default-deny"),
        ("shop/web", "shop/web", port, "reserved"),
        ("shop/web", "world", port, "not-enforced"),
        ("shop/client", "shop/web", ["--port", "http"], "rule"),
        ("shop/client", "shop/web", ["--icmp", "8"], "default-deny"),
        ("192.0.2.1", "shop/web", ["--icmp", "EchoRequest"], "rule"),
    ] {
        let (code, answer) = decide(from, to, &rest);
        assert_eq!(
            answer["ingress"]["because"], expected,
            "{from} {to} {rest:?} {answer}"
        );
        let allowed = expected != "default-deny";
        assert_eq!(code, Some(i32::from(!allowed)), "{from} {to}");
    }
}

#[test]
fn a_question_that_cannot_be_asked_says_why() {
    let folder = shop();
    for (arguments, code, exit) in [
        (
            ["--from", "shop/gone", "--to", "shop/web", "--port", "80"],
            "policy/unknown-peer",
            2,
        ),
        (
            ["--from", "shop/web", "--to", "nobody", "--port", "80"],
            "policy/unknown-peer",
            2,
        ),
        (
            ["--from", "cluster", "--to", "shop/web", "--port", "80"],
            "policy/ambiguous-peer",
            2,
        ),
        (
            ["--from", "host:n9", "--to", "shop/web", "--port", "80"],
            "policy/unknown-peer",
            2,
        ),
        (
            ["--from", "world", "--to", "shop/web", "--port", "0"],
            "usage/port",
            2,
        ),
        (
            ["--from", "world", "--to", "shop/web", "--port", "nope"],
            "policy/unknown-port-name",
            3,
        ),
    ] {
        let mut all = vec!["decide", "-f", "shop.yaml", "-o", "json"];
        all.extend(arguments);
        let output = heddle(folder.path(), &all);
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], code);
        assert!(error["error"]["help"].is_string());
        assert!(output.stdout.is_empty());
    }
    let output = heddle(
        folder.path(),
        &[
            "decide",
            "-f",
            "shop.yaml",
            "--from",
            "world",
            "--to",
            "shop/web",
        ],
    );
    assert_eq!(
        output.status.code(),
        Some(2),
        "a port or an ICMP type is needed"
    );
    let output = heddle(
        folder.path(),
        &[
            "decide", "-f", "no.yaml", "--from", "a", "--to", "b", "--port", "1",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error[manifest/unreadable]: "));
}

#[test]
fn check_finds_every_problem_with_its_place() {
    let text = format!(
        "{SHOP}---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: bad, namespace: shop}}
spec:
  endpointSelector: {{}}
  egress:
    - toEntities: [wrold]
    - toFQDNs: [{{matchName: example.com}}]
"
    );
    let folder = with("all.yaml", &text);
    let output = heddle(folder.path(), &["check", "-f", ".", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(report["errors"], 2);
    assert_eq!(report["policies"], 2);
    let first = &report["problems"][0];
    assert_eq!(first["code"], "policy/unknown-entity");
    assert_eq!(first["field"], "spec.egress[0].toEntities[0]");
    assert_eq!(first["document"], 7);
    assert_eq!(first["file"], "./all.yaml");
    assert_eq!(first["help"], "did you mean `world`?");
    assert_eq!(report["problems"][1]["code"], "policy/unsupported-yet");
    // The same for people.
    let output = heddle(folder.path(), &["check", "-f", "all.yaml"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("error[policy/unknown-entity]: all.yaml, document 7"),
        "{text}"
    );
    // Nobody decides with half of the policies.
    let question = [
        "decide", "-f", "all.yaml", "--from", "world", "--to", "shop/web", "--port", "80",
    ];
    let output = heddle(folder.path(), &question);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn check_passes_with_warnings_alone() {
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, egress: []}\n";
    let folder = with("p.yaml", text);
    let output = heddle(folder.path(), &["check", "-f", "p.yaml", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(
        (&report["errors"], &report["warnings"]),
        (&0.into(), &1.into())
    );
    assert_eq!(report["problems"][0]["code"], "policy/egress-without-type");
    // A file that is not YAML is a finding too.
    let folder = with("broken.yaml", "kind: Pod\n---\nkind: [\n");
    let output = heddle(folder.path(), &["check", "-f", "broken.yaml", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["problems"][0]["code"], "manifest/syntax");
}

#[test]
fn matrix_has_a_cell_for_every_pair_and_probe() {
    let folder = shop();
    let arguments = [
        "matrix",
        "-f",
        "shop.yaml",
        "--probe",
        "TCP/8080",
        "--probe",
        "TCP/http",
        "ICMP/8",
        "--peer",
        "192.0.2.1",
        "--peer",
        "host:n1",
        "-o",
        "json",
    ];
    let output = heddle(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = json(&output);
    assert_eq!(
        answer["probes"],
        serde_json::json!(["TCP/8080", "TCP/http", "ICMP/8"])
    );
    let cells = answer["cells"].as_array().unwrap();
    // Four pods and two peers; only shop/web has a port named http.
    assert_eq!(cells.len(), 6 * 6 * 2 + 6);
    let cell = |from: &str, to: &str, probe: &str| {
        cells
            .iter()
            .find(|cell| cell["from"] == from && cell["to"] == to && cell["probe"] == probe)
            .map(|cell| {
                (
                    cell["verdict"].as_str().unwrap(),
                    cell["egress"].as_str().unwrap(),
                    cell["ingress"].as_str().unwrap(),
                )
            })
    };
    assert_eq!(
        cell("shop/client", "shop/web", "TCP/8080"),
        Some(("allow", "allow", "allow"))
    );
    assert_eq!(
        cell("shop/client", "shop/web", "TCP/http"),
        Some(("allow", "allow", "allow"))
    );
    assert_eq!(
        cell("shop/client", "shop/web", "ICMP/8"),
        Some(("deny", "allow", "deny"))
    );
    assert_eq!(
        cell("192.0.2.1", "shop/web", "ICMP/8"),
        Some(("allow", "allow", "allow"))
    );
    assert_eq!(
        cell("host:n1", "shop/web", "TCP/8080"),
        Some(("allow", "allow", "allow"))
    );
    assert_eq!(cell("shop/web", "shop/client", "TCP/http"), None);
    // The same question asked one by one.
    for cell in cells.iter().filter(|cell| cell["probe"] == "TCP/8080") {
        let (from, to) = (cell["from"].as_str().unwrap(), cell["to"].as_str().unwrap());
        let (_, answer) = decide(from, to, &["--port", "8080"]);
        assert_eq!(answer["verdict"], cell["verdict"], "{from} {to}");
    }
}

#[test]
fn matrix_narrows_and_prints_other_forms() {
    let folder = shop();
    let base = [
        "matrix",
        "-f",
        "shop.yaml",
        "--probe",
        "TCP/8080",
        "--from",
        "app in (client)",
        "--to",
        "app=web",
    ];
    let output = heddle(folder.path(), &[base.as_slice(), &["-o", "csv"]].concat());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "from,to,probe,verdict,egress,ingress\nshop/client,shop/web,TCP/8080,allow,allow,allow\n"
    );
    let output = heddle(folder.path(), &base);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("TCP/8080") && text.contains("shop/client") && text.contains("allow"),
        "{text}"
    );
    let output = heddle(
        folder.path(),
        &["matrix", "-f", "shop.yaml", "--probe", "HTTP/80"],
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn entries_name_their_rules() {
    let folder = shop();
    let output = heddle(
        folder.path(),
        &[
            "entries",
            "-f",
            "shop.yaml",
            "--pod",
            "shop/web",
            "-o",
            "json",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = json(&output);
    assert_eq!(answer["ingress"], "enforced");
    assert_eq!(answer["egress"], "open");
    let entries = answer["entries"].as_array().unwrap();
    let http = entries
        .iter()
        .find(|entry| entry["port"] == 8080)
        .expect("the named port is resolved");
    assert_eq!(http["protocol"], "TCP");
    assert_eq!(http["portPrefix"], 16);
    assert_eq!(http["rules"][0]["name"], "web");
    let output = heddle(
        folder.path(),
        &["entries", "-f", "shop.yaml", "--pod", "shop/web"],
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("NetworkPolicy shop/web ingress[0]"), "{text}");
}

#[test]
fn standard_input_and_workloads() {
    use std::io::Write;
    use std::process::Stdio;
    let text = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: c, image: heddle/echo}]}
"#;
    let mut child = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args([
            "policy", "matrix", "-f", "-", "--probe", "UDP/53", "-o", "json",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let answer = json(&output);
    assert_eq!(answer["cells"].as_array().unwrap().len(), 9);
    assert_eq!(answer["cells"][1]["to"], "default/api-1");
}

#[test]
fn a_thousand_pods_are_answered_by_their_kinds() {
    let mut text = String::new();
    for number in 0..1000 {
        text.push_str(&format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, namespace: n{}, labels: {{app: a{}}}}}\nspec: {{containers: [{{name: c}}]}}\n",
            number % 10,
            number % 7
        ));
    }
    for number in 0..50 {
        text.push_str(&format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: q{number}, namespace: n{}}}\nspec: {{podSelector: {{matchLabels: {{app: a{}}}}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: a{}}}}}}}], ports: [{{port: {}}}]}}]}}\n",
            number % 10,
            number % 7,
            number % 5,
            80 + number % 3
        ));
    }
    let folder = with("many.yaml", &text);
    let begin = Instant::now();
    let output = heddle(
        folder.path(),
        &[
            "matrix",
            "-f",
            "many.yaml",
            "--probe",
            "TCP/80",
            "-o",
            "csv",
        ],
    );
    assert_eq!(output.status.code(), Some(0));
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 1_000_001);
    // Wide of the mark on purpose: one by one this takes minutes.
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
}
