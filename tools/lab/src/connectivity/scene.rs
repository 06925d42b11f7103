//! The objects of a connectivity test: its namespace, its pods, and the policies of its scenarios.

use super::plan::{OTHER_PORT, PORT, Role, Setting};
use heddle_kube::store::Kind;
use serde_json::{Value, json};

/// The label of a test's namespace; its value is the id of the process that runs the test.
pub(super) const LABEL: &str = "heddle.dev/connectivity-test";

/// The test's namespace.
pub(super) fn namespace(name: &str, process: u32) -> Value {
    json!({
        "apiVersion": Kind::Namespace.api_version(), "kind": "Namespace",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/metadata.name": name,
            LABEL: process.to_string(),
        }},
    })
}

/// The test's pods: one of each role on every node.
pub(super) fn pods(namespace: &str, nodes: &[String]) -> Vec<Value> {
    let pod = |role: Role, node: &String| {
        json!({
            "apiVersion": Kind::Pod.api_version(), "kind": "Pod",
            "metadata": {
                "name": role.pod(node), "namespace": namespace,
                "labels": {"app": "connectivity-test", "role": role.name()},
            },
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "echo", "image": "heddle/echo",
                    "ports": [
                        {"containerPort": PORT, "protocol": "TCP"},
                        {"containerPort": OTHER_PORT, "protocol": "TCP"},
                        {"containerPort": PORT, "protocol": "UDP"},
                    ],
                }],
            },
        })
    };
    nodes
        .iter()
        .flat_map(|node| Role::ALL.map(|role| pod(role, node)))
        .collect()
}

fn role(role: Role) -> Value {
    json!({"matchLabels": {"role": role.name()}})
}

fn policy(kind: Kind, setting: &Setting, name: &str, spec: Value) -> (Kind, Value) {
    let object = json!({
        "apiVersion": kind.api_version(), "kind": kind.name(),
        "metadata": {"name": name, "namespace": setting.namespace},
        "spec": spec,
    });
    (kind, object)
}

/// Only the clients reach the servers, on one TCP port.
pub(super) fn ingress_by_label_and_port(setting: &Setting) -> Vec<(Kind, Value)> {
    vec![policy(
        Kind::NetworkPolicy,
        setting,
        "clients-into-servers",
        json!({
            "podSelector": role(Role::Server),
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": role(Role::Client)}],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }],
        }),
    )]
}

/// The clients reach one TCP port of the servers, and nothing else.
pub(super) fn egress_default_deny(setting: &Setting) -> Vec<(Kind, Value)> {
    vec![
        policy(
            Kind::NetworkPolicy,
            setting,
            "clients-send-nothing",
            json!({"podSelector": role(Role::Client), "policyTypes": ["Egress"]}),
        ),
        policy(
            Kind::NetworkPolicy,
            setting,
            "clients-to-servers",
            json!({
                "podSelector": role(Role::Client),
                "policyTypes": ["Egress"],
                "egress": [{
                    "to": [{"podSelector": role(Role::Server)}],
                    "ports": [{"protocol": "TCP", "port": PORT}],
                }],
            }),
        ),
    ]
}

/// By entity into the servers and the others, by CIDR and entity out of the clients.
pub(super) fn entities_and_cidr(setting: &Setting) -> Vec<(Kind, Value)> {
    let tcp = |port: u16| json!([{"ports": [{"port": port.to_string(), "protocol": "TCP"}]}]);
    let world: Vec<String> = setting
        .world
        .addresses
        .iter()
        .map(|address| ipnet::IpNet::from(*address).to_string())
        .collect();
    let kind = Kind::CiliumNetworkPolicy;
    vec![
        policy(
            kind,
            setting,
            "servers-from-outside",
            json!({
                "endpointSelector": role(Role::Server),
                "ingress": [{"fromEntities": ["world", "remote-node"], "toPorts": tcp(PORT)}],
            }),
        ),
        policy(
            kind,
            setting,
            "others-from-cluster",
            json!({
                "endpointSelector": role(Role::Other),
                "ingress": [{"fromEntities": ["cluster"]}],
            }),
        ),
        policy(
            kind,
            setting,
            "clients-to-addresses",
            json!({
                "endpointSelector": role(Role::Client),
                "egress": [
                    {"toCIDR": world, "toPorts": tcp(setting.world.tcp)},
                    {"toEntities": ["remote-node"]},
                ],
            }),
        ),
    ]
}

/// Nobody reaches the servers.
pub(super) fn deny_all_ingress(setting: &Setting) -> Vec<(Kind, Value)> {
    vec![policy(
        Kind::NetworkPolicy,
        setting,
        "nobody-into-servers",
        json!({"podSelector": role(Role::Server), "policyTypes": ["Ingress"]}),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::plan::{self, tests::setting};
    use heddle_kube::policy::Severity;

    #[test]
    fn every_policy_is_one_that_the_lab_takes() {
        for scenario in plan::scenarios(&setting(2)) {
            for (kind, policy) in scenario.policies {
                let problems = heddle_kube::policy::parse(&policy).problems;
                let errors: Vec<_> = problems
                    .iter()
                    .filter(|problem| matches!(problem.severity, Severity::Error))
                    .collect();
                assert!(errors.is_empty(), "{kind} {policy}: {errors:?}");
            }
        }
    }

    #[test]
    fn every_node_has_a_pod_of_each_role() {
        let pods = pods("n", &setting(2).nodes);
        assert_eq!(pods.len(), 6);
        for pod in &pods {
            let (spec, problems) = crate::pod::spec::parse(pod, "");
            assert!(spec.is_some() && problems.is_empty(), "{pod}: {problems:?}");
        }
    }
}
