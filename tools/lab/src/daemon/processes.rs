//! The lab's processes: the store, the operator and an agent per node, each in its cgroup with its log.

use crate::LabError;
use crate::cgroup;
use crate::config::LabRecord;
use crate::enter::Place;
use crate::files;
use crate::paths::Lab;
use crate::pod::cni;
use crate::topology::ROUTER;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a process may take to end after SIGTERM.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Before a store or operator that ended is started again, and the longest such pause.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Why an order cannot be carried out: the daemon ends, or a part of it has failed.
const UNMANAGED: &str = "the lab's daemon does not manage it any more";

/// What to do with a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Start it if it does not run.
    Start,
    /// SIGTERM, and SIGKILL if it does not end.
    Stop,
    /// SIGKILL.
    Kill,
    /// Stop, then start.
    Restart,
}

/// How a process stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Its process id while it runs.
    pub pid: Option<i32>,
    /// True for an agent that says it is ready.
    pub ready: bool,
    /// How it last ended by itself; empty when it did not.
    pub ended: String,
}

struct Recipe {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    network: Option<String>,
    group: PathBuf,
    log: PathBuf,
    again: bool,
}

type Answer = oneshot::Sender<Result<(), String>>;

struct Managed {
    orders: mpsc::Sender<(Order, Answer)>,
    standing: Arc<Mutex<Standing>>,
}

/// All processes of a lab.
pub struct Processes {
    managed: BTreeMap<String, Managed>,
    nodes: Vec<String>,
}

impl Processes {
    /// Writes the processes' configurations and makes their cgroups; nothing is started yet.
    pub fn prepare(
        lab: &Lab,
        record: &LabRecord,
        cni_version: &str,
    ) -> Result<Arc<Self>, LabError> {
        let group = record.cgroup();
        let mut recipes = vec![Recipe {
            name: "store".into(),
            executable: record.executable.clone(),
            arguments: vec![
                "store".into(),
                "--dir".into(),
                lab.store_dir().display().to_string(),
                "--socket".into(),
                lab.store_socket().display().to_string(),
            ],
            network: None,
            group: group.join("store"),
            log: lab.log("store"),
            again: true,
        }];
        // JSON is YAML, which the daemons read.
        let wrong = |reason| LabError::Config {
            origin: lab.record().display().to_string(),
            field: "agent".into(),
            reason,
        };
        let operator = lab.state().join("operator.yaml");
        let settings = record.operator_config(lab).map_err(wrong)?;
        files::write_json(&operator, &settings)?;
        files::make_folder(&lab.state().join("operator"))?;
        recipes.push(Recipe {
            name: "operator".into(),
            executable: record.executable.clone(),
            arguments: vec![
                "operator".into(),
                "--config".into(),
                operator.display().to_string(),
            ],
            // It talks to the store only; its metrics need a loopback that no other lab uses.
            network: Some(lab.host_namespace(ROUTER)),
            group: group.join("operator"),
            log: lab.log("operator"),
            again: true,
        });
        for node in &record.nodes {
            let folder = lab.node(node);
            files::make_folder(&folder.join("cni"))?;
            let config = folder.join("agent.yaml");
            let settings = record.agent_config(lab, node).map_err(wrong)?;
            files::write_json(&config, &settings)?;
            let conflist =
                cni::configuration(&lab.agent_socket(node), cni_version, &record.cni.plugins);
            files::write_json(&folder.join(cni::CONFIGURATION), &conflist)?;
            cgroup::create(&record.node_cgroup(node).join("cni"))?;
            recipes.push(Recipe {
                name: node.clone(),
                executable: record.executable.clone(),
                arguments: vec![
                    "agent".into(),
                    "--config".into(),
                    config.display().to_string(),
                ],
                network: Some(lab.host_namespace(node)),
                group: record.node_cgroup(node).join("agent"),
                log: lab.log(node),
                // An agent that is gone stays gone until somebody starts it: what the node does
                // without it is what labs are for.
                again: false,
            });
        }
        let mut managed = BTreeMap::new();
        for recipe in recipes {
            cgroup::create(&recipe.group)?;
            let (orders, ordered) = mpsc::channel(4);
            let standing = Arc::new(Mutex::new(Standing::default()));
            let name = recipe.name.clone();
            tokio::spawn(manage(recipe, ordered, standing.clone()));
            managed.insert(name, Managed { orders, standing });
        }
        Ok(Arc::new(Self {
            managed,
            nodes: record.nodes.clone(),
        }))
    }

    /// Starts the store.
    pub async fn start_store(&self) -> Result<(), LabError> {
        self.order("store", Order::Start).await
    }

    /// Starts the operator and the agents.
    pub async fn start_others(&self) -> Result<(), LabError> {
        self.order("operator", Order::Start).await?;
        for node in &self.nodes {
            self.order(node, Order::Start).await?;
        }
        Ok(())
    }

    /// Gives an order and waits until it is carried out.
    pub async fn order(&self, name: &str, order: Order) -> Result<(), LabError> {
        let failed = |reason: String| LabError::ProcessEnded {
            process: name.to_owned(),
            reason,
        };
        let managed = self
            .managed
            .get(name)
            .ok_or_else(|| failed("there is no such process".into()))?;
        let (answer, answered) = oneshot::channel();
        managed
            .orders
            .send((order, answer))
            .await
            .map_err(|_| failed(UNMANAGED.into()))?;
        answered
            .await
            .unwrap_or_else(|_| Err(UNMANAGED.into()))
            .map_err(failed)
    }

    /// How each process stands, by name.
    pub fn standings(&self) -> BTreeMap<String, Standing> {
        self.managed
            .iter()
            .map(|(name, managed)| {
                let standing = managed
                    .standing
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                (name.clone(), standing.clone())
            })
            .collect()
    }

    /// Notes what an agent said of itself.
    pub fn set_ready(&self, name: &str, ready: bool) {
        if let Some(managed) = self.managed.get(name) {
            managed
                .standing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ready = ready;
        }
    }

    /// Names of all processes.
    pub fn names(&self) -> Vec<String> {
        self.managed.keys().cloned().collect()
    }
}

fn start(recipe: &Recipe) -> Result<tokio::process::Child, LabError> {
    let failed = |source| LabError::Start {
        command: format!(
            "{} {}",
            recipe.executable.display(),
            recipe.arguments.join(" ")
        ),
        place: recipe.name.clone(),
        source,
    };
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&recipe.log)
        .map_err(|error| LabError::file("open", &recipe.log, error))?;
    let mut command = Command::new(&recipe.executable);
    command
        .args(&recipe.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log);
    let mut place = Place::here().in_cgroup(&recipe.group)?.in_new_session();
    if let Some(network) = &recipe.network {
        place = place.in_network(network)?;
    }
    place.apply(&mut command);
    tokio::process::Command::from(command)
        .spawn()
        .map_err(failed)
}

async fn manage(
    recipe: Recipe,
    mut orders: mpsc::Receiver<(Order, Answer)>,
    standing: Arc<Mutex<Standing>>,
) {
    let mut child: Option<tokio::process::Child> = None;
    let mut wanted = false;
    let mut pause = BACK_OFF.0;
    let note = |child: &Option<tokio::process::Child>, ended: Option<String>| {
        let mut standing = standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.pid = child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()?).ok());
        standing.ready &= standing.pid.is_some();
        if let Some(ended) = ended {
            standing.ended = ended;
        }
    };
    loop {
        let ending = async {
            match &mut child {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        let idle = wanted && recipe.again;
        tokio::select! {
            ended = ending => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!(process = recipe.name, how, "ended");
                child = None;
                note(&child, Some(how));
                if idle {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                    match start(&recipe) {
                        Ok(started) => child = Some(started),
                        Err(error) => tracing::error!(process = recipe.name, %error, "not started"),
                    }
                    note(&child, None);
                }
            }
            order = orders.recv() => {
                let Some((order, answer)) = order else { return };
                wanted = matches!(order, Order::Start | Order::Restart);
                let mut outcome = Ok(());
                if order != Order::Start && let Some(running) = child.take() {
                    end(running, order == Order::Kill).await;
                }
                if wanted && child.is_none() {
                    match start(&recipe) {
                        Ok(started) => {
                            child = Some(started);
                            note(&child, Some(String::new()));
                        }
                        Err(error) => outcome = Err(error.to_string()),
                    }
                }
                note(&child, None);
                // The asker may have gone; the order is carried out all the same.
                let _ = answer.send(outcome);
            }
        }
    }
}

async fn end(mut child: tokio::process::Child, now: bool) {
    if !now && let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
        if tokio::time::timeout(STOP_DEADLINE, child.wait())
            .await
            .is_ok()
        {
            return;
        }
    }
    if let Err(error) = child.kill().await {
        tracing::warn!(%error, "a process did not end");
    }
}
