//! The calls of the CNI plugin. Answers are free of any CNI version's shape.

use crate::message::{Call, Done};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::PathBuf;

/// The pod that a Kubernetes runtime names in `CNI_ARGS`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodArguments {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, where the runtime says it: tells two pods of one name apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// An attachment that the runtime still knows (GC).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ValidAttachment {
    /// Container id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// Interface name in the container.
    #[serde(rename = "ifname")]
    pub interface: String,
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

/// `cni.status`: whether new pods can be attached. Its answer has nothing in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StatusParams {}

/// The answer to `cni.gc`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Collected {
    /// How many attachments were removed.
    pub removed: usize,
}

impl Call for AddParams {
    const METHOD: &'static str = "cni.add";
    type Answer = Attachment;
}

impl Call for DelParams {
    const METHOD: &'static str = "cni.del";
    type Answer = Done;
}

impl Call for CheckParams {
    const METHOD: &'static str = "cni.check";
    type Answer = Done;
}

impl Call for GcParams {
    const METHOD: &'static str = "cni.gc";
    type Answer = Collected;
}

impl Call for StatusParams {
    const METHOD: &'static str = "cni.status";
    type Answer = Done;
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
