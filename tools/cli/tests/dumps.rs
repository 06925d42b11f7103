//! Answers from dumps, as a shell gets them: of the time of the dump, and each failure in its own line.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use std::process::{Command, Output};
use tempfile::TempDir;

/// An archive (POSIX ustar) of these files.
fn archive(files: &[(String, Value)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        let content = content.to_string();
        let mut header = [0_u8; 512];
        let mut put =
            |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000600\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(header);
        bytes.extend(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Kinds of objects that a dump has lists of, beside pods.
const KINDS: [&str; 15] = [
    "namespaces",
    "nodes",
    "deployments",
    "networkpolicies",
    "ciliumnetworkpolicies",
    "ciliumclusterwidenetworkpolicies",
    "clusternetworkpolicies",
    "ciliumcidrgroups",
    "services",
    "endpointslices",
    "ciliumidentities",
    "ciliumendpoints",
    "identityclaims",
    "nodepolicyreports",
    "leases",
];

/// A dump of a lab, made on 2026-11-30 at 10:00.
struct Dump(TempDir);

impl Dump {
    fn new() -> Self {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "web", "creationTimestamp": "2026-11-30T09:00:00Z"},
            "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"},
        });
        let event = json!({
            "metadata": {"namespace": "default", "name": "e"}, "type": "Normal", "reason": "Started", "message": "m",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"}, "count": 1,
            "firstTimestamp": "2026-11-30T09:59:15Z", "lastTimestamp": "2026-11-30T09:59:15Z",
        });
        let manifest = json!({
            "format": "heddle-sysdump", "formatVersion": 1, "heddle": "0.0.1", "kernel": "6.12",
            "time": "2026-11-30T10:00:00Z", "seconds": 1.5, "lab": "shop", "revision": 7, "complete": true,
            "nodes": [{"name": "node-1", "folder": "nodes/node-1", "heard": false, "reason": "no answer", "version": null}],
            "missing": [], "cut": [], "stripped": [],
            "limits": {"timeoutSeconds": 60.0, "maxBytes": 1, "flows": 1, "logBytes": 1},
        });
        let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "items": items});
        let text = "gone\nerror[lab/ruined]: all is lost\nhelp: call us";
        let mut files = vec![
            ("manifest.json".to_owned(), manifest),
            ("objects/pods.json".to_owned(), list(json!([pod]))),
            ("lab/events.json".to_owned(), json!([event])),
            (
                "nodes/node-1/error.json".to_owned(),
                json!({"error": {"code": "agent/unreachable", "message": text, "help": text}, "exit": 3}),
            ),
        ];
        let lists = KINDS.map(|kind| (format!("objects/{kind}.json"), list(json!([]))));
        files.extend(lists);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("d.tar"), archive(&files)).unwrap();
        Self(folder)
    }

    fn ask(&self, line: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_heddle"))
            .args(line)
            .arg("--from")
            .arg(self.0.path().join("d.tar"))
            .env_remove("HEDDLE_LAB")
            .output()
            .unwrap()
    }

    /// The words of the line after the head.
    fn row(&self, line: &[&str]) -> Vec<String> {
        let output = self.ask(line);
        let said = String::from_utf8(output.stdout).unwrap();
        let row = said.lines().nth(1).unwrap_or_else(|| panic!("{said}"));
        row.split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
fn ages_of_a_dump_count_to_its_time() {
    let dump = Dump::new();
    let row = dump.row(&["lab", "get", "pods"]);
    assert_eq!(row, ["web", "0/1", "Running", "0", "60m"]);
    let row = dump.row(&["lab", "events", "-o", "wide"]);
    assert_eq!(
        row,
        ["45s", "Normal", "Started", "pod/web", "m", "1", "45s"]
    );
    let output = dump.ask(&["lab", "describe", "pod", "web"]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    let event = said.lines().find(|line| line.contains("Started"));
    assert!(
        event.is_some_and(|line| line.contains(" 45s")),
        "{output:?}"
    );
}

#[test]
fn a_failure_that_a_dump_tells_has_its_two_lines_and_no_others() {
    let output = Dump::new().ask(&["status", "--node", "node-1"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let one_line = "gone error[lab/ruined]: all is lost help: call us";
    assert_eq!(
        said,
        format!("error[agent/unreachable]: {one_line}\nhelp: {one_line}\n")
    );
}
