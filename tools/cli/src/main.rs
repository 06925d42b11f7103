//! The heddle command: every daemon and every question is a subcommand.
#![allow(
    unreachable_pub,
    reason = "a command has no outside that could reach anything"
)]

mod commands;
mod dump;
mod failure;
mod output;

use clap::{Parser, Subcommand, error::ErrorKind};
use failure::Failure;
use std::process::ExitCode;

/// Kubernetes container networking that proves, explains and rehearses every verdict.
#[derive(Parser)]
#[command(name = "heddle", version, propagate_version = true)]
struct Heddle {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A cluster on this machine: nodes and pods are network namespaces.
    #[command(subcommand)]
    Lab(commands::lab::Command),
    /// Probes between test pods: who reaches whom, compared with what must be.
    #[command(subcommand)]
    Connectivity(commands::connectivity::Command),
    /// Questions about policy, answered from files: no root, no cluster, no network (`why` asks a live lab).
    #[command(subcommand)]
    Policy(commands::policy::Command),
    /// Why one can or cannot reach another in a live lab, and what to change: exit code 0 it reaches, 1 it does not, 3
    /// not known, 4 a datapath differs from the policies.
    Why(commands::policy::Why),
    #[command(flatten)]
    Live(commands::live::Command),
    /// Puts everything that tells how a lab or an agent is into one archive, from which every command that reads can
    /// answer later with --from: exit code 3 when something is missing.
    Sysdump(commands::sysdump::Sysdump),
    /// Shows the version of this command.
    Version(commands::version::VersionArgs),
    #[command(flatten)]
    Daemon(commands::daemon::Command),
}

fn main() -> ExitCode {
    let json = failure::wants_json(std::env::args_os().skip(1));
    let command = match Heddle::try_parse() {
        Ok(Heddle { command }) => command,
        // Help and version are no failures; a command alone is answered with its help.
        Err(error) if !error.use_stderr() || (!json && is_help(&error)) => error.exit(),
        Err(error) => {
            let refused = commands::sysdump::refusal(&error, std::env::args_os().skip(1));
            let failure = refused.unwrap_or_else(|| Failure::usage(&error));
            return failure.json(json).report();
        }
    };
    let outcome = match command {
        Command::Lab(command) => commands::lab::run(command),
        Command::Connectivity(command) => commands::connectivity::run(command),
        Command::Policy(command) => commands::policy::run(command),
        Command::Why(command) => command.run(),
        Command::Live(command) => commands::live::run(command),
        Command::Sysdump(command) => command.run(),
        Command::Version(args) => commands::version::run(&args),
        Command::Daemon(command) => commands::daemon::run(command),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            let json = json || failure.json;
            failure.json(json).report()
        }
    }
}

fn is_help(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}
