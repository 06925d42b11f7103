//! Commands that ask running agents: flows, status, endpoints, identities, nodes, maps, differences.

pub(super) mod agents;
pub(super) mod client;
mod flags;
pub(super) mod node;
mod observe;
mod show;
mod table;

use crate::failure::{FINDINGS, Failure, NO_DATA};
use crate::output::{is_colored, one_line};
use agents::{Agent, Agents, Target};
use clap::{Args, Subcommand, ValueEnum};
use heddle_rpc::Call;
use heddle_rpc::node::{
    DifferenceList, EndpointList, IdentityList, IpamList, IpcacheList, ListConnections,
    ListPolicies, NodeList, ReadStatus,
};
use ipnet::IpNet;
use serde_json::{Value, json};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What an agent says of an endpoint that is not on its node.
const UNKNOWN_ENDPOINT: &str = "endpoint/unknown";

/// Characters of a table's line where there is no terminal that could tell.
const LINE: usize = 120;

/// Where agents and labs keep their sockets.
pub(super) const RUNTIME: &str = "/run/heddle";

/// Commands that ask running agents.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Shows flows: who talked to whom, what was decided, and by which policy.
    #[command(after_help = "Examples:
  heddle observe --verdict DROPPED --last 20
  heddle observe --follow --pod hello/client --port 8080
  heddle observe --since 5m --not --namespace kube-system -o jsonpb")]
    Observe(Box<observe::Arguments>),
    /// Shows how the node's agent is: features, endpoints, policies, maps, warnings.
    #[command(after_help = "Examples:
  heddle status
  heddle status --lab second -o json")]
    Status(Ask),
    /// Shows the node's endpoints as the datapath has them.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Shows security identities and their labels.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Shows the cluster's nodes as the agents know them.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Shows the nodes' pod addresses.
    #[command(subcommand)]
    Ipam(IpamCommand),
    /// Shows the datapath's maps, decoded.
    #[command(subcommand)]
    Bpf(BpfCommand),
    /// Compares what is wished with what the datapath has; exits with 1 when they differ.
    #[command(after_help = "Examples:
  heddle diff
  heddle diff --node node-1 -o json")]
    Diff(Ask),
}

/// How an object is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Output {
    /// Columns.
    Table,
    /// Columns, all of them.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Which agents to ask, and how to print.
#[derive(Args, Debug)]
pub(crate) struct Ask {
    #[command(flatten)]
    target: Target,
    /// How to print.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// `heddle endpoint`.
#[derive(Subcommand)]
pub(crate) enum EndpointCommand {
    /// All endpoints.
    List(Ask),
    /// One endpoint.
    Get {
        /// Its id, or the pod as NAMESPACE/NAME.
        #[arg(value_name = "ID|NAMESPACE/POD")]
        which: String,
        #[command(flatten)]
        ask: Ask,
    },
}

/// `heddle identity`.
#[derive(Subcommand)]
pub(crate) enum IdentityCommand {
    /// All identities.
    List(Ask),
    /// One identity.
    Get {
        /// Its number or reserved name.
        #[arg(value_name = "NUMBER|NAME")]
        which: String,
        #[command(flatten)]
        ask: Ask,
    },
}

/// `heddle node`.
#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes.
    List(Ask),
}

/// `heddle ipam`.
#[derive(Subcommand)]
pub(crate) enum IpamCommand {
    /// Each node's blocks: how many addresses there are, and how many are used, rest after use, and are free.
    List(Ask),
}

/// `heddle bpf`.
#[derive(Subcommand)]
pub(crate) enum BpfCommand {
    /// Policy maps: what is allowed and denied per endpoint, and by which rules.
    #[command(subcommand)]
    Policy(MapCommand),
    /// Tracked connections.
    #[command(subcommand)]
    Ct(ConnectionCommand),
    /// Which identity and node an address range has.
    #[command(subcommand)]
    Ipcache(MapCommand),
}

/// What to do with a map.
#[derive(Subcommand)]
pub(crate) enum MapCommand {
    /// All entries.
    List {
        /// Only entries of this endpoint.
        #[arg(long, value_name = "ID")]
        endpoint: Option<u16>,
        #[command(flatten)]
        ask: Ask,
    },
}

/// What to do with the table of connections.
#[derive(Subcommand)]
pub(crate) enum ConnectionCommand {
    /// The connections that live, in the order of nodes, protocols and addresses.
    List {
        /// Only those of this endpoint.
        #[arg(long, value_name = "ID")]
        endpoint: Option<u16>,
        /// Those that have expired, too: their places are free to be taken.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        ask: Ask,
    },
}

/// Where a command runs; tests bring their own.
pub(crate) struct Environment<'a> {
    /// Where agents and labs keep their sockets.
    pub(crate) runtime: PathBuf,
    /// For data.
    pub(crate) out: &'a mut dyn Write,
    /// For warnings.
    pub(crate) err: &'a mut dyn Write,
    /// `out` is a terminal, and colours are welcome there.
    pub(crate) color: bool,
    /// Characters that fit a line of a table.
    pub(crate) width: usize,
}

/// Runs a command.
pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    let stdout = std::io::stdout();
    let color = is_colored(&stdout);
    execute(
        command,
        &mut Environment {
            runtime: Path::new(RUNTIME).to_owned(),
            out: &mut stdout.lock(),
            err: &mut std::io::stderr(),
            color,
            width: terminal_size::terminal_size().map_or(LINE, |(width, _)| usize::from(width.0)),
        },
    )
    .map(ExitCode::from)
}

/// Runs a command and gives its exit code.
pub(crate) fn execute(command: Command, around: &mut Environment<'_>) -> Result<u8, Failure> {
    match command {
        Command::Observe(arguments) => observe::run(*arguments, around),
        Command::Status(ask) => ask.told(status(&ask, around)),
        Command::Diff(ask) => ask.told(diff(&ask, around).map_err(Failure::no_answer)),
        Command::Endpoint(EndpointCommand::List(ask)) => {
            ask.told(list(&ask, EndpointList::METHOD, &json!({}), around))
        }
        Command::Endpoint(EndpointCommand::Get { which, ask }) => {
            ask.told(get(&ask, "endpoint", &which, around, is_endpoint))
        }
        Command::Identity(IdentityCommand::List(ask)) => {
            ask.told(list(&ask, IdentityList::METHOD, &json!({}), around))
        }
        Command::Identity(IdentityCommand::Get { which, ask }) => {
            ask.told(get(&ask, "identity", &which, around, is_identity))
        }
        Command::Node(NodeCommand::List(ask)) => {
            ask.told(list(&ask, NodeList::METHOD, &json!({}), around))
        }
        Command::Ipam(IpamCommand::List(ask)) => {
            ask.told(list(&ask, IpamList::METHOD, &json!({}), around))
        }
        Command::Bpf(BpfCommand::Ct(ConnectionCommand::List { endpoint, all, ask })) => {
            ask.told(connections(&ask, endpoint, all, around))
        }
        Command::Bpf(map) => {
            let (method, MapCommand::List { endpoint, ask }) = match map {
                BpfCommand::Ipcache(list) => (IpcacheList::METHOD, list),
                BpfCommand::Policy(list) => (ListPolicies::METHOD, list),
                // Above.
                BpfCommand::Ct(_) => return Ok(0),
            };
            let outcome = match (method, endpoint) {
                (_, None) => list(&ask, method, &json!({}), around),
                (IpcacheList::METHOD, Some(id)) => ipcache_of(&ask, id, around),
                (_, endpoint) => list(&ask, method, &json!(ListPolicies { endpoint }), around),
            };
            ask.told(outcome)
        }
    }
}

impl Ask {
    /// A failure is printed as the answer would have been.
    fn told<T>(&self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        outcome.map_err(|failure| failure.json(self.output == Output::Json))
    }
}

/// The answers of several agents, and who gave none.
struct Answers {
    /// Node name (empty where it is not known) and answer.
    given: Vec<(String, Value)>,
    missing: Vec<(Agent, Failure)>,
    /// More than one agent was meant.
    several: bool,
}

/// Asks every agent that is meant; fails when none of them answers.
fn ask_all(
    target: &Target,
    method: &str,
    params: &Value,
    around: &mut Environment<'_>,
) -> Result<Answers, Failure> {
    let agents = target.find(&around.runtime)?;
    let several = matches!(agents, Agents::Lab(_));
    let (mut given, mut missing) = (Vec::new(), Vec::new());
    let agents = agents.into_vec();
    // One slow agent must not make the others wait.
    let answers = std::thread::scope(|scope| {
        let calls: Vec<_> = agents
            .iter()
            .map(|agent| scope.spawn(move || client::ask(agent, method, params)))
            .collect();
        calls
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    for (agent, answer) in agents.into_iter().zip(answers) {
        let answer = answer.unwrap_or_else(|_| {
            Err(Failure::new(
                "agent/broken-answer",
                format!("{agent} could not be asked"),
            ))
        });
        match answer {
            Ok(answer) => given.push((agent.node.clone().unwrap_or_default(), answer)),
            Err(failure) => missing.push((agent, failure)),
        }
    }
    // Of a whole lab, one node has the endpoint that was asked for and the others know nothing of it.
    let knows = |(_, failure): &(Agent, Failure)| failure.code != UNKNOWN_ENDPOINT;
    if !given.is_empty() || missing.iter().any(knows) {
        missing.retain(knows);
    }
    if given.is_empty()
        && let Some((_, failure)) = missing.pop()
    {
        return Err(failure);
    }
    for (_, failure) in &missing {
        warn(around, &format!("{} ({})", failure.message, failure.code));
    }
    Ok(Answers {
        given,
        missing,
        several,
    })
}

fn warn(around: &mut Environment<'_>, text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(around.err, "warning: {}", one_line(text));
}

fn note(around: &mut Environment<'_>, text: &str) {
    // As above.
    let _ = writeln!(around.err, "note: {}", one_line(text));
}

/// Exit code of an answer that lacks these nodes.
const fn completeness<T>(missing: &[T]) -> u8 {
    if missing.is_empty() { 0 } else { NO_DATA }
}

impl Answers {
    /// In the place of each answer that is missing its node and the failure.
    fn absent(&self) -> Vec<Value> {
        let missing = self.missing.iter();
        missing
            .map(|(agent, failure)| json!({"node": agent.node, "error": failure}))
            .collect()
    }

    /// The names of the nodes whose answers are missing.
    fn missing_names(&self) -> String {
        let missing = self.missing.iter();
        let names: Vec<String> = missing
            .map(|(agent, _)| agent.node.clone().unwrap_or_else(|| agent.to_string()))
            .collect();
        names.join(", ")
    }
}

/// Rows of all agents that answered, and in the place of the others' rows their node and the failure.
struct Rows {
    given: Vec<Value>,
    absent: Vec<Value>,
}

impl Rows {
    /// Prints them, for machines with the nodes whose rows are missing, and gives the exit code.
    fn show(self, method: &str, ask: &Ask, around: &mut Environment<'_>) -> Result<u8, Failure> {
        let exit = completeness(&self.absent);
        let mut rows = self.given;
        if matches!(ask.output, Output::Json | Output::Yaml) {
            rows.extend(self.absent);
        }
        let text = show::rows(method, &rows, ask.output, around.width)?;
        emit(around, &text)?;
        Ok(exit)
    }
}

/// Prints; a reader that has gone away is no failure.
fn emit(around: &mut Environment<'_>, text: &str) -> Result<(), Failure> {
    match writeln!(around.out, "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            "output/failed",
            format!("the answer could not be written: {error}"),
        )),
        _ => Ok(()),
    }
}

/// `status`: one agent's object; for a whole lab `{"nodes": [...]}`, where an agent that does not answer
/// is `{"node", "ready": false, "error"}`.
fn status(ask: &Ask, around: &mut Environment<'_>) -> Result<u8, Failure> {
    let answers = ask_all(&ask.target, ReadStatus::METHOD, &json!({}), around)?;
    let exit = completeness(&answers.missing);
    let absent = answers.absent().into_iter().map(|mut node| {
        node["ready"] = json!(false);
        node
    });
    let given = answers.given.into_iter().map(|(_, value)| value);
    let mut nodes: Vec<Value> = given.chain(absent).collect();
    nodes.sort_by_key(|node| node["node"].as_str().unwrap_or_default().to_owned());
    let text = match (ask.output, answers.several, nodes.first()) {
        (Output::Table | Output::Wide, _, _) => show::statuses(&nodes),
        (_, false, Some(node)) => show::structured(node, ask.output)?,
        _ => show::structured(&json!({ "nodes": nodes }), ask.output)?,
    };
    emit(around, &text)?;
    Ok(exit)
}

/// `diff`: the differences of every node that was asked.
fn diff(ask: &Ask, around: &mut Environment<'_>) -> Result<u8, Failure> {
    let answers = ask_all(&ask.target, DifferenceList::METHOD, &json!({}), around)?;
    let complete = completeness(&answers.missing);
    let differences = show::count_differences(answers.given.iter().map(|(_, value)| value));
    let text = match ask.output {
        Output::Table | Output::Wide => {
            let shown = show::differences(&answers.given);
            match (complete, differences) {
                (0, _) => shown,
                (_, 0) => format!(
                    "no differences on the nodes that answered; not known: {}",
                    answers.missing_names()
                ),
                _ => format!("{shown}\nnot known: {}", answers.missing_names()),
            }
        }
        _ => match (answers.several, answers.given.first()) {
            (false, Some((_, value))) => show::structured(value, ask.output)?,
            _ => {
                let all = show::per_node(&answers.given, answers.absent());
                show::structured(&all, ask.output)?
            }
        },
    };
    emit(around, &text)?;
    // A known difference counts more than an unknown one.
    Ok(if differences > 0 { FINDINGS } else { complete })
}

/// Rows of every agent that was asked.
fn list(
    ask: &Ask,
    method: &str,
    params: &Value,
    around: &mut Environment<'_>,
) -> Result<u8, Failure> {
    rows(ask, method, params, around, |_| true)?.show(method, ask, around)
}

/// Tracked connections in a stable order.
fn connections(
    ask: &Ask,
    endpoint: Option<u16>,
    all: bool,
    around: &mut Environment<'_>,
) -> Result<u8, Failure> {
    let params = json!(ListConnections { endpoint });
    let lives = |row: &Value| all || row["remainingSeconds"] != 0;
    let mut rows = rows(ask, ListConnections::METHOD, &params, around, lives)?;
    rows.given.sort_by_cached_key(|row| {
        ["node", "protocol", "source", "destination"].map(|key| row[key].to_string())
    });
    rows.show(ListConnections::METHOD, ask, around)
}

/// The ipcache rows of an endpoint's own addresses.
fn ipcache_of(ask: &Ask, id: u16, around: &mut Environment<'_>) -> Result<u8, Failure> {
    let text = id.to_string();
    let is_meant = |row: &Value| is_endpoint(row, &text);
    let endpoints = rows(ask, EndpointList::METHOD, &json!({}), around, is_meant)?;
    if endpoints.given.is_empty() {
        return Err(none_found("endpoint", &text, &endpoints.absent));
    }
    let addresses: Vec<IpNet> = endpoints
        .given
        .iter()
        .flat_map(|endpoint| [&endpoint["ipv4"], &endpoint["ipv6"]])
        .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect();
    let is_its = |row: &Value| {
        row["prefix"]
            .as_str()
            .and_then(|prefix| prefix.parse::<IpNet>().ok())
            .is_some_and(|prefix| addresses.contains(&prefix))
    };
    let mut found = rows(ask, IpcacheList::METHOD, &json!({}), around, is_its)?;
    // Without its endpoints a node may have one of that id whose addresses are not among these.
    for absent in endpoints.absent {
        if !found.absent.iter().any(|it| it["node"] == absent["node"]) {
            found.absent.push(absent);
        }
    }
    found.show(IpcacheList::METHOD, ask, around)
}

/// None of the nodes that answered has it. With a node missing, nobody can say that there is none.
fn none_found(what: &str, which: &str, absent: &[Value]) -> Failure {
    let failure = Failure::new(
        format!("{what}/unknown"),
        format!("there is no {what} {which} on the nodes that were asked"),
    )
    .object(which)
    .help(format!("`heddle {what} list` shows what there is"));
    match completeness(absent) {
        0 => failure,
        exit => failure.exit(exit),
    }
}

/// The rows that are meant by `which`: a list too, because two nodes may each have an endpoint 7. None
/// is a failure.
fn get(
    ask: &Ask,
    what: &str,
    which: &str,
    around: &mut Environment<'_>,
    is: impl Fn(&Value, &str) -> bool,
) -> Result<u8, Failure> {
    let method = format!("{what}.list");
    let rows = rows(ask, &method, &json!({}), around, |row| is(row, which))?;
    if rows.given.is_empty() {
        return Err(none_found(what, which, &rows.absent));
    }
    rows.show(&method, ask, around)
}

fn rows(
    ask: &Ask,
    method: &str,
    params: &Value,
    around: &mut Environment<'_>,
    keep: impl Fn(&Value) -> bool,
) -> Result<Rows, Failure> {
    let answers = ask_all(&ask.target, method, params, around)?;
    let mut absent = answers.absent();
    // What every node knows alike is one row that names who knows it; the rest belongs to one node.
    // (An ipcache row's `node` is the node that has the addresses, so it cannot name the reporter.)
    let shared = matches!(
        method,
        IdentityList::METHOD | NodeList::METHOD | IpcacheList::METHOD
    );
    let mut merged = show::Merged::default();
    let mut found: Vec<Value> = Vec::new();
    for (node, answer) in answers.given {
        let Some((given, left_out)) = rows_of(answer) else {
            return Err(Failure::new(
                "agent/broken-answer",
                format!(
                    "the agent of node {node:?} answered {method} with something else than a list"
                ),
            )
            .help("is it of the same version as this command?"));
        };
        if left_out > 0 {
            let failure = too_many(&node, left_out, given.len());
            warn(around, &format!("{} ({})", failure.message, failure.code));
            absent.push(json!({"node": node, "error": failure}));
        }
        for mut row in given {
            if !keep(&row) {
                continue;
            }
            if shared && answers.several {
                // Each agent says it of its own node only.
                if let Value::Object(fields) = &mut row {
                    fields.remove("local");
                }
                merged.add(row, &node);
                continue;
            }
            if !shared
                && !node.is_empty()
                && let Value::Object(fields) = &mut row
            {
                fields
                    .entry("node")
                    .or_insert_with(|| Value::String(node.clone()));
            }
            found.push(row);
        }
    }
    found.extend(merged.into_rows());
    Ok(Rows {
        given: found,
        absent,
    })
}

/// The rows of an answer, and how many it left out.
fn rows_of(answer: Value) -> Option<(Vec<Value>, u64)> {
    match answer {
        Value::Array(rows) => Some((rows, 0)),
        Value::Object(mut answer) => match answer.remove("rows") {
            Some(Value::Array(rows)) => Some((rows, answer.get("leftOut")?.as_u64()?)),
            _ => None,
        },
        _ => None,
    }
}

/// An answer had to leave rows out.
fn too_many(node: &str, left_out: u64, given: usize) -> Failure {
    Failure::new(
        "agent/rows-left-out",
        format!("node {node} has {left_out} more rows than the {given} of its answer"),
    )
    .object(node)
    .help("of policies and connections `--endpoint ID` shows those of one endpoint")
}

fn is_endpoint(row: &Value, which: &str) -> bool {
    match which.split_once('/') {
        Some((namespace, pod)) => row["namespace"] == namespace && row["pod"] == pod,
        None => row["id"].as_u64().is_some_and(|id| id.to_string() == which),
    }
}

fn is_identity(row: &Value, which: &str) -> bool {
    let number = heddle_model::Identity::from_reserved_name(which)
        .map_or_else(|| which.to_owned(), |identity| identity.to_string());
    ["id", "identity", "number"]
        .iter()
        .any(|key| match &row[*key] {
            Value::Number(known) => known.to_string() == number,
            Value::String(known) => *known == number,
            _ => false,
        })
}

#[cfg(test)]
mod tests;
