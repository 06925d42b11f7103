//! A lab of the benchmarks' own, driven through the heddle command as anybody would.

use crate::RunArguments;
use crate::process::{feed, named};
use anyhow::{Context, Result, bail};
use heddle_datapath::Pinned;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The lab that exists now and the command to remove it, for the thread that waits for signals.
static ALIVE: Mutex<Option<(PathBuf, String)>> = Mutex::new(None);

/// A two-node lab; removed with this value.
#[derive(Debug)]
pub(crate) struct Lab {
    heddle: PathBuf,
    name: String,
}

impl Lab {
    /// Brings it up.
    pub(crate) fn up(arguments: &RunArguments) -> Result<Self> {
        // Rounds follow each other faster than freed addresses come back at the default.
        Self::with(arguments, "agent: {addressCooldownSeconds: 1}\n")
    }

    /// Brings it up with this configuration.
    pub(crate) fn with(arguments: &RunArguments, configuration: &str) -> Result<Self> {
        let heddle = beside_us(arguments.heddle.as_deref(), "heddle")?;
        let name = format!("bench-{}", std::process::id());
        eprintln!("heddle lab up --lab {name}");
        let lab = Self { heddle, name };
        if let Ok(mut alive) = ALIVE.lock() {
            *alive = Some((lab.heddle.clone(), lab.name.clone()));
        }
        let config = std::env::temp_dir().join(format!("{}.yaml", lab.name));
        std::fs::write(&config, configuration)
            .with_context(|| format!("write {}", config.display()))?;
        let path = config.to_string_lossy();
        let up = lab.heddle(&["lab", "up", "--nodes", "2", "--config", &path], "");
        std::fs::remove_file(&config)?;
        up?;
        Ok(lab)
    }

    /// Runs a subcommand in this lab.
    pub(crate) fn heddle(&self, arguments: &[&str], input: &str) -> Result<String> {
        let program = self.heddle.to_string_lossy();
        let mut arguments = arguments.to_vec();
        arguments.extend(["--lab", &self.name]);
        feed(&program, &arguments, input)
    }

    /// Applies objects, one list of them, and waits until they are in force.
    pub(crate) fn apply(&self, list: &Value) -> Result<()> {
        self.apply_with(list, &["--timeout", "120s"])
    }

    /// Applies objects and does not wait for them.
    pub(crate) fn declare(&self, list: &Value) -> Result<()> {
        self.apply_with(list, &["--no-wait"])
    }

    fn apply_with(&self, list: &Value, options: &[&str]) -> Result<()> {
        // One document per object: that is what manifests are made of.
        let documents: Vec<String> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Value::to_string)
            .collect();
        let text = documents.join("\n---\n");
        let command = [&["lab", "apply", "-f", "-"], options].concat();
        self.heddle(&command, &text)?;
        Ok(())
    }

    /// Path of a pod's network namespace (namespace `default`).
    pub(crate) fn pod_netns(&self, pod: &str) -> PathBuf {
        named(&format!("heddle-{}-pod-default.{pod}", self.name))
    }

    /// A pod's IPv4 and IPv6 address.
    pub(crate) fn pod_addresses(&self, pod: &str) -> Result<[IpAddr; 2]> {
        let text = self.heddle(
            &["lab", "get", "pod", pod, "-n", "default", "-o", "json"],
            "",
        )?;
        let object: Value = serde_json::from_str(&text).context("read the pod")?;
        // A single object, or a list of one.
        let object = object.pointer("/items/0").unwrap_or(&object);
        let addresses: Vec<IpAddr> = object["status"]["podIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["ip"].as_str()?.parse().ok())
            .collect();
        let of = |v4: bool| {
            addresses
                .iter()
                .copied()
                .find(|address| address.is_ipv4() == v4)
        };
        match (of(true), of(false)) {
            (Some(v4), Some(v6)) => Ok([v4, v6]),
            _ => bail!("pod {pod} has not an address of each family: {addresses:?}"),
        }
    }

    /// The lab's status.
    pub(crate) fn status(&self) -> Result<Value> {
        let text = self.heddle(&["lab", "status", "-o", "json"], "")?;
        serde_json::from_str(&text).context("read the lab's status")
    }

    /// Name of a node's network namespace.
    pub(crate) fn node_netns(&self, node: &str) -> Result<String> {
        let status = self.status()?;
        status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["name"] == node)
            .and_then(|entry| entry["netns"].as_str())
            .and_then(|netns| netns.rsplit('/').next())
            .map(str::to_owned)
            .with_context(|| format!("the lab's status names no network namespace of {node}"))
    }

    /// Path of the store's socket.
    pub(crate) fn store_socket(&self) -> PathBuf {
        Path::new("/run/heddle/labs")
            .join(&self.name)
            .join("store.sock")
    }

    /// The maps that a node's datapath has pinned.
    pub(crate) fn pinned(&self, node: &str) -> Result<Pinned> {
        let pins = Path::new("/sys/fs/bpf/heddle").join(&self.name).join(node);
        Ok(Pinned::open(&pins)?)
    }

    /// Process of each node's agent.
    pub(crate) fn agents(&self) -> Result<Vec<(String, u32)>> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array().into_iter().flatten();
        nodes
            .map(|node| {
                let process = node["agent"]["pid"].as_u64();
                let process = process.and_then(|process| u32::try_from(process).ok());
                let name = node["name"].as_str().unwrap_or_default().to_owned();
                let process = process.with_context(|| format!("the agent of {name} is gone"))?;
                Ok((name, process))
            })
            .collect()
    }

    /// Path of a node's agent's socket.
    pub(crate) fn agent_socket(&self, node: &str) -> PathBuf {
        Path::new("/run/heddle/labs")
            .join(&self.name)
            .join("nodes")
            .join(node)
            .join("agent.sock")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove_alive();
    }
}

/// Removes the lab, if one is up; also called when a signal ends the process.
pub(crate) fn remove_alive() {
    let Some((heddle, name)) = ALIVE.lock().ok().and_then(|mut alive| alive.take()) else {
        return;
    };
    let ended = Command::new(&heddle)
        .args(["lab", "down", "--lab", &name])
        .status();
    if !ended.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("lab {name} stays: {ended:?}; try `heddle lab down --lab {name}`");
    }
}

/// The file that was asked for, or the one of this name beside this program.
pub(crate) fn beside_us(given: Option<&Path>, name: &str) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let path = std::env::current_exe()
        .context("find this program")?
        .with_file_name(name);
    if !path.exists() {
        bail!("{} is not there; `make bench` builds it", path.display());
    }
    Ok(path)
}

/// A pod that does nothing, on a node.
pub(crate) fn idle_pod(name: &str, node: &str, label: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"bench": label}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "idle", "image": "heddle/idle"}],
        },
    })
}
