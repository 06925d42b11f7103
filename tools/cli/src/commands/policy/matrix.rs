//! `heddle policy matrix`: all ordered pairs, all probes.

use super::{
    Files,
    cluster::Cluster,
    labels,
    peer::{Family, Named, Peer, common_family},
    unwritable, usage,
};
use crate::failure::Failure;
use clap::{Args, ValueEnum};
use heddle_model::{Identity, Selector};
use heddle_policy::{CidrScope, Direction, EntryVerdict, Party, Traffic, protocol};
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufWriter, Write},
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
    /// For spreadsheets.
    Csv,
}

#[derive(Args)]
pub(crate) struct Matrix {
    #[command(flatten)]
    files: Files,
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

/// One probe.
struct Probe {
    given: String,
    protocol: u8,
    port: PortOf,
    /// The family that it needs.
    family: Option<Family>,
}

enum PortOf {
    Number(u16),
    Name(String),
}

impl Probe {
    fn parse(given: &str) -> Result<Self, Failure> {
        let refuse = || {
            usage(
                "usage/probe",
                format!("{given:?} is not a probe"),
                "probes look like TCP/80, UDP/53, SCTP/9, TCP/http, ICMP/8, ICMPv6/128",
            )
        };
        let (name, port) = given.split_once('/').ok_or_else(refuse)?;
        let protocol = protocol::number(name).ok_or_else(refuse)?;
        let family = match protocol {
            protocol::ICMP => Some(Family::V4),
            protocol::ICMPV6 => Some(Family::V6),
            _ => None,
        };
        let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        let port = match (family, digits) {
            (Some(_), _) => PortOf::Number(port.parse::<u8>().map_err(|_| refuse())?.into()),
            (None, true) => match port.parse::<u16>() {
                Ok(number) if number > 0 => PortOf::Number(number),
                _ => return Err(refuse()),
            },
            (None, false) if port.is_empty() => return Err(refuse()),
            (None, false) => PortOf::Name(port.to_owned()),
        };
        Ok(Self {
            given: given.to_owned(),
            protocol,
            port,
            family,
        })
    }

    /// What goes to this destination; `None` when it does not have the named port.
    fn traffic(&self, cluster: &Cluster, to: Peer) -> Option<Traffic> {
        let port = match &self.port {
            PortOf::Number(port) => *port,
            PortOf::Name(name) => to.named_port(cluster, self.protocol, name)?,
        };
        Some(Traffic {
            protocol: self.protocol,
            port,
        })
    }
}

/// One cell.
struct Cell<'a> {
    from: &'a Named,
    to: &'a Named,
    probe: &'a Probe,
    egress: EntryVerdict,
    ingress: EntryVerdict,
}

impl Cell<'_> {
    fn verdict(&self) -> EntryVerdict {
        self.egress.max(self.ingress)
    }
}

const fn word(verdict: EntryVerdict) -> &'static str {
    match verdict {
        EntryVerdict::Allow => "allow",
        EntryVerdict::Deny => "deny",
    }
}

impl Matrix {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output == MatrixOutput::Json;
        self.answer().map_err(|failure| failure.json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let probes = self
            .probe
            .iter()
            .map(|probe| Probe::parse(probe))
            .collect::<Result<Vec<_>, _>>()?;
        let select = |text: &Option<String>| match text {
            Some(text) => labels::parse(text),
            None => Ok(Selector::everything()),
        };
        let (from, to) = (select(&self.from)?, select(&self.to)?);
        let cluster = Cluster::build(&self.files.read()?)?;
        let peers = self
            .peer
            .iter()
            .map(|peer| Named::parse(&cluster, peer))
            .collect::<Result<Vec<_>, _>>()?;
        let ends = |selector: &Selector| -> Vec<Named> {
            (0..cluster.pods.len())
                .filter(|pod| {
                    let labels = &cluster.pods[*pod].labels;
                    selector.matches(|key| labels.get(key).map(String::as_str))
                })
                .map(|pod| Named::pod(&cluster, pod))
                .chain(peers.iter().cloned())
                .collect()
        };
        let (sources, targets) = (ends(&from), ends(&to));
        let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        let written = match self.output {
            MatrixOutput::Json => json(&cluster, &probes, &sources, &targets, &mut out),
            MatrixOutput::Csv => csv(&cluster, &probes, &sources, &targets, &mut out),
            MatrixOutput::Table => table(&cluster, &probes, &sources, &targets, &mut out),
        };
        written
            .and_then(|()| out.flush())
            .map_err(|error| unwritable(&error))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Answers, remembered by what policy can tell apart: thousands of pods are few kinds of pods.
struct Answers<'a> {
    cluster: &'a Cluster,
    known: HashMap<(Kind, Kind, Traffic), (EntryVerdict, EntryVerdict)>,
}

/// All that a policy can see of an end: its identity, and the longest policy CIDR around its address.
type Kind = (Identity, Identity, bool);

impl Answers<'_> {
    fn kind(&self, party: &Party) -> Kind {
        let scope = if party.in_cluster {
            CidrScope::InCluster
        } else {
            CidrScope::World
        };
        let cidr = party.prefix.map_or(Identity::UNKNOWN, |prefix| {
            self.cluster.engine.cidr_covering(prefix, scope)
        });
        (party.identity, cidr, party.in_cluster)
    }

    fn ask(&mut self, from: &Party, to: &Party, traffic: Traffic) -> (EntryVerdict, EntryVerdict) {
        let key = (self.kind(from), self.kind(to), traffic);
        if let Some(answer) = self.known.get(&key) {
            return *answer;
        }
        let engine = &self.cluster.engine;
        let answer = (
            engine.verdict(from, to, Direction::Egress, traffic),
            engine.verdict(to, from, Direction::Ingress, traffic),
        );
        self.known.insert(key, answer);
        answer
    }
}

/// Calls `each` for every cell, sources outermost, then destinations, then probes.
fn cells<'a>(
    cluster: &Cluster,
    probes: &'a [Probe],
    sources: &'a [Named],
    targets: &'a [Named],
    mut each: impl FnMut(Cell<'a>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut answers = Answers {
        cluster,
        known: HashMap::new(),
    };
    for from in sources {
        for to in targets {
            let common = common_family(cluster, from, to);
            for probe in probes {
                let Some(traffic) = probe.traffic(cluster, to.peer) else {
                    continue;
                };
                let (egress, ingress) = if from.peer.is_same_pod(to.peer, cluster) {
                    (EntryVerdict::Allow, EntryVerdict::Allow)
                } else {
                    let family = probe.family.unwrap_or(common);
                    let source = from.peer.party(to.peer, cluster, family);
                    let target = to.peer.party(from.peer, cluster, family);
                    answers.ask(&source, &target, traffic)
                };
                each(Cell {
                    from,
                    to,
                    probe,
                    egress,
                    ingress,
                })?;
            }
        }
    }
    Ok(())
}

fn json(
    cluster: &Cluster,
    probes: &[Probe],
    sources: &[Named],
    targets: &[Named],
    out: &mut impl Write,
) -> std::io::Result<()> {
    let names: Vec<&str> = probes.iter().map(|probe| probe.given.as_str()).collect();
    write!(
        out,
        "{{\"probes\":{},\"cells\":[",
        serde_json::to_string(&names)?
    )?;
    // Names are quoted once, not once per cell.
    let mut quoted: BTreeMap<&str, String> = BTreeMap::new();
    let ends = sources.iter().chain(targets).map(|end| end.given.as_str());
    for name in ends.chain(names) {
        quoted.insert(name, serde_json::to_string(name)?);
    }
    let quote = |name: &str| quoted.get(name).map(String::as_str).unwrap_or("null");
    let mut first = true;
    cells(cluster, probes, sources, targets, |cell| {
        let comma = if first { "\n" } else { ",\n" };
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
    writeln!(out, "\n]}}")
}

fn csv(
    cluster: &Cluster,
    probes: &[Probe],
    sources: &[Named],
    targets: &[Named],
    out: &mut impl Write,
) -> std::io::Result<()> {
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
) -> std::io::Result<()> {
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
                    Ok(())
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
