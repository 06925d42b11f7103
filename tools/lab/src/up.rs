//! `heddle lab up`: makes the network, starts the daemon, waits until every agent is ready.

use crate::LabError;
use crate::cgroup;
use crate::config::{self, LabConfig, LabRecord};
use crate::control;
use crate::down;
use crate::enter::Place;
use crate::files;
use crate::paths::{BPFFS, Lab};
use crate::topology;
use crate::wait;
use nix::mount::MsFlags;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;

/// How long the daemon may take to answer, and all agents to be ready.
const DEADLINES: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(120));

/// What `up` did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The lab is new.
    Made,
    /// It was up already, in the same shape.
    WasUp,
}

/// Brings a lab up. What is left of an interrupted `up` is removed first; when this one fails, it
/// removes what it made, unless `keep`.
pub async fn up(
    lab: &Lab,
    config: LabConfig,
    origin: &str,
    keep: bool,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Outcome, LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot {
            what: "making network namespaces".into(),
        });
    }
    let executable = std::env::current_exe()
        .map_err(|error| LabError::system("find this program's file", error))?;
    cgroup::require_root_mount()?;
    let mount = cgroup::require_mount()?;
    let record = LabRecord::new(lab.name(), config, origin, mount, executable)?;
    let _turn = take_turn(lab, progress).await?;
    if lab.exists() {
        let known = config::record(lab).ok().filter(|known| known.ready);
        if let Some(known) = known
            && control::lives(lab).await?
        {
            let differs = known.differences(&record);
            if !differs.is_empty() {
                return Err(LabError::Exists {
                    lab: lab.name().to_owned(),
                    differs,
                });
            }
            progress("it is up already");
            return Ok(Outcome::WasUp);
        }
        progress("removing what is left of an earlier lab of this name");
    }
    down::down(lab)?;
    let made = tokio::select! {
        made = make(lab, &record, progress) => made,
        () = interrupted() => Err(LabError::ProcessEnded {
            process: "`lab up`".into(),
            reason: "it was interrupted".into(),
        }),
    };
    if made.is_err() && !keep {
        progress("removing what was made");
        down::down(lab)?;
    }
    made.map(|()| Outcome::Made)
}

/// Waits until no other `up` works on a lab of this name; the next one waits until what is returned is dropped. It is an
/// address without a file, which ends with the process.
async fn take_turn(lab: &Lab, progress: &(dyn Fn(&str) + Sync)) -> Result<UnixListener, LabError> {
    let failed = |error| LabError::system("take the turn of this lab's name", error);
    let name = format!("heddle/lab/{}/up", lab.name());
    let address = SocketAddr::from_abstract_name(name).map_err(failed)?;
    let most = DEADLINES.0 + DEADLINES.1;
    let end = Instant::now() + most;
    let mut waits = false;
    loop {
        match UnixListener::bind_addr(&address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            outcome => return outcome.map_err(failed),
        }
        if Instant::now() >= end {
            return Err(LabError::Timeout {
                what: format!("another `lab up` of lab {} has not ended", lab.name()),
                seconds: most.as_secs(),
                state: "it still runs".into(),
                help: "end it, or choose another name with --lab".into(),
            });
        }
        if !std::mem::replace(&mut waits, true) {
            progress("waiting for another `lab up` of this name");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let streams = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ]
    .map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

async fn make(
    lab: &Lab,
    record: &LabRecord,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), LabError> {
    files::make_folder(&lab.logs())?;
    files::write_json(&lab.record(), record)?;
    mount_bpffs()?;
    cgroup::create(&record.cgroup())?;
    progress(&format!(
        "{} nodes, a router and a world outside",
        record.nodes.len()
    ));
    let (network_lab, network_record) = (lab.clone(), record.clone());
    crate::pod::worker::blocking(move || topology::build(&network_lab, &network_record)).await?;
    progress("store, operator and agents");
    start_daemon(lab, record)?;
    let end = Instant::now() + DEADLINES.0;
    loop {
        let standings = match control::standings(lab).await {
            Ok(standings) => standings,
            Err(error) if Instant::now() >= end => {
                return Err(LabError::ProcessEnded {
                    process: "the lab daemon".into(),
                    reason: wait::with_log(lab, "daemon", &error.to_string()),
                });
            }
            Err(_) => {
                if cgroup::processes(&record.cgroup().join("daemon")).is_empty() {
                    return Err(LabError::ProcessEnded {
                        process: "the lab daemon".into(),
                        reason: wait::with_log(lab, "daemon", "it does not run"),
                    });
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // These two are started again when they end, but in a new lab they should not end at all.
        for process in ["store", "operator"] {
            if let Some(standing) = standings.get(process).filter(|s| !s.ended.is_empty()) {
                return Err(LabError::ProcessEnded {
                    process: format!("the {process}"),
                    reason: wait::with_log(lab, process, &standing.ended),
                });
            }
        }
        let started = standings
            .values()
            .all(|s| s.pid.is_some() || !s.ended.is_empty());
        if started {
            break;
        }
        if Instant::now() >= end {
            return Err(LabError::Timeout {
                what: "the lab's processes are not all started".into(),
                seconds: DEADLINES.0.as_secs(),
                state: files::last_lines(&lab.log("daemon"), 5),
                help: format!("see {}", lab.logs().display()),
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait::agents_ready(lab, &record.nodes, DEADLINES.1).await?;
    let mut ready = record.clone();
    ready.ready = true;
    files::write_json(&lab.record(), &ready)
}

/// Mounts the BPF file system if nobody has.
fn mount_bpffs() -> Result<(), LabError> {
    let point = Path::new(BPFFS);
    if cgroup::mounts()?
        .iter()
        .any(|mount| mount.kind == "bpf" && mount.point == point)
    {
        return Ok(());
    }
    nix::mount::mount(
        Some(cgroup::OWN_SOURCE),
        point,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .map_err(|error| LabError::Host {
        what: format!("no bpffs at {BPFFS} and mounting one failed"),
        reason: error.to_string(),
    })
}

fn start_daemon(lab: &Lab, record: &LabRecord) -> Result<(), LabError> {
    let group = record.cgroup().join("daemon");
    cgroup::create(&group)?;
    let path = lab.log("daemon");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| LabError::file("open", &path, error))?;
    let failed = |source| LabError::Start {
        command: "heddle lab daemon".into(),
        place: "the background".into(),
        source,
    };
    let mut command = Command::new(&record.executable);
    command
        .args(["lab", "daemon", "--lab", lab.name()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log);
    Place::here()
        .in_cgroup(&group)?
        .in_new_session()
        .apply(&mut command);
    // Nobody waits for it: it outlives this process.
    command.spawn().map(drop).map_err(failed)
}
