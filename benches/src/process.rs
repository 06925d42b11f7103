//! Child processes and the namespaces they run in.

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::affinity::Placement;
use crate::load::{Kind, Outcome};
use std::net::IpAddr;

/// Moves this process, which must have one thread, into a network namespace.
pub(crate) fn enter(netns: &Path) -> Result<()> {
    let file = File::open(netns).with_context(|| format!("open namespace {}", netns.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("enter namespace {}", netns.display()))
}

/// Path of a namespace that `ip netns` made.
pub(crate) fn named(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Runs a command with `input` on standard input; fails with what it wrote on standard error.
pub(crate) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that refuses early closes its input; its exit code and words say why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{shown}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A server in a namespace; ends with this value.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts it, and returns when it listens.
    pub(crate) fn start(netns: &Path, placement: Placement) -> Result<Self> {
        let mut child = ourselves()?
            .args(["serve", "--placement", placement_name(placement)])
            .arg("--netns")
            .arg(netns)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server")?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let server = Self(child);
        ensure!(
            line.trim() == "ready",
            "the server in {} did not start",
            netns.display()
        );
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures once, from a namespace.
pub(crate) fn measure(
    netns: &Path,
    kind: Kind,
    to: IpAddr,
    seconds: f64,
    placement: Placement,
) -> Result<f64> {
    let output = ourselves()?
        .args(["load", "--kind", kind.name()])
        .args(["--to", &to.to_string(), "--seconds", &seconds.to_string()])
        .args(["--placement", placement_name(placement)])
        .arg("--netns")
        .arg(netns)
        .stdin(Stdio::null())
        .output()
        .context("start the client")?;
    if !output.status.success() {
        bail!(
            "{} from {} to {to}: {}",
            kind.name(),
            netns.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let outcome: Outcome = serde_json::from_slice(&output.stdout).context("read the outcome")?;
    if outcome.lost > 0 {
        eprintln!(
            "{} to {to}: {} requests without an answer",
            kind.name(),
            outcome.lost
        );
    }
    Ok(outcome.rate)
}

/// This program, to be started again.
pub(crate) fn ourselves() -> Result<Command> {
    Ok(Command::new(
        std::env::current_exe().context("find this program")?,
    ))
}

const fn placement_name(placement: Placement) -> &'static str {
    match placement {
        Placement::Same => "same",
        Placement::Split => "split",
        Placement::Free => "free",
    }
}
