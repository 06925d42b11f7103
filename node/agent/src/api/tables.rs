//! The kernel's maps, decoded.

use super::answers::find_endpoint;
use super::lookup::MOST_CONNECTIONS;
use crate::agent::{Agent, blocking};
use crate::directory::Directory;
use crate::endpoint::kernel_failure;
use crate::endpoint::table::LocalEndpoint;
use crate::ledger::as_compiled;
use heddle_abi::{CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY, ConnectionKey};
use heddle_datapath::{ConnectionRow, PeerRow};
use heddle_model::Identity;
use heddle_policy::compiled::Entry;
use heddle_policy::protocol::describe;
use heddle_rpc::ApiError;
use heddle_rpc::node::{
    Admission, ConnectionState, IpcacheList, IpcacheRow, ListConnections, ListPolicies, MapRows,
    PolicyRow, TrackedConnection,
};
use heddle_rpc::server::Reply;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Rows of policy maps in an answer at most.
pub(crate) const MOST_POLICY_ROWS: usize = 32_768;
/// Rows of the ipcache in an answer at most.
const MOST_IPCACHE_ROWS: usize = 131_072;
/// The RST bit of TCP's flags.
pub(super) const TCP_RST: u8 = 4;

/// The policy maps of all endpoints, or of one.
pub(super) async fn policies(agent: &Arc<Agent>, asked: ListPolicies) -> Result<Reply, ApiError> {
    let wanted = agent
        .on_ledger(move |ledger| {
            let named = |it: &LocalEndpoint| (it.record.endpoint, it.record.pod.to_string());
            match asked.endpoint {
                None => Ok(ledger.endpoints.values().map(named).collect::<Vec<_>>()),
                Some(id) => find_endpoint(ledger, id).map(|it| vec![named(it)]),
            }
        })
        .await?;
    let (datapath, directory) = (Arc::clone(&agent.datapath), Arc::clone(&agent.directory));
    blocking(move || {
        let mut answer = MapRows {
            rows: Vec::new(),
            left_out: 0,
        };
        let endpoints = wanted.len();
        for (at, (id, pod)) in wanted.into_iter().enumerate() {
            let policy = datapath
                .policy(id)
                .map_err(|error| kernel_failure(&error))?;
            let generation = policy.generation;
            let Some(policy) = as_compiled(policy) else {
                continue;
            };
            // Each endpoint has an equal share of what those before it left: a large policy hides nobody else's.
            let share = (MOST_POLICY_ROWS - answer.rows.len()) / (endpoints - at);
            let row = |entry| policy_row(id, &pod, generation, &entry, &directory);
            answer.rows.extend(policy.expanded().take(share).map(row));
            answer.left_out += policy.expanded_len().saturating_sub(share) as u64;
        }
        Reply::one::<ListPolicies>(&answer)
    })
    .await
}

/// A row as if each identity had rows of its own: that is what people ask about.
fn policy_row(
    endpoint: u16,
    pod: &str,
    generation: u32,
    entry: &Entry,
    directory: &Directory,
) -> PolicyRow {
    let key = entry.key;
    PolicyRow {
        endpoint,
        pod: pod.to_owned(),
        direction: key.direction,
        identity: key.identity,
        labels: directory.labels_of(key.identity).unwrap_or_default(),
        protocol: protocol_name(key.protocol),
        port: port_range(key.protocol, key.port, key.port_prefix),
        verdict: entry.verdict,
        precedence: entry.precedence,
        cookie: entry.cookie,
        generation,
        rules: directory.rules_of(entry.cookie),
    }
}

/// A protocol's name, its number where it has none here, `any` for 0.
pub(super) fn protocol_name(number: u8) -> String {
    if number == 0 {
        return "any".to_owned();
    }
    describe(number, 0)
        .split('/')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// `any`, `80`, `80-95`; for ICMP the message type.
pub(super) fn port_range(protocol: u8, port: u16, prefix: u8) -> String {
    match prefix {
        0 => "any".to_owned(),
        _ if protocol == 0 => "any".to_owned(),
        1..=15 => format!("{port}-{}", port | (u16::MAX >> prefix)),
        _ => port.to_string(),
    }
}

/// Tracked connections, all or those of one endpoint.
pub(super) async fn connections(
    agent: &Arc<Agent>,
    asked: ListConnections,
) -> Result<Reply, ApiError> {
    let of: Option<Vec<IpAddr>> = match asked.endpoint {
        None => None,
        Some(id) => {
            let addresses = agent.on_ledger(move |ledger| {
                find_endpoint(ledger, id).map(|it| it.record.addresses().collect())
            });
            Some(addresses.await?)
        }
    };
    let datapath = Arc::clone(&agent.datapath);
    blocking(move || {
        let is_meant = |key: &ConnectionKey| {
            of.as_ref().is_none_or(|addresses| {
                [key.low, key.high]
                    .into_iter()
                    .any(|side| addresses.contains(&IpAddr::from(side)))
            })
        };
        let found = datapath
            .connections(&is_meant, MOST_CONNECTIONS)
            .map_err(|error| kernel_failure(&error))?;
        Reply::one::<ListConnections>(&MapRows {
            rows: found.rows.iter().map(connection).collect(),
            left_out: found.left_out,
        })
    })
    .await
}

/// Who opened a tracked connection, and to whom.
pub(super) fn ends_of(row: &ConnectionRow) -> (SocketAddr, SocketAddr) {
    let key = &row.key;
    let low = (IpAddr::from(key.low), u16::from_be(key.low_port)).into();
    let high = (IpAddr::from(key.high), u16::from_be(key.high_port)).into();
    if row.entry.flags & CT_INITIATOR_IS_LOW != 0 {
        (low, high)
    } else {
        (high, low)
    }
}

/// A tracked connection, its initiator as the source.
pub(super) fn connection(row: &ConnectionRow) -> TrackedConnection {
    let (key, entry) = (&row.key, &row.entry);
    let (source, destination) = ends_of(row);
    let admission = |verdict: &heddle_abi::ConnectionVerdict| {
        (verdict.generation != 0).then_some(Admission {
            generation: verdict.generation,
            peer: Identity(verdict.peer),
            peer_cidr: Identity(verdict.peer_cidr),
            cookie: verdict.cookie,
        })
    };
    let is_reset = (entry.tcp_flags[0] | entry.tcp_flags[1]) & TCP_RST != 0;
    let state = match (
        entry.flags & CT_CLOSING != 0 || is_reset,
        entry.flags & CT_SEEN_REPLY != 0,
    ) {
        (true, _) => ConnectionState::Closing,
        (false, true) => ConnectionState::Established,
        (false, false) => ConnectionState::New,
    };
    TrackedConnection {
        protocol: protocol_name(key.protocol),
        source,
        destination,
        state,
        source_identity: Identity(entry.source_identity),
        destination_identity: Identity(entry.destination_identity),
        egress: admission(&entry.egress),
        ingress: admission(&entry.ingress),
        packets: entry.packets,
        bytes: entry.bytes,
        tcp_flags: entry.tcp_flags,
        remaining_seconds: row.remaining_seconds,
    }
}

/// The ipcache, from its lowest address on.
pub(super) async fn ipcache(agent: &Arc<Agent>) -> Result<Reply, ApiError> {
    let (datapath, directory) = (Arc::clone(&agent.datapath), Arc::clone(&agent.directory));
    blocking(move || {
        let mut rows = datapath.peers().map_err(|error| kernel_failure(&error))?;
        rows.sort_by_key(|row| row.prefix);
        let left_out = rows.len().saturating_sub(MOST_IPCACHE_ROWS);
        rows.truncate(MOST_IPCACHE_ROWS);
        Reply::one::<IpcacheList>(&MapRows {
            rows: rows
                .iter()
                .map(|row| ipcache_row(row, &directory))
                .collect(),
            left_out: left_out as u64,
        })
    })
    .await
}

fn ipcache_row(row: &PeerRow, directory: &Directory) -> IpcacheRow {
    let is_host = row.prefix.prefix_len() == row.prefix.max_prefix_len();
    let peer = is_host.then(|| directory.peer(row.prefix.addr())).flatten();
    IpcacheRow {
        prefix: row.prefix,
        identity: row.identity,
        labels: directory.labels_of(row.identity).unwrap_or_default(),
        cidr: row.cidr,
        node_address: row.node,
        in_cluster: row.in_cluster,
        is_node: row.is_node,
        pod: peer.and_then(|peer| peer.pod).map(|pod| pod.to_string()),
    }
}
