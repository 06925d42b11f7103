//! `make bench`: paired, interleaved comparisons in network namespaces, one JSON line each.

mod affinity;
mod cni;
mod compare;
mod enforce;
mod iptables;
mod lab;
mod load;
mod memory;
mod network;
mod policy;
mod process;
mod serve;
mod topology;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Benchmarks of Heddle against what it replaces.
#[derive(Parser)]
#[command(name = "heddle-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the benchmarks; needs root.
    Run(RunArguments),
    /// Answer requests in a network namespace until standard input ends.
    #[command(hide = true)]
    Serve(serve::Arguments),
    /// Make load from a network namespace, and print what came back as one JSON line.
    #[command(hide = true)]
    Load(load::Arguments),
    /// Call a CNI plugin in a network namespace, and print how long each ADD took as a JSON list.
    #[command(hide = true)]
    CniAdd(cni::Arguments),
}

/// What to run, for how long.
#[derive(clap::Args, Clone)]
pub(crate) struct RunArguments {
    /// Only benchmarks whose name contains this.
    #[arg(long, value_name = "NAME")]
    bench: Option<String>,
    /// Write one JSON line per comparison to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Times that each side of a comparison is measured.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds that one measurement takes.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Where the two ends of a request/response run: on one CPU (the cost of the path, nothing else),
    /// on two, or where the kernel likes.
    #[arg(long, value_enum, default_value_t = affinity::Placement::Same)]
    placement: affinity::Placement,
    /// Measure the baselines only: no lab, no Heddle.
    #[arg(long)]
    baselines_only: bool,
    /// The heddle command; beside this program without it.
    #[arg(long, env = "HEDDLE", value_name = "FILE")]
    heddle: Option<PathBuf>,
    /// The CNI plugin; beside this program without it.
    #[arg(long, env = "HEDDLE_CNI", value_name = "FILE")]
    heddle_cni: Option<PathBuf>,
    /// Where the reference CNI plugins are (Debian: containernetworking-plugins).
    #[arg(long, default_value = "/usr/lib/cni", value_name = "DIR")]
    reference_plugins: PathBuf,
}

impl RunArguments {
    /// True when a benchmark of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.bench
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    }

    /// True when any of these was asked for.
    pub(crate) fn wants_any<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        names.into_iter().any(|name| self.wants(name))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.05..=60.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds between 0.05 and 60".to_owned()),
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
        Command::CniAdd(arguments) => cni::add(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[bench/failed]: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &RunArguments) -> Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root; run `make bench` as root or with sudo"
    );
    topology::clean_up_after_signals()?;
    topology::remove_stale()?;
    let mut report = compare::Report::new(arguments.out.as_deref())?;
    let outcome = network::run(arguments, &mut report)
        .and_then(|()| policy::run(arguments, &mut report))
        .and_then(|()| enforce::run(arguments, &mut report))
        .and_then(|()| cni::run(arguments, &mut report))
        .and_then(|()| memory::run(arguments, &mut report));
    // What was measured before something failed is worth printing.
    report.print();
    outcome?;
    anyhow::ensure!(
        !report.is_empty(),
        "no benchmark has a name with {:?} in it",
        arguments.bench.as_deref().unwrap_or("")
    );
    Ok(())
}
