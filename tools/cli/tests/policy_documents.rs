//! Every example in docs/policy means what the table beside it says.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test ends where it cannot go on.

mod policy_support;

use policy_support::{folder, heddle, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// One YAML block with what the document says of it.
#[derive(Default)]
struct Example {
    line: usize,
    yaml: String,
    /// From, to, what, verdict, because.
    rows: Vec<[String; 5]>,
    /// Code and field of the error that refuses it.
    refused: Option<(String, String)>,
    /// Names of tests.
    shown_by: Vec<String>,
}

/// The cluster that the examples of a document are about, and the examples.
fn read(name: &str) -> (Option<String>, Vec<Example>) {
    let text = fs::read_to_string(root().join("docs/policy").join(name)).unwrap();
    let (mut cluster, mut examples) = (None, Vec::<Example>::new());
    let mut block: Option<(bool, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut block, line) {
            (None, "```yaml" | "```yaml cluster") => {
                block = Some((line.ends_with("cluster"), String::new()));
            }
            (Some((is_cluster, yaml)), "```") => {
                let yaml = std::mem::take(yaml);
                if *is_cluster {
                    cluster = Some(yaml);
                } else {
                    examples.push(Example {
                        line: number + 1,
                        yaml,
                        ..Example::default()
                    });
                }
                block = None;
            }
            (Some((_, yaml)), _) => {
                yaml.push_str(line);
                yaml.push('\n');
            }
            (None, _) => {
                if let Some(example) = examples.last_mut() {
                    example.note(line);
                }
            }
        }
    }
    (cluster, examples)
}

impl Example {
    fn note(&mut self, line: &str) {
        let quoted = || line.split('`').skip(1).step_by(2).map(str::to_owned);
        if let Some(row) = line.strip_prefix("| ") {
            let cells: Vec<String> = row
                .trim_end_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect();
            if cells[0] != "From" {
                self.rows.push(cells.try_into().expect("five columns"));
            }
        } else if line.starts_with("Refused: ") {
            let mut words = quoted();
            self.refused = Some((words.next().unwrap(), words.next().unwrap()));
        } else if line.starts_with("Shown by ") {
            self.shown_by = quoted().filter(|word| !word.contains('/')).collect();
        }
    }

    /// Asks every row.
    fn ask(&self, document: &str, cluster: &str) {
        let folder = folder(&[("cluster.yaml", cluster), ("example.yaml", &self.yaml)]);
        for [from, to, what, verdict, because] in &self.rows {
            let place = format!("{document}:{}: {from} -> {to} {what}", self.line);
            let (protocol, port) = what.split_once('/').unwrap();
            let mut arguments = vec![
                "decide", "-f", ".", "-o", "json", "--from", from, "--to", to,
            ];
            if protocol.starts_with("ICMP") {
                arguments.extend(["--icmp", port]);
            } else {
                arguments.extend(["--protocol", protocol, "--port", port]);
            }
            let output = heddle(folder.path(), &arguments);
            assert!(output.stderr.is_empty(), "{place}: {output:?}");
            let answer = json(&output);
            assert_eq!(answer["verdict"], verdict.as_str(), "{place}: {answer:#}");
            assert_eq!(
                output.status.code(),
                Some(i32::from(verdict == "deny")),
                "{place}"
            );
            let ends = [&answer["egress"], &answer["ingress"]];
            assert!(
                ends.iter()
                    .any(|end| end["verdict"] == verdict.as_str()
                        && end["because"] == because.as_str()),
                "{place}: {answer:#}"
            );
        }
    }
}

#[test]
fn the_guide_means_what_it_says() {
    let (cluster, examples) = read("guide.md");
    let cluster = cluster.expect("the guide has a cluster");
    let mut rows = 0;
    for example in &examples {
        assert!(
            !example.rows.is_empty(),
            "guide.md:{}: nothing is said of it",
            example.line
        );
        rows += example.rows.len();
        // No false alarm, either.
        let folder = folder(&[("cluster.yaml", &cluster), ("example.yaml", &example.yaml)]);
        let output = heddle(folder.path(), &["check", "-f", ".", "-o", "json"]);
        let report = json(&output);
        assert_eq!(
            report["problems"],
            serde_json::json!([]),
            "guide.md:{}: {report:#}",
            example.line
        );
        example.ask("guide.md", &cluster);
    }
    assert!(
        examples.len() >= 12 && rows >= 50,
        "{} examples, {rows} rows",
        examples.len()
    );
    println!("{} examples, {rows} decisions", examples.len());
}

#[test]
fn the_differences_are_there_and_have_tests() {
    let cluster = read("guide.md").0.expect("the guide has a cluster");
    let (_, examples) = read("differences.md");
    let tests = ["kube/src", "core/policy"]
        .map(|folder| sources(&root().join(folder)))
        .concat();
    for example in &examples {
        let place = format!("differences.md:{}", example.line);
        assert!(!example.shown_by.is_empty(), "{place}: no test is named");
        for test in &example.shown_by {
            assert!(
                tests.contains(&format!("fn {test}(")),
                "{place}: there is no test {test}"
            );
        }
        match &example.refused {
            None => {
                assert!(!example.rows.is_empty(), "{place}: nothing is said of it");
                example.ask("differences.md", &cluster);
            }
            Some((code, field)) => {
                let folder = folder(&[("cluster.yaml", &cluster), ("example.yaml", &example.yaml)]);
                let output = heddle(folder.path(), &["check", "-f", ".", "-o", "json"]);
                assert_eq!(output.status.code(), Some(1), "{place}");
                let report = json(&output);
                let errors: Vec<_> = report["problems"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|problem| problem["severity"] == "error")
                    .map(|problem| {
                        (
                            problem["code"].as_str().unwrap(),
                            problem["field"].as_str().unwrap(),
                        )
                    })
                    .collect();
                assert_eq!(errors, [(code.as_str(), field.as_str())], "{place}");
            }
        }
    }
    assert!(examples.len() >= 12, "{} examples", examples.len());
}

/// The text of every Rust file in a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn the_examples_of_deploy_have_no_problem() {
    for entry in fs::read_dir(root().join("deploy/examples")).unwrap() {
        let path = entry.unwrap().path();
        let output = heddle(&path, &["check", "-f", ".", "-o", "json"]);
        assert_eq!(
            json(&output)["problems"],
            serde_json::json!([]),
            "{}",
            path.display()
        );
    }
}
