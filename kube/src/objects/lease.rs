//! `coordination.k8s.io/v1` Lease.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who holds a lease, and since when: the `spec` of a Lease. Times are RFC 3339 with microseconds and for people
/// to read; nobody decides by them, since clocks of different machines differ.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSpec {
    /// Who holds it; nobody when empty.
    #[serde(default, deserialize_with = "super::or_default")]
    pub holder_identity: Option<String>,
    /// For how long after its last change nobody else may take it, in seconds.
    #[serde(default, deserialize_with = "super::or_default")]
    pub lease_duration_seconds: Option<u32>,
    /// When its holder took it.
    #[serde(default, deserialize_with = "super::or_default")]
    pub acquire_time: Option<String>,
    /// When its holder renewed it last.
    #[serde(default, deserialize_with = "super::or_default")]
    pub renew_time: Option<String>,
    /// How often it was taken.
    #[serde(default, deserialize_with = "super::or_default")]
    pub lease_transitions: Option<u32>,
}

impl LeaseSpec {
    /// The `spec` of a Lease; that of a lease which nobody holds where it cannot be read.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(&object["spec"]).unwrap_or_default()
    }
}
