//! The kernel's maps, decoded.

use super::answers::find_endpoint;
use crate::agent::Agent;
use crate::endpoint::{blocking, kernel_failure};
use heddle_abi::{CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY};
use heddle_cni::protocol::ApiError;
use heddle_datapath::ConnectionRow;
use heddle_policy::protocol::describe;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// Connections shown at most.
const MOST_CONNECTIONS: usize = 131_072;

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
    Ok(policies
        .into_iter()
        .map(|(id, pod, policy)| {
            let has_map = policy.entries.is_some();
            let entries: Vec<Value> = policy
                .entries
                .unwrap_or_default()
                .iter()
                .map(|entry| {
                    json!({
                        "direction": entry.key.direction,
                        "identity": entry.key.identity,
                        "labels": agent.directory.labels_of(entry.key.identity),
                        "protocol": entry.key.protocol,
                        "port": entry.key.port,
                        "portPrefix": entry.key.port_prefix,
                        "traffic": traffic(entry.key.protocol, entry.key.port, entry.key.port_prefix),
                        "verdict": entry.verdict,
                        "precedence": entry.precedence,
                        "cookie": entry.cookie,
                        "rules": agent.directory.rules_of(entry.cookie),
                    })
                })
                .collect();
            json!({
                "endpoint": id, "pod": pod, "generation": policy.generation,
                "present": has_map, "entries": entries,
            })
        })
        .collect())
}

/// `any`, `TCP/any`, `TCP/80`, `TCP/80-95`.
fn traffic(protocol: u8, port: u16, prefix: u8) -> String {
    if protocol == 0 {
        return "any".to_owned();
    }
    let one = describe(protocol, port);
    match prefix {
        16.. => one,
        0 => match one.split_once('/') {
            Some((name, _)) => format!("{name}/any"),
            None => one,
        },
        _ => format!("{one}-{}", port | (u16::MAX >> prefix)),
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

fn connection(row: &ConnectionRow) -> Value {
    let (key, entry) = (&row.key, &row.entry);
    let low = (IpAddr::from(key.low), u16::from_be(key.low_port));
    let high = (IpAddr::from(key.high), u16::from_be(key.high_port));
    let (from, to) = if entry.flags & CT_INITIATOR_IS_LOW != 0 {
        (low, high)
    } else {
        (high, low)
    };
    let verdict = |verdict: &heddle_abi::ConnectionVerdict| {
        (verdict.generation != 0).then(|| {
            json!({
                "generation": verdict.generation, "peer": verdict.peer,
                "peerCidr": verdict.peer_cidr, "cookie": verdict.cookie,
            })
        })
    };
    json!({
        "source": from.0, "sourcePort": from.1,
        "destination": to.0, "destinationPort": to.1,
        "protocol": key.protocol,
        "sourceIdentity": entry.source_identity,
        "destinationIdentity": entry.destination_identity,
        "egress": verdict(&entry.egress),
        "ingress": verdict(&entry.ingress),
        "packets": entry.packets, "bytes": entry.bytes,
        "tcpFlags": entry.tcp_flags,
        "seenReply": entry.flags & CT_SEEN_REPLY != 0,
        "closing": entry.flags & CT_CLOSING != 0,
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
                "labels": agent.directory.labels_of(row.identity),
                "cidr": row.cidr,
                "node": row.node,
                "inCluster": row.in_cluster,
                "isNode": row.is_node,
                "pod": peer.and_then(|peer| peer.pod).map(|pod| pod.to_string()),
            })
        })
        .collect())
}
