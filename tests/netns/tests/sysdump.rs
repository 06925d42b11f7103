//! A dump of a lab answers as the lab did when it was made, says what it lacks, and holds no secrets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, Said, allow_only, eventually, idle, server};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;

/// What no dump may hold.
const SECRET: &str = "hunter2-is-secret";

/// A folder for dumps.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn pods() -> String {
    let secret = format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: secretive\n  labels: {{app: secretive}}\n  annotations: {{example.com/api-token: {SECRET}, \
         kubectl.kubernetes.io/last-applied-configuration: '{{\"a\": \"{SECRET}\"}}'}}\nspec:\n  nodeName: node-1\n  containers:\n  - name: c\n    \
         image: host\n    command: [bash, -c, 'sleep infinity; : {SECRET}']\n    env: [{{name: PASSWORD, value: {SECRET}}}]\n"
    );
    [
        server("web", "node-1"),
        server("other", "node-2"),
        idle("client", "node-2"),
        secret,
    ]
    .concat()
}

/// Counters, what is counted down, and how far the store is.
const CHANGING: [&str; 10] = [
    "recentConnections",
    "remainingSeconds",
    "packets",
    "bytes",
    "tcpFlags",
    "flows",
    "maps",
    "connections",
    "revision",
    "realisedRevision",
];

/// Takes out of an answer what time alone changes, and what a dump never has.
fn lasting(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(lasting),
        Value::Object(fields) => {
            for key in CHANGING {
                fields.remove(key);
            }
            // What `why` looks up on the way between two ends; `path` is a text elsewhere.
            if fields.get("path").is_some_and(Value::is_object) {
                fields.remove("path");
            }
            let annotations = fields.get_mut("annotations").and_then(Value::as_object_mut);
            if let Some(annotations) = annotations {
                annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            fields.values_mut().for_each(lasting);
        }
        _ => {}
    }
}

/// The same of a text: ages, and what is said of the way.
fn without_ages(text: &str) -> Vec<&str> {
    let is_of_the_way = |line: &&str| {
        let labels = ["BUT", "ALSO", "NOTE", "UNCHECKED"];
        labels.iter().any(|label| line.starts_with(label))
    };
    let lines = text.lines().filter(|line| !is_of_the_way(line));
    let is_age = |word: &&str| {
        let ends = word.ends_with(['s', 'm', 'h', 'd']);
        !(ends && word.starts_with(|c: char| c.is_ascii_digit()))
    };
    lines
        .flat_map(str::split_whitespace)
        .filter(is_age)
        .collect()
}

/// The first place where two values differ, and both there.
fn difference(path: &str, live: &Value, offline: &Value) -> Option<String> {
    let differ = || Some(format!("{path}: {live} {offline}"));
    match (live, offline) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => a
            .iter()
            .find_map(|(key, value)| difference(&format!("{path}/{key}"), value, &b[key])),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(at, (a, b))| difference(&format!("{path}/{at}"), a, b)),
        _ if live == offline => None,
        _ => differ(),
    }
}

fn compare(arguments: &[&str], live: &Said, offline: &Said) {
    assert_eq!(
        live.code, offline.code,
        "{arguments:?}: {live:?} {offline:?}"
    );
    if arguments.contains(&"json") {
        let (mut live, mut offline) = (live.json(), offline.json());
        lasting(&mut live);
        lasting(&mut offline);
        let differs = difference("", &live, &offline);
        assert_eq!(differs, None, "{arguments:?}");
    } else {
        assert_eq!(
            without_ages(&live.out),
            without_ages(&offline.out),
            "{arguments:?}"
        );
    }
}

/// The last connection of a pair has gone quiet: no flow of it is on its way any more.
fn settled(lab: &Lab) {
    eventually(
        "the datapaths are as wished",
        Duration::from_secs(20),
        || {
            lab.run(&["diff"]).code == 0
                && lab.run(&["lab", "get", "netpol"]).out.contains("2/2")
                && lab.flows(&["--pod", "default/client"]).len() > 1
        },
    );
}

const WHY: [&str; 8] = [
    "why",
    "--from",
    "default/client",
    "--to",
    "default/web",
    "--port",
    "8080",
    "-o",
];

#[test]
fn every_read_command_answers_from_a_dump_as_from_the_lab() {
    let lab = Lab::up(&[]);
    let folder = Folder::new();
    lab.apply(&pods());
    lab.apply(&allow_only("web", "client"));
    let web = lab.addresses("web");
    assert!(lab.connects("client", &web[0], 8080));
    let _ = lab.connects("secretive", &web[0], 8080);
    settled(&lab);

    let file = folder.file("lab.tar");
    let said = lab.run(&["sysdump", &file]).ok();
    assert_eq!(said.out, format!("{file}\n"));
    assert!(
        said.err.contains("complete dump: 2 of 2 nodes heard"),
        "{said:?}"
    );
    let web = lab
        .run(&["endpoint", "get", "default/web", "-o", "json"])
        .ok()
        .json();
    let web = web[0]["id"].to_string();

    // Each with `-o json` where it has that.
    let commands: &[&[&str]] = &[
        &["status", "-o", "json"],
        &["status", "--node", "node-1", "-o", "json"],
        &["endpoint", "list", "-o", "json"],
        &["endpoint", "list", "-o", "wide"],
        &["endpoint", "get", "default/web", "-o", "json"],
        &["endpoint", "get", "default/nobody"],
        &["identity", "list", "-o", "json"],
        &["identity", "get", "world", "-o", "json"],
        &["node", "list", "-o", "json"],
        &["bpf", "policy", "list", "-o", "json"],
        &["bpf", "policy", "list", "--endpoint", &web, "-o", "json"],
        &["bpf", "ipcache", "list", "-o", "json"],
        &["bpf", "ipcache", "list", "--endpoint", &web, "-o", "json"],
        &["diff", "-o", "json"],
        &["diff", "--node", "node-2"],
        &["observe", "--pod", "default/client", "-o", "jsonpb"],
        &["observe", "--pod", "default/client", "--last", "1"],
        &[
            "observe",
            "--pod",
            "default/client",
            "--first",
            "1",
            "--node",
            "node-1",
        ],
        &[
            "observe",
            "--verdict",
            "DROPPED",
            "--pod",
            "default/secretive",
        ],
        &["lab", "status", "-o", "json"],
        &["lab", "get", "pods", "-A", "-o", "name"],
        &["lab", "get", "pods,nodes", "-l", "app=web", "-o", "wide"],
        &[
            "lab",
            "get",
            "netpol,nodes,ciliumidentity,namespaces",
            "-A",
            "-o",
            "json",
        ],
        &["lab", "get", "nodes", "-o", "yaml"],
        &["lab", "get", "pod", "absent"],
        &["lab", "describe", "netpol"],
        &["lab", "describe", "node", "node-1"],
        &["lab", "describe", "pod", "web"],
        &["lab", "events", "-A", "-o", "json"],
        &["lab", "events"],
    ];
    for arguments in commands {
        let live = lab.run(arguments);
        let offline = lab.run(&[arguments, &["--from", &file][..]].concat());
        compare(arguments, &live, &offline);
    }
    // Every spelling of the flag; and not a single row is lost of what time changes.
    let all = [
        "bpf",
        "ct",
        "list",
        "--all",
        "-o",
        "json",
        "--from-dump",
        &file,
    ];
    let rows = lab.run(&all).ok().json();
    let has = |row: &Value| row["destination"].as_str().unwrap().ends_with(":8080");
    assert!(rows.as_array().unwrap().iter().any(has), "{rows}");
    let of_web = [
        "bpf",
        "ct",
        "list",
        "--endpoint",
        &web,
        "--from",
        &file,
        "-o",
        "json",
    ];
    assert!(
        lab.run(&of_web).ok().json().as_array().unwrap().len() <= rows.as_array().unwrap().len()
    );

    for command in [&["policy"][..], &[]] {
        for form in ["json", "table"] {
            let arguments = [command, &WHY, &[form]].concat();
            let live = lab.run(&arguments).ok();
            let offline = lab.run(&[&arguments[..], &["--from-dump", &file]].concat());
            let head = |said: &Said| said.out.lines().next().map(str::to_owned);
            match form {
                "json" => compare(&arguments, &live, &offline),
                _ => assert_eq!((live.code, head(&live)), (offline.code, head(&offline))),
            }
        }
    }

    // Questions from files, of the same objects.
    let kinds = "namespaces,nodes,pods,netpol";
    let objects = lab.run(&["lab", "get", kinds, "-A", "-o", "json"]).ok().out;
    let manifests = folder.file("objects.json");
    std::fs::write(&manifests, objects).unwrap();
    let change = folder.file("change.yaml");
    std::fs::write(&change, allow_only("other", "client")).unwrap();
    let decide = [
        "policy",
        "decide",
        "--from",
        "default/secretive",
        "--to",
        "default/web",
        "--port",
        "8080",
    ];
    let impact = [
        "policy", "impact", "--change", &change, "--probe", "TCP/8080",
    ];
    for (arguments, flag) in [
        (&["policy", "check"][..], "--from"),
        (&["policy", "entries", "--pod", "default/web"], "--from"),
        (&impact, "--from"),
        (&decide, "--from-dump"),
        (
            &["policy", "matrix", "--probe", "TCP/8080", "-o", "csv"],
            "--from-dump",
        ),
    ] {
        let files = lab.run(&[arguments, &["-f", &manifests]].concat());
        let offline = lab.run(&[arguments, &[flag, &file]].concat());
        assert_eq!(
            (files.code, &files.out),
            (offline.code, &offline.out),
            "{arguments:?}: {files:?} {offline:?}"
        );
    }

    // What needs what runs says so.
    for arguments in [
        &["observe", "--follow"][..],
        &["lab", "get", "pods", "-w"],
        &["lab", "events", "-w"],
        &["lab", "logs", "web"],
        &["lab", "list"],
        &["connectivity", "test"],
        &["sysdump"],
    ] {
        let said = lab.run(&[arguments, &["--from", &file]].concat());
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.starts_with("error[sysdump/no"), "{said:?}");
    }

    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains(SECRET));
    for part in [
        "secretive",
        "heddle_",
        "nodes/node-2/agent.log",
        "lab/operator.log",
        "(stripped)",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_partial_dump_says_so_everywhere() {
    let lab = Lab::up(&[]);
    let folder = Folder::new();
    lab.apply(&[server("web", "node-1"), idle("client", "node-2")].concat());
    lab.apply(&allow_only("web", "client"));
    settled_without_flows(&lab);
    let _ = lab.run(&["lab", "agent", "kill", "node-2"]).ok();

    let file = folder.file("partial.tar");
    let said = lab.run(&["sysdump", &file, "-o", "json"]);
    assert_eq!(said.code, 3, "{said:?}");
    let manifest = said.json();
    assert_eq!(manifest["complete"], false);
    assert_eq!(
        (&manifest["file"], &manifest["formatVersion"]),
        (&json!(file), &json!(1))
    );
    let heard: Vec<&Value> = manifest["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["heard"])
        .collect();
    assert_eq!(heard, [true, false]);
    let reason = manifest["nodes"][1]["reason"].as_str().unwrap();
    assert!(reason.contains("does not answer"), "{manifest}");
    for part in [
        "warning: nodes/node-2 is missing: ",
        "partial dump: 1 of 2",
        "not heard: node-2",
    ] {
        assert!(said.err.contains(part), "{part}: {said:?}");
    }

    // The answers lack that node as they do live, with the same codes.
    for arguments in [
        &["status", "-o", "json"][..],
        &["endpoint", "list", "-o", "json"],
        &["diff"],
        &["endpoint", "list", "--node", "node-2"],
        &["endpoint", "get", "default/client"],
    ] {
        let live = lab.run(arguments);
        let offline = lab.run(&[arguments, &["--from", &file]].concat());
        assert_eq!(offline.code, 3, "{offline:?}");
        compare(arguments, &live, &offline);
        assert!(offline.err.contains("node-2"), "{offline:?}");
    }
    // The maps that it left answer for it.
    let arguments = [&WHY[..], &["json"]].concat();
    let live = lab.run(&arguments);
    let offline = lab.run(&[&arguments[..], &["--from-dump", &file]].concat());
    compare(&arguments, &live, &offline);
    let sources: Vec<Value> = offline.json()["families"][0]["datapath"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["source"].clone())
        .collect();
    assert!(sources.contains(&json!("maps")), "{sources:?}");

    // Cut by a limit: in the manifest, on standard error, in the exit code, and in the answer.
    let _ = lab.run(&["lab", "agent", "start", "node-2"]).ok();
    let file = folder.file("small.tar");
    let said = lab.run(&[
        "sysdump",
        &file,
        "--max-size",
        "64KiB",
        "--flows",
        "1",
        "-o",
        "json",
    ]);
    assert_eq!(said.code, 3, "{said:?}");
    let manifest = said.json();
    let cut = manifest["cut"].as_array().unwrap();
    let at_size = cut.iter().find(|it| it["limit"] == "--max-size");
    let left_out = at_size.unwrap_or_else(|| panic!("{manifest}"))["file"]
        .as_str()
        .unwrap();
    assert!(
        said.err.contains(&format!("warning: {left_out}: left out")),
        "{said:?}"
    );
    assert!(std::fs::metadata(&file).unwrap().len() < 256 << 10);
    let cut_of_agent = |method: &str| {
        cut.iter()
            .any(|it| it["file"] == format!("nodes/node-1/{method}.json"))
    };
    for (method, arguments) in [
        ("identity.list", ["identity", "list"]),
        ("endpoint.list", ["endpoint", "list"]),
    ] {
        let said = lab.run(&[&arguments[..], &["--node", "node-1", "--from", &file]].concat());
        if cut_of_agent(method) {
            assert_eq!(said.code, 3, "{said:?}");
            assert!(said.err.contains("error[sysdump/not-in-dump]"), "{said:?}");
        } else {
            assert_eq!(said.code, 0, "{said:?}");
        }
    }

    // Without its store a lab still has agents; and a dump of one agent has no objects.
    let socket = PathBuf::from(format!("/run/heddle/labs/{}/store.sock", lab.name));
    let aside = socket.with_extension("aside");
    std::fs::rename(&socket, &aside).unwrap();
    let said = lab.run(&["sysdump", &file, "--timeout", "9s"]);
    std::fs::rename(&aside, &socket).unwrap();
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("partial dump: 2 of 2"), "{said:?}");
    let said = lab.run(&["status", "--from", &file, "-o", "json"]).ok();
    assert_eq!(said.json()["nodes"].as_array().unwrap().len(), 2);
    for arguments in [
        &["lab", "get", "pods", "--from", &file][..],
        &["policy", "check", "--from", &file],
    ] {
        let said = lab.run(arguments);
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.err.contains("the store of lab"), "{said:?}");
    }
    let agent = format!("/run/heddle/labs/{}/nodes/node-1/agent.sock", lab.name);
    let said = lab.run(&["sysdump", &file, "--socket", &agent]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("warning: objects is missing"), "{said:?}");
    for arguments in [
        &["status", "-o", "json"][..],
        &["endpoint", "list", "-o", "json"],
    ] {
        let live = lab.run(&[arguments, &["--socket", &agent]].concat());
        let offline = lab.run(&[arguments, &["--from", &file]].concat());
        compare(arguments, &live, &offline);
    }

    // No time at all: nothing was heard, and that is said.
    let said = lab.run(&["sysdump", &file, "--timeout", "0s"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("partial dump: 0 of 2"), "{said:?}");
    let said = lab.run(&["lab", "get", "pods", "--from", &file]);
    assert_eq!(said.code, 3, "{said:?}");
}

fn settled_without_flows(lab: &Lab) {
    eventually("the policy is in force", Duration::from_secs(20), || {
        lab.run(&["lab", "get", "netpol"]).out.contains("2/2")
    });
}

#[test]
fn what_a_pod_was_started_with_is_not_told_by_its_failure() {
    let lab = Lab::up(&["--nodes", "1"]);
    let folder = Folder::new();
    let failing = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: failing}}\nspec:\n  containers:\n  - name: c\n    image: host\n    \
         command: [/no/such/program, --join, {SECRET}]\n"
    );
    let apply = ["lab", "apply", "--no-wait", "-f", "-"];
    let _ = lab.run_with(&apply, &failing).ok();
    eventually("it fails", Duration::from_secs(20), || {
        let status = lab.object("pod", "failing")["status"].to_string();
        status.contains("could not start \\\"/no/such/program\\\"")
    });
    let file = folder.file("lab.tar");
    let _ = lab.run(&["sysdump", &file]).ok();
    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("could not start"));
    assert!(!text.contains(SECRET));
}
