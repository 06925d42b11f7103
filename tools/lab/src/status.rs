//! `heddle lab status`: the lab at a glance.

use crate::LabError;
use crate::calls;
use crate::control;
use crate::daemon::processes::Standing;
use crate::paths::{Lab, namespace_path};
use crate::topology;
use heddle_agent::config::Fabric;
use heddle_kube::store::{Kind, Scope, Store};
use heddle_rpc::CallError;
use heddle_rpc::node::NodeStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the store may take to answer before its part is left out.
const STORE_DEADLINE: Duration = Duration::from_secs(3);

/// A node's agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Its process id while it runs; none also where the lab's daemon, which alone knows it, does not answer.
    pub pid: Option<i32>,
    /// True when it says that it is ready.
    pub ready: bool,
    /// Whether it runs; none where that is not known.
    #[serde(default)]
    pub running: Option<bool>,
}

impl Agent {
    /// What is known of an agent by how the daemon says that it stands, if the daemon answers, and by what the agent
    /// itself said.
    fn of(standing: Option<&Standing>, said: &Result<NodeStatus, CallError>) -> Self {
        let answers = matches!(said, Ok(_) | Err(CallError::Refused(_)));
        let pid = standing.and_then(|standing| standing.pid);
        let running = match (standing, said) {
            _ if answers || pid.is_some() => Some(true),
            (Some(_), _) => Some(false),
            (None, Err(error)) if calls::nobody_listens(error) => Some(false),
            (None, _) => None,
        };
        Self {
            pid,
            ready: said.as_ref().is_ok_and(|status| status.ready),
            running,
        }
    }
}

impl std::fmt::Display for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ready = if self.ready { "ready" } else { "not ready" };
        match (self.pid, self.running) {
            (Some(pid), _) => write!(f, "{ready} ({pid})"),
            (None, Some(true)) => write!(f, "{ready} (pid unknown)"),
            (None, Some(false)) => f.write_str("not running"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its pod ranges.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    /// Its agent.
    pub agent: Agent,
    /// Path of its network namespace.
    pub netns: String,
    /// Path of its cgroup.
    pub cgroup: String,
    /// Its agent's socket.
    pub socket: String,
    /// Pods on it.
    pub pods: usize,
}

/// The host outside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct World {
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Path of its network namespace.
    pub netns: String,
}

/// A lab at a glance (contract, "Lab").
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Its name.
    pub name: String,
    /// How pods' packets cross between nodes.
    pub fabric: Fabric,
    /// Address families.
    pub families: Vec<u8>,
    /// eBPF redirects instead of the nodes' network stack.
    pub host_routing: bool,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The host outside.
    pub world: World,
    /// Pods in all.
    pub pods: usize,
    /// The folder of its state.
    pub state: String,
    /// What could not be asked, and why.
    pub warnings: Vec<String>,
}

/// Looks at a lab; what does not answer is said in `warnings`.
pub async fn look(lab: &Lab, store: &dyn Store) -> Result<Report, LabError> {
    let record = crate::config::record(lab)?;
    let mut warnings = Vec::new();
    let standings = match control::standings(lab).await {
        Ok(standings) => Some(standings),
        Err(error) => {
            warnings.push(format!(
                "{error}; it alone knows the process ids of the agents"
            ));
            None
        }
    };
    let listed = async {
        let nodes = store.list(&Scope::all(Kind::Node)).await?;
        Ok::<_, LabError>((nodes, store.list(&Scope::all(Kind::Pod)).await?))
    };
    let (node_objects, pods) = match tokio::time::timeout(STORE_DEADLINE, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            warnings.push(error.to_string());
            Default::default()
        }
        Err(_) => {
            warnings.push("the store does not answer".to_owned());
            Default::default()
        }
    };
    let host = |name: &str| {
        let addresses = topology::attachment(&record, name)
            .map(|attachment| attachment.host_addresses)
            .unwrap_or_default();
        let addresses = addresses
            .iter()
            .map(|address| address.addr().to_string())
            .collect();
        (
            addresses,
            namespace_path(&lab.host_namespace(name))
                .display()
                .to_string(),
        )
    };
    // The agents' own word, not what was last heard of them.
    let mut agents = BTreeMap::new();
    for name in &record.nodes {
        let standing = standings
            .as_ref()
            .map(|all| all.get(name).cloned().unwrap_or_default());
        let said = calls::ask_status(lab, name).await;
        let agent = Agent::of(standing.as_ref(), &said);
        if agent.running.is_none()
            && let Err(error) = said
        {
            warnings.push(calls::unanswered(name, error).to_string());
        }
        agents.insert(name, agent);
    }
    let nodes = record
        .nodes
        .iter()
        .map(|name| {
            let (addresses, netns) = host(name);
            let object = node_objects.iter().find(|node| node.name.name == *name);
            Node {
                name: name.clone(),
                addresses,
                pod_cidrs: object
                    .and_then(|node| node.value["spec"]["podCIDRs"].as_array())
                    .into_iter()
                    .flatten()
                    .filter_map(|range| Some(range.as_str()?.to_owned()))
                    .collect(),
                agent: agents[name].clone(),
                netns,
                cgroup: record.node_cgroup(name).display().to_string(),
                socket: lab.agent_socket(name).display().to_string(),
                pods: pods
                    .iter()
                    .filter(|pod| pod.value["spec"]["nodeName"] == *name.as_str())
                    .count(),
            }
        })
        .collect();
    for (name, standing) in standings.iter().flatten() {
        let answers = agents.get(name).and_then(|agent| agent.running) == Some(true);
        if standing.pid.is_none() && !answers {
            let how = if standing.ended.is_empty() {
                "stopped"
            } else {
                &standing.ended
            };
            warnings.push(format!("{name} does not run ({how})"));
        }
    }
    let (addresses, netns) = host(topology::WORLD);
    Ok(Report {
        name: lab.name().to_owned(),
        fabric: record.fabric,
        families: record.families.clone(),
        host_routing: record.host_routing,
        nodes,
        world: World { addresses, netns },
        pods: pods.len(),
        state: lab.state().display().to_string(),
        warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_rpc::ApiError;
    use std::io;

    fn answers(ready: bool) -> Result<NodeStatus, CallError> {
        Ok(NodeStatus {
            ready,
            ..NodeStatus::default()
        })
    }

    #[test]
    fn without_the_daemon_an_agent_runs_that_answers_and_its_pid_is_unknown() {
        let refused = || Err(CallError::Refused(ApiError::new("a/b", "not yet")));
        let nobody = |kind: io::ErrorKind| Err(CallError::Unreachable(kind.into()));
        let late = || Err(CallError::Deadline(Duration::from_secs(5)));
        for (said, ready, running, shown) in [
            (answers(true), true, Some(true), "ready (pid unknown)"),
            (answers(false), false, Some(true), "not ready (pid unknown)"),
            (refused(), false, Some(true), "not ready (pid unknown)"),
            (
                nobody(io::ErrorKind::NotFound),
                false,
                Some(false),
                "not running",
            ),
            (
                nobody(io::ErrorKind::ConnectionRefused),
                false,
                Some(false),
                "not running",
            ),
            (
                nobody(io::ErrorKind::PermissionDenied),
                false,
                None,
                "unknown",
            ),
            (late(), false, None, "unknown"),
        ] {
            let agent = Agent::of(None, &said);
            let json = serde_json::json!({"pid": null, "ready": ready, "running": running});
            assert_eq!(serde_json::json!(agent), json, "{said:?}");
            assert_eq!(agent.to_string(), shown, "{said:?}");
        }
    }

    #[test]
    fn with_the_daemon_its_word_counts_for_an_agent_that_does_not_answer() {
        let late = || Err(CallError::Deadline(Duration::from_secs(5)));
        for (pid, said, running, shown) in [
            (Some(7), answers(true), true, "ready (7)"),
            (Some(7), late(), true, "not ready (7)"),
            (None, late(), false, "not running"),
            // It was started after the daemon was asked.
            (None, answers(true), true, "ready (pid unknown)"),
        ] {
            let standing = Standing {
                pid,
                ..Standing::default()
            };
            let agent = Agent::of(Some(&standing), &said);
            assert_eq!(
                (agent.pid, agent.running),
                (pid, Some(running)),
                "{pid:?} {said:?}"
            );
            assert_eq!(agent.to_string(), shown, "{pid:?} {said:?}");
        }
    }

    #[test]
    fn a_status_of_an_earlier_version_can_be_read() {
        let agent: Agent = serde_json::from_str("{\"pid\":7,\"ready\":true}").unwrap();
        assert_eq!(agent.to_string(), "ready (7)");
    }
}
