//! Selectors, in every place where a policy has one. Each line of the input is one requirement:
//! `key`, `key=value`, or `key OPERATOR value value`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

fn selector(text: &str) -> Value {
    let (mut labels, mut expressions) = (Map::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        match (line.split_once('='), words.next(), words.next()) {
            (Some((key, value)), _, _) => drop(labels.insert(key.to_owned(), json!(value))),
            (None, Some(key), Some(operator)) => {
                let values: Vec<&str> = words.collect();
                expressions.push(json!({"key": key, "operator": operator, "values": values}));
            }
            (None, key, _) => expressions.push(json!({"key": key, "operator": "Exists"})),
        }
    }
    json!({"matchLabels": labels, "matchExpressions": expressions})
}

fuzz_target!(|text: &str| {
    let selector = selector(text);
    heddle_fuzz::look_at(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
        "spec": {"podSelector": selector, "ingress": [{"from": [{"namespaceSelector": selector, "podSelector": selector}]}]},
    }));
    for kind in ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"] {
        heddle_fuzz::look_at(&json!({
            "apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": "p"},
            "spec": {"endpointSelector": selector, "ingress": [{"fromEndpoints": [selector]}, {"fromCIDRSet": [{"cidrGroupSelector": selector}]}],
                     "egress": [{"toServices": [{"k8sServiceSelector": {"selector": selector}}]}, {"toNodes": [selector]}]},
        }));
    }
    heddle_fuzz::look_at(&json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": selector},
                 "egress": [{"action": "Pass", "to": [{"pods": {"namespaceSelector": selector, "podSelector": selector}}]}]},
    }));
});
