//! `heddle policy matrix`: all ordered pairs, all probes.

use super::{Files, FromDumpBesidePeers, usage};
use crate::{failure::Failure, output};
use clap::{Args, ValueEnum};
use heddle_model::Selector;
use heddle_policy::EntryVerdict;
use heddle_verify::{
    Cluster, Named, Probe,
    matrix::{Cell, cells, ends},
    word,
};
use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    process::ExitCode,
};

/// Destinations that fit a grid on a terminal; more are printed as a list.
const MOST_COLUMNS: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MatrixOutput {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// JSON's content, in YAML.
    Yaml,
    /// For spreadsheets.
    Csv,
}

#[derive(Args)]
pub(crate) struct Matrix {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    dump: FromDumpBesidePeers,
    /// What to try: TCP/80, UDP/53, SCTP/9, TCP/http (a named port), ICMP/8, ICMPv6/128.
    #[arg(long, value_name = "PROBE", required = true, num_args = 1..)]
    probe: Vec<String>,
    /// An outside address, host:NODE, or an entity that joins as source and destination.
    #[arg(long, value_name = "PEER", num_args = 1..)]
    peer: Vec<String>,
    /// Only pods with these labels as sources.
    #[arg(long, value_name = "SELECTOR")]
    from: Option<String>,
    /// Only pods with these labels as destinations.
    #[arg(long, value_name = "SELECTOR")]
    to: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: MatrixOutput,
}

impl Matrix {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output == MatrixOutput::Json;
        self.answer()
            .map_err(|failure| failure.no_answer().json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let probes = self
            .probe
            .iter()
            .map(|probe| Probe::parse(probe))
            .collect::<Result<Vec<_>, _>>()?;
        let select = |text: &Option<String>| match text {
            Some(text) => Selector::parse(text).map_err(|error| {
                usage(
                    "usage/label-selector",
                    error.to_string(),
                    "write for example app=web,tier!=db,env in (a,b),!canary",
                )
            }),
            None => Ok(Selector::everything()),
        };
        let (from, to) = (select(&self.from)?, select(&self.to)?);
        let cluster = self.files.cluster(self.dump.path.as_deref())?;
        let peers = self
            .peer
            .iter()
            .map(|peer| Named::parse(&cluster, peer))
            .collect::<Result<Vec<_>, _>>()?;
        let sources = ends(&cluster, &from, &peers);
        let targets = ends(&cluster, &to, &peers);
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        let written = match self.output {
            MatrixOutput::Json => list(&JSON, &cluster, &probes, &sources, &targets, &mut out),
            MatrixOutput::Yaml => list(&YAML, &cluster, &probes, &sources, &targets, &mut out),
            MatrixOutput::Csv => csv(&cluster, &probes, &sources, &targets, &mut out),
            MatrixOutput::Table => table(&cluster, &probes, &sources, &targets, &mut out),
        };
        output::written(written.and_then(|()| out.flush()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// How a list is written whose items are JSON, of which YAML is a superset.
struct Syntax {
    /// Before the names of the probes, and behind them.
    head: (&'static str, &'static str),
    /// Before the first item, and before each other.
    item: (&'static str, &'static str),
    tail: &'static str,
}

const JSON: Syntax = Syntax {
    head: ("{\"probes\":", ",\"cells\":["),
    item: ("\n", ",\n"),
    tail: "\n]}",
};
const YAML: Syntax = Syntax {
    head: ("probes: ", "\ncells:"),
    item: ("\n- ", "\n- "),
    tail: "",
};

fn list(
    syntax: &Syntax,
    cluster: &Cluster,
    probes: &[Probe],
    sources: &[Named],
    targets: &[Named],
    out: &mut impl Write,
) -> io::Result<()> {
    let names: Vec<&str> = probes.iter().map(|probe| probe.given.as_str()).collect();
    let given = serde_json::to_string(&names)?;
    write!(out, "{}{given}{}", syntax.head.0, syntax.head.1)?;
    // Names are quoted once, not once per cell.
    let mut quoted: BTreeMap<&str, String> = BTreeMap::new();
    let ends = sources.iter().chain(targets).map(|end| end.given.as_str());
    for name in ends.chain(names) {
        quoted.insert(name, serde_json::to_string(name)?);
    }
    let quote = |name: &str| quoted.get(name).map(String::as_str).unwrap_or("null");
    let mut first = true;
    cells(cluster, probes, sources, targets, |cell| {
        let comma = if first { syntax.item.0 } else { syntax.item.1 };
        first = false;
        write!(
            out,
            "{comma}{{\"from\":{},\"to\":{},\"probe\":{},\"verdict\":\"{}\",\"egress\":\"{}\",\"ingress\":\"{}\"}}",
            quote(&cell.from.given),
            quote(&cell.to.given),
            quote(&cell.probe.given),
            word(cell.verdict()),
            word(cell.egress),
            word(cell.ingress),
        )
    })?;
    // A key without items would be null.
    let none = if first && syntax.tail.is_empty() {
        " []"
    } else {
        ""
    };
    writeln!(out, "{none}{}", syntax.tail)
}

fn csv(
    cluster: &Cluster,
    probes: &[Probe],
    sources: &[Named],
    targets: &[Named],
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "from,to,probe,verdict,egress,ingress")?;
    cells(cluster, probes, sources, targets, |cell| {
        // Names of pods, nodes, entities and addresses have no commas or quotes.
        writeln!(
            out,
            "{},{},{},{},{},{}",
            cell.from.given,
            cell.to.given,
            cell.probe.given,
            word(cell.verdict()),
            word(cell.egress),
            word(cell.ingress),
        )
    })
}

fn table(
    cluster: &Cluster,
    probes: &[Probe],
    sources: &[Named],
    targets: &[Named],
    out: &mut impl Write,
) -> io::Result<()> {
    if targets.len() > MOST_COLUMNS {
        return cells(cluster, probes, sources, targets, |cell| {
            writeln!(
                out,
                "{:5} {} -> {} {}{}",
                word(cell.verdict()),
                cell.from.given,
                cell.to.given,
                cell.probe.given,
                stopped(&cell)
            )
        });
    }
    for probe in probes {
        let mut grid = comfy_table::Table::new();
        grid.load_style(comfy_table::presets::NOTHING);
        let header = std::iter::once(probe.given.as_str());
        grid.set_header(header.chain(targets.iter().map(|to| to.given.as_str())));
        for from in sources {
            let mut marks: BTreeMap<&str, String> = BTreeMap::new();
            cells(
                cluster,
                std::slice::from_ref(probe),
                std::slice::from_ref(from),
                targets,
                |cell| {
                    let mark = format!("{}{}", word(cell.verdict()), stopped(&cell));
                    marks.insert(&cell.to.given, mark);
                    io::Result::Ok(())
                },
            )?;
            let cells = targets
                .iter()
                .map(|to| marks.get(to.given.as_str()).map_or("-", String::as_str));
            grid.add_row(std::iter::once(from.given.as_str()).chain(cells));
        }
        writeln!(out, "{}\n", grid.trim_fmt())?;
    }
    Ok(())
}

/// Which end stops it.
fn stopped(cell: &Cell<'_>) -> &'static str {
    match (cell.egress, cell.ingress) {
        (EntryVerdict::Allow, EntryVerdict::Allow) => "",
        (EntryVerdict::Deny, EntryVerdict::Allow) => " (egress)",
        (EntryVerdict::Allow, EntryVerdict::Deny) => " (ingress)",
        (EntryVerdict::Deny, EntryVerdict::Deny) => " (both)",
    }
}
