//! The lab's container runtime: which verbs of CNI it calls, and what a node whose plugins cannot serve says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, eventually, server};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A folder with a plugin `witness`, which hands results on and notes each verb with its container.
struct Witness(PathBuf);

impl Witness {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("heddle-witness-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let plugin = folder.join("witness");
        std::fs::write(
            &plugin,
            "#!/bin/bash\nread -r -d '' asked\necho \"$CNI_COMMAND $CNI_CONTAINERID\" >> \"${0%/*}/verbs\"\n\
             case $CNI_COMMAND in\n\
             ADD) jq -c .prevResult <<<\"$asked\" ;;\n\
             GC) jq -c '.\"cni.dev/valid-attachments\"' <<<\"$asked\" >> \"${0%/*}/valid\" ;;\n\
             CHECK) jq -e .prevResult.ips <<<\"$asked\" >&2 || exit 1\n\
             [ ! -e \"${0%/*}/doubts\" ] || { echo '{\"code\":110,\"msg\":\"a rule is gone\"}'; exit 1; } ;;\n\
             esac\nexit 0\n",
        )
        .unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn lines(&self, file: &str) -> Vec<String> {
        std::fs::read_to_string(self.0.join(file))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A network namespace that is removed again.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Calls the plugin as a runtime does that crashed right afterwards and remembers nothing.
fn attach_and_forget(lab: &Lab, pod: &str, netns: &Path) -> Value {
    call_plugin(lab, "ADD", "eth0", pod, netns)
}

/// Calls the plugin for an interface of a container that the lab knows nothing of.
fn call_plugin(lab: &Lab, verb: &str, interface: &str, pod: &str, netns: &Path) -> Value {
    let socket = format!("/run/heddle/labs/{}/nodes/node-1/agent.sock", lab.name);
    let config = json!({
        "cniVersion": "1.1.0", "name": "heddle", "type": "heddle-cni", "agentSocket": socket,
    });
    let mut child = Command::new(std::env::var_os("HEDDLE_CNI").expect("set HEDDLE_CNI"))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "forgotten")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", interface)
        .env(
            "CNI_ARGS",
            format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(config.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let result = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    assert!(output.status.success(), "{result}");
    result
}

fn ready(lab: &Lab) -> Value {
    let node = lab.object("node", "node-1");
    node["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .unwrap()
        .clone()
}

fn containers(lab: &Lab) -> Vec<String> {
    let endpoints = lab.run(&["endpoint", "list", "-o", "json"]).ok().json();
    let ids = endpoints.as_array().unwrap().iter();
    ids.map(|one| one["containerId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn status_check_and_gc_are_asked_as_container_runtimes_ask_them() {
    let witness = Witness::new();
    let lab = Lab::with(
        &format!(
            "nodes: 1\nnodeLabels: {{node-1: {{zone: n}}}}\ncni:\n  binDirs: [{}]\n  plugins: [{{type: witness}}]\n",
            witness.0.display()
        ),
        &[],
    );
    let node = lab.object("node", "node-1");
    assert_eq!(node["metadata"]["labels"]["zone"], "n", "{node}");
    assert_eq!(ready(&lab)["status"], "True");
    eventually("a starting runtime's GC", Duration::from_secs(10), || {
        witness.lines("valid") == ["[]"]
    });

    lab.apply(&server("web", "node-1"));
    let id = containers(&lab).remove(0);
    let verbs = witness.lines("verbs");
    let place = |line: &str| verbs.iter().position(|verb| verb == line).unwrap();
    let (add, check) = (place(&format!("ADD {id}")), place(&format!("CHECK {id}")));
    assert!(place("STATUS ") < add && add < check, "{verbs:?}");
    let checks = verbs
        .iter()
        .filter(|verb| verb.starts_with("CHECK"))
        .count();
    assert_eq!(checks, 1, "{verbs:?}");

    // What a CHECK finds is told, and the pod runs.
    std::fs::write(witness.0.join("doubts"), "").unwrap();
    lab.apply(&server("doubtful", "node-1"));
    let pod = lab.object("pod", "doubtful");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    assert!(
        conditions.iter().any(|one| one["type"] == "NetworkChecked"
            && one["message"].as_str().unwrap().contains("a rule is gone")),
        "{pod}"
    );
    let _ = lab
        .run(&["lab", "delete", "pod", "doubtful", "-n", "default"])
        .ok();

    // A runtime that crashed has left an attachment; the pod's own is another.
    let forgotten = Namespace(format!("heddle-{}-forgotten", lab.name));
    let made = Command::new("ip")
        .args(["netns", "add", &forgotten.0])
        .status()
        .unwrap();
    assert!(made.success());
    let netns = Path::new("/run/netns").join(&forgotten.0);
    attach_and_forget(&lab, "web", &netns);
    assert_eq!(containers(&lab).len(), 2);

    let _ = lab.run(&["lab", "agent", "stop", "node-1"]).ok();
    eventually(
        "the node says why it is not ready",
        Duration::from_secs(10),
        || {
            let condition = ready(&lab);
            condition["status"] == "False"
                && condition["reason"] == "NetworkPluginNotReady"
                && condition["message"]
                    .as_str()
                    .unwrap()
                    .contains("the Heddle agent at")
        },
    );
    let table = lab.run(&["lab", "get", "nodes"]).ok().out;
    assert!(table.contains("NotReady"), "{table}");
    let _ = lab.run(&["lab", "agent", "start", "node-1"]).ok();
    eventually("the node is ready again", Duration::from_secs(10), || {
        ready(&lab)["status"] == "True"
    });
    eventually(
        "what was forgotten is removed",
        Duration::from_secs(10),
        || containers(&lab) == [id.clone()],
    );
    // The last plugin of the chain hears the same list.
    let listed = json!([{"containerID": id, "ifname": "eth0"}]).to_string();
    eventually("every plugin's GC", Duration::from_secs(10), || {
        witness.lines("valid").last() == Some(&listed)
    });
    let address = lab.addresses("web").remove(0);
    let said = lab.on(
        "node-1",
        &format!("curl -s --max-time 2 http://{address}:8080/"),
    );
    assert_eq!(said.code, 0, "the pod that is listed stays: {said:?}");
}

/// A second interface of a pod neither takes over its default routes nor takes them away when it goes.
#[test]
fn a_second_interface_leaves_the_pods_default_routes_alone() {
    let lab = Lab::up(&["--nodes", "1"]);
    lab.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "twice"},
            "spec": {"containers": [{"name": "c", "image": "heddle/idle"}]}}"#,
    );
    let name = format!("{}-second", lab.name);
    let namespace = Namespace(name.clone());
    let made = Command::new("ip").args(["netns", "add", &name]).status();
    assert!(made.unwrap().success());
    let netns = Path::new("/run/netns").join(&namespace.0);
    let routes = || {
        ["-4", "-6"].map(|family| {
            let said = Command::new("ip")
                .args(["-n", &name, "-o", family, "route", "show", "default"])
                .output()
                .unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            // The kernel tells a new link's carrier a moment after it is there.
            said.lines()
                .map(|it| it.replace("linkdown", "").trim().to_owned())
                .collect::<Vec<_>>()
        })
    };
    call_plugin(&lab, "ADD", "eth0", "twice", &netns);
    let alone = routes();
    assert!(
        alone
            .iter()
            .all(|family| family.len() == 1 && family[0].contains("eth0")),
        "{alone:?}"
    );
    call_plugin(&lab, "ADD", "eth1", "twice", &netns);
    for (first, now) in alone.iter().zip(routes()) {
        assert_eq!(now.first(), first.first(), "{now:?}");
        assert!(
            now.iter()
                .skip(1)
                .all(|it| it.contains("eth1") && it.contains("metric 2048")),
            "{now:?}"
        );
    }
    call_plugin(&lab, "DEL", "eth1", "twice", &netns);
    assert_eq!(routes(), alone);
    // The other way round, the second one has to do.
    call_plugin(&lab, "ADD", "eth1", "twice", &netns);
    call_plugin(&lab, "DEL", "eth0", "twice", &netns);
    let left = routes();
    assert!(
        left.iter()
            .all(|family| family.len() == 1 && family[0].contains("eth1")),
        "{left:?}"
    );
    call_plugin(&lab, "DEL", "eth1", "twice", &netns);
}
