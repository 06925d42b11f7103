//! What an agent answers people: the node as its datapath has it, not as it is wished.
//!
//! Everything that reads answers ignores fields that it does not know. What an older agent does not say in its `status` is
//! empty; a row of a list is read whole, or not at all.

mod endpoint;
mod list;
mod map;
mod status;

pub use endpoint::{Endpoint, EndpointList};
pub use list::{
    AddressUse, Difference, DifferenceList, IdentityList, IdentityUse, IpamList, NodeList, NodeSeen,
};
pub use map::{
    Admission, ConnectionState, IpcacheList, IpcacheRow, ListConnections, ListPolicies, MapRows,
    PolicyRow, TrackedConnection,
};
pub use status::{
    EndpointCount, FeatureSeen, FlowStatus, HostPolicyStatus, LockOut, MapSeen, MetricsText,
    NodeStatus, NotInForce, PoolUse, ReadMetrics, ReadStatus,
};

use serde::{Deserialize, Serialize};

/// The method that streams flows: its parameters and each of its answers are `heddle-flow`'s.
pub const OBSERVE: &str = "observe";

/// Whether a direction is subject to policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    /// It is; without a policy map everything is dropped.
    #[default]
    Enforced,
    /// It is not.
    Open,
}

impl Enforcement {
    /// Of a policy that isolates, or does not; `None` where there is no policy map.
    pub const fn of(enforced: Option<bool>) -> Self {
        match enforced {
            Some(false) => Self::Open,
            Some(true) | None => Self::Enforced,
        }
    }
}
