//! The kubelet's work for one pod, from its sandbox to its end.

use crate::LabError;
use crate::cgroup;
use crate::config::LabRecord;
use crate::daemon::MANAGER;
use crate::files;
use crate::namespace;
use crate::paths::{Lab, namespace_path};
use crate::pod::capabilities;
use crate::pod::cni::{self, Attachment};
use crate::pod::container::{self, Ending, Phase, PodContext, State};
use crate::pod::runtime::Runtime;
use crate::pod::sandbox::{self, SandboxRecord};
use crate::pod::spec::{self, PodSpec, RestartPolicy};
use crate::pod::status::{self, Report};
use heddle_kube::store::{Kind, Object, Store, StoreError};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Between attempts to give a pod its network.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Between attempts to write a status.
const STATUS_RETRY: Duration = Duration::from_millis(500);

/// A node, as its pods see it.
#[derive(Debug)]
pub struct NodePlace {
    /// Its name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// What attaches its pods.
    pub runtime: Runtime,
}

/// What a pod's worker needs.
#[derive(Clone)]
pub struct Context {
    /// The lab.
    pub lab: Lab,
    /// What it was made as.
    pub record: Arc<LabRecord>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The pod's node.
    pub node: Arc<NodePlace>,
}

/// When a pod is to end: at once, or with this much time for its containers.
pub type End = watch::Receiver<Option<Duration>>;

/// Runs a pod until it is asked to end; then leaves nothing of it, not even its object.
pub async fn run(context: Context, pod: Object, mut end: End) {
    let (parsed, problems) = spec::parse(&pod.value, "");
    let Some(spec) = parsed else {
        refuse(&context, &pod, &problems).await;
        // A closed channel is an end too.
        let _ = end.wait_for(Option::is_some).await;
        delete_object(&context, &pod).await;
        return;
    };
    let mut worker = Worker {
        folder: context.lab.pod(&spec.name.namespace, &spec.name.name),
        group: context.node.cgroup.join(format!("pod-{}", spec.uid)),
        network: if spec.host_network {
            context.node.namespace.clone()
        } else {
            context
                .lab
                .pod_namespace(&spec.name.namespace, &spec.name.name)
        },
        report: Report {
            states: vec![State::creating(); spec.containers.len()],
            init: vec![State::creating(); spec.init.len()],
            addresses: Vec::new(),
            network: "the pod's network is being made".into(),
            check: String::new(),
        },
        written: pod.value["status"].clone(),
        attachment: None,
        result: None,
        context,
        pod,
        spec,
    };
    if let Some(holder) = worker.make_sandbox(&mut end).await {
        let process = holder
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .unwrap_or(0);
        worker.run_containers(process, &mut end).await;
        worker.remove_network().await;
        end_holder(holder).await;
    } else {
        worker.remove_network().await;
    }
    worker.remove_rest().await;
    delete_object(&worker.context, &worker.pod).await;
}

async fn refuse(context: &Context, pod: &Object, problems: &[spec::Problem]) {
    let message: Vec<String> = problems
        .iter()
        .filter(|problem| !problem.warning)
        .map(|problem| format!("{}: {}", problem.field, problem.reason))
        .collect();
    let status = json!({"phase": "Failed", "reason": "InvalidSpec", "message": message.join("; ")});
    if let Err(error) = context
        .store
        .apply_status(Kind::Pod, &pod.name, MANAGER, status)
        .await
    {
        tracing::warn!(pod = %pod.name, %error, "status is not written");
    }
}

async fn end_holder(mut holder: tokio::process::Child) {
    if let Err(error) = holder.kill().await {
        tracing::warn!(%error, "a sandbox did not end");
    }
}

/// Removes the object of a pod that is gone, if it is still this pod's.
async fn delete_object(context: &Context, pod: &Object) {
    let uid = &pod.value["metadata"]["uid"];
    loop {
        match context.store.get(Kind::Pod, &pod.name).await {
            Ok(found) if found.value["metadata"]["uid"] == *uid => {
                let deleted = context
                    .store
                    .delete(Kind::Pod, &pod.name, Some(&found.version))
                    .await;
                match deleted {
                    Ok(()) | Err(StoreError::NotFound { .. }) => return,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(error) => {
                        tracing::warn!(pod = %pod.name, %error, "the object is not deleted yet");
                        tokio::time::sleep(STATUS_RETRY).await;
                    }
                }
            }
            Ok(_) | Err(StoreError::NotFound { .. }) => return,
            Err(error) => {
                tracing::warn!(pod = %pod.name, %error, "the object is not deleted yet");
                tokio::time::sleep(STATUS_RETRY).await;
            }
        }
    }
}

struct Worker {
    context: Context,
    pod: Object,
    spec: PodSpec,
    folder: PathBuf,
    group: PathBuf,
    network: String,
    report: Report,
    written: Value,
    attachment: Option<Attachment>,
    result: Option<Value>,
}

impl Worker {
    /// Makes the sandbox, trying again until it is there; `None` when the pod is to end first.
    async fn make_sandbox(&mut self, end: &mut End) -> Option<tokio::process::Child> {
        let mut pause = BACK_OFF.0;
        let mut last = String::new();
        loop {
            if end.borrow().is_some() {
                return None;
            }
            match self.try_sandbox().await {
                Ok(holder) => return Some(holder),
                Err(error) => {
                    let message = error.to_string();
                    if message != last {
                        tracing::warn!(pod = %self.spec.name, node = self.context.node.name, %error, "no sandbox");
                        last.clone_from(&message);
                    }
                    self.report.network = message;
                    self.write_status().await;
                }
            }
            self.remove_network().await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = end.wait_for(Option::is_some) => return None,
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    async fn try_sandbox(&mut self) -> Result<tokio::process::Child, LabError> {
        files::make_folder(&self.folder)?;
        cgroup::create(&self.group)?;
        if self.spec.host_network {
            self.report.addresses = self.context.node.addresses.clone();
        } else {
            let name = self.network.clone();
            blocking(move || namespace::create(&name)).await?;
            let id = container_id()?;
            let mut attachment = Attachment::of_pod(
                &id,
                &namespace_path(&self.network),
                (
                    &self.spec.name.namespace,
                    &self.spec.name.name,
                    &self.spec.uid,
                ),
            );
            attachment.capabilities = capabilities::of(&self.spec);
            self.attachment = Some(attachment.clone());
            let attached = self.context.node.runtime.attach(&attachment).await?;
            self.report.addresses = cni::addresses(&attached.result);
            self.result = Some(attached.result);
            self.report.check = attached.complaint.unwrap_or_default();
            if !self.report.check.is_empty() {
                tracing::warn!(pod = %self.spec.name, node = self.context.node.name, "{}", self.report.check);
            }
            if self.report.addresses.is_empty() {
                return Err(LabError::Cni {
                    verb: "ADD",
                    plugin: "the chain".into(),
                    cni_code: 0,
                    reason: "the result has no address".into(),
                });
            }
        }
        let hosts = self.folder.join("hosts");
        let resolver = self.folder.join("resolv.conf");
        files::write(
            &hosts,
            sandbox::hosts_file(&self.spec, &self.report.addresses).as_bytes(),
        )?;
        files::write(&resolver, sandbox::resolver_file(&self.spec).as_bytes())?;
        let hostname = if self.spec.host_network {
            &self.context.node.name
        } else {
            &self.spec.hostname
        };
        // In the pod's own group, which becomes the root that its containers see.
        sandbox::start(&self.network, &self.group, hostname, &hosts, &resolver).await
    }

    /// Runs the containers until the pod is to end, and ends them.
    async fn run_containers(&mut self, holder: i32, end: &mut End) {
        let context = Arc::new(PodContext {
            spec: self.spec.clone(),
            node: self.context.node.name.clone(),
            node_namespace: self.context.node.namespace.clone(),
            holder,
            cgroup: self.group.clone(),
            addresses: self.report.addresses.clone(),
            node_addresses: self.context.node.addresses.clone(),
            folder: self.folder.clone(),
            sequence: AtomicU64::new(0),
        });
        let record = SandboxRecord {
            namespace: self.spec.name.namespace.clone(),
            name: self.spec.name.name.clone(),
            uid: self.spec.uid.clone(),
            node: self.context.node.name.clone(),
            network: self.network.clone(),
            holder,
            cgroup: self.group.clone(),
            addresses: self.report.addresses.clone(),
            containers: context.records(),
        };
        if let Err(error) = files::write_json(&self.folder.join("sandbox.json"), &record) {
            tracing::warn!(pod = %self.spec.name, %error, "exec will not find this pod");
        }
        self.report.network.clear();
        let (stop_sender, stop) = watch::channel(None);
        let (states_sender, mut states) = mpsc::channel(64);
        let mut tasks = tokio::task::JoinSet::new();
        let (first, count) = (self.spec.init.len(), self.spec.containers.len());
        let mut next_init = 0;
        let spawn = |tasks: &mut tokio::task::JoinSet<(usize, State)>, index: usize, policy| {
            let (context, stop, states) = (context.clone(), stop.clone(), states_sender.clone());
            tasks.spawn(async move {
                (
                    index,
                    container::live(index, context, policy, stop, states).await,
                )
            });
        };
        // Containers that come first start again until they succeed, unless the pod never restarts.
        let init_policy = match self.spec.restart {
            RestartPolicy::Never => RestartPolicy::Never,
            _ => RestartPolicy::OnFailure,
        };
        if first > 0 {
            spawn(&mut tasks, 0, init_policy);
        } else {
            for index in 0..count {
                spawn(&mut tasks, index, self.spec.restart);
            }
        }
        let mut stopping = false;
        let mut dirty = true;
        loop {
            // Reports that wait already are one status.
            while let Ok((index, state)) = states.try_recv() {
                self.note(index, state);
                dirty = true;
            }
            if dirty && !stopping {
                dirty = !self.write_status().await;
            }
            let retry = async {
                if dirty && !stopping {
                    tokio::time::sleep(STATUS_RETRY).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                Some((index, state)) = states.recv() => {
                    self.note(index, state);
                    dirty = true;
                }
                Some(ended) = tasks.join_next() => {
                    dirty = true;
                    let Ok((index, state)) = ended else { continue };
                    let done = matches!(state.phase, Phase::Ended(Ending { code: 0, .. }));
                    self.note(index, state);
                    if index < first && done && !stopping {
                        next_init += 1;
                        if next_init < first {
                            spawn(&mut tasks, next_init, init_policy);
                        } else {
                            for index in first..first + count {
                                spawn(&mut tasks, index, self.spec.restart);
                            }
                        }
                    }
                }
                grace = end.wait_for(Option::is_some), if !stopping => {
                    let grace = grace.ok().and_then(|grace| *grace).unwrap_or_default();
                    stopping = true;
                    let _ = stop_sender.send(Some(Instant::now() + grace));
                }
                () = retry => {}
            }
            if stopping && tasks.is_empty() {
                return;
            }
        }
    }

    fn note(&mut self, index: usize, state: State) {
        let first = self.spec.init.len();
        let slot = if index < first {
            self.report.init.get_mut(index)
        } else {
            self.report.states.get_mut(index - first)
        };
        if let Some(slot) = slot {
            *slot = state;
        }
    }

    /// Writes the status if it changed; false when that must be tried again.
    async fn write_status(&mut self) -> bool {
        let status = status::status(
            &self.report,
            self.spec.restart,
            (&self.spec.containers, &self.spec.init),
            &self.context.node.addresses,
            &self.written,
        );
        if status == self.written {
            return true;
        }
        match self
            .context
            .store
            .apply_status(Kind::Pod, &self.pod.name, MANAGER, status.clone())
            .await
        {
            Ok(_) => {
                self.written = status;
                true
            }
            Err(StoreError::NotFound { .. }) => true,
            Err(error) => {
                tracing::warn!(pod = %self.spec.name, %error, "status is not written");
                !error.is_retryable()
            }
        }
    }

    /// DEL, and the end of the pod's own namespace.
    async fn remove_network(&mut self) {
        let mut pause = BACK_OFF.0;
        while let Some(attachment) = &self.attachment {
            match self
                .context
                .node
                .runtime
                .detach(attachment, self.result.as_ref())
                .await
            {
                Ok(()) => {
                    self.attachment = None;
                    self.result = None;
                }
                Err(error) => {
                    tracing::warn!(pod = %self.spec.name, node = self.context.node.name, %error, "DEL is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
        if !self.spec.host_network {
            let name = self.network.clone();
            let removed = blocking(move || {
                namespace::remove(&name);
                Ok(())
            });
            if let Err(error) = removed.await {
                tracing::warn!(pod = %self.spec.name, %error, "the namespace stays");
            }
        }
    }

    async fn remove_rest(&self) {
        let group = self.group.clone();
        let removed = blocking(move || cgroup::remove(&group, Duration::from_secs(10))).await;
        if let Err(error) = removed {
            tracing::warn!(pod = %self.spec.name, %error, "the cgroup stays until the lab ends");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(pod = %self.spec.name, %error, "the pod's folder stays until the lab ends");
        }
    }
}

/// Runs blocking work outside the runtime's own threads.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, LabError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(LabError::system(
                "finish work",
                std::io::Error::other(error),
            ))
        })
}

/// A new CNI container id: 32 random bytes in hexadecimal, as container runtimes have.
fn container_id() -> Result<String, LabError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| LabError::system("draw a container id", std::io::Error::other(error)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
