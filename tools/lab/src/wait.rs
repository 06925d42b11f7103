//! Waiting for what was asked to be in force: on agents, in every node's kernel.

use crate::LabError;
use crate::agent_client;
use crate::control;
use crate::files;
use crate::paths::Lab;
use heddle_kube::store::{Kind, Object, Scope, Store};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Between looks.
const CHECK_INTERVAL: Duration = Duration::from_millis(25);

/// Waits until the agents of these nodes are ready; an agent that ended is said at once.
pub async fn agents_ready(lab: &Lab, nodes: &[String], patience: Duration) -> Result<(), LabError> {
    let end = Instant::now() + patience;
    loop {
        let standings = control::standings(lab).await?;
        let mut waiting = Vec::new();
        for node in nodes {
            let standing = standings.get(node).cloned().unwrap_or_default();
            if standing.pid.is_none() && !standing.ended.is_empty() {
                return Err(LabError::ProcessEnded {
                    process: format!("the agent of {node}"),
                    reason: with_log(lab, node, &standing.ended),
                });
            }
            // The daemon's own look, so that the scheduler knows it too.
            if standing.pid.is_none() || !standing.ready {
                waiting.push(node.clone());
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(LabError::Timeout {
                what: format!("the agents of {} are not ready", waiting.join(", ")),
                seconds: patience.as_secs(),
                state: files::last_lines(&lab.log(&waiting[0]), 5),
                help: format!("see {}", lab.log(&waiting[0]).display()),
            });
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// How a process ended, with the end of its log.
pub fn with_log(lab: &Lab, process: &str, ended: &str) -> String {
    let tail = files::last_lines(&lab.log(process), 8);
    if tail.is_empty() {
        ended.to_owned()
    } else {
        format!("{ended}; its last words:\n{tail}")
    }
}

/// Waits until every agent has put every change up to `revision` in force.
pub async fn realised(
    lab: &Lab,
    nodes: &[String],
    revision: u64,
    end: Instant,
    patience: Duration,
) -> Result<(), LabError> {
    for node in nodes {
        loop {
            let state = match agent_client::status(lab, node).await {
                Ok(status) => {
                    let realised = status["realisedRevision"].as_u64().unwrap_or(0);
                    if realised >= revision {
                        break;
                    }
                    format!("it has realised revision {realised}, {revision} is wanted")
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() >= end {
                return Err(LabError::Timeout {
                    what: format!("{node} has not put the change in force"),
                    seconds: patience.as_secs(),
                    state,
                    help: format!(
                        "`heddle lab agent start {node}` if it is stopped; --timeout waits longer, --no-wait not at all"
                    ),
                });
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
    Ok(())
}

/// Fails when an agent does not put a host policy of these in force because it would cut off its node.
pub async fn locks_nobody_out(
    lab: &Lab,
    nodes: &[String],
    applied: &[Object],
) -> Result<(), LabError> {
    let host_policies: Vec<String> = applied
        .iter()
        .filter(|object| object.kind == Kind::CiliumClusterwideNetworkPolicy)
        .map(|object| format!("{} {}", object.kind, object.name.name))
        .collect();
    if host_policies.is_empty() {
        return Ok(());
    }
    for node in nodes {
        let status = agent_client::status(lab, node).await?;
        let lock_outs = status["hostPolicy"]["lockOuts"].as_array();
        for one in lock_outs.into_iter().flatten() {
            let named = |policy: &String| {
                one["policies"]
                    .as_array()
                    .is_some_and(|policies| policies.iter().any(|it| it == policy))
            };
            if let Some(policy) = host_policies.iter().find(|policy| named(policy)) {
                return Err(LabError::LockOut {
                    policy: policy.clone(),
                    node: node.clone(),
                    traffic: one["traffic"].as_str().unwrap_or_default().to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Fails when something of what was applied does not fit on a node: a pod whose policy is too large, a policy about
/// it. What others applied is not asked about.
pub async fn fits(lab: &Lab, nodes: &[String], applied: &[Object]) -> Result<(), LabError> {
    let named: BTreeSet<String> = applied
        .iter()
        .filter(|object| object.kind == Kind::Pod || object.kind.is_policy())
        .map(|object| format!("{} {}", object.kind, object.name))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    for node in nodes {
        let status = agent_client::status(lab, node).await?;
        for one in status["notInForce"].as_array().into_iter().flatten() {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            let pod = format!("{} {}/{}", Kind::Pod, text("namespace"), text("pod"));
            let policies = one["policies"].as_array().into_iter().flatten();
            let mut about = policies
                .filter_map(|policy| policy.as_str())
                .chain([pod.as_str()]);
            if let Some(object) = about.find(|object| named.contains(*object)) {
                return Err(LabError::DoesNotFit {
                    object: object.to_owned(),
                    what: text("object"),
                    node: node.clone(),
                    reason: text("reason"),
                });
            }
        }
    }
    Ok(())
}

/// Waits for a change and for what the agents make of it: an endpoint that changes with a pod or a
/// namespace is published by its own node first, and then known to the others.
pub async fn realised_everywhere(
    lab: &Lab,
    store: &dyn Store,
    revision: u64,
    end: Instant,
    patience: Duration,
) -> Result<(), LabError> {
    let nodes = crate::config::record(lab)?.nodes;
    realised(lab, &nodes, revision, end, patience).await?;
    let published = store
        .list(&Scope::all(Kind::CiliumEndpoint))
        .await?
        .iter()
        .filter_map(|endpoint| store.position(&endpoint.version))
        .max()
        .unwrap_or(0);
    if published > revision {
        realised(lab, &nodes, published, end, patience).await?;
    }
    Ok(())
}
