//! The commands against agents that are sockets in a temporary folder.

use super::*;
use crate::dump::testing::{archive_of, flow_lines, manifest};
use clap::Parser;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

mod incomplete;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

type Script = dyn Fn(&Value) -> Vec<Value> + Send + Sync;

/// A runtime folder with agents that answer from a script, and what they were asked.
struct Stage {
    folder: TempDir,
    asked: Arc<Mutex<Vec<Value>>>,
}

struct Shown {
    exit: u8,
    out: String,
    err: String,
    failure: Option<Failure>,
}

impl Shown {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

impl Stage {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            asked: Arc::default(),
        }
    }

    fn socket(&self, lab: &str, node: &str) -> PathBuf {
        let folder = self
            .folder
            .path()
            .join("labs")
            .join(lab)
            .join("nodes")
            .join(node);
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("agent.sock")
    }

    /// An agent whose thread ends with the test process; each answer ends its connection.
    fn agent(&self, socket: &Path, script: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static) {
        let listener = UnixListener::bind(socket).unwrap();
        let asked = Arc::clone(&self.asked);
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let request: Value = serde_json::from_str(&line).unwrap();
                asked.lock().unwrap().push(request.clone());
                for answer in script(&request) {
                    if writeln!(stream, "{answer}").is_err() {
                        break;
                    }
                }
            }
        });
    }

    fn run(&self, arguments: &[&str]) -> Shown {
        let line = Line::try_parse_from([&["heddle"], arguments].concat())
            .unwrap_or_else(|error| panic!("{error}"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = execute(
            line.command,
            &mut Environment {
                runtime: self.folder.path().to_owned(),
                out: &mut out,
                err: &mut err,
                color: false,
                width: 120,
            },
        );
        let (exit, failure) = match outcome {
            Ok(exit) => (exit, None),
            Err(failure) => (failure.exit, Some(failure)),
        };
        Shown {
            exit,
            out: String::from_utf8(out).unwrap(),
            err: String::from_utf8(err).unwrap(),
            failure,
        }
    }
}

fn result(value: Value) -> Vec<Value> {
    vec![json!({ "result": value })]
}

fn flow(second: u32, node: &str) -> Value {
    let time = format!("2026-11-21T08:30:{second:02}.000000000Z");
    json!({"flow":{"time":time,"verdict":"DROPPED","drop_reason":133,"drop_reason_desc":"POLICY_DENIED",
        "IP":{"source":"10.0.0.1","destination":"10.0.0.2","ipVersion":"IPv4"},
        "l4":{"TCP":{"source_port":40000,"destination_port":80,"flags":{"SYN":true}}},
        "source":{"identity":300,"namespace":"a","pod_name":"x"},
        "destination":{"identity":301,"namespace":"a","pod_name":"y"},
        "Type":"L3_L4","node_name":node,"event_type":{"type":1,"sub_type":133},
        "traffic_direction":"INGRESS","is_reply":false,"Summary":"TCP Flags: SYN",
        "ingress_denied_by":[{"name":"p","namespace":"a","kind":"NetworkPolicy"}]},
        "node_name":node,"time":time})
}

fn stream(lines: Vec<Value>) -> Vec<Value> {
    let mut answers: Vec<Value> = lines
        .into_iter()
        .map(|line| json!({"result":line}))
        .collect();
    answers.push(json!({"end":true}));
    answers
}

fn endpoint(id: u16, pod: &str) -> Value {
    json!({"id":id,"namespace":"shop","pod":pod,"ipv4":"10.244.0.5","ipv6":"fd00::5","identity":20001,
        "ifindex":9,"ingress":"enforced","egress":"open","policyRevision":4,"state":"ready"})
}

#[test]
fn status_of_one_node_is_the_agents_object_and_of_a_lab_a_list() {
    let stage = Stage::new();
    for node in ["n1", "n2"] {
        stage.agent(&stage.socket("default", node), move |_| {
            result(
                json!({"node":node,"ready":true,"kernel":"6.12","endpoints":{"total":2,"ready":1},
                "features":[{"name":"tcx","state":"unavailable","why":"kernel 6.1"}],
                "maps":[{"name":"CONNECTIONS","entries":5,"max":100}],"warnings":["low"]}),
            )
        });
    }
    let one = stage.run(&["status", "--node", "n2", "-o", "json"]);
    assert_eq!((one.exit, &one.json()["node"]), (0, &json!("n2")));
    let all = stage.run(&["status", "-o", "json"]);
    assert_eq!(all.json()["nodes"][1]["node"], "n2");
    let socket = stage.socket("default", "n1");
    let named = stage.run(&["status", "--socket", socket.to_str().unwrap()]);
    for words in [
        "n1",
        "1 of 2 ready",
        "unavailable (kernel 6.1)",
        "5 of 100",
        "low",
    ] {
        assert!(named.out.contains(words), "{words} in {}", named.out);
    }
    let yaml = stage.run(&["status", "--node", "n1", "-o", "yaml"]);
    assert!(yaml.out.contains("kernel: "), "{}", yaml.out);
}

#[test]
fn a_node_that_does_not_answer_is_told_and_is_exit_3() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        result(json!([endpoint(1, "web")]))
    });
    stage.socket("default", "n2");
    let shown = stage.run(&["endpoint", "list", "-o", "json"]);
    assert_eq!(shown.exit, 3);
    let rows = shown.json();
    assert_eq!(rows[0]["pod"], "web");
    assert_eq!(
        (&rows[1]["node"], &rows[1]["error"]["code"]),
        (&json!("n2"), &json!("agent/unreachable"))
    );
    assert!(
        shown.err.contains("n2") && shown.err.contains("agent/unreachable"),
        "{}",
        shown.err
    );
    let shown = stage.run(&["status", "--node", "n2", "-o", "json"]);
    let failure = shown.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.exit, failure.json),
        ("agent/unreachable", 3, true)
    );
    assert!(!failure.help.is_empty());
}

#[test]
fn an_agent_is_found_or_the_error_says_where_it_was_sought() {
    let stage = Stage::new();
    let code = |shown: Shown| shown.failure.map(|failure| (failure.code, failure.exit));
    assert_eq!(
        code(stage.run(&["status"])),
        Some(("agent/unreachable".to_owned(), 3))
    );
    assert_eq!(
        code(stage.run(&["status", "--lab", "x"])),
        Some(("lab/unknown-lab".to_owned(), 3))
    );
    assert_eq!(
        code(stage.run(&["status", "--lab", "../x"])),
        Some(("usage/bad-name".to_owned(), 2))
    );
    stage.socket("default", "n1");
    assert_eq!(
        code(stage.run(&["status", "--node", "n9"])),
        Some(("node/unknown".to_owned(), 1))
    );
    // The machine's own agent, when there is no lab.
    let stage = Stage::new();
    stage.agent(&stage.folder.path().join("agent.sock"), |_| {
        result(json!({"node":"me"}))
    });
    assert_eq!(stage.run(&["status", "-o", "json"]).json()["node"], "me");
}

#[test]
fn endpoints_are_listed_and_found_by_id_and_by_pod() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        result(json!([endpoint(7, "web"), endpoint(8, "db")]))
    });
    stage.agent(&stage.socket("default", "n2"), |_| {
        result(json!([endpoint(7, "api")]))
    });
    let table = stage.run(&["endpoint", "list"]);
    let head = table.out.lines().next().unwrap();
    assert!(head.starts_with("NODE   ID   NAMESPACE   POD"), "{head}");
    assert!(head.contains("POLICY REVISION"), "{head}");
    assert_eq!(table.out.lines().count(), 4);
    let by_id = stage.run(&["endpoint", "get", "7", "-o", "json"]).json();
    assert_eq!(by_id.as_array().unwrap().len(), 2);
    let by_pod = stage
        .run(&["endpoint", "get", "shop/db", "-o", "json"])
        .json();
    assert_eq!(
        (&by_pod[0]["id"], &by_pod[0]["node"]),
        (&json!(8), &json!("n1"))
    );
    let missing = stage
        .run(&["endpoint", "get", "shop/none"])
        .failure
        .unwrap();
    assert_eq!(
        (missing.code.as_str(), missing.exit),
        ("endpoint/unknown", 1)
    );
}

#[test]
fn what_nodes_know_alike_is_one_row() {
    let stage = Stage::new();
    let shared = json!({"id":20001,"labels":["k8s:app=web"]});
    for (node, own) in [("n1", json!(16_777_217)), ("n2", json!(16_777_218))] {
        let rows = json!([shared, {"id":own,"labels":["cidr:10.0.0.0/8"]}]);
        stage.agent(&stage.socket("default", node), move |_| {
            result(rows.clone())
        });
    }
    let rows = stage.run(&["identity", "list", "-o", "json"]).json();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!(rows[0]["seenBy"], json!(["n1", "n2"]));
    let one = stage
        .run(&["identity", "get", "16777218", "-o", "json"])
        .json();
    assert_eq!(one[0]["seenBy"], json!(["n2"]));
}

#[test]
fn maps_are_asked_for_one_endpoint() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        result(json!([{"endpoint":7,"pod":"shop/web","generation":3,"present":true,"entries":[
            {"direction":"ingress","identity":0,"protocol":"TCP","port":"80","verdict":"allow","cookie":4,
             "rules":[{"kind":"NetworkPolicy","namespace":"shop","name":"web","section":"ingress","index":0}]}]}]))
    });
    stage.agent(&stage.socket("default", "n2"), |_| {
        vec![json!({"error":{"code":"endpoint/unknown","message":"node n2 has no endpoint 7"}})]
    });
    let shown = stage.run(&["bpf", "policy", "list", "--endpoint", "7"]);
    assert_eq!((shown.exit, shown.err.as_str()), (0, ""));
    assert!(
        shown.out.contains("NetworkPolicy:shop/web.ingress[0]"),
        "{}",
        shown.out
    );
    assert_eq!(
        stage.asked.lock().unwrap()[0],
        json!({"method":"bpf.policy","params":{"endpoint":7}})
    );
    let json = stage
        .run(&["bpf", "policy", "list", "-o", "json", "--node", "n1"])
        .json();
    assert_eq!(json[0]["entries"][0]["cookie"], 4);
    let failure = stage
        .run(&["bpf", "policy", "list", "--endpoint", "7", "--node", "n2"])
        .failure
        .unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.exit),
        ("endpoint/unknown", 1)
    );
}

#[test]
fn connections_name_their_protocol() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        result(json!([{"protocol":6,"source":"10.0.0.1","sourcePort":4,"packets":[3,2]}]))
    });
    let shown = stage.run(&["bpf", "ct", "list"]);
    assert!(
        shown.out.contains("TCP") && shown.out.contains("PACKETS THERE   PACKETS BACK"),
        "{}",
        shown.out
    );
}

#[test]
fn u10_connections_stand_in_order_and_expired_ones_only_with_all() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        let row = |source: &str, left: u64| json!({"protocol":"TCP","source":source,"destination":"10.0.0.9:80","remainingSeconds":left});
        result(json!([row("10.0.0.3:1", 9), row("10.0.0.1:1", 0), row("10.0.0.2:1", 5)]))
    });
    let sources = |arguments: &[&str]| -> Vec<String> {
        let rows = stage.run(arguments).json();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["source"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        sources(&["bpf", "ct", "list", "-o", "json"]),
        ["10.0.0.2:1", "10.0.0.3:1"]
    );
    assert_eq!(
        sources(&["bpf", "ct", "list", "--all", "-o", "json"]),
        ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]
    );
}

#[test]
fn the_ipcache_is_shown_once_for_all_nodes_and_for_one_endpoint() {
    let stage = Stage::new();
    for (node, underlay) in [("n1", Value::Null), ("n2", json!("192.168.0.1"))] {
        stage.agent(&stage.socket("default", node), move |request| {
            if request["method"] == "endpoint.list" {
                return result(if node == "n1" {
                    json!([endpoint(7, "web")])
                } else {
                    json!([])
                });
            }
            result(json!([
                {"prefix":"10.244.0.5/32","identity":20001,"node":underlay},
                {"prefix":"0.0.0.0/0","identity":9,"node":null},
            ]))
        });
    }
    let all = stage.run(&["bpf", "ipcache", "list", "-o", "json"]).json();
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(all[1]["seenBy"], json!(["n1", "n2"]));
    let its = stage
        .run(&["bpf", "ipcache", "list", "--endpoint", "7", "-o", "json"])
        .json();
    assert_eq!(its.as_array().unwrap().len(), 2);
    assert_eq!(its[0]["prefix"], "10.244.0.5/32");
}

#[test]
fn differences_are_exit_1() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| result(json!([])));
    let same = stage.run(&["diff"]);
    assert_eq!(same.exit, 0);
    assert!(same.out.contains("no differences"));
    stage.agent(&stage.socket("default", "n2"), |_| {
        result(json!([{"kind":"endpoint","object":"7","wished":"a","realised":"b"}]))
    });
    let differs = stage.run(&["diff", "-o", "json"]);
    assert_eq!(differs.exit, 1);
    assert_eq!(differs.json()[0]["node"], "n2");
}

#[test]
fn differences_for_people_name_the_nodes_that_were_not_heard() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| result(json!([])));
    stage.socket("default", "n2");
    stage.socket("default", "n3");
    let none = stage.run(&["diff"]);
    assert_eq!(none.exit, 3);
    assert_eq!(
        none.out,
        "no differences on the nodes that answered; not known: n2, n3\n"
    );
    stage.agent(&stage.socket("default", "n2"), |_| {
        result(json!([{"object":"7","field":"f","wished":"a","realised":"b"}]))
    });
    let some = stage.run(&["diff"]);
    assert_eq!(some.exit, 1);
    assert!(some.out.starts_with("NODE"), "{}", some.out);
    assert!(some.out.ends_with("\nnot known: n3\n"), "{}", some.out);
}

#[test]
fn very_many_rows_of_several_nodes_are_merged_in_their_order() {
    const ROWS: u32 = 100_000;
    let mut merged = show::Merged::default();
    for node in ["n1", "n2"] {
        for id in 0..ROWS {
            let row = json!({"id": id, "labels": ["k8s:app=web"]});
            merged.add(row, node);
        }
    }
    merged.add(json!({"id": 7, "labels": []}), "n2");
    let rows = merged.into_rows();
    assert_eq!(rows.len(), ROWS as usize + 1);
    for (id, row) in rows.iter().take(ROWS as usize).enumerate() {
        assert_eq!(
            (&row["id"], &row["seenBy"]),
            (&json!(id), &json!(["n1", "n2"]))
        );
    }
    assert_eq!(rows[ROWS as usize]["seenBy"], json!(["n2"]));
}

#[test]
fn in_a_dump_ages_count_back_from_its_time_and_what_was_cut_is_noted() {
    let stage = Stage::new();
    let file = "nodes/node-1/flows.jsonl";
    let times = ["09:54:01", "09:56:02", "09:59:03"];
    let mut manifest = manifest();
    manifest["cut"] = json!([{"file": file, "limit": "--flows", "what": "only the last 3 flows", "askedFor": true}]);
    let bytes = archive_of(&manifest, &[(file, json!(flow_lines("node-1", &times)))]);
    let path = stage.folder.path().join("d.tar");
    std::fs::write(&path, bytes).unwrap();
    let observe = |more: &[&str]| {
        let line = [
            "observe",
            "--from",
            path.to_str().unwrap(),
            "--node",
            "node-1",
            "-o",
            "jsonpb",
        ];
        stage.run(&[&line, more].concat())
    };
    for (more, expected, is_noted) in [
        (&["--since", "5m"][..], &["02", "03"][..], false),
        (&["--since", "5m", "--until", "2m"], &["02"], false),
        (&["--since", "10m"], &["01", "02", "03"], true),
        (&["--last", "1"], &["03"], false),
        (&["--first", "1"], &["01"], true),
        (&["--all"], &["01", "02", "03"], true),
    ] {
        let shown = observe(more);
        assert_eq!(seconds(&shown), expected, "{more:?}");
        let note = "note: of the flows of node-1 the dump";
        assert_eq!(
            shown.err.contains(note),
            is_noted,
            "{more:?}: {}",
            shown.err
        );
    }
    // A node that was not heard was not heard then.
    let shown = stage.run(&["observe", "--from", path.to_str().unwrap(), "-o", "jsonpb"]);
    assert_eq!(shown.exit, 3);
    let first: Value = serde_json::from_str(shown.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["node_status"]["node_names"], json!(["node-2"]));
    assert_eq!(first["time"], "2026-11-30T10:00:00.000000000Z");
}

#[test]
fn the_agents_own_errors_come_through() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        vec![json!({"error":{"code":"agent/not-ready","message":"still starting","object":"n1","help":"wait"}})]
    });
    let failure = stage.run(&["status", "--node", "n1"]).failure.unwrap();
    assert_eq!(
        (
            failure.code.as_str(),
            failure.message.as_str(),
            failure.exit
        ),
        ("agent/not-ready", "still starting", 3)
    );
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        vec![json!({"surprise":1})]
    });
    let failure = stage.run(&["status", "--node", "n1"]).failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.exit),
        ("agent/broken-answer", 3)
    );
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| Vec::new());
    let failure = stage.run(&["status", "--node", "n1"]).failure.unwrap();
    assert_eq!(failure.code, "agent/unreachable");
}

fn two_nodes(stage: &Stage) {
    stage.agent(&stage.socket("default", "n1"), |_| {
        stream(vec![flow(1, "n1"), flow(4, "n1"), flow(5, "n1")])
    });
    stage.agent(&stage.socket("default", "n2"), |_| {
        stream(vec![flow(2, "n2"), flow(3, "n2")])
    });
}

fn seconds(shown: &Shown) -> Vec<String> {
    shown
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line["time"].as_str().unwrap()[17..19].to_owned())
        .collect()
}

#[test]
fn flows_of_all_nodes_stand_in_the_order_of_time() {
    let stage = Stage::new();
    two_nodes(&stage);
    let shown = stage.run(&["observe", "-o", "jsonpb"]);
    assert_eq!(seconds(&shown), ["01", "02", "03", "04", "05"]);
    assert_eq!(shown.exit, 0);
    let shown = stage.run(&["observe", "-o", "json", "--last", "2"]);
    assert_eq!(seconds(&shown), ["04", "05"]);
    let shown = stage.run(&["observe", "-o", "jsonpb", "--first", "2"]);
    assert_eq!(seconds(&shown), ["01", "02"]);
    let shown = stage.run(&["observe", "--node", "n2"]);
    assert_eq!(
        shown.out.lines().next().unwrap(),
        "Nov 21 08:30:02.000: a/x:40000 (ID:300) -> a/y:80 (ID:301) Policy denied DROPPED (TCP Flags: SYN) \
         ingress isolated by NetworkPolicy a/p"
    );
    let shown = stage.run(&["observe", "-o", "table", "--print-node-name"]);
    assert!(shown.out.starts_with("TIMESTAMP"), "{}", shown.out);
}

#[test]
fn following_ends_when_every_stream_has() {
    let stage = Stage::new();
    two_nodes(&stage);
    let shown = stage.run(&["observe", "--follow", "-o", "jsonpb"]);
    assert_eq!(seconds(&shown).len(), 5);
    assert_eq!(stage.asked.lock().unwrap()[0]["params"]["follow"], true);
}

#[test]
fn flows_that_a_node_could_not_give_are_told() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        stream(vec![flow(1, "n1")])
    });
    stage.socket("default", "n2");
    let shown = stage.run(&["observe", "-o", "jsonpb"]);
    assert_eq!(shown.exit, 3);
    let first: Value = serde_json::from_str(shown.out.lines().next().unwrap()).unwrap();
    assert_eq!(first["node_status"]["state_change"], "NODE_UNAVAILABLE");
    assert_eq!(first["node_status"]["node_names"], json!(["n2"]));
    let shown = stage.run(&["observe"]);
    assert!(
        shown.err.contains("warning: ") && shown.err.contains("n2"),
        "{}",
        shown.err
    );
}

fn params(arguments: &[&str]) -> Result<Value, Failure> {
    let line = Line::try_parse_from([&["heddle", "observe"], arguments].concat())
        .map_err(|error| Failure::new("clap", error.to_string()))?;
    let Command::Observe(arguments) = line.command else {
        panic!("not observe");
    };
    observe::params_of(&arguments, "2026-11-21T09:00:00Z".parse().unwrap())
}

#[test]
fn flags_become_the_request() {
    for (arguments, expected) in [
        (&[][..], json!({"number":20,"first":false,"follow":false})),
        (&["-f"], json!({"first":false,"follow":true})),
        (
            &["-f", "--last", "5"],
            json!({"number":5,"first":false,"follow":true}),
        ),
        (
            &[
                "--since",
                "2026-11-21T08:30:00Z",
                "--verdict",
                "DROPPED",
                "-t",
                "drop",
            ],
            json!({"first":false,"follow":false,"since":"2026-11-21T08:30:00.000000000Z",
                "whitelist":[{"verdict":["DROPPED"],"event_type":["drop"]}]}),
        ),
        (
            &[
                "--last",
                "1",
                "--not",
                "--protocol",
                "icmp",
                "--from-pod",
                "shop/a",
                "--to-port",
                "80",
            ],
            json!({"number":1,"first":false,"follow":false,
                "whitelist":[{"source_pod":["shop/a"],"destination_port":["80"]}],
                "blacklist":[{"protocol":["icmp"]}]}),
        ),
        (
            &[
                "--last",
                "1",
                "--verdict",
                "DROPPED",
                "--not",
                "--pod",
                "web",
                "-A",
                "--not",
                "--reply",
            ],
            json!({"number":1,"first":false,"follow":false,
                "whitelist":[{"verdict":["DROPPED"]}],
                "blacklist":[{"source_pod":["*/web"],"reply":[true]},
                             {"destination_pod":["*/web"],"reply":[true]}]}),
        ),
        (
            &[
                "--last", "1", "--socket", "/x", "--node", "n1", "-n", "shop",
            ],
            json!({"number":1,"first":false,"follow":false,
                "whitelist":[{"source_pod":["shop/"],"node_name":["n1"]},
                             {"destination_pod":["shop/"],"node_name":["n1"]}]}),
        ),
    ] {
        assert_eq!(params(arguments).unwrap(), expected, "{arguments:?}");
    }
    for age in ["90s", "1h30m", "5m", "2d", "10ms"] {
        assert!(params(&["--since", age]).is_ok(), "{age}");
    }
}

#[test]
fn flags_that_mean_nothing_are_usage_errors() {
    for (arguments, field) in [
        (&["--verdict", "PERHAPS"][..], "verdict"),
        (&["--ip", "10.0.0"], "source_ip"),
        (&["--since", "yesterday"], "--since"),
        (&["--since", "1m", "--until", "5m"], "--since"),
        (&["--pod", "a/b", "--from-pod", "a/c"], "from-pod"),
    ] {
        let failure = params(arguments).unwrap_err();
        assert_eq!(
            (failure.exit, failure.field.as_str()),
            (2, field),
            "{arguments:?}"
        );
        assert!(!failure.help.is_empty() || field == "--since");
    }
    for arguments in [
        &["--pod", "a/b", "--not"][..],
        &["--last", "1", "--first", "1"],
        &["-o", "xml"],
    ] {
        assert_eq!(params(arguments).unwrap_err().code, "clap", "{arguments:?}");
    }
}

#[test]
fn the_addresses_of_all_nodes_are_one_table() {
    let stage = Stage::new();
    for (node, used) in [("n1", 3), ("n2", 250)] {
        stage.agent(&stage.socket("default", node), move |request| {
            assert_eq!(request["method"], "ipam.list");
            result(
                json!([{"node":node,"family":"ipv4","blocks":["10.244.0.0/24"],
                "total":253,"used":used,"resting":1,"free":252 - used}]),
            )
        });
    }
    let shown = stage.run(&["ipam", "list"]);
    let rows: Vec<Vec<&str>> = shown
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        [
            "NODE", "FAMILY", "BLOCKS", "TOTAL", "USED", "RESTING", "FREE"
        ]
    );
    assert_eq!(
        rows[2],
        ["n2", "ipv4", "10.244.0.0/24", "253", "250", "1", "2"]
    );
}
