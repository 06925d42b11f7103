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

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands that read nothing of a lab or an agent.
    const NO_READERS: [&str; 13] = [
        "lab up",
        "lab down",
        "lab apply",
        "lab delete",
        "lab label",
        "lab agent",
        "lab daemon",
        "lab pause",
        "lab echo",
        "lab idle",
        "agent",
        "operator",
        "completion",
    ];

    /// The commands without subcommands, and whether they answer from a dump.
    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, bool)>) {
        let mut children = command
            .get_subcommands()
            .filter(|it| it.get_name() != "help")
            .peekable();
        if children.peek().is_none() {
            let reads = command.get_arguments().any(|argument| {
                let aliases = argument.get_all_aliases().unwrap_or_default();
                argument.get_long() == Some("from-dump") || aliases.contains(&"from-dump")
            });
            found.push((path.to_owned(), reads));
        }
        for child in children {
            let path = format!("{path} {}", child.get_name());
            leaves(child, path.trim(), found);
        }
    }

    #[test]
    fn every_command_that_reads_answers_from_a_dump_or_says_why_not() {
        let mut found = Vec::new();
        leaves(
            &<crate::Heddle as clap::CommandFactory>::command(),
            "",
            &mut found,
        );
        assert!(found.len() > 30, "{found:?}");
        for (command, reads) in found {
            let is_refused = REFUSED
                .iter()
                .any(|(words, _)| command.starts_with(&words.join(" ")));
            let is_known = reads
                || is_refused
                || NO_READERS.contains(&command.as_str())
                || command.starts_with("store");
            assert!(
                is_known,
                "{command}: give it --from, or say in REFUSED why it cannot have it"
            );
            assert!(!(reads && is_refused), "{command} does both");
        }
    }

    #[test]
    fn a_command_that_cannot_says_why() {
        use clap::Parser;
        let refused = |line: &str| {
            let words = || line.split(' ').map(OsString::from);
            let error = crate::Heddle::try_parse_from(words()).err()?;
            refusal(&error, words().skip(1))
        };
        let failure = refused("heddle lab logs web --from d.tar").unwrap();
        assert_eq!(
            (failure.code.as_str(), failure.exit),
            ("sysdump/not-offline", USAGE)
        );
        assert!(failure.message.contains("`heddle lab logs`"), "{failure:?}");
        assert!(refused("heddle connectivity test --from-dump=d.tar").is_some());
        assert!(refused("heddle lab up --from d.tar").is_none());
        assert!(refused("heddle lab logs web --nonsense").is_none());
    }
}
