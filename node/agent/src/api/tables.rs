//! The kernel's maps, decoded.

use super::answers::find_endpoint;
use crate::agent::{Agent, blocking};
use crate::endpoint::kernel_failure;
use crate::ledger::as_compiled;
use heddle_abi::{CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY};
use heddle_cni::protocol::ApiError;
use heddle_datapath::ConnectionRow;
use heddle_policy::protocol::describe;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Connections shown at most.
const MOST_CONNECTIONS: usize = 131_072;
/// The RST bit of TCP's flags.
pub(super) const TCP_RST: u8 = 4;

/// The policy maps of all endpoints, or of one.
pub(super) async fn policies(agent: &Arc<Agent>, params: Value) -> Result<Value, ApiError> {
    let wanted = agent
        .on_ledger(move |ledger| {
            if params
                .as_object()
                .is_none_or(|fields| fields.values().all(Value::is_null))
            {
                Ok(ledger
                    .endpoints
                    .values()
                    .map(|it| (it.record.endpoint, it.record.pod.to_string()))
                    .collect::<Vec<_>>())
            } else {
                find_endpoint(ledger, &params)
                    .map(|it| vec![(it.record.endpoint, it.record.pod.to_string())])
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
            rows.push(json!({
                "endpoint": id,
                "pod": pod,
                "direction": key.direction,
                "identity": key.identity,
                "labels": agent.directory.labels_of(key.identity).unwrap_or_default(),
                "protocol": protocol_name(key.protocol),
                "port": port_range(key.protocol, key.port, key.port_prefix),
                "verdict": entry.verdict,
                "precedence": entry.precedence,
                "cookie": entry.cookie,
                "generation": generation,
                "rules": agent.directory.rules_of(entry.cookie),
            }));
        }
    }
    Ok(Value::Array(rows))
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
pub(super) async fn connections(agent: &Arc<Agent>, params: Value) -> Result<Value, ApiError> {
    let of: Option<Vec<IpAddr>> = if params
        .as_object()
        .is_none_or(|fields| fields.values().all(Value::is_null))
    {
        None
    } else {
        let addresses = agent
            .on_ledger(move |ledger| {
                find_endpoint(ledger, &params).map(|it| it.record.addresses().collect())
            })
            .await?;
        Some(addresses)
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
pub(super) fn connection(row: &ConnectionRow) -> Value {
    let (key, entry) = (&row.key, &row.entry);
    let (from, to) = ends_of(row);
    let verdict = |verdict: &heddle_abi::ConnectionVerdict| {
        (verdict.generation != 0).then(|| {
            json!({
                "generation": verdict.generation, "peer": verdict.peer,
                "peerCidr": verdict.peer_cidr, "cookie": verdict.cookie,
            })
        })
    };
    let is_reset = (entry.tcp_flags[0] | entry.tcp_flags[1]) & TCP_RST != 0;
    let state = match (
        entry.flags & CT_CLOSING != 0 || is_reset,
        entry.flags & CT_SEEN_REPLY != 0,
    ) {
        (true, _) => "closing",
        (false, true) => "established",
        (false, false) => "new",
    };
    json!({
        "protocol": protocol_name(key.protocol),
        "source": from.to_string(),
        "destination": to.to_string(),
        "state": state,
        "sourceIdentity": entry.source_identity,
        "destinationIdentity": entry.destination_identity,
        "egress": verdict(&entry.egress),
        "ingress": verdict(&entry.ingress),
        "packets": entry.packets, "bytes": entry.bytes,
        "tcpFlags": entry.tcp_flags,
        "remainingSeconds": row.remaining_seconds,
    })
}

/// The ipcache.
pub(super) async fn ipcache(agent: &Arc<Agent>) -> Result<Value, ApiError> {
    let datapath = Arc::clone(&agent.datapath);
    let mut rows = blocking(move || datapath.peers())
        .await
        .map_err(|error| kernel_failure(&error))?;
    rows.sort_by_key(|row| row.prefix);
    Ok(rows
        .iter()
        .map(|row| {
            let is_host = row.prefix.prefix_len() == row.prefix.max_prefix_len();
            let peer = is_host
                .then(|| agent.directory.peer(row.prefix.addr()))
                .flatten();
            json!({
                "prefix": row.prefix,
                "identity": row.identity,
                "labels": agent.directory.labels_of(row.identity).unwrap_or_default(),
                "cidr": row.cidr,
                "nodeAddress": row.node,
                "inCluster": row.in_cluster,
                "isNode": row.is_node,
                "pod": peer.and_then(|peer| peer.pod).map(|pod| pod.to_string()),
            })
        })
        .collect())
}
