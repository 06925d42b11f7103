//! A node for tests: an agent over a datapath and a store in memory, with a state directory of its own.

use super::{Cut, FakeDatapath, FlakyStore};
use crate::agent::Agent;
use crate::config::{AgentConfig, AllowLocalhost, CidrMatchMode, Fabric, PolicyAudit};
use crate::controller::STORE_TIMEOUT;
use crate::directory::Directory;
use crate::endpoint::{self, step::Step};
use crate::metrics::Metrics;
use heddle_kube::store::memory::MemoryStore;
use heddle_kube::store::{Kind, Scope, Store};
use heddle_model::NamespacedName;
use heddle_policy::EnforcementMode;
use heddle_rpc::ApiError;
use heddle_rpc::cni::{AddParams, Attachment, DelParams};
use heddle_rpc::node::Difference;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch as signal;
use tokio::task::JoinSet;

/// Longest wait for something that should happen; never reached when all is well.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

struct Running {
    agent: Arc<Agent>,
    stop: signal::Sender<bool>,
    tasks: JoinSet<()>,
}

/// A node.
pub(crate) struct Node {
    pub(crate) store: MemoryStore,
    /// The way to the store; the agent's only one.
    pub(crate) wire: FlakyStore,
    pub(crate) datapath: Arc<FakeDatapath>,
    directory: tempfile::TempDir,
    cooldown: u64,
    /// What differs in its configuration.
    pub(crate) adjust: fn(&mut AgentConfig),
    running: Option<Running>,
}

impl Node {
    /// A ready node `n1` with 10.244.0.0/24 and fd10:244::/64.
    pub(crate) async fn start() -> Self {
        Self::start_with(&["10.244.0.0/24", "fd10:244::/64"], 30).await
    }

    /// A ready node with these pod ranges.
    pub(crate) async fn start_with(ranges: &[&str], cooldown: u64) -> Self {
        let mut node = Self::prepare(cooldown);
        node.put(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
            "spec": { "podCIDRs": ranges },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.168.0.1" },
                { "type": "InternalIP", "address": "fd00::1" },
            ] },
        }))
        .await;
        node.put(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "shop", "labels": { "kubernetes.io/metadata.name": "shop" } },
        }))
        .await;
        node.restart().await;
        node
    }

    /// A node whose agent is not started yet, with an empty store.
    pub(crate) fn prepare(cooldown: u64) -> Self {
        let store = MemoryStore::new();
        Self {
            wire: FlakyStore::new(store.clone()),
            store,
            datapath: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            cooldown,
            adjust: |_| {},
            running: None,
        }
    }

    /// Another store takes the place of this one.
    pub(crate) fn replace_store(&mut self) {
        self.store = MemoryStore::new();
        self.wire = FlakyStore::new(self.store.clone());
    }

    /// The same node with an agent whose configuration differs.
    pub(crate) async fn restart_with(&mut self, adjust: fn(&mut AgentConfig)) {
        self.adjust = adjust;
        self.restart().await;
    }

    pub(crate) fn config(&self) -> AgentConfig {
        let mut config = self.default_config();
        (self.adjust)(&mut config);
        config
    }

    fn default_config(&self) -> AgentConfig {
        AgentConfig {
            node_name: "n1".into(),
            cluster: "default".into(),
            store: "/nowhere".into(),
            state_dir: self.directory.path().into(),
            pin_dir: "/nowhere".into(),
            uplink: "eth0".into(),
            fabric: Fabric::Routed,
            families: vec![4, 6],
            pod_cidrs: vec![
                "10.244.0.0/16".parse().unwrap(),
                "fd10:244::/48".parse().unwrap(),
            ],
            host_routing: true,
            quick_attach: true,
            metrics: None,
            address_cooldown_seconds: self.cooldown,
            flow_report_seconds: 5,
            flow_capacity: 255,
            max_connections: 1024,
            max_policy_entries: 16_384,
            max_ipcache_entries: 131_072,
            max_policy_cidrs: 65_536,
            max_cidrs_per_namespace: 32_768,
            max_identities_per_namespace: 8_192,
            new_identities_per_minute: 60,
            drop_events_per_second: 1000,
            trace_events_per_second: 1000,
            established_per_endpoint: 256,
            excluded_labels: None,
            policy_enforcement: EnforcementMode::Default,
            unenforceable_policies: crate::config::UnenforceablePolicies::Ignore,
            policy_audit: PolicyAudit::None,
            // It takes more than this: see `ledger/audit.rs`.
            allow_pod_audit: true,
            allow_localhost: AllowLocalhost::Always,
            policy_cidr_match_mode: CidrMatchMode::Specification,
            protected_traffic: Vec::new(),
        }
    }

    pub(crate) fn state(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn agent(&self) -> Arc<Agent> {
        Arc::clone(&self.running.as_ref().unwrap().agent)
    }

    /// Starts the agent without waiting for anything.
    pub(crate) fn launch(&mut self) {
        assert!(self.running.is_none());
        let agent = Arc::new(
            Agent::new(
                self.config(),
                Arc::new(self.wire.clone()),
                self.datapath.clone(),
                Arc::new(Directory::new()),
                Arc::new(Metrics::new()),
            )
            .unwrap(),
        );
        let (stop, shutdown) = signal::channel(false);
        let mut tasks = JoinSet::new();
        crate::start(&mut tasks, &agent, &shutdown);
        self.running = Some(Running { agent, stop, tasks });
    }

    /// Ends the agent as a kill does; its locks and memory are gone.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop.send_replace(true);
            running.tasks.shutdown().await;
            // What has begun on the ledger ends before another agent begins.
            running.agent.on_ledger(|_| ()).await;
        }
    }

    /// Stops the agent if it runs, starts it, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.launch();
        let agent = self.agent();
        eventually("ready", || async { agent.health.is_ready() }).await;
        self.settled().await;
    }

    /// Waits until everything in the store is in force.
    pub(crate) async fn settled(&self) {
        let agent = self.agent();
        let wanted = self.store.revision();
        eventually("realised", || async {
            agent.health.realised_revision() >= wanted
        })
        .await;
        eventually("kept", || {
            agent.on_ledger(|ledger| ledger.policies.is_kept())
        })
        .await;
    }

    /// What the node says of its policies.
    pub(crate) async fn report(&self) -> heddle_kube::objects::NodePolicyReport {
        let name = NamespacedName::new("", &self.agent().config.node_name);
        let object = self.store.get(Kind::NodePolicyReport, &name).await;
        object.map_or_else(
            |_| heddle_kube::objects::NodePolicyReport::default(),
            |object| heddle_kube::objects::NodePolicyReport::of(&object.value),
        )
    }

    /// Creates or replaces an object, its status included.
    pub(crate) async fn put(&self, value: Value) {
        let kind = Kind::from_name(value["kind"].as_str().unwrap()).unwrap();
        let name = NamespacedName::new(
            value["metadata"]["namespace"].as_str().unwrap_or_default(),
            value["metadata"]["name"].as_str().unwrap(),
        );
        if self.store.get(kind, &name).await.is_ok() {
            self.store.update(kind, value.clone()).await.unwrap();
        } else {
            self.store.create(kind, value.clone()).await.unwrap();
        }
        if value["status"].is_object() {
            let status = value["status"].clone();
            let applied = self.store.apply_status(kind, &name, "test", status);
            applied.await.unwrap();
        }
    }

    pub(crate) async fn pod(&self, namespace: &str, name: &str, labels: &[(&str, &str)]) {
        let labels: serde_json::Map<String, Value> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        self.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": namespace, "name": name, "labels": labels },
            "spec": { "nodeName": "n1" },
        }))
        .await;
    }

    pub(crate) fn params(container: &str, namespace: &str, pod: &str, deadline: u64) -> AddParams {
        AddParams {
            container_id: container.into(),
            netns: format!("/run/netns/{container}").into(),
            interface: "eth0".into(),
            pod: Some(heddle_rpc::cni::PodArguments {
                namespace: namespace.into(),
                name: pod.into(),
                uid: None,
            }),
            deadline_seconds: deadline,
        }
    }

    pub(crate) async fn add(
        &self,
        container: &str,
        namespace: &str,
        pod: &str,
    ) -> Result<Attachment, ApiError> {
        self.add_within(container, namespace, pod, 30).await
    }

    pub(crate) async fn add_within(
        &self,
        container: &str,
        namespace: &str,
        pod: &str,
        deadline: u64,
    ) -> Result<Attachment, ApiError> {
        let params = Self::params(container, namespace, pod, deadline);
        endpoint::add(&self.agent(), params).await
    }

    /// Kills the agent in an ADD, right after `step`.
    pub(crate) async fn crash_in_add(
        &mut self,
        step: Step,
        container: &str,
        namespace: &str,
        pod: &str,
    ) {
        let agent = self.agent();
        agent.attachments.faults.plan(step, Cut::Crash);
        let crashed = Arc::clone(&agent.attachments.faults.crashed);
        let params = Self::params(container, namespace, pod, 30);
        let adding = tokio::spawn(async move { endpoint::add_alone(&agent, params).await });
        tokio::time::timeout(TEST_TIMEOUT, crashed.notified())
            .await
            .unwrap();
        self.stop().await;
        adding.abort();
        assert!(adding.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn delete(&self, container: &str) {
        let params = DelParams {
            container_id: container.into(),
            interface: "eth0".into(),
        };
        endpoint::delete(&self.agent(), params).await.unwrap();
    }

    pub(crate) async fn differences(&self) -> Vec<Difference> {
        crate::api::differences(&self.agent()).await.unwrap()
    }

    /// No lease, no link, no map row, no file, no object of any endpoint is left.
    pub(crate) async fn assert_nothing_left(&self) {
        let agent = self.agent();
        assert_eq!(agent.attachments.addresses.leased(), 0, "leases");
        let kernel = self.datapath.kernel();
        assert!(kernel.has_no_endpoint(), "{kernel:?}");
        let pods: Vec<_> = kernel
            .peers
            .values()
            .filter(|row| row.identity.scope() == heddle_model::IdentityScope::Cluster)
            .collect();
        assert!(pods.is_empty(), "{pods:?}");
        let files: Vec<_> = std::fs::read_dir(self.state().join("endpoints"))
            .unwrap()
            .collect();
        assert!(files.is_empty(), "{files:?}");
        let published = self
            .store
            .list(&Scope::all(Kind::CiliumEndpoint))
            .await
            .unwrap();
        assert!(published.is_empty(), "{published:?}");
        assert!(agent.attachments.removals(|removals| removals.is_empty()));
        agent
            .on_ledger(|ledger| assert!(ledger.endpoints.is_empty()))
            .await;
    }
}

/// Waits until something is true.
pub(crate) async fn eventually<F, Fut>(what: &str, holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    holds_within(TEST_TIMEOUT, what, holds).await;
}

/// Waits until something is true, for less long than the agent waits for an answer of the store.
pub(crate) async fn soon<F, Fut>(what: &str, holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    holds_within(STORE_TIMEOUT / 2, what, holds).await;
}

async fn holds_within<F, Fut>(time: Duration, what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + time;
    while !holds().await {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
