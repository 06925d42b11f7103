//! The operator on a store in memory: blocks, conditions, collection, metrics.

mod leadership;
mod policies;

use super::*;
use heddle_ipam::PoolConfig;
use heddle_kube::configuration::load;
use heddle_kube::identity::{IdentityAllocator, UNUSED_SINCE, claim_object, identity_object};
use heddle_kube::objects::{ConditionStatus, condition_in};
use heddle_kube::store::memory::MemoryStore;
use heddle_kube::store::{Object, StoreError, embedded};
use heddle_model::{Identity, LabelSet, NamespacedName, Source};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// Longest wait for something that must happen.
const DEADLINE: Duration = Duration::from_secs(300);

/// A running operator; it ends with this.
struct Operator {
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Operator {
    fn start(config: OperatorConfig, store: Arc<dyn Store>) -> Self {
        Self::start_as("operator", config, store)
    }

    fn start_as(identity: &str, config: OperatorConfig, store: Arc<dyn Store>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let identity = identity.to_owned();
        let task =
            tokio::spawn(async move { run_as(&identity, config, store, None, stopped).await });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }
}

fn config(cidr: &str, mask_v4: u8) -> OperatorConfig {
    OperatorConfig {
        pools: vec![PoolConfig {
            name: "small".into(),
            cidrs: vec![cidr.parse().unwrap()],
            mask_v4,
            mask_v6: 64,
        }],
        ..OperatorConfig::new("unused", "unused")
    }
}

fn cluster_name(name: impl ToString) -> NamespacedName {
    NamespacedName::new("", name.to_string())
}

fn node(name: &str, pod_cidrs: &[&str]) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
    });
    if !pod_cidrs.is_empty() {
        node["spec"]["podCIDRs"] = json!(pod_cidrs);
    }
    node
}

/// Waits until the store shows what is wanted.
async fn wait<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found)
        .await
        .expect("in time")
}

fn pod_cidrs(node: &Object) -> Vec<String> {
    let cidrs = node.value["spec"]["podCIDRs"].as_array();
    cidrs
        .into_iter()
        .flatten()
        .map(|cidr| cidr.as_str().unwrap().to_owned())
        .collect()
}

/// A node's blocks, once it has some.
async fn blocks_of(store: &dyn Store, name: &str) -> Vec<String> {
    wait(async || {
        let node = store.get(Kind::Node, &cluster_name(name)).await.ok()?;
        Some(pod_cidrs(&node)).filter(|cidrs| !cidrs.is_empty())
    })
    .await
}

/// A node's condition, once it has that status.
async fn condition(store: &dyn Store, name: &str, status: &str) -> Value {
    wait(async || {
        let node = store.get(Kind::Node, &cluster_name(name)).await.ok()?;
        let conditions = node.value["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| {
            condition["type"] == "PodCIDRAllocated" && condition["status"] == status
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn each_node_gets_blocks_of_both_families() {
    let store = Arc::new(MemoryStore::new());
    store.create(Kind::Node, node("a", &[])).await.unwrap();
    let operator = Operator::start(OperatorConfig::new("unused", "unused"), store.clone());
    assert_eq!(
        blocks_of(&*store, "a").await,
        ["10.244.0.0/24", "fd10:244::/64"]
    );
    store.create(Kind::Node, node("b", &[])).await.unwrap();
    assert_eq!(
        blocks_of(&*store, "b").await,
        ["10.244.1.0/24", "fd10:244:0:1::/64"]
    );
    let stored = store.get(Kind::Node, &cluster_name("b")).await.unwrap();
    assert_eq!(stored.value["spec"]["podCIDR"], "10.244.1.0/24");
    // A node that is replaced under its name is another node.
    store
        .delete(Kind::Node, &cluster_name("a"), None)
        .await
        .unwrap();
    store.create(Kind::Node, node("a", &[])).await.unwrap();
    let again = blocks_of(&*store, "a").await;
    assert_ne!(again, blocks_of(&*store, "b").await);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_pool_is_said_on_the_node_and_recovers() {
    let store = Arc::new(MemoryStore::new());
    let operator = Operator::start(config("10.0.0.0/25", 26), store.clone());
    for name in ["a", "b", "c"] {
        store.create(Kind::Node, node(name, &[])).await.unwrap();
    }
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let name = cluster_name("c");
    let applied = store.apply_status(Kind::Node, &name, "kubelet", ready);
    applied.await.unwrap();
    blocks_of(&*store, "a").await;
    let freed = blocks_of(&*store, "b").await;
    let full = condition(&*store, "c", "False").await;
    assert_eq!(full["reason"], "ipam/pool-exhausted");
    assert_eq!(full["observedGeneration"], 1);
    assert!(full["lastTransitionTime"].as_str().unwrap().ends_with('Z'));
    let message = full["message"].as_str().unwrap();
    for part in ["pool small", "2 of 2", "node c", "add a range"] {
        assert!(message.contains(part), "{message}");
    }
    store
        .delete(Kind::Node, &cluster_name("b"), None)
        .await
        .unwrap();
    assert_eq!(blocks_of(&*store, "c").await, freed);
    condition(&*store, "c", "True").await;
    // Others' conditions are theirs.
    let told = store.get(Kind::Node, &cluster_name("c")).await.unwrap();
    let ready = condition_in(&told.value, "Ready").unwrap();
    assert_eq!(ready.status, ConditionStatus::True);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_operator_gives_no_block_twice() {
    let store = Arc::new(MemoryStore::new());
    // The first in the list has none, so a block given before all are read would be one of theirs.
    for number in 0..40_u8 {
        let cidr = format!("10.0.{}.0/24", 39 - number);
        let cidrs = if number % 2 == 0 {
            vec![]
        } else {
            vec![cidr.as_str()]
        };
        let name = format!("n{number:02}");
        store.create(Kind::Node, node(&name, &cidrs)).await.unwrap();
    }
    for _ in 0..3 {
        let operator = Operator::start(config("10.0.0.0/18", 24), store.clone());
        let mut all = BTreeSet::new();
        for number in 0..40 {
            all.extend(blocks_of(&*store, &format!("n{number:02}")).await);
        }
        assert_eq!(all.len(), 40);
        operator.stop().await;
    }
    let kept = store.get(Kind::Node, &cluster_name("n01")).await.unwrap();
    assert_eq!(pod_cidrs(&kept), ["10.0.38.0/24"]);
}

#[tokio::test(start_paused = true)]
async fn overlapping_and_unreadable_blocks_are_said_and_moved_by_nobody() {
    let store = Arc::new(MemoryStore::new());
    store
        .create(Kind::Node, node("elder", &["10.0.0.0/24"]))
        .await
        .unwrap();
    store
        .create(Kind::Node, node("twin", &["10.0.0.128/25"]))
        .await
        .unwrap();
    store
        .create(Kind::Node, node("wrong", &["10.0.0/24"]))
        .await
        .unwrap();
    let operator = Operator::start(config("10.0.0.0/16", 24), store.clone());
    let twin = condition(&*store, "twin", "False").await;
    assert_eq!(twin["reason"], "ipam/block-conflict");
    assert!(
        twin["message"].as_str().unwrap().contains("elder"),
        "{twin}"
    );
    let wrong = condition(&*store, "wrong", "False").await;
    assert_eq!(wrong["reason"], "ipam/bad-pod-cidr");
    let stored = store.get(Kind::Node, &cluster_name("twin")).await.unwrap();
    assert_eq!(pod_cidrs(&stored), ["10.0.0.128/25"]);
    // The elder goes: the twin's block is its own.
    store
        .delete(Kind::Node, &cluster_name("elder"), None)
        .await
        .unwrap();
    condition(&*store, "twin", "True").await;
    store.create(Kind::Node, node("new", &[])).await.unwrap();
    assert_eq!(blocks_of(&*store, "new").await, ["10.0.1.0/24"]);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_pool_is_used_when_one_is_full() {
    let store = Arc::new(MemoryStore::new());
    let mut config = config("10.0.0.0/24", 24);
    config.pools.push(PoolConfig {
        name: "more".into(),
        cidrs: vec!["10.1.0.0/24".parse().unwrap()],
        mask_v4: 24,
        mask_v6: 64,
    });
    let operator = Operator::start(config, store.clone());
    for name in ["a", "b", "c"] {
        store.create(Kind::Node, node(name, &[])).await.unwrap();
    }
    assert_eq!(blocks_of(&*store, "a").await, ["10.0.0.0/24"]);
    assert_eq!(blocks_of(&*store, "b").await, ["10.1.0.0/24"]);
    let full = condition(&*store, "c", "False").await;
    let message = full["message"].as_str().unwrap();
    assert!(
        message.contains("pool small") && message.contains("pool more"),
        "{message}"
    );
    operator.stop().await;
}

fn labels(app: &str) -> LabelSet {
    let mut labels = LabelSet::new();
    labels.insert(Source::K8s, "app", app);
    labels
}

async fn endpoint(store: &dyn Store, name: &str, identity: Identity, node: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name},
    });
    store.create(Kind::Pod, pod).await.unwrap();
    let endpoint = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": {"namespace": "shop", "name": name},
        "status": {"identity": {"id": identity}, "nodeName": node},
    });
    store.create(Kind::CiliumEndpoint, endpoint).await.unwrap();
}

async fn exists(store: &dyn Store, kind: Kind, name: &NamespacedName) -> bool {
    match store.get(kind, name).await {
        Ok(_) => true,
        Err(StoreError::NotFound { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn wait_gone(store: &dyn Store, kind: Kind, name: &NamespacedName) {
    wait(async || (!exists(store, kind, name).await).then_some(())).await;
}

/// An operator that looks for what is unused once a minute of the test's clock.
fn collecting() -> OperatorConfig {
    OperatorConfig {
        identity_gc_seconds: 60,
        ..OperatorConfig::new("unused", "unused")
    }
}

#[tokio::test(start_paused = true)]
async fn unused_identities_go_after_two_looks_and_used_ones_stay() {
    let store = Arc::new(MemoryStore::new());
    let dynamic: Arc<dyn Store> = store.clone();
    let allocator = IdentityAllocator::new(dynamic);
    store.create(Kind::Node, node("n", &[])).await.unwrap();
    let used = allocator.resolve(&labels("used")).await.unwrap();
    endpoint(&*store, "web", used, "n").await;
    let unused = allocator.resolve(&labels("unused")).await.unwrap();
    // Died before the claim was made, and a claim whose identity somebody deleted.
    let orphan = Identity(40_000);
    let value = identity_object(orphan, &labels("orphan"));
    store.create(Kind::CiliumIdentity, value).await.unwrap();
    let dangling = claim_object(Identity(50_000), &labels("dangling"));
    let dangling = store.create(Kind::IdentityClaim, dangling).await.unwrap();
    let started = tokio::time::Instant::now();
    let operator = Operator::start(collecting(), store.clone());
    wait_gone(&*store, Kind::CiliumIdentity, &cluster_name(unused)).await;
    assert!(
        started.elapsed() >= Duration::from_secs(60),
        "one look is not enough"
    );
    wait_gone(&*store, Kind::CiliumIdentity, &cluster_name(orphan)).await;
    wait_gone(&*store, Kind::IdentityClaim, &dangling.name).await;
    // One claim is left: that of the used identity.
    wait(async || {
        let claims = store.list(&Scope::all(Kind::IdentityClaim)).await.unwrap();
        (claims.len() == 1).then_some(())
    })
    .await;
    assert!(exists(&*store, Kind::CiliumIdentity, &cluster_name(used)).await);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_is_handed_out_again_is_spared() {
    let store = Arc::new(MemoryStore::new());
    let fresh = || {
        let store: Arc<dyn Store> = store.clone();
        IdentityAllocator::new(store)
    };
    let identity = fresh().resolve(&labels("web")).await.unwrap();
    let name = cluster_name(identity);
    let operator = Operator::start(collecting(), store.clone());
    let marked = async || {
        let object = store.get(Kind::CiliumIdentity, &name).await.unwrap();
        let annotations = &object.value["metadata"]["annotations"];
        annotations.get(UNUSED_SINCE).is_some()
    };
    // Marked, handed out again, marked again: never deleted, because no two looks in a row found it unused.
    for _ in 0..4 {
        wait(async || marked().await.then_some(())).await;
        assert_eq!(fresh().resolve(&labels("web")).await.unwrap(), identity);
    }
    // Used for real: the mark goes and does not come back.
    wait(async || marked().await.then_some(())).await;
    store.create(Kind::Node, node("n", &[])).await.unwrap();
    endpoint(&*store, "web", identity, "n").await;
    wait(async || (!marked().await).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(210)).await;
    assert!(!marked().await);
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_without_pod_or_node_go() {
    let store = Arc::new(MemoryStore::new());
    for name in ["stays", "goes"] {
        store.create(Kind::Node, node(name, &[])).await.unwrap();
    }
    endpoint(&*store, "kept", Identity(300), "stays").await;
    endpoint(&*store, "podless", Identity(300), "stays").await;
    endpoint(&*store, "nodeless", Identity(300), "goes").await;
    let in_shop = |name: &str| NamespacedName::new("shop", name);
    store
        .delete(Kind::Pod, &in_shop("podless"), None)
        .await
        .unwrap();
    store
        .delete(Kind::Node, &cluster_name("goes"), None)
        .await
        .unwrap();
    let operator = Operator::start(collecting(), store.clone());
    wait_gone(&*store, Kind::CiliumEndpoint, &in_shop("podless")).await;
    wait_gone(&*store, Kind::CiliumEndpoint, &in_shop("nodeless")).await;
    assert!(exists(&*store, Kind::CiliumEndpoint, &in_shop("kept")).await);
    operator.stop().await;
}

async fn request(address: std::net::SocketAddr, head: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server that closes on nonsense may reset the connection.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn metrics_and_health_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(MemoryStore::new());
    store.create(Kind::Node, node("a", &[])).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let config = config("10.0.0.0/24", 26);
    let task = {
        let store: Arc<dyn Store> = store.clone();
        tokio::spawn(
            async move { run_as("operator", config, store, Some(listener), stopped).await },
        )
    };
    let operator = Operator { stop, task };
    blocks_of(&*store, "a").await;
    let text = wait(async || {
        let text = request(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        text.contains("gc_runs{").then_some(text)
    })
    .await;
    for part in [
        "HTTP/1.1 200 OK",
        r#"heddle_ipam_blocks{pool="small",family="ipv4",state="used"} 1"#,
        r#"heddle_ipam_blocks{pool="small",family="ipv4",state="free"} 3"#,
        r#"cilium_operator_identity_gc_entries{status="alive"} 0"#,
        r#"cilium_operator_identity_gc_runs{outcome="success"} 1"#,
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let health = request(address, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"),
        "{health}"
    );
    for (head, status) in [
        ("GET /secrets HTTP/1.1\r\n\r\n".to_owned(), "404"),
        ("POST /metrics HTTP/1.1\r\n\r\n".to_owned(), "405"),
        ("\r\n\r\n".to_owned(), "405"),
        (
            format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(8 << 10)),
            "431",
        ),
    ] {
        let answer = request(address, &head).await;
        assert!(
            answer.contains(status) || answer.is_empty() && status == "431",
            "{answer}"
        );
    }
    // A taken address is an error at start that names it.
    let second = run(
        OperatorConfig {
            metrics: Some(address),
            ..OperatorConfig::new("x", "y")
        },
        store,
        watch::channel(false).1,
    );
    let error = format!("{:#}", second.await.unwrap_err());
    assert!(error.contains(&address.to_string()), "{error}");
    operator.stop().await;
}

#[tokio::test]
async fn a_store_that_is_lost_and_found_changes_no_block() {
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("sock");
    let serve = || {
        let (stop, stopped) = watch::channel(false);
        let (dir, socket) = (dir.path().to_owned(), socket.clone());
        let task = tokio::spawn(async move { embedded::serve(&dir, &socket, stopped).await });
        (stop, task)
    };
    let store: Arc<dyn Store> = Arc::new(embedded::Client::new(&socket));
    // The operator may start before its store.
    let operator = Operator::start(config("10.0.0.0/16", 24), Arc::clone(&store));
    let (stop, task) = serve();
    wait(async || store.create(Kind::Node, node("a", &[])).await.ok()).await;
    assert_eq!(blocks_of(&*store, "a").await, ["10.0.0.0/24"]);
    stop.send_replace(true);
    task.await.unwrap().unwrap();
    let (stop, task) = serve();
    wait(async || store.create(Kind::Node, node("b", &[])).await.ok()).await;
    assert_eq!(blocks_of(&*store, "b").await, ["10.0.1.0/24"]);
    assert_eq!(blocks_of(&*store, "a").await, ["10.0.0.0/24"]);
    operator.stop().await;
    stop.send_replace(true);
    task.await.unwrap().unwrap();
}

#[test]
fn configuration_has_defaults_and_names_what_is_wrong() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("operator.yaml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        load::<OperatorConfig>(&path)
    };
    let plain = read("store: /run/s.sock\nstateDir: /run/o\n").unwrap();
    assert_eq!(plain, OperatorConfig::new("/run/s.sock", "/run/o"));
    let full = read(
        "cluster: c\nstore: s\nstateDir: d\nmetrics: 127.0.0.1:9963\nidentityGcSeconds: 60\npools:\n\
         - {name: a, cidrs: [10.1.0.0/16, 10.2.0.0/16, 'fd00::/48'], maskV4: 25, maskV6: 64}\n",
    )
    .unwrap();
    assert_eq!((full.pools[0].mask_v4, full.pools[0].cidrs.len()), (25, 3));
    for (text, part) in [
        ("stateDir: d\n", "store"),
        ("store: s\nstateDir: d\ncolour: red\n", "colour"),
        ("store: s\nstateDir: d\npools: []\n", "pools"),
        (
            "store: s\nstateDir: d\nidentityGcSeconds: 59\n",
            "identityGcSeconds",
        ),
        (
            "store: s\nstateDir: d\npools: [{name: a, cidrs: [10.0.0.0/33]}]\n",
            "10.0.0.0/33",
        ),
        (
            "store: s\nstateDir: d\npools: [{name: a, cidrs: [10.0.0.0/16], maskV4: 31}]\n",
            "maskV4",
        ),
        (
            "store: s\nstateDir: d\npools:\n- {name: a, cidrs: [10.0.0.0/16]}\n- {name: a, cidrs: [10.1.0.0/16]}\n",
            "two are named a",
        ),
        (
            "store: s\nstateDir: d\npools:\n- {name: a, cidrs: [10.0.0.0/16]}\n- {name: b, cidrs: [10.0.9.0/24]}\n",
            "overlaps",
        ),
        (
            "store: s\nstateDir: d\npools: [{name: a, cidrs: [0.0.0.0/0]}]\n",
            "pool a: cidrs: 0.0.0.0/0 is wider than /8",
        ),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("operator.yaml"),
            "{error}"
        );
    }
    let missing = load::<OperatorConfig>(&dir.path().join("none")).unwrap_err();
    assert!(missing.to_string().contains("none"), "{missing}");
}
