//! Objects that Heddle writes or reads field by field, as typed structures: one file per kind.
//!
//! They are thin: what others wrote and Heddle does not read is left out, so an object that is written back is
//! built from its stored JSON and not from these.

mod cilium_endpoint;
mod condition;
mod lease;
mod metadata;
mod node;
mod node_policy_report;

pub use cilium_endpoint::{
    AddressPair, CiliumEndpoint, EndpointIdentity, ExternalIdentifiers, Networking,
};
pub use condition::{Condition, ConditionStatus, condition_in};
pub use lease::LeaseSpec;
pub use metadata::Metadata;
pub use node::NodeSpec;
pub use node_policy_report::{NodePolicyReport, OpenEndpoints};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads a field that others write: what cannot be read counts as left out, and takes no other field with it.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}
