//! The kernel's maps, decoded.

use super::answers::find_endpoint;
use crate::agent::{Agent, blocking};
use crate::endpoint::kernel_failure;
use crate::endpoint::table::LocalEndpoint;
use crate::ledger::as_compiled;
use heddle_abi::{CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY};
use heddle_datapath::{ConnectionRow, PeerRow};
use heddle_model::Identity;
use heddle_policy::protocol::describe;
use heddle_rpc::ApiError;
use heddle_rpc::node::{
    Admission, ConnectionState, IpcacheRow, ListConnections, ListPolicies, PolicyRow,
    TrackedConnection,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Connections shown at most.
const MOST_CONNECTIONS: usize = 131_072;
/// The RST bit of TCP's flags.
pub(super) const TCP_RST: u8 = 4;

/// The policy maps of all endpoints, or of one.
pub(super) async fn policies(
    agent: &Arc<Agent>,
    asked: ListPolicies,
) -> Result<Vec<PolicyRow>, ApiError> {
    let wanted = agent
        .on_ledger(move |ledger| {
            let named = |it: &LocalEndpoint| (it.record.endpoint, it.record.pod.to_string());
            match asked.endpoint {
                None => Ok(ledger.endpoints.values().map(named).collect::<Vec<_>>()),
                Some(id) => find_endpoint(ledger, id).map(|it| vec![named(it)]),
            }
        })
        .await?;
    let datapath = Arc::clone(&agent.datapath);
    let policies = blocking(move || {
        wanted
            .into_iter()
            .map(|(id, pod)| Ok((id, pod, datapath.policy(id)?)))
            .collect::<Result<Vec<_>, _>>()
    })
    .await
    .map_err(|error| kernel_failure(&error))?;
    let mut rows = Vec::new();
    for (id, pod, policy) in policies {
        let generation = policy.generation;
        let Some(policy) = as_compiled(policy) else {
            continue;
        };
        // As if each identity had rows of its own: that is what people ask about.
        for entry in policy.expanded() {
            let key = entry.key;
            rows.push(PolicyRow {
                endpoint: id,
                pod: pod.clone(),
                direction: key.direction,
                identity: key.identity,
                labels: agent.directory.labels_of(key.identity).unwrap_or_default(),
                protocol: protocol_name(key.protocol),
                port: port_range(key.protocol, key.port, key.port_prefix),
                verdict: entry.verdict,
                precedence: entry.precedence,
                cookie: entry.cookie,
                generation,
                rules: agent.directory.rules_of(entry.cookie),
            });
        }
    }
    Ok(rows)
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
) -> Result<Vec<TrackedConnection>, ApiError> {
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
    let rows = blocking(move || datapath.connections(MOST_CONNECTIONS))
        .await
        .map_err(|error| kernel_failure(&error))?;
    let concerns = |row: &&ConnectionRow| {
        of.as_ref().is_none_or(|addresses| {
            addresses.contains(&IpAddr::from(row.key.low))
                || addresses.contains(&IpAddr::from(row.key.high))
        })
    };
    Ok(rows.iter().filter(concerns).map(connection).collect())
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

/// The ipcache.
pub(super) async fn ipcache(agent: &Arc<Agent>) -> Result<Vec<IpcacheRow>, ApiError> {
    let datapath = Arc::clone(&agent.datapath);
    let mut rows = blocking(move || datapath.peers())
        .await
        .map_err(|error| kernel_failure(&error))?;
    rows.sort_by_key(|row| row.prefix);
    let row = |row: &PeerRow| {
        let is_host = row.prefix.prefix_len() == row.prefix.max_prefix_len();
        let peer = is_host
            .then(|| agent.directory.peer(row.prefix.addr()))
            .flatten();
        IpcacheRow {
            prefix: row.prefix,
            identity: row.identity,
            labels: agent.directory.labels_of(row.identity).unwrap_or_default(),
            cidr: row.cidr,
            node_address: row.node,
            in_cluster: row.in_cluster,
            is_node: row.is_node,
            pod: peer.and_then(|peer| peer.pod).map(|pod| pod.to_string()),
        }
    };
    Ok(rows.iter().map(row).collect())
}
