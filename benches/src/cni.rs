//! How long a CNI ADD takes, alone and fifty at once, against the reference plugins.

use crate::RunArguments;
use crate::compare::{Arm, Report, Rounds, quantile};
use crate::lab::{Lab, beside_us, idle_pod};
use crate::process::{enter, named, ourselves};
use crate::topology::Namespaces;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::time::Instant;

/// ADDs in one measurement.
const ADDS: usize = 50;

/// The reference: a veth pair with routes, and addresses from files.
const REFERENCE: &str = "ptp+host-local";
/// Heddle's plugin and agent.
const HEDDLE: &str = "heddle-cni";

/// Names, whether the ADDs come at once, and which figure of [`Subject::measure`] it is.
const BENCHES: [(&str, bool, usize); 4] = [
    ("cni/add-alone-p50", false, 0),
    ("cni/add-alone-p99", false, 1),
    ("cni/add-50-parallel-p50", true, 0),
    ("cni/add-50-parallel-p99", true, 1),
];

/// A plugin to call in a network namespace; the configuration is on standard input.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The node's network namespace, as a path.
    #[arg(long)]
    netns: PathBuf,
    /// The plugin.
    #[arg(long)]
    plugin: PathBuf,
    /// All at once, or one after the other.
    #[arg(long)]
    parallel: bool,
    /// Pods' network namespaces, as paths.
    pods: Vec<PathBuf>,
}

/// Calls ADD for every pod, then DEL, and prints the ADDs' milliseconds.
pub(crate) fn add(arguments: &Arguments) -> Result<()> {
    let conf = std::io::read_to_string(std::io::stdin())?;
    enter(&arguments.netns)?;
    let outcome = adds(arguments, &conf);
    for (number, pod) in arguments.pods.iter().enumerate() {
        succeeded(call(&arguments.plugin, "DEL", &conf, number, pod)?, "DEL")?;
    }
    println!("{}", serde_json::to_string(&outcome?)?);
    Ok(())
}

fn adds(arguments: &Arguments, conf: &str) -> Result<Vec<f64>> {
    let timed = |number: usize, pod: &Path| -> Result<f64> {
        let start = Instant::now();
        let output = call(&arguments.plugin, "ADD", conf, number, pod)?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        succeeded(output, "ADD")?;
        Ok(milliseconds)
    };
    if !arguments.parallel {
        return (arguments.pods.iter().enumerate())
            .map(|(number, pod)| timed(number, pod))
            .collect();
    }
    let together = Barrier::new(arguments.pods.len());
    std::thread::scope(|scope| {
        let handles: Vec<_> = (arguments.pods.iter().enumerate())
            .map(|(number, pod)| {
                let (timed, together) = (&timed, &together);
                scope.spawn(move || {
                    together.wait();
                    timed(number, pod)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| match handle.join() {
                Ok(outcome) => outcome,
                Err(_) => anyhow::bail!("a caller's thread ended early"),
            })
            .collect()
    })
}

fn call(plugin: &Path, command: &str, conf: &str, number: usize, pod: &Path) -> Result<Output> {
    let folder = plugin.parent().unwrap_or(Path::new("/"));
    let mut child = Command::new(plugin)
        .env_clear()
        .env("CNI_COMMAND", command)
        .env(
            "CNI_CONTAINERID",
            format!("bench-{}-{number}", std::process::id()),
        )
        .env("CNI_NETNS", pod)
        .env("CNI_IFNAME", "eth0")
        .env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}",
                pod_name(number)
            ),
        )
        .env("CNI_PATH", folder)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", plugin.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that refuses early closes its input; its answer says why.
        let _ = stdin.write_all(conf.as_bytes());
    }
    Ok(child.wait_with_output()?)
}

fn succeeded(output: Output, command: &str) -> Result<()> {
    ensure!(
        output.status.success(),
        "{command}: {}{}",
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A plugin as it is measured.
struct Subject {
    plugin: PathBuf,
    conf: Value,
    node: PathBuf,
}

impl Subject {
    /// Median and 99th percentile of one round, in milliseconds.
    fn measure(&self, parallel: bool, pods: &Namespaces) -> Result<Vec<f64>> {
        let mut command = ourselves()?;
        command.arg("cni-add").arg("--netns").arg(&self.node);
        command.arg("--plugin").arg(&self.plugin);
        if parallel {
            command.arg("--parallel");
        }
        let mut child = command
            .args(pods.paths())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the caller")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.conf.to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let times: Vec<f64> = serde_json::from_slice(&output.stdout).context("read the times")?;
        Ok(vec![quantile(&times, 0.5), quantile(&times, 0.99)])
    }
}

fn pod_name(number: usize) -> String {
    format!("add-{number}")
}

/// Pods that the store knows and no runtime starts: no node has the label they ask for.
fn pods_to_attach() -> Value {
    let pods: Vec<Value> = (0..ADDS)
        .map(|number| {
            let mut pod = idle_pod(&pod_name(number), "", "add");
            if let Some(spec) = pod["spec"].as_object_mut() {
                spec.remove("nodeName");
                spec.insert("nodeSelector".to_owned(), json!({"bench": "nowhere"}));
            }
            pod
        })
        .collect();
    json!({"items": pods})
}

/// Runs what was asked for.
pub(crate) fn run(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    if !arguments.wants_any(BENCHES.map(|(name, ..)| name)) {
        return Ok(());
    }
    let pods = Namespaces::make(ADDS)?;
    let node = Namespaces::make(1)?;
    let leases = Leases::make()?;
    let reference = Subject {
        plugin: arguments.reference_plugins.join("ptp"),
        // IPv4 only: with IPv6 this plugin waits a second or more for duplicate address detection.
        conf: json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "ptp",
            "ipam": {
                "type": "host-local", "dataDir": leases.0,
                "ranges": [[{"subnet": "10.99.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }),
        node: node.paths().swap_remove(0),
    };
    ensure!(
        reference.plugin.exists(),
        "{} is not there: apt-get install containernetworking-plugins, or --reference-plugins DIR",
        reference.plugin.display()
    );
    let lab = match arguments.baselines_only {
        true => None,
        false => {
            let lab = Lab::up(arguments)?;
            lab.declare(&pods_to_attach())?;
            Some(lab)
        }
    };
    let heddle = match &lab {
        None => None,
        Some(lab) => Some(Subject {
            plugin: beside_us(arguments.heddle_cni.as_deref(), "heddle-cni")?,
            conf: json!({
                "cniVersion": "1.0.0", "name": "heddle", "type": "heddle-cni",
                "agentSocket": lab.agent_socket("node-1"),
            }),
            node: named(&lab.node_netns("node-1")?),
        }),
    };
    for parallel in [false, true] {
        let wanted = BENCHES
            .iter()
            .filter(|(name, at_once, _)| *at_once == parallel && arguments.wants(name));
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            continue;
        }
        let mut arms = vec![Arm {
            name: REFERENCE,
            measure: Box::new(|| reference.measure(parallel, &pods)),
        }];
        if let Some(heddle) = &heddle {
            arms.push(Arm {
                name: HEDDLE,
                measure: Box::new(|| heddle.measure(parallel, &pods)),
            });
        }
        let rounds = Rounds::run(arms, arguments.rounds)?;
        for (name, _, index) in wanted {
            let pair = match heddle {
                Some(_) => (REFERENCE, HEDDLE),
                None => (REFERENCE, REFERENCE),
            };
            if let Some(line) = rounds.compare(name, "ms", *index, pair) {
                report.add(line)?;
            }
        }
    }
    Ok(())
}

/// host-local's folder; removed with this value.
struct Leases(PathBuf);

impl Leases {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("heddle-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}
