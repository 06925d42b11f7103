//! `heddle lab exec` and `node-exec`: a command in a pod's or a node's place, which ends with its
//! caller whatever ends the caller.

use crate::LabError;
use crate::cgroup;
use crate::config;
use crate::enter::{DEFAULT_PATH, Place};
use crate::logs;
use crate::paths::Lab;
use crate::terminal::Terminal;
use crate::topology::{ROUTER, WORLD};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long what is killed may take to go.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Signals that are handed on to the command.
const HANDED_ON: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGALRM,
];

/// Runs a command in a pod, with a terminal of its own or with the caller's files; its exit code (128 + signal when it was
/// killed). Must be called from a process with a single thread.
pub fn in_pod(
    lab: &Lab,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    terminal: bool,
    words: &[String],
) -> Result<u8, LabError> {
    let sandbox = logs::sandbox(lab, namespace, pod)?;
    let name = logs::choose(lab, &sandbox, container)?;
    if !sandbox.is_alive() {
        return Err(LabError::NotFound {
            what: format!("a running pod/{namespace}/{pod}"),
            lab: lab.name().to_owned(),
            help: "its processes are gone; `heddle lab status` shows how the lab stands".into(),
        });
    }
    let container = sandbox.containers.iter().find(|found| found.name == name);
    let folder = container
        .and_then(|container| container.working_dir.clone())
        .unwrap_or_else(|| PathBuf::from("/"));
    let group = new_group(&sandbox.cgroup)?;
    let mut command = command(words)?;
    command.env_clear();
    for key in ["TERM", "LANG", "LC_ALL"] {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    command.env("PATH", DEFAULT_PATH);
    command.envs(container.map(|found| found.env.clone()).unwrap_or_default());
    if container.is_none_or(|found| !found.env.iter().any(|(key, _)| key == "PATH"))
        && let Some(path) = std::env::var_os("PATH")
    {
        command.env("PATH", path);
    }
    let place = Place::here()
        .in_cgroup(&group)?
        .with_process(sandbox.holder)?
        .at_folder(&folder)?;
    let place = if terminal {
        place.with_terminal()
    } else {
        place
    };
    run(
        command,
        place,
        &group,
        words,
        (&format!("pod {namespace}/{pod}"), terminal),
    )
}

/// Runs a command in the network namespace of a node, of `world` or of `router`.
pub fn on_host(lab: &Lab, host: &str, words: &[String]) -> Result<u8, LabError> {
    let record = config::record(lab)?;
    if host != WORLD && host != ROUTER && !record.nodes.iter().any(|node| node == host) {
        return Err(LabError::NotFound {
            what: format!("node/{host}"),
            lab: lab.name().to_owned(),
            help: format!(
                "choose one of {}, {WORLD}, {ROUTER}",
                record.nodes.join(", ")
            ),
        });
    }
    let parent = record.node_cgroup(host);
    cgroup::create(&parent)?;
    let group = new_group(&parent)?;
    let place = Place::here()
        .in_cgroup(&group)?
        .in_network(&lab.host_namespace(host))?;
    run(command(words)?, place, &group, words, (host, false))
}

fn command(words: &[String]) -> Result<Command, LabError> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(LabError::Usage(
            "there is no command: write it after --".into(),
        ));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

fn new_group(parent: &Path) -> Result<PathBuf, LabError> {
    let group = parent.join(format!("exec-{}", std::process::id()));
    cgroup::create(&group)?;
    Ok(group)
}

fn run(
    mut command: Command,
    place: Place,
    group: &Path,
    words: &[String],
    (target, with_terminal): (&str, bool),
) -> Result<u8, LabError> {
    // Blocked before anything is started, so that no signal falls between.
    let mut signals = SigSet::empty();
    let own = [Signal::SIGCHLD, Signal::SIGWINCH];
    for signal in HANDED_ON.into_iter().chain(own) {
        signals.add(signal);
    }
    let refused = |doing: &'static str| move |error: nix::Error| LabError::system(doing, error);
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)
        .map_err(refused("block signals"))?;
    let arrivals = SignalFd::new(&signals).map_err(refused("receive signals"))?;
    let guard = Guard::start(group)?;
    let mut terminal = if with_terminal {
        Some(Terminal::of(&mut command)?)
    } else {
        None
    };
    place.apply(&mut command);
    let started = command.spawn();
    // The command's end of the terminal is the command's alone, so that it closes with it.
    drop(command);
    let outcome = match started {
        Ok(child) => {
            let child = i32::try_from(child.id()).unwrap_or(0);
            let taken = terminal.as_mut().map_or(Ok(()), Terminal::start);
            taken.and_then(|()| wait(&arrivals, child, terminal.as_mut()))
        }
        Err(source) => Err(LabError::Start {
            command: words.first().cloned().unwrap_or_default(),
            place: target.to_owned(),
            source,
        }),
    };
    if let Some(mut terminal) = terminal {
        terminal.drain();
    }
    let removed = cgroup::remove(group, END_DEADLINE);
    guard.dismiss();
    let code = outcome?;
    removed?;
    Ok(code)
}

/// Hands signals on until the command ended.
fn wait(
    arrivals: &SignalFd,
    child: i32,
    mut terminal: Option<&mut Terminal>,
) -> Result<u8, LabError> {
    let child = Pid::from_raw(child);
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code & 0xff).unwrap_or(1)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(u8::try_from(128 + signal as i32).unwrap_or(255));
            }
            Ok(_) => {}
            Err(error) => return Err(LabError::system("wait for the command", error)),
        }
        if let Some(terminal) = &mut terminal {
            terminal.relay(arrivals.as_fd())?;
        }
        let arrived = match arrivals.read_signal() {
            Ok(Some(arrived)) => arrived,
            Ok(None) | Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(LabError::system("receive signals", error)),
        };
        let signal = i32::try_from(arrived.ssi_signo)
            .ok()
            .and_then(|n| Signal::try_from(n).ok());
        match signal {
            Some(Signal::SIGCHLD) | None => {}
            Some(Signal::SIGWINCH) => {
                if let Some(terminal) = &terminal {
                    terminal.resize();
                }
            }
            // The terminal sends to the whole foreground group: the command has it already.
            Some(_) if arrived.ssi_code > 0 => {}
            Some(signal) => {
                // It may have ended just now; the next round sees that.
                let _ = nix::sys::signal::kill(child, signal);
            }
        }
    }
}

/// A process that ends the command's cgroup when this process is gone, however it went: it waits for
/// the end of a pipe that only this process holds.
struct Guard {
    process: Pid,
    pipe: Option<PipeWriter>,
}

impl Guard {
    fn start(group: &Path) -> Result<Self, LabError> {
        let (reader, writer) =
            std::io::pipe().map_err(|error| LabError::system("make a pipe", error))?;
        // SAFETY: this process has a single thread (the callers' contract), so the child may go on as
        // an ordinary program.
        match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Parent { child }) => Ok(Self {
                process: child,
                pipe: Some(writer),
            }),
            Ok(ForkResult::Child) => {
                drop(writer);
                stand_guard(reader, group);
                // SAFETY: `_exit` leaves at once; what the parent buffered is the parent's to write.
                unsafe { nix::libc::_exit(0) }
            }
            Err(error) => Err(LabError::system("start the guard", error)),
        }
    }

    fn dismiss(mut self) {
        self.pipe = None;
        // It ends by itself once the pipe is closed; waiting leaves no zombie.
        let _ = waitpid(self.process, None);
    }
}

fn stand_guard(mut pipe: PipeReader, group: &Path) {
    // A session of its own: what ends the caller's group or terminal does not end the guard.
    let _ = nix::unistd::setsid();
    // The caller's files must not seem open because of the guard.
    let keep = pipe.as_raw_fd();
    for file in 0..1_024 {
        if file != keep {
            // SAFETY: this process uses no other file from here on; closing one that is not open
            // does no harm.
            unsafe { nix::libc::close(file) };
        }
    }
    let mut nothing = [0; 1];
    while !matches!(pipe.read(&mut nothing), Ok(0)) {}
    let _ = cgroup::remove(group, END_DEADLINE);
}
