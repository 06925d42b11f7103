//! The plugin against an agent that the test plays.

use super::*;
use heddle_rpc::Request;
use heddle_rpc::cni::{AttachedAddress, Attachment};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

/// Answers `answers.len()` questions and returns them.
fn play_agent(socket: &Path, answers: Vec<Value>) -> JoinHandle<Vec<Request>> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        answers
            .into_iter()
            .map(|answer| {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                writeln!(&stream, "{answer}").unwrap();
                serde_json::from_str(&line).unwrap()
            })
            .collect()
    })
}

fn attachment() -> Attachment {
    Attachment {
        host_interface: "hd7".into(),
        host_mac: "02:00:00:00:00:01".into(),
        interface: "eth0".into(),
        mac: "02:00:00:00:00:02".into(),
        mtu: 1500,
        netns: "/proc/1/ns/net".into(),
        addresses: vec![
            AttachedAddress {
                address: "10.244.0.5".parse().unwrap(),
                prefix_length: 32,
                gateway: Some("10.244.0.1".parse().unwrap()),
            },
            AttachedAddress {
                address: "fd10:244::5".parse().unwrap(),
                prefix_length: 128,
                gateway: Some("fd10:244::1".parse().unwrap()),
            },
        ],
    }
}

struct Case {
    directory: tempfile::TempDir,
    variables: BTreeMap<&'static str, String>,
}

impl Case {
    fn new(command: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Any file that is not the test's own namespace stands for a namespace.
        let netns = directory.path().join("netns");
        std::fs::write(&netns, "").unwrap();
        Self {
            variables: BTreeMap::from([
                ("CNI_COMMAND", command.to_owned()),
                ("CNI_CONTAINERID", "abc123".to_owned()),
                ("CNI_NETNS", netns.display().to_string()),
                ("CNI_IFNAME", "eth0".to_owned()),
                (
                    "CNI_ARGS",
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;X=1".to_owned(),
                ),
            ]),
            directory,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.insert(name, value.to_owned());
        self
    }

    fn run(&self, version: &str, extra: Value) -> (bool, Value) {
        let mut config = json!({
            "cniVersion": version, "name": "heddle", "type": "heddle-cni",
            "agentSocket": self.socket(), "deadlineSeconds": 5,
        });
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        let outcome = run(
            &|name| self.variables.get(name).cloned(),
            config.to_string().as_bytes(),
        );
        let printed = match outcome.output.as_str() {
            "" => Value::Null,
            output => serde_json::from_str(output).unwrap(),
        };
        (outcome.ok, printed)
    }
}

#[test]
fn add_prints_each_versions_shape() {
    for version in Version::ALL {
        let case = Case::new("ADD");
        let agent = play_agent(&case.socket(), vec![json!({ "result": attachment() })]);
        let (ok, result) = case.run(version.name(), json!({}));
        assert!(ok, "{result}");
        assert_eq!(result["cniVersion"], version.name());
        assert_eq!(result["interfaces"][0]["name"], "hd7");
        assert_eq!(result["interfaces"][1]["sandbox"], "/proc/1/ns/net");
        assert_eq!(result["ips"][0]["address"], "10.244.0.5/32");
        assert_eq!(result["ips"][0]["interface"], 1);
        assert_eq!(result["ips"][1]["gateway"], "fd10:244::1");
        assert_eq!(result["routes"][1]["dst"], "::/0");
        assert_eq!(
            result["ips"][1].get("version").and_then(Value::as_str),
            (version < Version::V1_0_0).then_some("6")
        );
        assert_eq!(
            result["interfaces"][1].get("mtu").and_then(Value::as_u64),
            (version >= Version::V1_1_0).then_some(1500)
        );
        let asked = agent.join().unwrap();
        assert_eq!(asked[0].method, "cni.add");
        assert_eq!(asked[0].params["pod"]["name"], "web");
        assert_eq!(asked[0].params["containerId"], "abc123");
    }
}

#[test]
fn add_keeps_what_earlier_plugins_of_the_chain_did() {
    let case = Case::new("ADD");
    let _agent = play_agent(&case.socket(), vec![json!({ "result": attachment() })]);
    let (ok, result) = case.run(
        "1.0.0",
        json!({ "prevResult": { "interfaces": [{ "name": "other" }], "ips": [], "routes": [{ "dst": "192.0.2.0/24" }] } }),
    );
    assert!(ok);
    assert_eq!(result["interfaces"][0]["name"], "other");
    assert_eq!(result["ips"][0]["interface"], 2);
    assert_eq!(result["routes"][0]["dst"], "192.0.2.0/24");
}

#[test]
fn without_an_agent_add_says_try_again_and_status_says_unavailable() {
    let (ok, error) = Case::new("ADD").run("1.0.0", json!({}));
    assert!(!ok);
    assert_eq!(
        (&error["code"], &error["cniVersion"]),
        (&json!(11), &json!("1.0.0"))
    );
    assert!(
        error["msg"].as_str().unwrap().contains("pod shop/web"),
        "{error}"
    );
    assert!(
        error["details"]
            .as_str()
            .unwrap()
            .contains("start the agent")
    );

    let (ok, error) = Case::new("STATUS").run("1.1.0", json!({}));
    assert!(!ok);
    assert_eq!(error["code"], 50);

    let case = Case::new("STATUS");
    let refusal = json!({ "error": { "code": "cni/limited", "message": "m" } });
    let agent = play_agent(&case.socket(), vec![refusal]);
    assert_eq!(case.run("1.1.0", json!({})).1["code"], 51);
    agent.join().unwrap();
}

#[test]
fn a_refusal_is_told_in_the_agents_words() {
    let case = Case::new("ADD");
    let refusal = json!({ "error": {
        "code": "ipam/pool-exhausted", "message": "no free address in 10.244.0.0/24 (253 of 253 used)",
        "help": "add a block" } });
    let _agent = play_agent(&case.socket(), vec![refusal]);
    let (_, error) = case.run("1.1.0", json!({}));
    assert_eq!(
        (&error["code"], &error["details"]),
        (&json!(101), &json!("add a block"))
    );
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains("ipam/pool-exhausted"),
        "{error}"
    );
}

#[test]
fn a_deletion_without_an_agent_is_queued_and_succeeds() {
    let case = Case::new("DEL")
        .with("CNI_NETNS", "/gone")
        .with("CNI_ARGS", "Broken=1");
    for _ in 0..2 {
        let (ok, output) = case.run("0.4.0", json!({}));
        assert!(ok, "{output}");
        assert_eq!(output, Value::Null);
    }
    let queue = pending::list(&pending::directory(&case.socket())).unwrap();
    assert_eq!(queue.len(), 1);
    assert_eq!(
        queue[0].1.as_ref().unwrap(),
        &DelParams {
            container_id: "abc123".into(),
            interface: "eth0".into()
        }
    );
}

#[test]
fn check_hands_over_the_addresses_of_the_previous_result() {
    let case = Case::new("CHECK");
    let agent = play_agent(&case.socket(), vec![json!({ "result": {} })]);
    let previous = result::render(&attachment(), Version::V1_0_0, &json!({}), None);
    let (ok, output) = case.run("1.0.0", json!({ "prevResult": previous }));
    assert!(ok, "{output}");
    let asked = agent.join().unwrap();
    assert_eq!(
        asked[0].params["addresses"],
        json!(["10.244.0.5", "fd10:244::5"])
    );
    assert_eq!(case.run("1.0.0", json!({})).1["code"], 7);
    assert_eq!(case.run("0.3.1", json!({})).1["code"], 1);
}

#[test]
fn gc_needs_its_list() {
    let case = Case::new("GC");
    assert_eq!(case.run("1.1.0", json!({})).1["code"], 7);
    let agent = play_agent(&case.socket(), vec![json!({ "result": {} })]);
    let list = json!([{ "containerID": "abc123", "ifname": "eth0" }]);
    let (ok, output) = case.run("1.1.0", json!({ "cni.dev/valid-attachments": list }));
    assert!(ok, "{output}");
    assert_eq!(agent.join().unwrap()[0].params["validAttachments"], list);
}

#[test]
fn wrong_input_names_the_variable_or_field() {
    let cases = [
        (
            Case::new("ADD").with("CNI_CONTAINERID", "../x"),
            "1.0.0",
            json!({}),
            4,
            "CNI_CONTAINERID",
        ),
        (
            Case::new("ADD").with("CNI_CONTAINERID", ""),
            "1.0.0",
            json!({}),
            4,
            "CNI_CONTAINERID",
        ),
        (
            Case::new("ADD").with("CNI_IFNAME", "sixteen-letters!"),
            "1.0.0",
            json!({}),
            4,
            "CNI_IFNAME",
        ),
        (
            Case::new("ADD").with("CNI_IFNAME", "a/b"),
            "1.0.0",
            json!({}),
            4,
            "CNI_IFNAME",
        ),
        (
            Case::new("ADD").with("CNI_NETNS", "relative"),
            "1.0.0",
            json!({}),
            4,
            "CNI_NETNS",
        ),
        (
            Case::new("ADD").with("CNI_NETNS", "/does/not/exist"),
            "1.0.0",
            json!({}),
            4,
            "CNI_NETNS",
        ),
        (
            Case::new("ADD").with("CNI_NETNS", "/proc/self/ns/net"),
            "1.0.0",
            json!({}),
            4,
            "CNI_NETNS",
        ),
        (
            Case::new("ADD").with("CNI_ARGS", "X=1"),
            "1.0.0",
            json!({}),
            4,
            "unknown keys X",
        ),
        (
            Case::new("ADD").with("CNI_ARGS", "IgnoreUnknown=maybe"),
            "1.0.0",
            json!({}),
            4,
            "IgnoreUnknown",
        ),
        (
            Case::new("ADD").with("CNI_ARGS", "K8S_POD_NAME=a"),
            "1.0.0",
            json!({}),
            4,
            "K8S_POD_NAMESPACE",
        ),
        (Case::new("NOPE"), "1.0.0", json!({}), 4, "CNI_COMMAND"),
        (Case::new("ADD"), "0.2.0", json!({}), 1, "0.2.0"),
        (
            Case::new("ADD"),
            "1.0.0",
            json!({ "agentSocket": "x" }),
            7,
            "agentSocket",
        ),
        (
            Case::new("ADD"),
            "1.0.0",
            json!({ "agentsocket": "/run/a.sock" }),
            7,
            "field agentsocket: there is no such setting; did you mean `agentSocket`?",
        ),
        (
            Case::new("ADD"),
            "1.0.0",
            json!({ "deadlineSeconds": 3601 }),
            7,
            "field deadlineSeconds: is 3601, must be 1 to 3600 (seconds)",
        ),
        (Case::new("ADD"), "1.0.0", json!({ "name": "" }), 7, "name"),
        (Case::new("STATUS"), "1.0.0", json!({}), 1, "STATUS"),
    ];
    for (case, version, extra, code, word) in cases {
        let (ok, error) = case.run(version, extra);
        assert!(!ok);
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(word), "{error}");
    }
    let outcome = run(
        &|name| Case::new("ADD").variables.get(name).cloned(),
        b"{nonsense",
    );
    assert!(!outcome.ok);
}

#[test]
fn version_needs_no_agent() {
    let case = Case::new("VERSION");
    let (ok, output) = case.run("0.4.0", json!({}));
    assert!(ok);
    assert_eq!(output["cniVersion"], "0.4.0");
    assert_eq!(
        output["supportedVersions"],
        json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
}
