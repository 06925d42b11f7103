//! A pod's sandbox: its namespaces and cgroup, held by a process that does nothing else.

use crate::LabError;
use crate::cgroup;
use crate::enter::Place;
use crate::paths::Lab;
use crate::pod::spec::PodSpec;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long a sandbox may take to set itself up.
const SETUP_DEADLINE: Duration = Duration::from_secs(10);

/// What other commands must know to enter a running pod: the content of `sandbox.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRecord {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Name of its network namespace; the node's for a pod in the host network.
    pub network: String,
    /// The process that holds its namespaces.
    pub holder: i32,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its containers.
    pub containers: Vec<ContainerRecord>,
}

/// What other commands must know about a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerRecord {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its working folder.
    pub working_dir: Option<PathBuf>,
}

impl SandboxRecord {
    /// Where a pod's record is.
    pub fn path(lab: &Lab, namespace: &str, pod: &str) -> PathBuf {
        lab.pod(namespace, pod).join("sandbox.json")
    }

    /// True while the holder runs; its number may be another process's by now, its cgroup cannot.
    pub fn is_alive(&self) -> bool {
        let Some(leaf) = self.cgroup.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        cgroup::of_process(self.holder).is_some_and(|path| path.split('/').any(|part| part == leaf))
    }
}

/// Content of a pod's /etc/hosts, as the kubelet writes it.
pub fn hosts_file(spec: &PodSpec, addresses: &[String]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        text.push_str(&format!("{address}\t{}\n", spec.hostname));
    }
    for (address, names) in &spec.host_aliases {
        text.push_str(&format!("{address}\t{}\n", names.join("\t")));
    }
    text
}

/// Content of a pod's /etc/resolv.conf. A lab has no cluster DNS of its own.
pub fn resolver_file(spec: &PodSpec) -> String {
    let namespace = &spec.name.namespace;
    let mut text = format!(
        "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    );
    for line in &spec.dns {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Starts the process that holds a pod's namespaces; returns when they are set up.
pub async fn start(
    network: &str,
    group: &Path,
    hostname: &str,
    hosts: &Path,
    resolver: &Path,
) -> Result<tokio::process::Child, LabError> {
    let mut command = crate::enter::own_executable();
    command
        .args(["lab", "pause", "--hostname", hostname, "--hosts"])
        .arg(hosts)
        .arg("--resolver")
        .arg(resolver)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let kinds = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP;
    Place::here()
        .in_cgroup(group)?
        .in_network(network)?
        .with_new(kinds)
        .in_new_session()
        .apply(&mut command);
    let started = |source| LabError::Start {
        command: "pause".into(),
        place: format!("the sandbox of {hostname}"),
        source,
    };
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(started)?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        let read = tokio::time::timeout(SETUP_DEADLINE, output.read_to_string(&mut said)).await;
        if !matches!(read, Ok(Ok(_))) {
            said.push_str(": no answer in time");
        }
    }
    if said == READY {
        return Ok(child);
    }
    // Dropping the child kills it.
    Err(started(std::io::Error::other(said)))
}

/// What the holder says when its namespaces are set up.
const READY: &str = "ready";

/// The holder: sets its namespaces up, says so, and waits to be ended. The body of the hidden command
/// `heddle lab pause`.
pub fn hold(hostname: &str, hosts: &Path, resolver: &Path) -> Result<(), LabError> {
    let outcome = set_up(hostname, hosts, resolver);
    let said = match &outcome {
        Ok(()) => READY.to_owned(),
        Err(error) => error.to_string(),
    };
    let mut output = std::io::stdout();
    output
        .write_all(said.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| LabError::system("answer", error))?;
    // The starter reads to the end: what it reads from must be closed.
    let nothing =
        std::fs::File::open("/dev/null").map_err(|e| LabError::system("open /dev/null", e))?;
    nix::unistd::dup2_stdout(&nothing).map_err(|error| LabError::system("close stdout", error))?;
    outcome?;
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    ends.thread_block()
        .map_err(|error| LabError::system("block signals", error))?;
    ends.wait()
        .map_err(|error| LabError::system("wait for the end", error))?;
    Ok(())
}

fn set_up(hostname: &str, hosts: &Path, resolver: &Path) -> Result<(), LabError> {
    // Host names have at most 64 bytes on Linux; Kubernetes cuts at 63 (RFC 1123).
    let short = &hostname[..hostname.len().min(63)];
    nix::unistd::sethostname(short)
        .map_err(|error| LabError::system(format!("set the host name {short}"), error))?;
    mount(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
    )?;
    leave_namespaces_behind()?;
    for (file, place) in [(hosts, "/etc/hosts"), (resolver, "/etc/resolv.conf")] {
        let place = Path::new(place);
        if place.exists() {
            mount(Some(file), place, None, MsFlags::MS_BIND)?;
        }
    }
    // sysfs shows the network of who mounted it; with the old one, the host's interfaces.
    mount(
        Some(Path::new("sysfs")),
        Path::new("/sys"),
        Some("sysfs"),
        MsFlags::empty(),
    )?;
    let groups = Path::new("/sys/fs/cgroup");
    if groups.exists() {
        mount(
            Some(Path::new("cgroup2")),
            groups,
            Some("cgroup2"),
            MsFlags::empty(),
        )?;
    }
    Ok(())
}

fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
) -> Result<(), LabError> {
    nix::mount::mount(source, target, kind, flags, None::<&str>)
        .map_err(|error| LabError::system(format!("mount {}", target.display()), error))
}

/// A copied mount of a network namespace would keep it alive as long as this pod.
fn leave_namespaces_behind() -> Result<(), LabError> {
    crate::down::unmount_below(Path::new(crate::paths::NAMESPACES))
}
