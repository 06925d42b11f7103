//! `heddle policy impact`: what a change of the manifests does, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test ends where it cannot go on.

mod policy_support;

use policy_support::{SHOP, cnp, folder, heddle, json, network_policy};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

fn only_the_client() -> String {
    network_policy(
        "web",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]}",
    )
}

/// `from -> to probe: before -> after` of every change.
fn changes(report: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    report["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            format!(
                "{} -> {} {}: {} -> {}",
                text(&change["from"]),
                text(&change["to"]),
                text(&change["probe"]),
                text(&change["before"]["verdict"]),
                text(&change["after"]["verdict"]),
            )
        })
        .collect()
}

fn impact(files: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = folder(files);
    let mut all = vec!["impact", "-f", "shop.yaml", "-o", "json"];
    all.extend(arguments);
    let output = heddle(folder.path(), &all);
    (output.status.code(), json(&output))
}

#[test]
fn a_new_policy_closes_what_it_does_not_allow() {
    let files = [("shop.yaml", SHOP), ("change.yaml", &only_the_client())];
    let (code, report) = impact(
        &files,
        &[
            "--change",
            "change.yaml",
            "--probe",
            "TCP/8080",
            "TCP/http",
            "--peer",
            "192.0.2.1",
        ],
    );
    assert_eq!(code, Some(1));
    let found = changes(&report);
    let wanted: BTreeSet<String> = ["TCP/8080", "TCP/http"]
        .into_iter()
        .flat_map(|probe| {
            ["web-1", "web-2"].into_iter().flat_map(move |web| {
                ["shop/web-1", "shop/web-2", "ops/monitor", "192.0.2.1"]
                    .into_iter()
                    .filter(move |from| *from != format!("shop/{web}"))
                    .map(move |from| format!("{from} -> shop/{web} {probe}: allow -> deny"))
            })
        })
        .collect();
    assert_eq!(found, wanted);
    assert_eq!(
        (&report["closed"], &report["opened"]),
        (&12.into(), &0.into())
    );
    let change = &report["changes"][0];
    assert_eq!(change["after"]["ingress"]["because"], "default-deny");
    assert_eq!(change["after"]["ingress"]["isolatedBy"][0]["name"], "web");
    assert_eq!(change["before"]["ingress"]["because"], "not-enforced");
}

#[test]
fn taking_it_away_opens_the_same() {
    let before = format!("{SHOP}{}", only_the_client());
    let files = [("shop.yaml", before.as_str())];
    let arguments = [
        "--remove",
        "NetworkPolicy/shop/web",
        "--probe",
        "TCP/8080",
        "--peer",
        "192.0.2.1",
    ];
    let (code, report) = impact(&files, &arguments);
    assert_eq!(
        (code, &report["opened"], &report["closed"]),
        (Some(1), &6.into(), &0.into())
    );
    // Nothing changes when nothing is changed.
    let files = [
        ("shop.yaml", before.as_str()),
        ("change.yaml", &only_the_client()),
    ];
    let (code, report) = impact(&files, &["--change", "change.yaml"]);
    assert_eq!((code, changes(&report).len()), (Some(0), 0));
    assert!(report["compared"].as_u64().unwrap() > 50);
}

#[test]
fn a_replaced_policy_changes_both_ways() {
    let before = format!("{SHOP}{}", only_the_client());
    let after = network_policy(
        "web",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{port: http}]}]}",
    );
    let files = [
        ("shop.yaml", before.as_str()),
        ("change.yaml", after.as_str()),
    ];
    let (code, report) = impact(
        &files,
        &[
            "--change",
            "change.yaml",
            "--probe",
            "TCP/8080",
            "--peer",
            "world",
        ],
    );
    assert_eq!(code, Some(1));
    let wanted = [
        "ops/monitor -> shop/web-1 TCP/8080: deny -> allow",
        "ops/monitor -> shop/web-2 TCP/8080: deny -> allow",
        "shop/client -> shop/web-1 TCP/8080: allow -> deny",
        "shop/client -> shop/web-2 TCP/8080: allow -> deny",
    ];
    assert_eq!(changes(&report), wanted.map(str::to_owned).into());
    // The same as two matrices, cell by cell.
    let folder = folder(&[("a.yaml", &before), ("shop.yaml", SHOP), ("b.yaml", &after)]);
    let matrix = |files: &[&str]| {
        let mut arguments = vec![
            "matrix", "--probe", "TCP/8080", "--peer", "world", "-o", "json", "-f",
        ];
        arguments.extend(files);
        json(&heddle(folder.path(), &arguments))
    };
    let (old, new) = (matrix(&["a.yaml"]), matrix(&["shop.yaml", "b.yaml"]));
    let differ: BTreeSet<String> = old["cells"]
        .as_array()
        .unwrap()
        .iter()
        .zip(new["cells"].as_array().unwrap())
        .filter(|(old, new)| old["verdict"] != new["verdict"])
        .map(|(old, new)| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!(
                "{} -> {} TCP/8080: {} -> {}",
                text(&old["from"]),
                text(&old["to"]),
                text(&old["verdict"]),
                text(&new["verdict"])
            )
        })
        .collect();
    assert_eq!(differ, changes(&report));
}

#[test]
fn what_is_asked_by_default_finds_ports_addresses_and_nodes() {
    let before = format!(
        "{SHOP}{}",
        cnp(
            "web",
            "{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromCIDRSet: [{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}], toPorts: [{ports: [{port: \"9000\", endPort: 9010, protocol: TCP}]}]}]}"
        )
    );
    let after = cnp(
        "web",
        "{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromCIDRSet: [{cidr: 198.51.100.0/24}], toPorts: [{ports: [{port: \"9000\", endPort: 9005, protocol: TCP}]}]}, {fromEntities: [remote-node]}]}",
    );
    let files = [
        ("shop.yaml", before.as_str()),
        ("change.yaml", after.as_str()),
    ];
    let (code, report) = impact(&files, &["--change", "change.yaml"]);
    assert_eq!(code, Some(1));
    let found = changes(&report);
    for wanted in [
        // The range is shorter, the hole is gone, and other nodes come in.
        "198.51.100.1 -> shop/web-1 TCP/9010: allow -> deny",
        "198.51.100.129 -> shop/web-1 TCP/9000: deny -> allow",
        "host:n2 -> shop/web-1 TCP/9000: deny -> allow",
        "remote-node -> shop/web-2 ICMP/8: deny -> allow",
    ] {
        assert!(found.contains(wanted), "{wanted}: {found:#?}");
    }
    assert!(
        !found
            .iter()
            .any(|line| line.starts_with("host:n1 -> shop/web-1 "))
    );
}

#[test]
fn labels_and_pods_are_changes_too() {
    let before = format!("{SHOP}{}", only_the_client());
    // The monitor becomes a client by its label; a pod without an address of its own joins.
    let change = "apiVersion: v1\nkind: Pod\nmetadata: {name: another, namespace: ops}\nspec: {containers: [{name: c}]}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: shop, labels: {app: retired}}\nspec: {nodeName: n2, containers: [{name: c}]}\n";
    let files = [("shop.yaml", before.as_str()), ("change.yaml", change)];
    let (code, report) = impact(
        &files,
        &[
            "--change",
            "change.yaml",
            "--probe",
            "TCP/8080",
            "--peer",
            "world",
        ],
    );
    assert_eq!(code, Some(1));
    assert_eq!(
        changes(&report),
        ["web-1", "web-2"]
            .map(|web| format!("shop/client -> shop/{web} TCP/8080: allow -> deny"))
            .into()
    );
    assert_eq!(report["added"], serde_json::json!(["ops/another"]));
}

#[test]
fn people_and_merge_requests_are_told_in_words() {
    let before = format!("{SHOP}{}", only_the_client());
    let folder = folder(&[("shop.yaml", &before)]);
    let base = [
        "impact",
        "-f",
        "shop.yaml",
        "--remove",
        "NetworkPolicy/shop/web",
        "--probe",
        "TCP/8080",
        "TCP/http",
        "--peer",
        "world",
    ];
    let output = heddle(folder.path(), &base);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(
            "deny -> allow: ops/monitor -> shop/web-1 TCP/8080, TCP/http (and 1 pair alike)"
        ),
        "{text}"
    );
    assert!(
        text.contains("before: ingress allowed by no rule, isolated by NetworkPolicy shop/web"),
        "{text}"
    );
    let output = heddle(
        folder.path(),
        &[base.as_slice(), &["-o", "markdown"]].concat(),
    );
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("### Policy impact\n"), "{text}");
    assert!(
        text.contains(
            "| deny → **allow** | ops/monitor | shop/web-1, shop/web-2 | TCP/8080, TCP/http |"
        ),
        "{text}"
    );
}

#[test]
fn a_wrong_question_says_why() {
    let folder = folder(&[
        ("shop.yaml", SHOP),
        (
            "twice.yaml",
            &[only_the_client(), only_the_client()].concat(),
        ),
        (
            "bad.yaml",
            &network_policy("p", "{podSelector: {}, ingres: []}"),
        ),
    ]);
    for (arguments, code, exit) in [
        (
            vec!["--remove", "NetworkPolicy/shop/gone"],
            "policy/unknown-object",
            2,
        ),
        (vec!["--remove", "a/b/c/d"], "usage/object", 2),
        (vec!["--change", "twice.yaml"], "manifest/duplicate", 2),
        (vec!["--change", "bad.yaml"], "policy/unknown-field", 2),
        (vec!["--change", "gone.yaml"], "manifest/unreadable", 2),
        (
            vec!["--change", "shop.yaml", "--probe", "HTTP/1"],
            "usage/probe",
            2,
        ),
    ] {
        let mut all = vec!["impact", "-f", "shop.yaml", "-o", "json"];
        all.extend(arguments);
        let output = heddle(folder.path(), &all);
        assert_eq!(output.status.code(), Some(exit), "{output:?}");
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(error["error"]["code"], code);
    }
    let output = heddle(folder.path(), &["impact", "-f", "shop.yaml"]);
    assert_eq!(
        output.status.code(),
        Some(2),
        "a change or a removal is needed"
    );
}

#[test]
fn a_thousand_pods_are_compared_by_their_kinds() {
    let mut text = String::new();
    for number in 0..1000 {
        text.push_str(&format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, namespace: n{}, labels: {{app: a{}}}}}\nspec: {{nodeName: node-{}, containers: [{{name: c}}]}}\n",
            number % 10,
            number % 7,
            number % 20,
        ));
    }
    let policy = |app: u32| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: q, namespace: n0}}\nspec: {{podSelector: {{matchLabels: {{app: a1}}}}, ingress: [{{from: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{app: a{app}}}}}}}], ports: [{{port: 80}}]}}]}}\n"
        )
    };
    text.push_str(&policy(2));
    let begin = Instant::now();
    let files = [("shop.yaml", text.as_str()), ("change.yaml", &policy(3))];
    let (code, report) = impact(&files, &["--change", "change.yaml"]);
    assert_eq!(code, Some(1));
    let (opened, closed) = (
        report["opened"].as_u64().unwrap(),
        report["closed"].as_u64().unwrap(),
    );
    // 14 or 15 pods of n0 have a1, 142 or 143 pods each have a2 and a3.
    assert!((14 * 142..=15 * 143).contains(&opened), "{opened}");
    assert!((14 * 142..=15 * 143).contains(&closed), "{closed}");
    assert_eq!(
        report["changes"].as_array().unwrap().len() as u64,
        opened + closed
    );
    // Wide of the mark on purpose: pair by pair this takes minutes.
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
}
