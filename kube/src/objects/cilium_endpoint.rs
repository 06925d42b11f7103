//! `cilium.io/v2` CiliumEndpoint: what others may know of a pod's network attachment.

use heddle_model::Identity;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;

/// The `status` of a CiliumEndpoint, as far as Heddle reads it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CiliumEndpoint {
    /// Which identity its labels have.
    #[serde(deserialize_with = "super::or_default")]
    pub identity: Option<EndpointIdentity>,
    /// Its addresses and its node's.
    #[serde(deserialize_with = "super::or_default")]
    pub networking: Networking,
    /// The node that it is on.
    #[serde(deserialize_with = "super::or_default")]
    pub node_name: Option<String>,
    /// By what else it is known.
    #[serde(deserialize_with = "super::or_default")]
    #[serde(rename = "external-identifiers")]
    pub external_identifiers: ExternalIdentifiers,
}

/// An endpoint's identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointIdentity {
    /// Its number.
    pub id: u32,
    /// Its labels, printed.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// Where an endpoint is reached.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Networking {
    /// Its addresses, in pairs of both families.
    #[serde(deserialize_with = "super::or_default")]
    pub addressing: Vec<AddressPair>,
    /// The underlay address of its node.
    #[serde(deserialize_with = "super::or_default")]
    pub node: Option<String>,
}

/// An address of each family, where there is one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AddressPair {
    /// The IPv4 address.
    #[serde(deserialize_with = "super::or_default")]
    pub ipv4: Option<String>,
    /// The IPv6 address.
    #[serde(deserialize_with = "super::or_default")]
    pub ipv6: Option<String>,
}

/// By what a container runtime knows an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ExternalIdentifiers {
    /// The sandbox.
    pub container_id: Option<String>,
    /// The sandbox and the interface in it.
    pub cni_attachment_id: Option<String>,
}

impl CiliumEndpoint {
    /// The `status` of a CiliumEndpoint; an empty one where it cannot be read.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(&object["status"]).unwrap_or_default()
    }

    /// Its identity's number.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.as_ref().map(|identity| Identity(identity.id))
    }

    /// Its addresses that can be read.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let pairs = self.networking.addressing.iter();
        pairs
            .flat_map(|pair| [&pair.ipv4, &pair.ipv6])
            .flatten()
            .filter_map(|text| text.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_agents_publish_is_read() {
        let endpoint = CiliumEndpoint::of(&json!({"status": {
            "id": 7, "state": "ready", "nodeName": "n1",
            "external-identifiers": {"container-id": "c1", "pod-name": "shop/web"},
            "identity": {"id": 300, "labels": ["k8s:app=web"]},
            "networking": {"addressing": [{"ipv4": "10.0.0.2", "ipv6": "fd00::2"}, {"ipv4": "no"}], "node": null},
        }}));
        assert_eq!(endpoint.identity(), Some(Identity(300)));
        assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
        assert_eq!(
            endpoint.external_identifiers.container_id.as_deref(),
            Some("c1")
        );
        let addresses: Vec<String> = endpoint.addresses().map(|one| one.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.2", "fd00::2"]);
        assert_eq!(
            CiliumEndpoint::of(&json!({"status": {"identity": {"id": -1}}})),
            CiliumEndpoint::default()
        );
    }
}
