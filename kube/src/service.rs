//! What policy needs to know of Service and EndpointSlice objects.

use crate::pod::{self, list};
use heddle_model::NamespacedName;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The labels of the pods that a Service selects; `None` when it selects none and its endpoints are written
/// by somebody else.
pub fn selector(service: &Value) -> Option<BTreeMap<String, String>> {
    let written = service.pointer("/spec/selector")?.as_object()?;
    let found: BTreeMap<String, String> = written
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    (!found.is_empty()).then_some(found)
}

/// The addresses of the Service itself; a headless one has none.
pub fn cluster_addresses(service: &Value) -> Vec<IpAddr> {
    let listed = list(service, "/spec/clusterIPs").iter();
    let mut found = Vec::new();
    for text in service.pointer("/spec/clusterIP").into_iter().chain(listed) {
        if let Some(Ok(address)) = text.as_str().map(str::parse)
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// The Service that an EndpointSlice belongs to.
pub fn of_slice(slice: &Value) -> Option<NamespacedName> {
    let service = pod::labels(slice)
        .into_iter()
        .find(|(key, _)| *key == SERVICE_NAME)?
        .1;
    Some(NamespacedName::new(pod::name(slice).namespace, service))
}

/// The addresses of an EndpointSlice's endpoints that are ready, or do not say.
pub fn slice_addresses(slice: &Value) -> Vec<IpAddr> {
    list(slice, "/endpoints")
        .iter()
        .filter(|endpoint| {
            endpoint
                .pointer("/conditions/ready")
                .and_then(Value::as_bool)
                != Some(false)
        })
        .flat_map(|endpoint| list(endpoint, "/addresses"))
        .filter_map(|address| address.as_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_and_slices_are_read() {
        let service = json!({
            "metadata": {"name": "db", "namespace": "data"},
            "spec": {"selector": {"app": "db"}, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"]},
        });
        assert_eq!(selector(&service).unwrap()["app"], "db");
        assert_eq!(cluster_addresses(&service).len(), 2);
        let headless = json!({"spec": {"clusterIP": "None", "selector": {}}});
        assert_eq!(selector(&headless), None);
        assert!(cluster_addresses(&headless).is_empty());
        let slice = json!({
            "metadata": {"name": "db-1", "namespace": "data", "labels": {SERVICE_NAME: "db"}},
            "endpoints": [
                {"addresses": ["192.0.2.1"]},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.3"], "conditions": {"ready": false}}],
        });
        assert_eq!(of_slice(&slice), Some(NamespacedName::new("data", "db")));
        let wanted: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        assert_eq!(slice_addresses(&slice), wanted);
        assert_eq!(of_slice(&json!({"metadata": {"name": "x"}})), None);
    }
}
