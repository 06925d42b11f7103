//! One container: started, watched, restarted, ended.

use crate::LabError;
use crate::cgroup;
use crate::enter::Place;
use crate::pod::output;
use crate::pod::probe;
use crate::pod::sandbox::ContainerRecord;
use crate::pod::spec::{Container, EnvValue, PodSpec, Program, RestartPolicy};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

/// The longest pause before a restart (Kubernetes: 300 s; a lab is watched by somebody).
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// A container that ran this long starts again without a pause (Kubernetes' rule).
const STABLE_AFTER: Duration = Duration::from_secs(600);

/// What containers of a pod share.
#[derive(Debug)]
pub struct PodContext {
    /// The pod.
    pub spec: PodSpec,
    /// Its node.
    pub node: String,
    /// The node's network namespace.
    pub node_namespace: String,
    /// The process that holds the pod's namespaces.
    pub holder: i32,
    /// The pod's cgroup.
    pub cgroup: PathBuf,
    /// The pod's addresses.
    pub addresses: Vec<String>,
    /// The node's addresses.
    pub node_addresses: Vec<String>,
    /// The pod's folder.
    pub folder: PathBuf,
    /// Numbers the cgroups of short-lived commands.
    pub sequence: AtomicU64,
}

/// Where a container stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not running, and why.
    Waiting {
        /// Kubernetes' reason.
        reason: String,
        /// In words.
        message: String,
    },
    /// Running since a time stamp.
    Running {
        /// When it started.
        since: String,
    },
    /// Ended and not to start again (or not yet).
    Ended(Ending),
}

/// How a container ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ending {
    /// Exit code; 128 + signal when killed.
    pub code: i32,
    /// Kubernetes' reason.
    pub reason: String,
    /// In words.
    pub message: String,
    /// When it started.
    pub started: String,
    /// When it ended.
    pub finished: String,
}

/// A container's state, as its pod's status shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Whether it is ready.
    pub ready: bool,
    /// Why not, when its probe says so.
    pub unready: String,
    /// How often it was started again.
    pub restarts: u32,
    /// How it ended before.
    pub last: Option<Ending>,
}

impl State {
    /// Before its first start.
    pub fn creating() -> Self {
        Self {
            phase: Phase::Waiting {
                reason: "ContainerCreating".into(),
                message: String::new(),
            },
            ready: false,
            unready: String::new(),
            restarts: 0,
            last: None,
        }
    }
}

impl PodContext {
    /// All containers: those that come first, then the others.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init.iter().chain(&self.spec.containers)
    }

    fn container(&self, index: usize) -> Result<&Container, LabError> {
        self.containers()
            .nth(index)
            .ok_or_else(|| LabError::Usage(format!("there is no container number {index}")))
    }

    /// A new cgroup below the pod's.
    pub fn new_group(&self, what: &str) -> Result<PathBuf, LabError> {
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        let group = self.cgroup.join(format!("{what}-{number}"));
        cgroup::create(&group)?;
        Ok(group)
    }

    /// A container's environment, with the values known now.
    pub fn environment(&self, container: &Container) -> Vec<(String, String)> {
        let path = std::env::var("PATH").unwrap_or_else(|_| crate::enter::DEFAULT_PATH.to_owned());
        let mut variables = vec![
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), "/root".to_owned()),
            ("HOSTNAME".to_owned(), self.spec.hostname.clone()),
        ];
        for (name, value) in &container.env {
            let value = match value {
                EnvValue::Literal(text) => expand(text, &variables),
                EnvValue::Field(field) => self.field(field),
            };
            variables.retain(|(known, _)| known != name);
            variables.push((name.clone(), value));
        }
        variables
    }

    fn field(&self, field: &str) -> String {
        let keyed = |prefix: &str| field.strip_prefix(prefix)?.strip_suffix("']");
        if let Some(key) = keyed("metadata.labels['") {
            return self.spec.labels.get(key).cloned().unwrap_or_default();
        }
        if let Some(key) = keyed("metadata.annotations['") {
            return self.spec.annotations.get(key).cloned().unwrap_or_default();
        }
        match field {
            "metadata.name" => self.spec.name.name.clone(),
            "metadata.namespace" => self.spec.name.namespace.clone(),
            "metadata.uid" => self.spec.uid.clone(),
            "spec.nodeName" => self.node.clone(),
            "spec.serviceAccountName" => self.spec.service_account.clone(),
            "status.hostIP" => self.node_addresses.first().cloned().unwrap_or_default(),
            "status.hostIPs" => self.node_addresses.join(","),
            "status.podIP" => self.addresses.first().cloned().unwrap_or_default(),
            "status.podIPs" => self.addresses.join(","),
            _ => String::new(),
        }
    }

    /// What `exec` must know about the containers.
    pub fn records(&self) -> Vec<ContainerRecord> {
        self.spec
            .containers
            .iter()
            .map(|container| ContainerRecord {
                name: container.name.clone(),
                env: self.environment(container),
                working_dir: container.working_dir.clone(),
            })
            .collect()
    }

    /// A command in a container's context and a cgroup.
    pub fn command(
        &self,
        index: usize,
        words: &[String],
        group: &Path,
    ) -> Result<Command, LabError> {
        let container = self.container(index)?;
        let environment = self.environment(container);
        let mut words = words.iter().map(|word| expand(word, &environment));
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.env_clear().envs(environment);
        self.place(container, group)?.apply(&mut command);
        Ok(command)
    }

    fn place(&self, container: &Container, group: &Path) -> Result<Place, LabError> {
        let folder = container
            .working_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from("/"));
        Place::here()
            .in_cgroup(group)?
            .with_process(self.holder)?
            .in_new_session()
            .at_folder(&folder)
    }

    fn program(&self, index: usize, group: &Path) -> Result<Command, LabError> {
        let container = self.container(index)?;
        match &container.program {
            Program::Command(words) => self.command(index, words, group),
            Program::Idle => self.built_in(container, &["idle".to_owned()], group),
            Program::Echo => {
                let mut words = vec![
                    "echo".to_owned(),
                    "--pod".to_owned(),
                    self.spec.name.to_string(),
                    "--node".to_owned(),
                    self.node.clone(),
                ];
                for port in &container.ports {
                    match port.protocol.as_str() {
                        "TCP" => words.push("--tcp".into()),
                        "UDP" => words.push("--udp".into()),
                        // No SCTP sockets: the kernel's module is rarely there.
                        _ => continue,
                    }
                    words.push(port.number.to_string());
                }
                self.built_in(container, &words, group)
            }
        }
    }

    fn built_in(
        &self,
        container: &Container,
        words: &[String],
        group: &Path,
    ) -> Result<Command, LabError> {
        let mut command = crate::enter::own_executable();
        command.arg("lab").args(words);
        command.env_clear().envs(self.environment(container));
        self.place(container, group)?.apply(&mut command);
        Ok(command)
    }
}

/// Replaces `$(NAME)` by a variable that is known, and `$$` by `$` (Kubernetes' expansion).
pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// When a container is to end: SIGTERM now, SIGKILL at this time.
pub type Stop = watch::Receiver<Option<Instant>>;

/// Runs a container until it ended for good or was stopped; says each new state.
pub async fn live(
    index: usize,
    context: std::sync::Arc<PodContext>,
    policy: RestartPolicy,
    mut stop: Stop,
    states: mpsc::Sender<(usize, State)>,
) -> State {
    let mut state = State::creating();
    let mut back_off = Duration::ZERO;
    loop {
        if stop.borrow().is_some() {
            return state;
        }
        let started = Instant::now();
        let ending = match run_once(index, &context, &mut stop, &states, &mut state).await {
            Ok(ending) => ending,
            Err(error) => Ending {
                // As containerd reports a program that cannot be started.
                code: 128,
                reason: "StartError".into(),
                message: error.to_string(),
                started: crate::time::stamp(),
                finished: crate::time::stamp(),
            },
        };
        let again = match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => ending.code != 0,
            RestartPolicy::Never => false,
        };
        state.ready = false;
        state.phase = Phase::Ended(ending.clone());
        if stop.borrow().is_some() || !again {
            let _ = states.send((index, state.clone())).await;
            return state;
        }
        if started.elapsed() >= STABLE_AFTER {
            back_off = Duration::ZERO;
        }
        if !back_off.is_zero() {
            state.phase = Phase::Waiting {
                reason: "CrashLoopBackOff".into(),
                message: format!(
                    "starts again in {} s; it ended with code {}{}{}",
                    back_off.as_secs(),
                    ending.code,
                    if ending.message.is_empty() { "" } else { ": " },
                    ending.message
                ),
            };
        }
        state.last = Some(ending);
        let _ = states.send((index, state.clone())).await;
        tokio::select! {
            () = tokio::time::sleep(back_off) => {}
            _ = stopped(&mut stop) => return state,
        }
        back_off = (back_off * 2).clamp(Duration::from_secs(1), LONGEST_BACK_OFF);
        state.restarts += 1;
    }
}

async fn run_once(
    index: usize,
    context: &PodContext,
    stop: &mut Stop,
    states: &mpsc::Sender<(usize, State)>,
    state: &mut State,
) -> Result<Ending, LabError> {
    let container = context.container(index)?;
    let group = context.cgroup.join(format!("container-{}", container.name));
    cgroup::create(&group)?;
    let mut command = context.program(index, &group)?;
    let failed = |source: std::io::Error| LabError::Start {
        command: match &container.program {
            // Its arguments may hold secrets, and this goes into the pod's status.
            Program::Command(words) => words.first().cloned().unwrap_or_default(),
            _ => container.image.clone(),
        },
        place: format!("pod {}", context.spec.name),
        source,
    };
    // Both streams go through one pipe, so that the log has them in the order they were written.
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    command
        .stdout(writer.try_clone().map_err(failed)?)
        .stderr(writer);
    // The echo server says through its stdin's other end when it listens.
    let mut listening = None;
    if container.program == Program::Echo {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        listening = Some(tokio::net::UnixStream::from_std(ours).map_err(failed)?);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
    } else {
        command.stdin(Stdio::null());
    }
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    // The writing ends that this process holds are in the command.
    drop(command);
    let log = context.folder.join(format!("{}.log", container.name));
    let copying = tokio::spawn(output::copy(reader.into(), log));
    let started = crate::time::stamp();
    let process = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .map(Pid::from_raw);

    state.phase = Phase::Running {
        since: started.clone(),
    };
    state.ready = container.readiness.is_none() && listening.is_none();
    state.unready = String::new();
    let _ = states.send((index, state.clone())).await;

    let (verdicts, mut verdict) = mpsc::channel::<Result<(bool, String), String>>(8);
    let says = verdicts.clone();
    let readiness = async {
        if let Some(probe) = &container.readiness {
            probe::watch(probe, index, context, |ready, why| {
                let _ = says.try_send(Ok((ready, why)));
            })
            .await;
        } else if let Some(mut stream) = listening.take() {
            let mut byte = [0; 1];
            if stream.read(&mut byte).await.is_ok_and(|read| read == 1) {
                let _ = says.try_send(Ok((true, String::new())));
            }
            std::future::pending::<()>().await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let liveness = async {
        if let Some(probe) = &container.liveness {
            probe::watch(probe, index, context, |alive, why| {
                if !alive {
                    let _ = verdicts.try_send(Err(why));
                }
            })
            .await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(readiness, liveness);
    let mut killed_for = None;
    let mut kill_at: Option<Instant> = None;
    let status = loop {
        let kill = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            status = child.wait() => break status.map_err(failed)?,
            () = &mut readiness => {}
            () = &mut liveness => {}
            Some(said) = verdict.recv() => match said {
                Ok((ready, why)) => {
                    state.ready = ready;
                    state.unready = why;
                    let _ = states.send((index, state.clone())).await;
                }
                Err(why) if kill_at.is_none() => {
                    killed_for = Some(format!("its liveness probe failed: {why}"));
                    kill_at = Some(Instant::now() + context.spec.grace);
                    terminate(process);
                }
                Err(_) => {}
            },
            at = stopped(stop), if kill_at.is_none() => {
                kill_at = Some(at);
                terminate(process);
            }
            () = kill => {
                cgroup::kill(&group);
                // The kill takes everything; asking again does no harm while it is under way.
                kill_at = Some(Instant::now() + Duration::from_secs(1));
            }
        }
    };
    // Whatever the container left running ends with it, as the end of a PID namespace would do.
    cgroup::kill(&group);
    let _ = tokio::time::timeout(Duration::from_secs(5), copying).await;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Ending {
        code,
        reason: if code == 0 { "Completed" } else { "Error" }.into(),
        message: killed_for.unwrap_or_default(),
        started,
        finished: crate::time::stamp(),
    })
}

/// When to kill, once the container is to end; at once when nobody can say any more.
async fn stopped(stop: &mut Stop) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(at) => at.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}

fn terminate(process: Option<Pid>) {
    if let Some(process) = process {
        // It may have ended by itself; then there is nothing to ask it.
        let _ = nix::sys::signal::kill(process, Signal::SIGTERM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let known = [("A".to_owned(), "1".to_owned())];
        for (text, expanded) in [
            ("$(A)-$(B)", "1-$(B)"),
            ("$$(A)", "$(A)"),
            ("cost $5 $", "cost $5 $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand(text, &known), expanded);
        }
    }
}
