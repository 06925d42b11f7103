//! Which CPU runs which end of a connection.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where the two ends of a request/response run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Placement {
    /// Both on one CPU: a transaction costs what its path costs, with no wake-up of another CPU.
    Same,
    /// One on each of two CPUs.
    Split,
    /// Where the kernel puts them.
    Free,
}

/// The end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Sends requests.
    Client,
    /// Answers them.
    Server,
}

/// Binds the calling thread to its CPU.
pub(crate) fn place(placement: Placement, end: End) -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("read this thread's CPUs")?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let first = cpus.next();
    let chosen = match (placement, end) {
        (Placement::Free, _) => return Ok(()),
        (Placement::Same, _) | (Placement::Split, End::Client) => first,
        (Placement::Split, End::Server) => cpus.next().or(first),
    };
    let mut set = CpuSet::new();
    set.set(chosen.context("no CPU is allowed to this thread")?)
        .context("choose a CPU")?;
    sched_setaffinity(this, &set).context("bind this thread to a CPU")
}
