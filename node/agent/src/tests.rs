//! The whole agent behind its socket, asked by the real plugin code and as the command line asks.

use crate::api::MOST_POLICY_ROWS;
use crate::testing::{Node, eventually};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct Daemon {
    node: Node,
    socket: PathBuf,
    stop: watch::Sender<bool>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    async fn start() -> Self {
        // The node prepares the store; its own agent makes way for the daemon.
        let mut node = Node::start().await;
        node.stop().await;
        let (stop, shutdown) = watch::channel(false);
        let config = node.config();
        let socket = config.state_dir.join(crate::SOCKET);
        let running = tokio::spawn(crate::run(
            config,
            Arc::new(node.wire.clone()),
            node.datapath.clone(),
            shutdown,
        ));
        let daemon = Self {
            node,
            socket,
            stop,
            running,
        };
        eventually("ready", || async {
            daemon
                .ask("status", json!({}))
                .await
                .is_ok_and(|status| status["ready"] == true)
        })
        .await;
        daemon
    }

    async fn ask(&self, method: &'static str, params: Value) -> Result<Value, String> {
        let socket = self.socket.clone();
        crate::agent::blocking(move || {
            heddle_rpc::Client::new(&socket, Duration::from_secs(10))
                .ask(method, params)
                .map_err(|error| format!("{error:?}"))
        })
        .await
    }

    /// What the runtime gets from the plugin: exit code 0, and what is printed.
    async fn plugin(&self, command: &str, container: &str, netns: &Path) -> (bool, Value) {
        let config = json!({
            "cniVersion": "1.1.0", "name": "heddle", "type": "heddle-cni",
            "agentSocket": self.socket, "deadlineSeconds": 10,
        });
        let variables = std::collections::BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container.to_owned()),
            ("CNI_NETNS", netns.display().to_string()),
            ("CNI_IFNAME", "eth0".to_owned()),
            (
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container}"),
            ),
        ]);
        let outcome = crate::agent::blocking(move || {
            heddle_cni::run(
                &|name| variables.get(name).cloned(),
                config.to_string().as_bytes(),
            )
        })
        .await;
        let printed = match outcome.output.as_str() {
            "" => Value::Null,
            output => serde_json::from_str(output).unwrap(),
        };
        (outcome.ok, printed)
    }

    /// A client that follows flows that never come.
    async fn follower(&self) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let question = json!({ "method": "observe", "params": {
            "follow": true, "whitelist": [{ "source_pod": ["nowhere/nobody"] }],
        } });
        stream
            .write_all(format!("{question}\n").as_bytes())
            .await
            .unwrap();
        BufReader::new(stream)
    }

    async fn observers(&self) -> u64 {
        let status = self.ask("status", json!({})).await.unwrap();
        status["flows"]["observers"].as_u64().unwrap()
    }

    async fn end(self) -> Node {
        self.stop.send_replace(true);
        self.running.await.unwrap().unwrap();
        self.node
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_kept_is_written_before_the_agent_ends() {
    let daemon = Daemon::start().await;
    let policies = daemon.node.state().join("policies");
    // A file where the directory should be refuses everything, also for root.
    std::fs::write(&policies, "").unwrap();
    let policy = |port: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "namespace": "shop", "name": "p" },
            "spec": { "podSelector": {}, "ingress": [{ "ports": [{ "port": port }] }] },
        })
    };
    daemon.node.put(policy("web")).await;
    daemon.node.put(policy("not a name!")).await;
    eventually("told", || async {
        let status = daemon.ask("status", json!({})).await.unwrap();
        status["warnings"]
            .to_string()
            .contains("is not kept over a restart")
    })
    .await;
    std::fs::remove_file(&policies).unwrap();
    let _node = daemon.end().await;
    assert_eq!(std::fs::read_dir(&policies).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_policy_hides_no_other_pods_rows_and_what_is_left_out_is_counted() {
    const PORTS: u16 = 60_000;
    let daemon = Daemon::start().await;
    let netns = daemon.node.state().join("netns");
    std::fs::write(&netns, "").unwrap();
    for pod in ["large", "small"] {
        daemon.node.pod("shop", pod, &[("app", pod)]).await;
        let (ok, result) = daemon.plugin("ADD", pod, &netns).await;
        assert!(ok, "{result}");
    }
    daemon.node.datapath.change(|kernel| {
        let (_, policy) = kernel.policies.get_mut(&1).unwrap();
        let entry = policy.entries[0];
        policy.entries = (0..PORTS)
            .map(|port| {
                let mut entry = entry;
                (entry.key.protocol, entry.key.port) = (6, port);
                entry.key.port_prefix = 16;
                entry
            })
            .collect();
    });
    let answer = daemon.ask("bpf.policy", json!({})).await.unwrap();
    let of = |endpoint: u16| {
        let rows = answer["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["endpoint"] == endpoint).count()
    };
    let alone = daemon.ask("bpf.policy", json!({"endpoint": 2})).await;
    let alone = alone.unwrap();
    assert_eq!(alone["leftOut"], 0);
    assert_eq!(of(2), alone["rows"].as_array().unwrap().len());
    assert_eq!(of(1), MOST_POLICY_ROWS / 2);
    let left_out = usize::from(PORTS) - MOST_POLICY_ROWS / 2;
    assert_eq!(answer["leftOut"], left_out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_attached_by_the_plugin_and_shown_as_the_contract_says() {
    let daemon = Daemon::start().await;
    daemon.node.pod("shop", "web", &[("app", "web")]).await;
    let netns = daemon.node.state().join("netns");
    std::fs::write(&netns, "").unwrap();
    let (ok, result) = daemon.plugin("ADD", "web", &netns).await;
    assert!(ok, "{result}");
    assert_eq!(result["ips"][0]["address"], "10.244.0.2/32");
    assert_eq!(
        result["routes"][1],
        json!({ "dst": "::/0", "gw": "fd10:244::1" })
    );
    assert!(daemon.plugin("STATUS", "web", &netns).await.0);

    let endpoints = daemon.ask("endpoint.list", json!({})).await.unwrap();
    let endpoint = &endpoints[0];
    for (field, value) in [
        ("id", json!(1)),
        ("namespace", json!("shop")),
        ("pod", json!("web")),
        ("ipv4", json!("10.244.0.2")),
        ("ingress", json!("open")),
        ("egress", json!("open")),
        ("state", json!("ready")),
    ] {
        assert_eq!(endpoint[field], value, "{endpoint}");
    }
    let unknown = daemon.ask("bpf.ct", json!({ "endpoint": 99 })).await;
    assert!(unknown.unwrap_err().contains("endpoint/unknown"));

    let status = daemon.ask("status", json!({})).await.unwrap();
    assert_eq!(status["endpoints"], json!({ "total": 1, "ready": 1 }));
    assert_eq!(status["features"][0]["state"], "on");
    assert_eq!(status["warnings"], json!([]));
    assert!(status["realisedRevision"].is_u64());
    let ranges = daemon.ask("ipam.list", json!({})).await.unwrap();
    assert_eq!(ranges[0]["blocks"], json!(["10.244.0.0/24"]), "{ranges}");
    assert_eq!(
        (&ranges[0]["used"], &ranges[1]["used"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(ranges[1]["family"], "ipv6", "{ranges}");
    let identity = endpoint["identity"].as_u64().unwrap();
    let identities = daemon.ask("identity.list", json!({})).await.unwrap();
    let ours = identities
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == identity)
        .unwrap();
    assert_eq!(ours["endpoints"], 1);
    let ipcache = daemon.ask("bpf.ipcache", json!({})).await.unwrap();
    assert!(
        ipcache["rows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["pod"] == "shop/web")
    );
    let policy = daemon
        .ask("bpf.policy", json!({ "endpoint": 1 }))
        .await
        .unwrap();
    assert_eq!(policy["rows"][0]["port"], "any");
    assert_eq!(daemon.ask("diff", json!({})).await.unwrap(), json!([]));
    daemon.node.datapath.change(|kernel| {
        kernel.peers.remove(&"10.244.0.2/32".parse().unwrap());
    });
    let findings = daemon.ask("diff", json!({})).await.unwrap();
    assert_eq!(findings[0]["object"], "10.244.0.2/32");
    let nonsense = daemon.ask("nonsense", json!({})).await.unwrap_err();
    assert!(nonsense.contains("api/unknown-method"));

    let (ok, output) = daemon.plugin("DEL", "web", Path::new("")).await;
    assert!(ok, "{output}");
    assert!(daemon.node.datapath.kernel().has_no_endpoint());

    let mode = std::fs::metadata(&daemon.socket).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
    let node = daemon.end().await;
    assert!(!node.config().state_dir.join(crate::SOCKET).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_agent_of_one_node_is_refused() {
    let daemon = Daemon::start().await;
    let (_stop, shutdown) = watch::channel(false);
    let second = crate::run(
        daemon.node.config(),
        Arc::new(daemon.node.wire.clone()),
        daemon.node.datapath.clone(),
        shutdown,
    )
    .await;
    let error = second.unwrap_err().to_string();
    assert!(error.contains("another agent of node n1"), "{error}");
    daemon.end().await;
}

async fn line(client: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    tokio::time::timeout(Duration::from_secs(10), client.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    serde_json::from_str(&line).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_hangs_up_gives_its_place_back_though_nothing_ever_matches() {
    const PLACES: u64 = 64;
    let daemon = Daemon::start().await;
    let mut followers = Vec::new();
    for _ in 0..PLACES {
        followers.push(daemon.follower().await);
    }
    eventually("full", || async { daemon.observers().await == PLACES }).await;
    let refused = line(&mut daemon.follower().await).await;
    assert_eq!(refused["error"]["code"], "observe/too-many-observers");
    drop(followers);
    eventually("empty", || async { daemon.observers().await == 0 }).await;

    for _ in 0..100 {
        drop(daemon.follower().await);
    }
    eventually("empty again", || async { daemon.observers().await == 0 }).await;
    daemon.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_behind_a_following_ends_it_and_is_answered() {
    let daemon = Daemon::start().await;
    let mut client = daemon.follower().await;
    client.write_all(b"\n").await.unwrap();
    eventually("following", || async { daemon.observers().await == 1 }).await;
    client
        .write_all(b"{\"method\":\"node.list\",\"params\":{}}\n")
        .await
        .unwrap();
    assert_eq!(line(&mut client).await, json!({ "end": true }));
    assert_eq!(line(&mut client).await["result"][0]["name"], "n1");

    // Half a hang-up: nothing more is asked, and the past is told to its end all the same.
    let mut past = UnixStream::connect(&daemon.socket).await.unwrap();
    past.write_all(b"{\"method\":\"observe\",\"params\":{\"number\":1}}\n")
        .await
        .unwrap();
    past.shutdown().await.unwrap();
    assert_eq!(
        line(&mut BufReader::new(past)).await,
        json!({ "end": true })
    );
    daemon.end().await;
}
