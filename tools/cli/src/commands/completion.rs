//! `heddle completion`: what a shell reads to complete commands, options and their values.

use crate::failure::Failure;
use crate::output::say;
use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};
use std::process::ExitCode;

/// The shells.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShellChoice {
    Bash,
    Zsh,
    Fish,
}

/// `heddle completion`.
#[derive(Args)]
#[command(after_help = "Examples:
  source <(heddle completion bash)
  heddle completion bash > /etc/bash_completion.d/heddle
  heddle completion zsh > \"${fpath[1]}/_heddle\"
  heddle completion fish > ~/.config/fish/completions/heddle.fish")]
pub struct CompletionArgs {
    /// The shell that reads it.
    #[arg(value_enum)]
    shell: ShellChoice,
}

/// Runs it for this command line.
pub fn run(args: &CompletionArgs, mut command: clap::Command) -> Result<ExitCode, Failure> {
    let shell = match args.shell {
        ShellChoice::Bash => Shell::Bash,
        ShellChoice::Zsh => Shell::Zsh,
        ShellChoice::Fish => Shell::Fish,
    };
    // Not to standard output itself: who reads it may have enough, and this would panic.
    let mut script = Vec::new();
    generate(shell, &mut command, "heddle", &mut script);
    say(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}
