//! Commands that cannot answer from a dump, and why not.

use crate::failure::{Failure, USAGE};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

/// The first words of a command, and why it needs what runs.
const REFUSED: [(&[&str], &str); 6] = [
    (
        &["lab", "logs"],
        "a dump has no output of pods, which may hold secrets; it has the agents' logs (nodes/NAME/agent.log)",
    ),
    (&["lab", "list"], "it lists the labs of this machine"),
    (&["lab", "exec"], "it runs a command in a pod"),
    (&["lab", "node-exec"], "it runs a command on a node"),
    (&["connectivity"], "it sends packets"),
    (
        &["version"],
        "it tells what this binary is; the dump's manifest.json tells of which version the dump is",
    ),
];

/// The failure of a command line that asks such a command to answer from a dump.
pub(crate) fn refusal(
    error: &clap::Error,
    arguments: impl Iterator<Item = OsString>,
) -> Option<Failure> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    if error.kind() != ErrorKind::UnknownArgument
        || !["--from", "--from-dump"].contains(&flag.as_str())
    {
        return None;
    }
    let words: Vec<String> = arguments
        .filter_map(|word| word.into_string().ok())
        .filter(|word| !word.starts_with('-'))
        .collect();
    let (command, why) = REFUSED.iter().find(|(command, _)| {
        words.iter().zip(*command).filter(|(a, b)| a == *b).count() == command.len()
    })?;
    let command = command.join(" ");
    Some(
        Failure::new(
            "sysdump/not-offline",
            format!("`heddle {command}` cannot answer from a dump: {why}"),
        )
        .field(flag.as_str())
        .help("ask what runs; `heddle sysdump --help` and docs/sysdump.md say what a dump answers")
        .exit(USAGE),
    )
}
