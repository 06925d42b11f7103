//! Which node a pod goes to: among the ready ones that fit, the one with the fewest pods. Pure.

use heddle_kube::store::Object;
use serde_json::Value;
use std::collections::BTreeMap;

/// A node as the scheduler sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// True when its agent is ready and it takes pods.
    pub available: bool,
    /// Pods on it.
    pub pods: usize,
}

/// The nodes, with the pods that they have.
pub fn candidates<'a>(
    nodes: impl Iterator<Item = &'a Object>,
    pods: impl Iterator<Item = &'a Object>,
    ready: impl Fn(&str) -> bool,
) -> Vec<Candidate> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = pod.value["spec"]["nodeName"].as_str() {
            *counts.entry(node).or_default() += 1;
        }
    }
    let mut found: Vec<Candidate> = nodes
        .map(|node| Candidate {
            labels: text_map(&node.value["metadata"]["labels"]),
            available: ready(&node.name.name) && node.value["spec"]["unschedulable"] != true,
            pods: counts.get(node.name.name.as_str()).copied().unwrap_or(0),
            name: node.name.name.clone(),
        })
        .collect();
    // node-2 before node-10.
    found.sort_by_key(|node| (node.name.len(), node.name.clone()));
    found
}

/// The node for a pod, or why there is none.
pub fn choose(pod: &Object, candidates: &[Candidate]) -> Result<String, String> {
    let selector = text_map(&pod.value["spec"]["nodeSelector"]);
    let fits = |node: &&Candidate| {
        selector
            .iter()
            .all(|(key, value)| node.labels.get(key) == Some(value))
    };
    let fitting: Vec<&Candidate> = candidates.iter().filter(fits).collect();
    let chosen = fitting
        .iter()
        .filter(|node| node.available)
        .min_by_key(|node| node.pods);
    match chosen {
        Some(node) => Ok(node.name.clone()),
        None if fitting.is_empty() => Err(format!(
            "none of {} nodes has the labels of nodeSelector ({})",
            candidates.len(),
            selector
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(",")
        )),
        None => Err(format!(
            "the agents of the nodes that fit ({}) are not ready",
            fitting
                .iter()
                .map(|node| node.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}

fn text_map(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_kube::store::{Kind, Version};
    use heddle_model::NamespacedName;
    use serde_json::json;

    fn node(name: &str, disk: &str, available: bool, pods: usize) -> Candidate {
        Candidate {
            name: name.into(),
            labels: [("disk".to_owned(), disk.to_owned())].into(),
            available,
            pods,
        }
    }

    fn pod(selector: Value) -> Object {
        Object {
            kind: Kind::Pod,
            name: NamespacedName::new("n", "p"),
            version: Version::new("1"),
            value: json!({"spec": {"nodeSelector": selector}}),
        }
    }

    #[test]
    fn the_least_loaded_ready_node_that_fits() {
        let nodes = [
            node("node-1", "ssd", true, 3),
            node("node-2", "hdd", true, 1),
            node("node-3", "ssd", false, 0),
        ];
        assert_eq!(choose(&pod(json!({})), &nodes).unwrap(), "node-2");
        assert_eq!(
            choose(&pod(json!({"disk": "ssd"})), &nodes).unwrap(),
            "node-1"
        );
        assert!(
            choose(&pod(json!({"disk": "tape"})), &nodes)
                .unwrap_err()
                .contains("disk=tape")
        );
        assert!(
            choose(&pod(json!({})), &nodes[2..])
                .unwrap_err()
                .contains("node-3")
        );
    }
}
