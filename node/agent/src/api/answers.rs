//! `status`, endpoints, identities and nodes, as the contract prints them.

use super::FlowSource;
use crate::agent::{Agent, Readiness, blocking, lock};
use crate::endpoint::kernel_failure;
use crate::endpoint::table::LocalEndpoint;
use crate::ledger::{HostPolicy, Ledger};
use heddle_cni::protocol::{ApiError, error_codes};
use heddle_datapath::FeatureState;
use heddle_ipam::Family;
use heddle_model::{Identity, IdentityScope, NamespacedName};
use heddle_policy::CompiledPolicy;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Part of a map in use above which an operator should know (Cilium's alert threshold, reference 5.3).
const PRESSURE: f64 = 0.9;

pub(super) async fn status(
    agent: &Arc<Agent>,
    flows: Option<&dyn FlowSource>,
) -> Result<Value, ApiError> {
    let mut warnings = Vec::new();
    if let Readiness::Starting(reason) = &*lock(&agent.readiness) {
        warnings.push(format!("not ready: {reason}"));
    }
    warnings.extend(lock(&agent.notices).values().cloned());
    warnings.extend(flows.and_then(FlowSource::warning));
    let datapath = Arc::clone(&agent.datapath);
    let (features, maps) = blocking(move || (datapath.features(), datapath.map_use())).await;
    let maps = maps.unwrap_or_else(|error| {
        warnings.push(format!("maps cannot be read: {error}"));
        Vec::new()
    });
    for map in &maps {
        if map.max > 0 && map.entries as f64 >= PRESSURE * map.max as f64 {
            warnings.push(format!(
                "map {} is nearly full: {} of {} entries",
                map.name, map.entries, map.max
            ));
        }
    }
    let (endpoints, policies, host, identities, failures, refused, starting_over, not_in_force) =
        agent
            .on_ledger(|ledger| {
                let ready = ledger
                    .endpoints
                    .values()
                    .filter(|it| it.state() == "ready")
                    .count();
                (
                    json!({ "total": ledger.endpoints.len(), "ready": ready }),
                    ledger.policies.in_force(),
                    host_policy(&ledger.host),
                    ledger.engine.identities().count(),
                    ledger
                        .failures
                        .iter()
                        .map(|(object, reason)| format!("{object} is not as wished: {reason}"))
                        .collect::<Vec<_>>(),
                    ledger
                        .policies
                        .refused()
                        .chain(ledger.named.refused())
                        .map(|(object, problem)| {
                            format!(
                                "{object} is refused: [{}] {}: {}",
                                problem.code, problem.field, problem.message
                            )
                        })
                        .chain(ledger.host.lock_outs().iter().map(|one| {
                            let policies: Vec<_> =
                                one.policies.iter().map(ToString::to_string).collect();
                            format!(
                                "{} is not in force on this node: it would cut {}",
                                policies.join(", "),
                                one.what
                            )
                        }))
                        .chain(ledger.beyond_budget())
                        .collect::<Vec<_>>(),
                    ledger.heard.is_starting_over(),
                    ledger.not_in_force(),
                )
            })
            .await;
    warnings.extend(refused);
    warnings.extend(failures);
    warnings.extend(not_in_force.iter().filter_map(|one| {
        let (object, reason) = (one["object"].as_str()?, one["reason"].as_str()?);
        Some(format!("{object} is not as wished: {reason}"))
    }));
    if starting_over {
        warnings.push("the connection to the store was lost; its list is being read again".into());
    }
    let unfinished = agent.removals(|removals| removals.len());
    if unfinished > 0 {
        warnings.push(format!(
            "{unfinished} endpoints wait for their removal to be finished"
        ));
    }
    let addresses: Vec<Value> = agent
        .addresses
        .stats()
        .into_iter()
        .map(|(family, stats)| {
            json!({
                "family": family.name(), "total": stats.total, "used": stats.used,
                "resting": stats.resting, "free": stats.free,
            })
        })
        .collect();
    Ok(json!({
        "node": agent.config.node_name,
        "cluster": agent.config.cluster,
        "version": env!("CARGO_PKG_VERSION"),
        "ready": agent.is_ready(),
        "kernel": kernel_release(),
        "features": features.iter().map(|feature| json!({
            "name": feature.name,
            "state": match feature.state {
                FeatureState::On => "on",
                FeatureState::Off => "off",
                FeatureState::Unavailable => "unavailable",
            },
            "why": feature.why,
        })).collect::<Vec<_>>(),
        "endpoints": endpoints,
        "policies": policies,
        "hostPolicy": host,
        "identities": identities,
        "services": 0,
        "maps": maps.iter().map(|map| json!({
            "name": map.name, "entries": map.entries, "max": map.max,
        })).collect::<Vec<_>>(),
        "addresses": addresses,
        "flows": flows.map_or(Value::Null, FlowSource::status),
        "notInForce": not_in_force,
        "realisedRevision": agent.realised_revision.load(Ordering::SeqCst),
        "warnings": warnings,
    }))
}

/// The node's own policy, as far as one is in force.
fn host_policy(host: &HostPolicy) -> Value {
    let policy = host.in_force();
    let enforced = |of: fn(&CompiledPolicy) -> bool| policy.is_some_and(|policy| of(policy));
    json!({
        "ingress": enforcement(Some(enforced(|policy| policy.ingress_enforced))),
        "egress": enforcement(Some(enforced(|policy| policy.egress_enforced))),
        "audit": enforced(|policy| policy.audit),
        "lockOuts": host.lock_outs().iter().map(|one| json!({
            "traffic": one.what,
            "policies": one.policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

/// A direction of a policy; without a policy map everything is dropped.
const fn enforcement(enforced: Option<bool>) -> &'static str {
    match enforced {
        Some(false) => "open",
        Some(true) | None => "enforced",
    }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn printed(endpoint: &LocalEndpoint) -> Value {
    let policy = endpoint.policy.as_ref();
    json!({
        "id": endpoint.record.endpoint,
        "namespace": endpoint.record.pod.namespace,
        "pod": endpoint.record.pod.name,
        "ipv4": endpoint.record.ipv4,
        "ipv6": endpoint.record.ipv6,
        "identity": endpoint.identity,
        "labels": endpoint.labels,
        "ifindex": endpoint.record.link.as_ref().map(|link| link.ifindex),
        "containerId": endpoint.record.key.container_id,
        "ingress": enforcement(policy.map(|policy| policy.ingress_enforced)),
        "egress": enforcement(policy.map(|policy| policy.egress_enforced)),
        "audit": policy.is_some_and(|policy| policy.audit),
        "policyRevision": endpoint.policy_revision,
        "state": endpoint.state(),
    })
}

pub(super) async fn endpoints(agent: &Arc<Agent>) -> Result<Value, ApiError> {
    Ok(agent
        .on_ledger(|ledger| ledger.endpoints.values().map(printed).collect())
        .await)
}

/// Which endpoint is meant: `{"id": 7}`, or `{"pod": "ns/name"}`.
pub(super) fn find_endpoint<'a>(
    ledger: &'a Ledger,
    params: &Value,
) -> Result<&'a LocalEndpoint, ApiError> {
    let by_text = |text: &str| match text.parse::<u16>() {
        Ok(id) => ledger.endpoints.get(id),
        Err(_) => text
            .parse::<NamespacedName>()
            .ok()
            .and_then(|name| ledger.endpoints.by_pod(&name)),
    };
    let wanted = ["id", "endpoint", "pod"]
        .into_iter()
        .map(|field| &params[field])
        .find(|value| !value.is_null());
    let (found, text) = match wanted {
        Some(Value::Number(number)) => (
            number
                .as_u64()
                .and_then(|id| u16::try_from(id).ok())
                .and_then(|id| ledger.endpoints.get(id)),
            number.to_string(),
        ),
        Some(Value::String(text)) => (by_text(text), text.clone()),
        _ => {
            return Err(ApiError::new(
                error_codes::INVALID,
                "an endpoint is named by its id or by NAMESPACE/POD",
            )
            .field("id"));
        }
    };
    found.ok_or_else(|| {
        ApiError::new(
            "endpoint/unknown",
            format!("node {} has no endpoint {text}", ledger.config.node_name),
        )
        .object(text)
        .help("`heddle endpoint list` shows this node's endpoints; the pod may run on another node")
    })
}

pub(super) async fn endpoint(agent: &Arc<Agent>, params: Value) -> Result<Value, ApiError> {
    agent
        .on_ledger(move |ledger| find_endpoint(ledger, &params).map(printed))
        .await
}

/// Identities that the datapath knows: those in its ipcache and endpoints, with the reserved ones.
pub(super) async fn identities(agent: &Arc<Agent>) -> Result<Value, ApiError> {
    let datapath = Arc::clone(&agent.datapath);
    let (peers, realised) = blocking(move || (datapath.peers(), datapath.endpoints())).await;
    let peers = peers.map_err(|error| kernel_failure(&error))?;
    let realised = realised.map_err(|error| kernel_failure(&error))?;
    // A dual-stack pod has a row of each family: the larger count is the number of pods.
    let mut rows: BTreeMap<Identity, [u64; 2]> = Identity::RESERVED
        .iter()
        .map(|(identity, _)| (*identity, [0; 2]))
        .collect();
    for row in &peers {
        let counts = rows.entry(row.identity).or_default();
        if row.identity.scope() == IdentityScope::Cluster {
            counts[usize::from(row.prefix.addr().is_ipv6())] += 1;
        }
    }
    for endpoint in &realised {
        rows.entry(endpoint.facts.identity).or_default();
    }
    Ok(rows
        .into_iter()
        .map(|(identity, [v4, v6])| {
            json!({
                "id": identity,
                "labels": agent.directory.labels_of(identity).unwrap_or_default(),
                "endpoints": v4.max(v6),
            })
        })
        .collect())
}

pub(super) async fn identity(agent: &Arc<Agent>, params: Value) -> Result<Value, ApiError> {
    let wanted = params["id"]
        .as_u64()
        .or_else(|| params["id"].as_str()?.parse().ok())
        .ok_or_else(|| {
            ApiError::new(error_codes::INVALID, "an identity is named by its number").field("id")
        })?;
    let Value::Array(all) = identities(agent).await? else {
        return Ok(Value::Null);
    };
    all.into_iter()
        .find(|one| one["id"].as_u64() == Some(wanted))
        .ok_or_else(|| {
            ApiError::new(
                "identity/unknown",
                format!(
                    "the datapath of node {} does not know identity {wanted}",
                    agent.config.node_name
                ),
            )
            .help("`heddle identity list` shows those it knows")
        })
}

/// The node's pod addresses, a row for each family.
pub(super) fn addresses(agent: &Agent) -> Value {
    let blocks = agent.addresses.blocks();
    let rows = agent.addresses.stats().into_iter().map(|(family, stats)| {
        let is_its = |block: &&IpNet| block.addr().is_ipv4() == (family == Family::V4);
        json!({
            "node": agent.config.node_name,
            "family": family.name(),
            "blocks": blocks.iter().filter(is_its).collect::<Vec<_>>(),
            "total": stats.total,
            "used": stats.used,
            "resting": stats.resting,
            "free": stats.free,
        })
    });
    rows.collect()
}

pub(super) async fn nodes(agent: &Arc<Agent>) -> Value {
    agent
        .on_ledger(|ledger| {
            ledger
                .nodes
                .iter()
                .map(|(name, node)| {
                    json!({
                        "name": name,
                        "addresses": node.addresses,
                        "podCIDRs": node.pod_cidrs,
                        "local": *name == ledger.config.node_name,
                    })
                })
                .collect()
        })
        .await
}

/// The agent's metrics, as a scrape gives them.
pub(super) async fn metrics(agent: &Arc<Agent>) -> Result<Value, ApiError> {
    let metrics = Arc::clone(&agent.metrics);
    blocking(move || metrics.render())
        .await
        .map(|text| json!({ "text": text }))
        .map_err(|error| ApiError::new("api/bad-answer", error.to_string()))
}
