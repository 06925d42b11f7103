//! Compiled entries with the rules they come from.

use crate::{Cluster, Node, VerifyError, peer::unknown_pod};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::{CidrScope, Direction, Engine, Entry, EntryVerdict, RuleRef, protocol};
use ipnet::IpNet;
use serde::Serialize;

/// A pod's or a node's compiled entries.
#[derive(Clone, Debug, Serialize)]
pub struct EntriesAnswer {
    /// The pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The identity that the entries are for.
    pub identity: Identity,
    /// `enforced` or `open`.
    pub ingress: &'static str,
    /// `enforced` or `open`.
    pub egress: &'static str,
    /// The entries, by key.
    pub entries: Vec<Row>,
}

/// An entry with the rules that it comes from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Which direction it is about.
    pub direction: Direction,
    /// The identity of the other end.
    pub identity: Identity,
    /// What the identity stands for.
    pub peer: String,
    /// `any`, `TCP`, ...
    pub protocol: String,
    /// First port of the range.
    pub port: u16,
    /// Bits of the port that count.
    pub port_prefix: u8,
    /// Last port of the range.
    pub end_port: u16,
    /// Allow or deny.
    pub verdict: EntryVerdict,
    /// Its place in the order of rules; the higher one decides.
    pub precedence: u32,
    /// The number that leads back to the rules.
    pub cookie: u32,
    /// The rules that it comes from.
    pub rules: Vec<RuleRef>,
}

/// The entries of a pod, given as `namespace/name`.
pub fn entries_of_pod(cluster: &mut Cluster, given: &str) -> Result<EntriesAnswer, VerifyError> {
    let (identity, node) = of_pod(cluster, given)?;
    let answer = answer(cluster, identity, node);
    Ok(EntriesAnswer {
        pod: Some(given.to_owned()),
        ..answer
    })
}

/// The entries of a node's own policy.
pub fn entries_of_node(cluster: &mut Cluster, given: &str) -> Result<EntriesAnswer, VerifyError> {
    let (identity, node) = of_node(cluster, given)?;
    let answer = answer(cluster, identity, node);
    Ok(EntriesAnswer {
        node: Some(given.to_owned()),
        ..answer
    })
}

fn answer(cluster: &mut Cluster, identity: Identity, node: usize) -> EntriesAnswer {
    set_addresses(cluster, node);
    let compiled = cluster.engine.compile(identity);
    let stance = |enforced| if enforced { "enforced" } else { "open" };
    EntriesAnswer {
        pod: None,
        node: None,
        identity,
        ingress: stance(compiled.ingress_enforced),
        egress: stance(compiled.egress_enforced),
        entries: compiled
            .expanded()
            .map(|entry| row(&cluster.engine, &entry))
            .collect(),
    }
}

/// A pod's identity, and its node.
fn of_pod(cluster: &Cluster, given: &str) -> Result<(Identity, usize), VerifyError> {
    let found = given
        .parse::<NamespacedName>()
        .ok()
        .and_then(|name| cluster.pod(&name));
    let found = found.ok_or_else(|| unknown_pod(cluster, format!("{given:?}"), given))?;
    let pod = &cluster.pods[found];
    if pod.host_network {
        return Err(VerifyError::HostNetwork {
            pod: pod.name.clone(),
        });
    }
    Ok((pod.identity, pod.node))
}

/// The number that host policies know a node by, and its position.
fn of_node(cluster: &Cluster, given: &str) -> Result<(Identity, usize), VerifyError> {
    let found = cluster
        .node(given)
        .and_then(|position| Some((Node::subject(position)?, position)));
    found.ok_or_else(|| VerifyError::UnknownNode {
        given: given.to_owned(),
        whence: cluster.whence.clone(),
        nodes: cluster.nodes.iter().map(|n| n.name.clone()).collect(),
    })
}

/// Who is at which address, as the node sees it: rows depend on it where rules that pass meet addresses.
fn set_addresses(cluster: &mut Cluster, node: usize) {
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
