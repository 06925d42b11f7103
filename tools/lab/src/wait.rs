//! Waiting for what was asked to be in force: on agents, in every node's kernel.

use crate::LabError;
use crate::calls;
use crate::control;
use crate::files;
use crate::paths::Lab;
use heddle_kube::store::{Kind, Object, Scope, Store};
use heddle_rpc::node::NodeStatus;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Reasons of an agent that an error repeats.
const MOST_REASONS: usize = 5;
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
            let mut states = Vec::new();
            for node in &waiting {
                states.push(format!("{node}: {}", why_not_ready(lab, node).await));
            }
            return Err(LabError::Timeout {
                what: format!("the agents of {} are not ready", waiting.join(", ")),
                seconds: patience.as_secs(),
                state: states.join("\n"),
                help: format!("see {}", lab.log(&waiting[0]).display()),
            });
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// An agent's own reason for not being ready: its warnings, else what keeps it from answering; and the end of its log.
async fn why_not_ready(lab: &Lab, node: &str) -> String {
    let said = match calls::status(lab, node).await {
        Ok(status) if status.ready => "it is ready, its plugins do not serve yet".into(),
        Ok(status) => own_reason(&status).unwrap_or_else(|| "it gives no reason".into()),
        Err(error) => error.to_string(),
    };
    let tail = files::last_lines(&lab.log(node), 5);
    if tail.is_empty() {
        said
    } else {
        format!("{said}; its last log lines:\n{tail}")
    }
}

/// What an agent's status says that is not in force, and why; `None` when it has no complaint.
fn own_reason(status: &NodeStatus) -> Option<String> {
    let warnings = &status.warnings;
    let more = warnings.len().saturating_sub(MOST_REASONS);
    let mut text = warnings[..warnings.len() - more].join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more (`heddle status` lists them)"));
    }
    (!text.is_empty()).then_some(text)
}

/// How a process ended, with the end of its log.
pub fn with_log(lab: &Lab, process: &str, ended: &str) -> String {
    let tail = files::last_lines(&lab.log(process), 8);
    if tail.is_empty() {
        ended.to_owned()
    } else {
        format!("{ended}; its last log lines:\n{tail}")
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
            let state = match calls::status(lab, node).await {
                Ok(status) => {
                    let realised = status.realised_revision;
                    if realised >= revision {
                        break;
                    }
                    let far = format!("it has realised revision {realised}, {revision} is wanted");
                    match own_reason(&status) {
                        Some(reason) => format!("{far}; {reason}"),
                        None => far,
                    }
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
        let status = calls::status(lab, node).await?;
        for one in status.host_policy.lock_outs {
            let mut named = host_policies.iter();
            if let Some(policy) = named.find(|policy| one.policies.contains(policy)) {
                return Err(LabError::LockOut {
                    policy: policy.clone(),
                    node: node.clone(),
                    traffic: one.traffic,
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
        let status = calls::status(lab, node).await?;
        for one in status.not_in_force {
            let (namespace, pod) = (
                one.namespace.unwrap_or_default(),
                one.pod.unwrap_or_default(),
            );
            let pod = format!("{} {namespace}/{pod}", Kind::Pod);
            let mut about = one.policies.into_iter().chain([pod]);
            if let Some(object) = about.find(|object| named.contains(object)) {
                return Err(LabError::DoesNotFit {
                    object,
                    what: one.object,
                    node: node.clone(),
                    reason: one.reason,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_own_reason_is_repeated_and_bounded() {
        let reason = |warnings: &[&str]| {
            let warnings = warnings.iter().map(ToString::to_string).collect();
            own_reason(&NodeStatus {
                warnings,
                ..NodeStatus::default()
            })
        };
        assert_eq!(reason(&[]), None);
        assert_eq!(
            reason(&["a is not as wished: no room", "b is refused"]).unwrap(),
            "a is not as wished: no room; b is refused"
        );
        let text = reason(&["0", "1", "2", "3", "4", "5", "6", "7", "8"]).unwrap();
        assert!(text.starts_with("0; 1; 2; 3; 4; and 4 more"), "{text}");
    }
}
