//! Errors of policy questions never look like answers, and slips in manifests are never passed over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod policy_support;

use policy_support::{SHOP, folder, heddle, json};
use serde_json::Value;
use std::io::Read;
use std::process::{Command, Stdio};

const REFUSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelectr: {}}\n";
const FINE: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: q, namespace: shop}\nspec: {podSelector: {}}\n";

/// What makes a question an error.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    MissingFile,
    BadYaml,
    RefusedPolicy,
    UnknownPeer,
    UnknownPort,
}

fn arguments(verb: &str, wrong: Wrong) -> Option<Vec<&'static str>> {
    let file = match wrong {
        Wrong::MissingFile => "nowhere.yaml",
        Wrong::BadYaml => "bad.yaml",
        Wrong::RefusedPolicy => "refused.yaml",
        Wrong::UnknownPeer | Wrong::UnknownPort => "shop.yaml",
    };
    let peer = match wrong {
        Wrong::UnknownPeer => "shop/nobody",
        _ => "shop/web-1",
    };
    let port = match wrong {
        Wrong::UnknownPort => "nope",
        _ => "80",
    };
    Some(match verb {
        "decide" => vec![
            "decide",
            "-f",
            file,
            "--from",
            "shop/client",
            "--to",
            peer,
            "--port",
            port,
        ],
        "matrix" => {
            let probe = match wrong {
                Wrong::UnknownPort => "TCP/",
                _ => "TCP/80",
            };
            vec!["matrix", "-f", file, "--probe", probe, "--peer", peer]
        }
        "entries" => match wrong {
            Wrong::UnknownPort => return None,
            _ => vec!["entries", "-f", file, "--pod", peer],
        },
        "impact" => {
            let probe = match wrong {
                Wrong::UnknownPort => "TCP/",
                _ => "TCP/80",
            };
            vec![
                "impact",
                "-f",
                file,
                "--change",
                "fine.yaml",
                "--probe",
                probe,
                "--peer",
                peer,
            ]
        }
        _ => vec![
            "why",
            "--lab",
            "no-such-lab-is-up",
            "--from",
            "shop/client",
            "--to",
            peer,
            "--port",
            port,
        ],
    })
}

#[test]
fn u2_an_error_never_looks_like_an_answer() {
    let folder = folder(&[
        ("shop.yaml", SHOP),
        ("bad.yaml", "kind: Pod\nspec: [\n"),
        ("refused.yaml", &format!("{SHOP}---\n{REFUSED}")),
        ("fine.yaml", FINE),
    ]);
    for verb in ["decide", "matrix", "entries", "impact", "why"] {
        for wrong in [
            Wrong::MissingFile,
            Wrong::BadYaml,
            Wrong::RefusedPolicy,
            Wrong::UnknownPeer,
            Wrong::UnknownPort,
        ] {
            let Some(arguments) = arguments(verb, wrong) else {
                continue;
            };
            let output = heddle(folder.path(), &arguments);
            let expected = match (verb, wrong) {
                // A named port of a known destination that it does not have: what is known does not tell.
                ("decide", Wrong::UnknownPort) => 3,
                // There is no lab to read from.
                ("why", _) => 3,
                _ => 2,
            };
            assert_eq!(
                output.status.code(),
                Some(expected),
                "{verb} {wrong:?}: {output:?}"
            );
            assert!(output.stdout.is_empty(), "{verb} {wrong:?}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.starts_with("error["), "{verb} {wrong:?}: {said}");
        }
    }
    // A change that is refused is no change.
    let refused = ["impact", "-f", "shop.yaml", "--change", "refused.yaml"];
    assert_eq!(heddle(folder.path(), &refused).status.code(), Some(2));
}

/// Reads the first bytes of what a command prints, and hangs up.
fn head(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .arg("policy")
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn yaml_says_what_json_says() {
    let folder = folder(&[("fine.yaml", FINE)]);
    let impact = ["impact", "-f", "fine.yaml", "--remove"];
    for arguments in [
        &["matrix", "-f", "fine.yaml", "--probe", "TCP/80"][..],
        &[
            "matrix",
            "-f",
            "fine.yaml",
            "--probe",
            "TCP/80",
            "--from",
            "app=nobody",
        ],
        &[&impact[..], &["Pod/default/absent"]].concat(),
        &["check", "-f", "fine.yaml"],
    ] {
        let said = |format: &str| heddle(folder.path(), &[arguments, &["-o", format]].concat());
        let (json, yaml) = (said("json"), said("yaml"));
        assert_eq!(json.status.code(), yaml.status.code(), "{arguments:?}");
        let as_json: Option<serde_json::Value> = serde_json::from_slice(&json.stdout).ok();
        let text = String::from_utf8(yaml.stdout).unwrap();
        let as_yaml: Option<serde_json::Value> = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(as_json, as_yaml, "{arguments:?}: {text}");
    }
}

#[test]
fn u14_a_reader_that_goes_away_is_no_error() {
    let many: String = (0..60)
        .map(|n| format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}}}\nspec: {{containers: [{{name: c}}]}}\n"))
        .collect();
    let folder = folder(&[("many.yaml", &many), ("fine.yaml", FINE)]);
    for arguments in [
        &["check", "-f", "many.yaml"][..],
        &[
            "decide",
            "-f",
            "many.yaml",
            "--from",
            "default/p1",
            "--to",
            "default/p2",
            "--port",
            "80",
        ],
        &["entries", "-f", "many.yaml", "--pod", "default/p1"],
        &["matrix", "-f", "many.yaml", "--probe", "TCP/80"],
        &[
            "matrix",
            "-f",
            "many.yaml",
            "--probe",
            "TCP/80",
            "-o",
            "json",
        ],
        &[
            "matrix",
            "-f",
            "many.yaml",
            "--probe",
            "TCP/80",
            "-o",
            "csv",
        ],
        &[
            "impact",
            "-f",
            "many.yaml",
            "--change",
            "fine.yaml",
            "-o",
            "json",
        ],
    ] {
        let (code, said) = head(folder.path(), arguments);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

fn check(text: &str, more: &[&str]) -> (Option<i32>, Value) {
    let folder = folder(&[("m.yaml", text)]);
    let output = heddle(
        folder.path(),
        &[&["check", "-f", "m.yaml", "-o", "json"], more].concat(),
    );
    (output.status.code(), json(&output))
}

#[test]
fn u3_slips_in_known_kinds_are_errors_with_a_suggestion() {
    for (text, code, help) in [
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, lables: {a: b}}\n",
            "manifest/unknown-field",
            "did you mean `labels`?",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, prots: []}]}\n",
            "manifest/unknown-field",
            "did you mean `ports`?",
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolcy\nmetadata: {name: p}\n",
            "manifest/unknown-kind",
            "did you mean `NetworkPolicy`?",
        ),
    ] {
        let (exit, report) = check(text, &[]);
        let first = &report["problems"][0];
        assert_eq!(
            (exit, &first["code"], &first["help"]),
            (Some(1), &code.into(), &help.into()),
            "{report:#}"
        );
        assert_eq!(report["errors"], 1, "{report:#}");
        // Of a newer API: a warning.
        let (exit, report) = check(text, &["--lenient"]);
        assert_eq!(
            (exit, &report["errors"]),
            (Some(0), &0.into()),
            "{report:#}"
        );
        // And nobody decides with it unless told to.
        let folder = folder(&[("m.yaml", text), ("shop.yaml", SHOP)]);
        let question = [
            "decide",
            "-f",
            ".",
            "--from",
            "shop/client",
            "--to",
            "shop/web-1",
            "--port",
            "80",
        ];
        assert_eq!(
            heddle(folder.path(), &question).status.code(),
            Some(2),
            "{text}"
        );
        let lenient = [&question[..], &["--lenient"]].concat();
        assert_eq!(
            heddle(folder.path(), &lenient).status.code(),
            Some(0),
            "{text}"
        );
    }
}

#[test]
fn u3_u12_empty_files_duplicates_and_labels_that_cannot_be_are_errors() {
    for (text, code) in [
        ("", "manifest/empty"),
        ("# nothing\n---\n", "manifest/empty"),
        (&format!("{FINE}---\n{FINE}"), "manifest/duplicate"),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {x/y/z: \"1\"}}\n",
            "manifest/invalid-label",
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {kubernetes.io/metadata.name: evil}}\n",
            "manifest/invalid-label",
        ),
    ] {
        let (exit, report) = check(text, &[]);
        assert_eq!(
            (exit, &report["problems"][0]["code"]),
            (Some(1), &code.into()),
            "{text}: {report:#}"
        );
    }
}

#[test]
fn u14_counts_are_spelled_and_syntax_errors_name_their_place_once() {
    let folder = folder(&[
        ("one.yaml", FINE),
        ("bad.yaml", "kind: Pod\n---\nkind: [\n"),
    ]);
    let said = |arguments: &[&str]| {
        let output = heddle(folder.path(), arguments);
        String::from_utf8(output.stdout).unwrap()
    };
    let one = said(&["check", "-f", "one.yaml"]);
    assert!(one.ends_with("1 policy, 0 errors, 0 warnings\n"), "{one}");
    let bad = said(&["check", "-f", "bad.yaml"]);
    assert!(bad.ends_with("0 policies, 1 error, 0 warnings\n"), "{bad}");
    let first = bad.lines().next().unwrap();
    assert!(
        first.starts_with("error[manifest/syntax]: bad.yaml, document 2: line "),
        "{first}"
    );
    for word in ["bad.yaml", "document", "line"] {
        assert_eq!(first.matches(word).count(), 1, "{first}");
    }
}

#[test]
fn u14_a_rule_without_a_peer_says_so_where_it_is_the_nearest() {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{containers: [{{name: c}}]}}\n"
        )
    };
    let policy = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  endpointSelector: {}\n  ingress:\n  - {}\n";
    let all = format!("{policy}{}{}", pod("a"), pod("b"));
    let folder = folder(&[("all.yaml", &all)]);
    let ask = [
        "decide", "-f", "all.yaml", "--from", "shop/a", "--to", "shop/b", "--port", "80",
    ];
    let output = heddle(folder.path(), &ask);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("nobody (the rule names no peer)"), "{text}");
}

#[test]
fn u15_a_peer_may_be_a_workload_and_a_slip_is_answered_with_what_is_meant() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: front, namespace: shop}\nspec: {replicas: 2, selector: {matchLabels: {app: front}}, template: {metadata: {labels: {app: front}}, spec: {containers: [{name: c}]}}}\n";
    let folder = folder(&[("shop.yaml", SHOP), ("front.yaml", deployment)]);
    let ask = |from: &str| {
        heddle(
            folder.path(),
            &[
                "decide",
                "-f",
                ".",
                "-o",
                "json",
                "--from",
                from,
                "--to",
                "shop/web-1",
                "--port",
                "80",
            ],
        )
    };
    for word in [
        "shop/deploy/front",
        "shop/deployment/front",
        "shop/Deployment/front",
    ] {
        let output = ask(word);
        assert_eq!(json(&output)["from"]["pod"], "shop/front-0", "{output:?}");
    }
    for (word, help) in [
        ("shop/clinet", "did you mean shop/client?"),
        ("shop/deploy/back", "workloads there: shop/deployment/front"),
    ] {
        let output = ask(word);
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), &error["error"]["help"]),
            (Some(2), &help.into()),
            "{error}"
        );
    }
}
