//! What a pod asks of chained CNI plugins: host ports and bandwidth (the conventions of CNI's `runtimeConfig`).

use crate::pod::spec::PodSpec;
use serde_json::{Map, Value, json};

/// The capability of plugins that map ports of the node to ports of pods.
pub const PORT_MAPPINGS: &str = "portMappings";
/// The capability of plugins that limit a pod's bandwidth.
pub const BANDWIDTH: &str = "bandwidth";
/// Bits that may pass at once: the largest 32-bit number, which is no limit in practice, as the kubelet
/// gives it.
const BURST: u64 = i32::MAX as u64;

/// Values of `runtimeConfig` by capability; a capability that the pod does not ask for is left out.
pub fn of(spec: &PodSpec) -> Map<String, Value> {
    let mut found = Map::new();
    let mappings: Vec<Value> = spec
        .containers
        .iter()
        .flat_map(|container| &container.ports)
        .filter_map(|port| {
            let host = port.host.as_ref()?;
            let mut mapping = json!({
                "hostPort": host.number,
                "containerPort": port.number,
                "protocol": port.protocol.to_lowercase(),
            });
            if !host.address.is_empty() {
                mapping["hostIP"] = json!(host.address);
            }
            Some(mapping)
        })
        .collect();
    if !mappings.is_empty() {
        found.insert(PORT_MAPPINGS.to_owned(), Value::Array(mappings));
    }
    let mut limits = Map::new();
    for direction in ["ingress", "egress"] {
        let rate = spec
            .annotations
            .get(&format!("kubernetes.io/{direction}-bandwidth"))
            .and_then(|text| bits_per_second(text));
        if let Some(rate) = rate {
            limits.insert(format!("{direction}Rate"), json!(rate));
            limits.insert(format!("{direction}Burst"), json!(BURST));
        }
    }
    if !limits.is_empty() {
        found.insert(BANDWIDTH.to_owned(), Value::Object(limits));
    }
    found
}

/// A Kubernetes quantity of whole bits per second: `10M`, `512Ki`.
fn bits_per_second(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec;

    #[test]
    fn ports_and_bandwidth_are_asked_for_as_the_plugins_know_them() {
        let pod = json!({
            "metadata": {"name": "p", "annotations": {
                "kubernetes.io/ingress-bandwidth": "10M",
                "kubernetes.io/egress-bandwidth": "fast",
            }},
            "spec": {"containers": [{"name": "c", "image": "heddle/echo", "ports": [
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "172.31.1.2"},
                {"containerPort": 81}]}]},
        });
        let spec = spec::parse(&pod, "").0.unwrap();
        assert_eq!(
            Value::Object(of(&spec)),
            json!({
                "portMappings": [
                    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                    {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "172.31.1.2"}],
                "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": BURST},
            })
        );
        assert_eq!(bits_per_second("2Ki"), Some(2048));
        assert_eq!(bits_per_second("99999999999999G"), None);
    }
}
