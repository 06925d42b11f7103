//! `heddle policy entries`: a pod's or a node's compiled entries with the rules they come from.

use super::{
    Files, Output,
    cluster::{Cluster, Node},
    say, usage,
};
use crate::failure::Failure;
use clap::Args;
use comfy_table::{Table, presets};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::{CidrScope, Engine, Entry, EntryVerdict, RuleRef, protocol};
use ipnet::IpNet;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Entries {
    #[command(flatten)]
    files: Files,
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

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    identity: Identity,
    ingress: &'static str,
    egress: &'static str,
    entries: Vec<Row>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    direction: heddle_policy::Direction,
    identity: Identity,
    /// What the identity stands for.
    peer: String,
    /// `any`, `TCP`, ...
    protocol: String,
    port: u16,
    port_prefix: u8,
    /// Last port of the range.
    end_port: u16,
    verdict: EntryVerdict,
    precedence: u32,
    cookie: u32,
    rules: Vec<RuleRef>,
}

impl Entries {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output.is_json();
        self.answer().map_err(|failure| failure.json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let mut cluster = Cluster::build(&self.files.read()?)?;
        let (identity, node) = match (&self.pod, &self.node) {
            (_, Some(name)) => of_node(&cluster, name)?,
            (Some(name), None) => of_pod(&cluster, name)?,
            // The command line asks for one of them.
            (None, None) => return Err(unknown_pod("")),
        };
        tell_addresses(&mut cluster, node);
        let compiled = cluster.engine.compile(identity);
        let mut entries: Vec<Entry> = compiled.expanded().collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        let stance = |enforced| if enforced { "enforced" } else { "open" };
        let answer = Answer {
            pod: self.pod,
            node: self.node,
            identity,
            ingress: stance(compiled.ingress_enforced),
            egress: stance(compiled.egress_enforced),
            entries: entries
                .iter()
                .map(|entry| row(&cluster.engine, entry))
                .collect(),
        };
        if !self.output.print(&answer)? {
            print(&answer)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A pod's identity, and its node.
fn of_pod(cluster: &Cluster, given: &str) -> Result<(Identity, usize), Failure> {
    let found = given
        .parse::<NamespacedName>()
        .ok()
        .and_then(|name| cluster.pod(&name));
    let pod = &cluster.pods[found.ok_or_else(|| unknown_pod(given))?];
    if pod.host_network {
        return Err(usage(
            "policy/host-network",
            format!(
                "pod {} shares its node's network and has no policy of its own",
                pod.name
            ),
            "ask about its node with --node, or about a pod with hostNetwork: false",
        ));
    }
    Ok((pod.identity, pod.node))
}

/// The number that host policies know a node by, and its position.
fn of_node(cluster: &Cluster, given: &str) -> Result<(Identity, usize), Failure> {
    let found = cluster
        .node(given)
        .and_then(|position| Some((Node::subject(position)?, position)));
    found.ok_or_else(|| {
        let nodes: Vec<&str> = cluster.nodes.iter().map(|n| n.name.as_str()).collect();
        usage(
            "policy/unknown-peer",
            format!("there is no node {given:?} in the manifests"),
            &format!("nodes: {}", nodes.join(", ")),
        )
    })
}

fn unknown_pod(given: &str) -> Failure {
    usage(
        "policy/unknown-peer",
        format!("there is no pod {given:?} in the manifests"),
        "name a pod as namespace/name; pods without a namespace are in `default`",
    )
}

/// Who is at which address, as the node sees it: rows depend on it where rules that pass meet addresses.
fn tell_addresses(cluster: &mut Cluster, node: usize) {
    for range in &cluster.pod_ranges {
        cluster.engine.set_address(*range, Identity::UNMANAGED);
    }
    for (position, known) in cluster.nodes.iter().enumerate() {
        let identity = if position == node {
            Identity::HOST
        } else {
            Identity::REMOTE_NODE
        };
        for address in &known.addresses {
            cluster.engine.set_address(IpNet::from(*address), identity);
        }
    }
    for pod in cluster.pods.iter().filter(|pod| !pod.host_network) {
        for address in &pod.addresses {
            cluster
                .engine
                .set_address(IpNet::from(*address), pod.identity);
        }
    }
}

fn row(engine: &Engine, entry: &Entry) -> Row {
    let key = entry.key;
    let free_bits = 16 - u32::from(key.port_prefix.min(16));
    let last = u32::from(key.port) | ((1u32 << free_bits) - 1);
    Row {
        direction: key.direction,
        identity: key.identity,
        peer: peer(engine, key.identity),
        protocol: match key.protocol {
            0 => "any".to_owned(),
            number => protocol::name(number).map_or_else(|| number.to_string(), str::to_owned),
        },
        port: key.port,
        port_prefix: key.port_prefix,
        end_port: u16::try_from(last).unwrap_or(u16::MAX),
        verdict: entry.verdict,
        precedence: entry.precedence,
        cookie: entry.cookie,
        rules: engine.rules_of(entry.cookie),
    }
}

fn peer(engine: &Engine, identity: Identity) -> String {
    if identity == Identity::UNKNOWN {
        return "anybody".to_owned();
    }
    if let Some(name) = identity.reserved_name() {
        return format!("reserved:{name}");
    }
    if let Some(labels) = engine.labels(identity) {
        return labels.to_string();
    }
    match engine.cidrs().iter().find(|c| c.identity == identity) {
        Some(cidr) => match cidr.scope {
            CidrScope::World => format!("{} outside the cluster", cidr.prefix),
            CidrScope::InCluster => format!("{} in the cluster", cidr.prefix),
        },
        None => identity.to_string(),
    }
}

fn print(answer: &Answer) -> Result<(), Failure> {
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
            heddle_policy::Direction::Ingress => "ingress",
            heddle_policy::Direction::Egress => "egress",
        };
        let port = match (entry.port_prefix, entry.port == entry.end_port) {
            (0, _) => "any".to_owned(),
            (_, true) => entry.port.to_string(),
            (_, false) => format!("{}-{}", entry.port, entry.end_port),
        };
        let verdict = match entry.verdict {
            EntryVerdict::Allow => "allow",
            EntryVerdict::Deny => "deny",
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
            verdict,
            &rules,
        ]);
    }
    say(&table.trim_fmt())
}
