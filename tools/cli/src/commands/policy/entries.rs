//! `heddle policy entries`: a pod's or a node's compiled entries with the rules they come from.

use super::{Files, FromDump, Output};
use crate::{failure::Failure, output::say};
use clap::Args;
use comfy_table::{Table, presets};
use heddle_policy::Direction;
use heddle_verify::{EntriesAnswer, entries_of_node, entries_of_pod, word};
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Entries {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    dump: FromDump,
    /// The pod, as namespace/name.
    #[arg(long, value_name = "POD", required_unless_present = "node")]
    pod: Option<String>,
    /// The node, whose own policy host policies make.
    #[arg(long, value_name = "NODE", conflicts_with = "pod")]
    node: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Entries {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output.is_json();
        self.answer()
            .map_err(|failure| failure.no_answer().json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let mut cluster = self.files.cluster(self.dump.path.as_deref())?;
        let answer = match &self.node {
            Some(node) => entries_of_node(&mut cluster, node)?,
            None => entries_of_pod(&mut cluster, self.pod.as_deref().unwrap_or_default())?,
        };
        if !self.output.print(&answer)? {
            print(&answer)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(answer: &EntriesAnswer) -> Result<(), Failure> {
    say(&format!(
        "{} identity {} ingress {} egress {}",
        answer
            .pod
            .as_deref()
            .or(answer.node.as_deref())
            .unwrap_or_default(),
        answer.identity,
        answer.ingress,
        answer.egress
    ))?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["DIRECTION", "PEER", "PROTOCOL", "PORT", "VERDICT", "RULES"]);
    for entry in &answer.entries {
        let direction = match entry.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        let port = match (entry.port_prefix, entry.port == entry.end_port) {
            (0, _) => "any".to_owned(),
            (_, true) => entry.port.to_string(),
            (_, false) => format!("{}-{}", entry.port, entry.end_port),
        };
        let rules: Vec<String> = entry.rules.iter().map(ToString::to_string).collect();
        let rules = match (rules.is_empty(), entry.cookie) {
            (true, 0) => "not enforced".to_owned(),
            (true, _) => "reserved".to_owned(),
            (false, _) => rules.join("\n"),
        };
        table.add_row([
            direction,
            &entry.peer,
            &entry.protocol,
            &port,
            word(entry.verdict),
            &rules,
        ]);
    }
    say(&table.trim_fmt())
}
