//! `status`, endpoints, identities and nodes, as the contract prints them.

use super::FlowSource;
use crate::agent::{Agent, blocking};
use crate::endpoint::kernel_failure;
use crate::endpoint::table::LocalEndpoint;
use crate::host::HostPolicy;
use crate::ledger::{Ledger, not_in_force};
use heddle_datapath::FeatureState;
use heddle_ipam::Family;
use heddle_model::{Identity, IdentityScope};
use heddle_policy::CompiledPolicy;
use heddle_rpc::node::{
    AddressUse, Endpoint, EndpointCount, Enforcement, FeatureSeen, HostPolicyStatus, IdentityUse,
    LockOut, MapSeen, MetricsText, NodeSeen, NodeStatus, NotInForce, PoolUse,
};
use heddle_rpc::{ApiError, error_codes};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Part of a map in use above which an operator should know (Cilium's alert threshold, reference 5.3).
const PRESSURE: f64 = 0.9;

pub(super) async fn status(agent: &Arc<Agent>, flows: Option<&dyn FlowSource>) -> NodeStatus {
    let mut warnings = Vec::new();
    warnings.extend(
        agent
            .health
            .unready()
            .map(|reason| format!("not ready: {reason}")),
    );
    warnings.extend(agent.health.notices());
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
    let held = agent.on_ledger(|ledger| HeldStatus::of(ledger)).await;
    warnings.extend(held.warnings);
    let unfinished = agent.attachments.removals(|removals| removals.len());
    if unfinished > 0 {
        warnings.push(format!(
            "{unfinished} endpoints wait for their removal to be finished"
        ));
    }
    let feature = |feature: heddle_datapath::Feature| FeatureSeen {
        name: feature.name,
        state: match feature.state {
            FeatureState::On => "on",
            FeatureState::Off => "off",
            FeatureState::Unavailable => "unavailable",
        }
        .to_owned(),
        why: feature.why,
    };
    let map = |map: heddle_datapath::MapUse| MapSeen {
        name: map.name,
        entries: map.entries,
        max: map.max,
    };
    NodeStatus {
        node: agent.config.node_name.clone(),
        cluster: agent.config.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: agent.health.is_ready(),
        kernel: kernel_release(),
        features: features.into_iter().map(feature).collect(),
        endpoints: held.endpoints,
        policies: held.policies as u64,
        host_policy: held.host_policy,
        identities: held.identities as u64,
        services: 0,
        maps: maps.into_iter().map(map).collect(),
        addresses: agent
            .attachments
            .addresses
            .stats()
            .into_iter()
            .map(pool)
            .collect(),
        flows: flows.map(FlowSource::status),
        not_in_force: held.not_in_force,
        realised_revision: agent.health.realised_revision(),
        warnings,
    }
}

/// What the ledger knows of how the node is.
struct HeldStatus {
    endpoints: EndpointCount,
    policies: usize,
    host_policy: HostPolicyStatus,
    identities: usize,
    not_in_force: Vec<NotInForce>,
    warnings: Vec<String>,
}

impl HeldStatus {
    fn of(ledger: &Ledger) -> Self {
        let is_ready = |endpoint: &&LocalEndpoint| endpoint.state() == "ready";
        let not_in_force = not_in_force(ledger);
        Self {
            endpoints: EndpointCount {
                total: ledger.endpoints.len() as u64,
                ready: ledger.endpoints.values().filter(is_ready).count() as u64,
            },
            policies: ledger.policies.objects.in_force(),
            host_policy: host_policy(&ledger.host),
            identities: ledger.policies.rules.engine().identities().count(),
            warnings: warnings(ledger, &not_in_force),
            not_in_force,
        }
    }
}

/// What an operator should know of the node and of policies here.
fn warnings(ledger: &Ledger, not_in_force: &[NotInForce]) -> Vec<String> {
    let mut warnings = Vec::new();
    if ledger.is_settled() && ledger.peers.nodes.own().is_none() {
        warnings.push(
            "the store has no Node object of this node: other nodes do not reach its pods, and no policy is reported as in force here"
                .to_owned(),
        );
    }
    warnings.extend(ledger.policies.refused().map(|(object, problem)| {
        format!(
            "{object} is refused: [{}] {}: {}",
            problem.code, problem.field, problem.message
        )
    }));
    let open = ledger.policies.objects.open_endpoints(&ledger.endpoints);
    warnings.extend(open.map(|((kind, name), open)| {
        let more = open.count.saturating_sub(open.pods.len() as u64);
        format!(
            "{} {} open because {kind} {name} is refused: {}{}",
            open.count,
            if open.count == 1 {
                "pod is"
            } else {
                "pods are"
            },
            open.pods.join(", "),
            if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            },
        )
    }));
    warnings.extend(ledger.host.lock_outs().iter().map(|one| {
        let policies: Vec<_> = one.policies.iter().map(ToString::to_string).collect();
        format!(
            "{} is not in force on this node: it would cut {}",
            policies.join(", "),
            one.what
        )
    }));
    warnings.extend(ledger.policies.beyond_budget());
    let failures = ledger.writer.failures.iter();
    warnings
        .extend(failures.map(|(object, reason)| format!("{object} is not as wished: {reason}")));
    warnings.extend(
        not_in_force
            .iter()
            .map(|one| format!("{} is not as wished: {}", one.object, one.reason)),
    );
    if ledger.heard.is_starting_over() {
        warnings.push("the connection to the store was lost; its list is being read again".into());
    }
    warnings
}

fn pool((family, stats): (Family, heddle_ipam::Stats)) -> PoolUse {
    PoolUse {
        family: family.label().to_owned(),
        total: stats.total,
        used: stats.used,
        resting: stats.resting,
        free: stats.free,
    }
}

/// The node's own policy, as far as one is in force.
fn host_policy(host: &HostPolicy) -> HostPolicyStatus {
    let policy = host.in_force();
    let enforced = |of: fn(&CompiledPolicy) -> bool| policy.is_some_and(|policy| of(policy));
    let lock_outs = host.lock_outs().iter().map(|one| LockOut {
        traffic: one.what.to_string(),
        policies: one.policies.iter().map(ToString::to_string).collect(),
    });
    HostPolicyStatus {
        ingress: Enforcement::of(Some(enforced(|policy| policy.ingress_enforced))),
        egress: Enforcement::of(Some(enforced(|policy| policy.egress_enforced))),
        audit: enforced(|policy| policy.audit),
        lock_outs: lock_outs.collect(),
    }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn seen(endpoint: &LocalEndpoint) -> Endpoint {
    let policy = endpoint.policy.as_ref();
    let record = &endpoint.record;
    Endpoint {
        id: record.endpoint,
        namespace: record.pod.namespace.clone(),
        pod: record.pod.name.clone(),
        ipv4: record.ipv4,
        ipv6: record.ipv6,
        identity: endpoint.identity,
        labels: Arc::clone(&endpoint.labels),
        ifindex: record.link.as_ref().map(|link| link.ifindex),
        container_id: record.key.container_id.clone(),
        ingress: Enforcement::of(policy.map(|policy| policy.ingress_enforced)),
        egress: Enforcement::of(policy.map(|policy| policy.egress_enforced)),
        audit: policy.is_some_and(|policy| policy.audit),
        policy_revision: endpoint.policy_revision,
        state: endpoint.state().to_owned(),
    }
}

pub(super) async fn endpoints(agent: &Arc<Agent>) -> Vec<Endpoint> {
    agent
        .on_ledger(|ledger| ledger.endpoints.values().map(seen).collect())
        .await
}

/// The endpoint with this id.
pub(super) fn find_endpoint(ledger: &Ledger, id: u16) -> Result<&LocalEndpoint, ApiError> {
    ledger.endpoints.get(id).ok_or_else(|| {
        ApiError::new(
            "endpoint/unknown",
            format!("node {} has no endpoint {id}", ledger.config.node_name),
        )
        .object(id.to_string())
        .help("`heddle endpoint list` shows this node's endpoints; the pod may run on another node")
    })
}

/// Identities that the datapath knows: those in its ipcache and endpoints, with the reserved ones.
pub(super) async fn identities(agent: &Arc<Agent>) -> Result<Vec<IdentityUse>, ApiError> {
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
        .map(|(id, [v4, v6])| IdentityUse {
            id,
            labels: agent.directory.labels_of(id).unwrap_or_default(),
            endpoints: v4.max(v6),
        })
        .collect())
}

/// The node's pod addresses, a row for each family.
pub(super) fn addresses(agent: &Agent) -> Vec<AddressUse> {
    let blocks = agent.attachments.addresses.blocks();
    let rows = agent
        .attachments
        .addresses
        .stats()
        .into_iter()
        .map(|(family, stats)| {
            let is_its = |block: &&IpNet| block.addr().is_ipv4() == (family == Family::V4);
            AddressUse {
                node: agent.config.node_name.clone(),
                blocks: blocks.iter().filter(is_its).copied().collect(),
                pool: pool((family, stats)),
            }
        });
    rows.collect()
}

pub(super) async fn nodes(agent: &Arc<Agent>) -> Vec<NodeSeen> {
    agent
        .on_ledger(|ledger| {
            let nodes = ledger.peers.nodes.iter().map(|(name, node)| NodeSeen {
                name: name.clone(),
                addresses: node.addresses.clone(),
                pod_cidrs: node.pod_cidrs.clone(),
                local: *name == ledger.config.node_name,
            });
            nodes.collect()
        })
        .await
}

/// The agent's metrics, as a scrape gives them.
pub(super) async fn metrics(agent: &Arc<Agent>) -> Result<MetricsText, ApiError> {
    let metrics = Arc::clone(&agent.metrics);
    blocking(move || metrics.render())
        .await
        .map(|text| MetricsText { text })
        .map_err(|error| ApiError::new(error_codes::BAD_ANSWER, error.to_string()))
}
