//! `heddle policy`: questions about policy, answered from manifests; `why` asks a live lab.

mod check;
mod decide;
mod entries;
mod impact;
mod matrix;
mod why;

pub(crate) use why::Why;

use crate::{
    dump::Dump,
    failure::{Failure, USAGE},
    output::say,
};
use clap::{Args, Subcommand, ValueEnum};
use heddle_kube::{
    cluster,
    manifest::{self, Manifest},
    schema::Strictness,
    store::Kind,
};
use heddle_verify::{Cluster, Placement};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Which manifests are asked.
#[derive(Args)]
pub(crate) struct Files {
    /// Manifests: files, folders (recursive), or `-` for standard input.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required_unless_present = "from_dump", num_args = 1..)]
    paths: Vec<PathBuf>,
    /// Fields and kinds that are not known are warnings: objects of a newer version of their API.
    #[arg(long)]
    lenient: bool,
}

/// The objects of a dump as manifests, where `--from` means nothing else.
#[derive(Args)]
pub(crate) struct FromDump {
    /// Objects of a dump that `heddle sysdump` made, instead of files.
    #[arg(
        id = "from_dump",
        long = "from",
        visible_alias = "from-dump",
        value_name = "FILE",
        conflicts_with = "paths"
    )]
    path: Option<PathBuf>,
}

/// The same where `--from` is who connects.
#[derive(Args)]
pub(crate) struct FromDumpBesidePeers {
    /// Objects of a dump that `heddle sysdump` made, instead of files. (What other commands call --from.)
    #[arg(
        id = "from_dump",
        long = "from-dump",
        value_name = "FILE",
        conflicts_with = "paths"
    )]
    path: Option<PathBuf>,
}

/// The objects that questions from files are about, of a dump: what agents and the operator made of them is not asked.
fn manifests_of(path: &Path) -> Result<Vec<Manifest>, Failure> {
    let dump = Dump::open(path)?;
    let is_made = |kind: &Kind| matches!(kind, Kind::CiliumIdentity | Kind::CiliumEndpoint);
    let mut kinds = Kind::OF_VERDICTS.to_vec();
    kinds.retain(|kind| !is_made(kind));
    let objects = dump.objects(&kinds)?.into_iter().enumerate();
    Ok(objects
        .map(|(at, object)| Manifest {
            file: dump.path().to_owned(),
            document: at + 1,
            value: object.value,
        })
        .collect())
}

impl Files {
    fn read(&self, dump: Option<&Path>) -> Result<Vec<Manifest>, Failure> {
        match dump {
            Some(path) => manifests_of(path),
            None => Ok(manifest::read(&self.paths)?),
        }
    }

    fn strictness(&self) -> Strictness {
        if self.lenient {
            Strictness::Lenient
        } else {
            Strictness::Strict
        }
    }

    /// The cluster that they describe.
    fn cluster(&self, dump: Option<&Path>) -> Result<Cluster, Failure> {
        let inventory = cluster::read(&self.read(dump)?, self.strictness())?;
        Ok(Cluster::build(inventory, &Placement::default())?)
    }
}

/// How an answer is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// JSON's content, in YAML.
    Yaml,
}

impl Output {
    /// Prints a value for programs; false when a person is to be told instead.
    fn print(self, value: &impl serde::Serialize) -> Result<bool, Failure> {
        let text = match self {
            Self::Table => return Ok(false),
            Self::Json => serde_json::to_string_pretty(value).map_err(|e| e.to_string()),
            Self::Yaml => serde_saphyr::to_string(value).map_err(|e| e.to_string()),
        };
        let text = text.map_err(|reason| {
            Failure::new(
                "output/unprintable",
                format!("the answer cannot be printed: {reason}"),
            )
        })?;
        say(text.trim_end())?;
        Ok(true)
    }

    fn is_json(self) -> bool {
        self == Self::Json
    }
}

/// A wrong command line.
fn usage(code: &str, message: String, help: &str) -> Failure {
    Failure::new(code, message).help(help).exit(USAGE)
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Every problem of the manifests, with file, document, field and fix.
    #[command(after_help = "Examples:
  heddle policy check -f deploy/examples/shop
  heddle policy check -f - -o json < policy.yaml")]
    Check(check::Check),
    /// One decision with its reasons: exit code 0 allowed, 1 denied.
    #[command(after_help = "Examples:
  heddle policy decide -f deploy/examples/shop --from shop/front --to shop/database --port 5432
  heddle policy decide -f policies --from world --to shop/front --port http -o json")]
    Decide(decide::Decide),
    /// All ordered pairs of pods (and peers), for each probe.
    #[command(after_help = "Examples:
  heddle policy matrix -f deploy/examples/shop --probe TCP/8080 ICMP/8
  heddle policy matrix -f policies --probe TCP/443 --peer world host:node-1 -o csv")]
    Matrix(matrix::Matrix),
    /// A pod's or a node's compiled entries with the rules they come from.
    #[command(after_help = "Examples:
  heddle policy entries -f deploy/examples/shop --pod shop/front")]
    Entries(entries::Entries),
    /// Which verdicts a change of the manifests changes, both ways: exit code 1 when any does.
    #[command(after_help = "Examples:
  heddle policy impact -f deploy/examples/shop --remove NetworkPolicy/shop/front-to-back
  heddle policy impact -f policies --change new.yaml -o markdown")]
    Impact(impact::Impact),
    /// Why a pod can or cannot reach another in a live lab: the decision with its reasons, and what both
    /// nodes' datapaths do with such a packet now.
    #[command(after_help = "Examples:
  heddle policy why --from hello/client --to hello/web --port 8080")]
    Why(Why),
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Check(command) => command.run(),
        Command::Decide(command) => command.run(),
        Command::Matrix(command) => command.run(),
        Command::Entries(command) => command.run(),
        Command::Impact(command) => command.run(),
        Command::Why(command) => command.run(),
    }
}
