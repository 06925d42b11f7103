//! `heddle policy impact`: which verdicts a change of the manifests changes, both ways, and why.

mod show;

use super::{Files, FromDump};
use crate::failure::{FINDINGS, Failure};
use clap::{Args, ValueEnum};
use heddle_kube::{
    cluster::{self, Change},
    manifest::{self, Manifest},
    schema::Strictness,
};
use heddle_verify::{
    Cluster, Named, Placement, Probe,
    impact::{Sides, compare, draw_peers, draw_probes},
};
use std::{path::PathBuf, process::ExitCode};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ImpactOutput {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// JSON's content, in YAML.
    Yaml,
    /// For a merge request.
    Markdown,
}

#[derive(Args)]
pub(crate) struct Impact {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    dump: FromDump,
    /// Manifests that are added, or take the place of those with their kind, namespace and name.
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "remove")]
    change: Vec<PathBuf>,
    /// Objects that are taken away: KIND/NAMESPACE/NAME, or KIND/NAME for those without a namespace.
    #[arg(long, value_name = "OBJECT", num_args = 1..)]
    remove: Vec<String>,
    /// What to try, as for matrix; by default the ports that policies and pods name, one that none names, and
    /// ICMP/8.
    #[arg(long, value_name = "PROBE", num_args = 1..)]
    probe: Vec<String>,
    /// Who joins the pods, as for matrix; by default world, nodes, and an address of every CIDR that policies name.
    #[arg(long, value_name = "PEER", num_args = 1..)]
    peer: Vec<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: ImpactOutput,
}

impl Impact {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output == ImpactOutput::Json;
        self.answer()
            .map_err(|failure| failure.no_answer().json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let current = self.files.read(self.dump.path.as_deref())?;
        let change = Change {
            add: manifest::read(&self.change)?,
            remove: self.remove.clone(),
        };
        let strictness = self.files.strictness();
        let changed = change.apply(&current)?;
        let before = build(&current, strictness, &Placement::default())?;
        let after = build(&changed, strictness, &before.placement())?;
        let mut sides = Sides {
            before,
            after,
            notes: Vec::new(),
        };
        let probes = if self.probe.is_empty() {
            draw_probes(&mut sides)?
        } else {
            let given = self.probe.iter().map(|probe| Probe::parse(probe));
            given.collect::<Result<Vec<_>, _>>()?
        };
        let peers = if self.peer.is_empty() {
            draw_peers(&mut sides)
        } else {
            self.peer.clone()
        };
        let peers = peers
            .iter()
            .map(|given| {
                Ok((
                    Named::parse(&sides.before, given)?,
                    Named::parse(&sides.after, given)?,
                ))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let report = compare(&sides, &peers, &probes);
        let report = show::Report {
            sides: &sides,
            probes: &probes,
            outcome: report,
        };
        match self.output {
            ImpactOutput::Table => report.table()?,
            ImpactOutput::Json => report.json()?,
            ImpactOutput::Yaml => report.yaml()?,
            ImpactOutput::Markdown => report.markdown()?,
        }
        Ok(ExitCode::from(if report.outcome.changes.is_empty() {
            0
        } else {
            FINDINGS
        }))
    }
}

fn build(
    manifests: &[Manifest],
    strictness: Strictness,
    before: &Placement,
) -> Result<Cluster, Failure> {
    let inventory = cluster::read(manifests, strictness)?;
    Ok(Cluster::build(inventory, before)?)
}
