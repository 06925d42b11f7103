//! `heddle lab status`: the lab at a glance.

use crate::LabError;
use crate::calls;
use crate::control;
use crate::paths::{Lab, namespace_path};
use crate::topology;
use heddle_agent::config::Fabric;
use heddle_kube::store::{Kind, Scope, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the store may take to answer before its part is left out.
const STORE_DEADLINE: Duration = Duration::from_secs(3);

/// A node's agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Its process id while it runs.
    pub pid: Option<i32>,
    /// True when it is ready.
    pub ready: bool,
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
    let standings = control::standings(lab).await.unwrap_or_else(|error| {
        warnings.push(error.to_string());
        BTreeMap::new()
    });
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
    let mut ready = std::collections::BTreeSet::new();
    for name in &record.nodes {
        let said = calls::status(lab, name).await;
        if said.is_ok_and(|status| status.ready) {
            ready.insert(name.clone());
        }
    }
    let nodes = record
        .nodes
        .iter()
        .map(|name| {
            let (addresses, netns) = host(name);
            let standing = standings.get(name).cloned().unwrap_or_default();
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
                agent: Agent {
                    pid: standing.pid,
                    ready: standing.pid.is_some() && ready.contains(name),
                },
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
    for (name, standing) in &standings {
        if standing.pid.is_none() {
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
