//! The heddle command: every daemon and every question is a subcommand.
#![allow(
    unreachable_pub,
    reason = "a command has no outside that could reach anything"
)]

mod commands;
mod dump;
mod failure;
mod output;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
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
    #[command(after_help = "Examples:
  heddle why --from hello/client --to hello/web --port 8080
  heddle why --from world --to hello/deployment/web --port 80/TCP -o json")]
    Why(commands::policy::Why),
    #[command(flatten)]
    Live(commands::live::Command),
    /// Puts everything that tells how a lab or an agent is into one archive, from which every command that reads can
    /// answer later with --from: exit code 3 when something is missing.
    Sysdump(commands::sysdump::Sysdump),
    /// Shows the version of this command.
    Version(commands::version::VersionArgs),
    /// Prints what a shell reads to complete commands, options and their values.
    Completion(commands::completion::CompletionArgs),
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
        Command::Completion(args) => commands::completion::run(&args, Heddle::command()),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command that can be run, with the words that lead to it.
    fn leaves(command: &clap::Command, words: &str, found: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let words = format!("{words} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &words, found);
            } else {
                found.push((words, sub.clone()));
            }
        }
    }

    /// Every command without subcommands, hidden ones as well.
    fn each(command: &clap::Command, words: &str, look: &mut dyn FnMut(&str, &clap::Command)) {
        if !command.has_subcommands() {
            look(words, command);
        }
        for sub in command.get_subcommands() {
            each(sub, &format!("{words} {}", sub.get_name()), look);
        }
    }

    #[test]
    fn every_command_of_a_lab_takes_its_name_in_one_way() {
        let mut found = 0;
        each(&Heddle::command(), "heddle", &mut |words, command| {
            let mut flags = command.get_arguments();
            let Some(flag) = flags.find(|it| it.get_long() == Some("lab")) else {
                return;
            };
            found += 1;
            let variable = flag.get_env().and_then(|name| name.to_str());
            assert_eq!(variable, Some("HEDDLE_LAB"), "{words}");
            // An empty name would come before a default; `Which` knows what is meant.
            assert!(flag.get_default_values().is_empty(), "{words}");
        });
        assert!(found > 25, "{found}");
        let named = |line: &str| {
            Heddle::try_parse_from(line.split(' ').chain(["--lab", ""]))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        // As a script's variable that was never set.
        for line in ["heddle lab down", "heddle status", "heddle sysdump"] {
            let refused = named(line).unwrap_err();
            assert!(refused.contains("it names no lab"), "{line}: {refused}");
        }
    }

    #[test]
    fn commands_with_arguments_have_examples_that_can_be_run() {
        let mut found = Vec::new();
        leaves(&Heddle::command(), "heddle", &mut found);
        assert!(found.len() > 25, "{}", found.len());
        let daemons = ["heddle agent", "heddle operator", "heddle store"];
        for (words, command) in found {
            let help = command.get_after_help().map(ToString::to_string);
            let Some(help) = help else {
                let needs = command.get_arguments().any(clap::Arg::is_required_set);
                let is_daemon = daemons.contains(&words.as_str());
                let names_one = words.ends_with(" get");
                assert!(!needs || is_daemon || names_one, "{words} has no example");
                continue;
            };
            for line in help.lines().filter(|line| line.contains("heddle ")) {
                let line = line
                    .trim()
                    .trim_start_matches("source <(")
                    .trim_end_matches(')');
                assert!(line.starts_with(&words), "{words}: {line}");
                let run = line.split(['<', '>', '|']).next().unwrap_or_default();
                let parsed = Heddle::try_parse_from(run.split_whitespace());
                assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
            }
        }
    }
}
