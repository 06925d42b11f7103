//! What travels over the agent's socket: one JSON value per line.

use crate::config::ValidAttachment;
use crate::environment::PodArguments;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use std::path::PathBuf;

/// A question to the agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// `cni.add`, `status`, ...
    pub method: String,
    /// What the method needs.
    #[serde(default)]
    pub params: Value,
}

/// The agent's refusal; the same fields as every error of the contract.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable code: `area/what`.
    pub code: String,
    /// What failed, on what, and why.
    pub message: String,
    /// The object it failed on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field that is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl ApiError {
    /// An error with a code and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// With the object it failed on.
    #[must_use]
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.object = object.into();
        self
    }

    /// With the field that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// With what to try.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

/// Codes of [`ApiError`] that the plugin tells apart.
pub mod error_codes {
    /// The agent is starting, or has lost something it needs for new pods.
    pub const NOT_READY: &str = "cni/not-ready";
    /// Something that clears up by itself.
    pub const TRY_AGAIN: &str = "cni/try-again";
    /// The node works, but traffic of existing pods may be limited.
    pub const LIMITED: &str = "cni/limited";
    /// The pod's network namespace is not there.
    pub const NO_NAMESPACE: &str = "cni/no-namespace";
    /// The request itself is wrong.
    pub const INVALID: &str = "cni/invalid-request";
    /// CHECK found a difference.
    pub const CHECK_FAILED: &str = "cni/check-failed";
    /// No free address on the node.
    pub const POOL_EXHAUSTED: &str = "ipam/pool-exhausted";
}

/// Parameters of `cni.add`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddParams {
    /// Container id.
    pub container_id: String,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Interface name in it.
    pub interface: String,
    /// The pod.
    #[serde(default)]
    pub pod: Option<PodArguments>,
    /// Seconds after which the plugin stops waiting.
    pub deadline_seconds: u64,
}

/// Parameters of `cni.del`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelParams {
    /// Container id.
    pub container_id: String,
    /// Interface name.
    pub interface: String,
}

/// Parameters of `cni.check`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckParams {
    /// Container id.
    pub container_id: String,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// Interface name in it.
    pub interface: String,
    /// Addresses that the previous result gives this interface.
    pub addresses: Vec<IpAddr>,
}

/// Parameters of `cni.gc`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GcParams {
    /// What the runtime still knows.
    pub valid_attachments: Vec<ValidAttachment>,
}

/// An address of the pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedAddress {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix_length: u8,
    /// The gateway of its family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// The answer to `cni.add`: the attachment, free of any CNI version's shape.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Name of the host side of the link.
    pub host_interface: String,
    /// MAC address of the host side.
    pub host_mac: String,
    /// Name of the interface in the pod.
    pub interface: String,
    /// MAC address of the interface in the pod.
    pub mac: String,
    /// MTU of the interface in the pod.
    pub mtu: u32,
    /// Path of the network namespace.
    pub netns: PathBuf,
    /// The pod's addresses, IPv4 first. A default route leads to the gateway of each.
    pub addresses: Vec<AttachedAddress>,
}
