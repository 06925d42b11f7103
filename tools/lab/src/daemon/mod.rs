//! The lab's own control plane: runs the store, the operator and the agents, and plays scheduler,
//! Deployment controller, kubelet of every node, and the cloud's route table.

pub mod deployments;
pub mod processes;
pub mod routes;
pub mod scheduler;
mod server;

use crate::LabError;
use crate::calls;
use crate::config::{self, LabRecord};
use crate::events::{self, Recorder};
use crate::mirror::Mirror;
use crate::paths::Lab;
use crate::pod::cni::{self, Chain};
use crate::pod::output;
use crate::pod::runtime::Runtime;
use crate::pod::spec;
use crate::pod::status::condition;
use crate::pod::worker::{self, Context, NodePlace, blocking};
use crate::topology::{self, Attachment, ROUTER};
use heddle_kube::store::{Event, Kind, Object, Scope, Store, StoreError, embedded::Client};
use heddle_model::NamespacedName;
use processes::Processes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Kinds that the daemon acts on, and those whose changes it only tells as events.
const KINDS: [Kind; 8] = [
    Kind::Namespace,
    Kind::Node,
    Kind::Pod,
    Kind::Deployment,
    Kind::NetworkPolicy,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::ClusterNetworkPolicy,
];
/// Between looks at an agent that is not ready, and at one that is.
const CHECK_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(25), Duration::from_millis(500));
/// Between two STATUS of plugins that cannot serve, and of plugins that can.
const STATUS_TIMEOUT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// The kubelet's reason for a node whose network cannot serve new pods.
const NETWORK_NOT_READY: &str = "NetworkPluginNotReady";
/// Between retries of what the store refused.
const TICK: Duration = Duration::from_secs(1);
/// How long the store may take to answer after its start.
const STORE_DEADLINE: Duration = Duration::from_secs(20);

/// Runs a lab's daemon; the body of the hidden command `heddle lab daemon`.
pub async fn run(lab: Lab) -> Result<(), LabError> {
    let record = Arc::new(config::record(&lab)?);
    let version = match &record.cni.cni_version {
        Some(version) => version.clone(),
        None => cni::common_version(&plugin_folders(&record), &record.cni.plugins)
            .await
            .to_owned(),
    };
    let processes = Processes::prepare(&lab, &record, &version)?;
    processes.start_store().await?;
    let store: Arc<dyn Store> = Arc::new(Client::new(lab.store_socket()));
    let _serving = server::open(&lab, processes.clone())?;
    wait_for_store(&*store).await?;
    create_cluster(&record, &*store).await?;
    processes.start_others().await?;
    let mut daemon = Daemon::new(lab, record, &version, store, processes);
    daemon.serve().await
}

async fn wait_for_store(store: &dyn Store) -> Result<(), LabError> {
    let end = tokio::time::Instant::now() + STORE_DEADLINE;
    loop {
        match store.list(&Scope::all(Kind::Namespace)).await {
            Ok(_) => return Ok(()),
            Err(error) if tokio::time::Instant::now() >= end => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The objects that a cluster has before anybody applies anything.
async fn create_cluster(record: &LabRecord, store: &dyn Store) -> Result<(), LabError> {
    let ignore_existing = |result: Result<Object, StoreError>| match result {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error),
    };
    for name in ["default", "kube-system"] {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        });
        ignore_existing(store.create(Kind::Namespace, namespace).await)?;
    }
    for attachment in topology::attachments(record) {
        if !record.nodes.contains(&attachment.host) {
            continue;
        }
        let node = topology::node_object(record, &attachment);
        ignore_existing(store.create(Kind::Node, node).await)?;
        let name = NamespacedName::new("", &attachment.host);
        let status = json!({ "addresses": topology::node_addresses(&attachment) });
        store
            .apply_status(Kind::Node, &name, MANAGER, status)
            .await?;
        let starting = condition(
            &Value::Null,
            "Ready",
            false,
            NETWORK_NOT_READY,
            "the agent starts",
        );
        let status = json!({ "conditions": [starting] });
        store
            .apply_status(Kind::Node, &name, READINESS_MANAGER, status)
            .await?;
    }
    Ok(())
}

/// What the lab applies status as: of pods, deployments, and where nodes are.
pub(crate) const MANAGER: &str = "heddle-lab";
/// Whether nodes are ready is said apart from that.
const READINESS_MANAGER: &str = "heddle-lab-readiness";

struct Worker {
    uid: String,
    end: watch::Sender<Option<Duration>>,
}

struct Daemon {
    lab: Lab,
    record: Arc<LabRecord>,
    store: Arc<dyn Store>,
    processes: Arc<Processes>,
    mirror: Mirror,
    workers: BTreeMap<NamespacedName, Worker>,
    ended: (mpsc::Sender<NamespacedName>, mpsc::Receiver<NamespacedName>),
    nodes: BTreeMap<String, Arc<NodePlace>>,
    ready: BTreeMap<String, bool>,
    routes: routes::Routes,
    events: Recorder,
}

impl Daemon {
    fn new(
        lab: Lab,
        record: Arc<LabRecord>,
        cni_version: &str,
        store: Arc<dyn Store>,
        processes: Arc<Processes>,
    ) -> Self {
        let nodes = topology::attachments(&record)
            .into_iter()
            .filter(|attachment| record.nodes.contains(&attachment.host))
            .map(|attachment| {
                let place = node_place(&lab, &record, cni_version, &attachment);
                (attachment.host, Arc::new(place))
            })
            .collect();
        Self {
            routes: routes::Routes::new(lab.host_namespace(ROUTER), &record),
            events: Recorder::open(&lab),
            lab,
            record,
            store,
            processes,
            mirror: Mirror::default(),
            workers: BTreeMap::new(),
            ended: mpsc::channel(256),
            nodes,
            ready: BTreeMap::new(),
        }
    }

    async fn serve(&mut self) -> Result<(), LabError> {
        let mut events = self.store.watch(&Scope::each(&KINDS));
        let (readiness_sender, mut readiness) = mpsc::channel(64);
        for node in self.nodes.values() {
            tokio::spawn(look_at_node(
                self.lab.clone(),
                Arc::clone(node),
                self.processes.clone(),
                readiness_sender.clone(),
            ));
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = false;
        loop {
            let mut work = true;
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else {
                        return Err(LabError::Daemon {
                            lab: self.lab.name().to_owned(),
                            reason: "the store's stream of changes ended".into(),
                        });
                    };
                    self.note(event);
                    // What is there already is one piece of work.
                    while let Ok(event) = events.try_recv() {
                        self.note(event);
                    }
                }
                Some(name) = self.ended.1.recv() => {
                    self.workers.remove(&name);
                }
                Some((node, ready, why)) = readiness.recv() => {
                    self.note_readiness(&node, ready, &why).await;
                }
                _ = tick.tick() => {
                    self.bound_logs();
                    work = again;
                }
            }
            if work && self.mirror.synced {
                again = self.reconcile().await.is_err_and(|error| {
                    tracing::warn!(%error, "tried again in a moment");
                    true
                });
            }
        }
    }

    /// Takes a change in, and tells what it means as an event.
    fn note(&mut self, event: Event) {
        if let Event::Applied(new) = &event
            && self.mirror.synced
        {
            self.record(new);
        }
        self.mirror.note(event);
        // Nothing here asks when something went.
        self.mirror.gone.clear();
    }

    /// Takes in what was just written here, and what it means as an event.
    fn wrote(&mut self, object: Object) {
        self.record(&object);
        self.mirror.wrote(object);
    }

    /// Records what another state of an object means as an event.
    fn record(&mut self, new: &Object) {
        let old = self.mirror.objects.get(&(new.kind, new.name.clone()));
        // Another of the same name is another object.
        let old = old.filter(|old| old.value["metadata"]["uid"] == new.value["metadata"]["uid"]);
        if old.is_none_or(|old| old.version != new.version) {
            for happening in events::between(old, new) {
                if let Err(error) = self.events.record(new, &happening) {
                    tracing::warn!(object = %new.name, %error, "an event is not kept");
                }
            }
        }
    }

    async fn note_readiness(&mut self, node: &str, ready: bool, why: &str) {
        tracing::info!(node, ready, why, "network");
        self.ready.insert(node.to_owned(), ready);
        let name = NamespacedName::new("", node);
        let old = self
            .mirror
            .objects
            .get(&(Kind::Node, name.clone()))
            .map_or(Value::Null, |object| object.value["status"].clone());
        let reason = if ready {
            "AgentReady"
        } else {
            NETWORK_NOT_READY
        };
        let status = json!({"conditions": [condition(&old, "Ready", ready, reason, why)]});
        let applied = self
            .store
            .apply_status(Kind::Node, &name, READINESS_MANAGER, status);
        if let Err(error) = applied.await {
            tracing::warn!(node, %error, "the node's condition is not written");
        }
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.mirror.of(kind)
    }

    async fn reconcile(&mut self) -> Result<(), LabError> {
        self.reconcile_deployments().await?;
        self.schedule().await?;
        self.reconcile_workers().await?;
        self.reconcile_routes().await
    }

    async fn reconcile_deployments(&mut self) -> Result<(), LabError> {
        let deployments: Vec<Object> = self.of(Kind::Deployment).cloned().collect();
        let uids: BTreeSet<&str> = deployments
            .iter()
            .filter_map(|deployment| deployment.value["metadata"]["uid"].as_str())
            .collect();
        let pods: Vec<Object> = self.of(Kind::Pod).cloned().collect();
        for orphan in pods.iter().filter(|pod| {
            deployments::owner(pod).is_some_and(|uid| !uids.contains(uid)) && !is_ending(pod)
        }) {
            self.begin_end(orphan).await?;
        }
        for deployment in &deployments {
            let plan = deployments::plan(deployment, &pods);
            for pod in plan.create {
                let created = self.store.create(Kind::Pod, pod).await?;
                self.wrote(created);
            }
            for name in plan.delete {
                if let Some(pod) = self.mirror.objects.get(&(Kind::Pod, name)).cloned() {
                    self.begin_end(&pod).await?;
                }
            }
            if plan.status != deployment.value["status"] {
                let patched = self
                    .store
                    .apply_status(Kind::Deployment, &deployment.name, MANAGER, plan.status)
                    .await?;
                self.wrote(patched);
            }
        }
        Ok(())
    }

    async fn begin_end(&mut self, pod: &Object) -> Result<(), LabError> {
        if let Some(ending) = crate::delete::begin_pod(&*self.store, &pod.name).await? {
            self.wrote(ending);
        }
        Ok(())
    }

    async fn schedule(&mut self) -> Result<(), LabError> {
        let waiting: Vec<Object> = self
            .of(Kind::Pod)
            .filter(|pod| {
                pod.value["spec"]["nodeName"]
                    .as_str()
                    .is_none_or(str::is_empty)
            })
            .filter(|pod| !is_ending(pod))
            .cloned()
            .collect();
        for pod in waiting {
            let candidates =
                scheduler::candidates(self.of(Kind::Node), self.of(Kind::Pod), |node| {
                    self.ready.get(node).copied().unwrap_or(false)
                });
            match scheduler::choose(&pod, &candidates) {
                Ok(node) => {
                    let mut value = pod.value.clone();
                    value["spec"]["nodeName"] = json!(node);
                    match self.store.update(Kind::Pod, value).await {
                        Ok(updated) => self.wrote(updated),
                        // Its newer state is on its way to this watch.
                        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(why) => {
                    self.unschedulable(&pod, "PodScheduled", "Unschedulable", &why)
                        .await?;
                }
            }
        }
        Ok(())
    }

    async fn unschedulable(
        &mut self,
        pod: &Object,
        kind: &str,
        reason: &str,
        why: &str,
    ) -> Result<(), LabError> {
        let old = &pod.value["status"];
        let status = json!({
            "phase": "Pending",
            "conditions": [condition(old, kind, false, reason, why), condition(old, "Ready", false, reason, why)],
        });
        if old["conditions"] == status["conditions"] {
            return Ok(());
        }
        let applied = self
            .store
            .apply_status(Kind::Pod, &pod.name, MANAGER, status);
        match applied.await {
            Ok(patched) => {
                self.wrote(patched);
                Ok(())
            }
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn reconcile_workers(&mut self) -> Result<(), LabError> {
        let pods: Vec<Object> = self.of(Kind::Pod).cloned().collect();
        for (name, worker) in &self.workers {
            let pod = self.mirror.objects.get(&(Kind::Pod, name.clone()));
            let pod = pod.filter(|pod| pod.value["metadata"]["uid"] == *worker.uid.as_str());
            let ends = pod.is_none_or(is_ending);
            if ends && worker.end.borrow().is_none() {
                // A pod whose object is gone already has nothing to wait for.
                let grace = pod.map_or(Duration::from_secs(1), grace);
                worker.end.send_replace(Some(grace));
            }
        }
        for pod in pods {
            let Some(node) = pod.value["spec"]["nodeName"]
                .as_str()
                .filter(|n| !n.is_empty())
            else {
                if is_ending(&pod) {
                    self.forget(&pod).await?;
                }
                continue;
            };
            // One incarnation after the other: they share a name, and with it a namespace's.
            if self.workers.contains_key(&pod.name) {
                continue;
            }
            if is_ending(&pod) {
                self.forget(&pod).await?;
                continue;
            }
            let Some(place) = self.nodes.get(node).cloned() else {
                let why = format!("there is no node {node}");
                self.unschedulable(&pod, "PodScheduled", "NoSuchNode", &why)
                    .await?;
                continue;
            };
            self.start_worker(pod, place);
        }
        Ok(())
    }

    async fn forget(&mut self, pod: &Object) -> Result<(), LabError> {
        match self
            .store
            .delete(Kind::Pod, &pod.name, Some(&pod.version))
            .await
        {
            Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn start_worker(&mut self, pod: Object, node: Arc<NodePlace>) {
        let (end, ends) = watch::channel(None);
        let uid = pod.value["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.workers.insert(pod.name.clone(), Worker { uid, end });
        let context = Context {
            lab: self.lab.clone(),
            record: self.record.clone(),
            store: self.store.clone(),
            node,
        };
        let ended = self.ended.0.clone();
        tokio::spawn(async move {
            let name = pod.name.clone();
            // In a task of its own, so that a worker that panics is still taken from the table.
            if let Err(error) = tokio::spawn(worker::run(context, pod, ends)).await {
                tracing::error!(pod = %name, %error, "a pod's worker ended early");
            }
            let _ = ended.send(name).await;
        });
    }

    async fn reconcile_routes(&mut self) -> Result<(), LabError> {
        let wanted = routes::wanted(self.of(Kind::Node));
        let mut routes = std::mem::take(&mut self.routes);
        let (routes, outcome) = blocking(move || {
            let outcome = routes.realise(wanted);
            Ok((routes, outcome))
        })
        .await?;
        self.routes = routes;
        outcome
    }

    fn bound_logs(&self) {
        for process in self.processes.names() {
            output::bound(&self.lab.log(&process));
        }
        output::bound(&self.lab.log("daemon"));
    }
}

/// True when a pod is being deleted.
pub fn is_ending(pod: &Object) -> bool {
    pod.value["metadata"]["deletionTimestamp"].is_string()
}

fn grace(pod: &Object) -> Duration {
    let asked = pod.value["metadata"]["deletionGracePeriodSeconds"].as_u64();
    match asked {
        Some(seconds) => Duration::from_secs(seconds),
        None => spec::parse(&pod.value, "")
            .0
            .map_or(Duration::ZERO, |spec| spec.grace),
    }
}

/// Where a node's plugins are looked for.
fn plugin_folders(record: &LabRecord) -> Vec<PathBuf> {
    let mut folders: Vec<_> = record
        .executable
        .parent()
        .map(Path::to_path_buf)
        .into_iter()
        .collect();
    folders.extend(record.cni.bin_dirs.iter().cloned());
    // Where Kubernetes and Debian's containernetworking-plugins keep plugins.
    folders.extend(["/opt/cni/bin", "/usr/lib/cni"].map(Into::into));
    folders
}

fn node_place(
    lab: &Lab,
    record: &LabRecord,
    cni_version: &str,
    attachment: &Attachment,
) -> NodePlace {
    let name = &attachment.host;
    NodePlace {
        namespace: lab.host_namespace(name),
        addresses: attachment
            .host_addresses
            .iter()
            .map(|a| a.addr().to_string())
            .collect(),
        cgroup: record.node_cgroup(name),
        runtime: Runtime::new(Chain {
            configuration: cni::configuration(
                &lab.agent_socket(name),
                cni_version,
                &record.cni.plugins,
            ),
            folders: plugin_folders(record),
            node_namespace: lab.host_namespace(name),
            cgroup: Some(record.node_cgroup(name).join("cni")),
        }),
        name: name.clone(),
    }
}

/// Says each change of a node's readiness: its agent's, and what its plugins answer to STATUS. Plugins
/// that have come back are told what is attached, so that they remove the rest.
async fn look_at_node(
    lab: Lab,
    node: Arc<NodePlace>,
    processes: Arc<Processes>,
    says: mpsc::Sender<(String, bool, String)>,
) {
    let mut last: Option<(bool, String)> = None;
    let mut asked: Option<Instant> = None;
    loop {
        let agent = match calls::status(&lab, &node.name).await {
            Ok(status) if status.ready => Ok(()),
            Ok(_) => Err("the agent is not ready yet".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let was_ready = last.as_ref().is_some_and(|(ready, _)| *ready);
        let patience = if was_ready {
            STATUS_TIMEOUT.1
        } else {
            STATUS_TIMEOUT.0
        };
        // The agent's word is cheap and quick; the plugins' counts.
        if agent.is_ok() != was_ready || asked.is_none_or(|asked| asked.elapsed() >= patience) {
            asked = Some(Instant::now());
            let answer = node.runtime.status().await;
            let (ready, why) = match (&answer, &agent) {
                (Err(error), _) => (false, error.to_string()),
                (Ok(()), Err(why)) => (false, why.clone()),
                (Ok(()), Ok(())) => (true, String::new()),
            };
            processes.set_ready(&node.name, agent.is_ok());
            if last.as_ref() != Some(&(ready, why.clone())) {
                last = Some((ready, why.clone()));
                if says.send((node.name.clone(), ready, why)).await.is_err() {
                    return;
                }
                if ready && let Err(error) = node.runtime.collect_garbage().await {
                    tracing::warn!(node = node.name, %error, "what a former runtime left is not removed yet");
                }
            }
        }
        tokio::time::sleep(if agent.is_ok() {
            CHECK_INTERVAL.1
        } else {
            CHECK_INTERVAL.0
        })
        .await;
    }
}
