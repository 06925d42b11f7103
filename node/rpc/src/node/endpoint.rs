//! `endpoint.list`.

use super::Enforcement;
use crate::message::Call;
use heddle_model::{Identity, LabelSet};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// `endpoint.list`: the node's endpoints, by id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointList {}

impl Call for EndpointList {
    const METHOD: &'static str = "endpoint.list";
    type Answer = Vec<Endpoint>;
}

/// An endpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its number on the node.
    pub id: u16,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's addresses.
    pub ipv4: Option<Ipv4Addr>,
    /// See `ipv4`.
    pub ipv6: Option<Ipv6Addr>,
    /// Its identity.
    pub identity: Identity,
    /// The labels that the identity stands for.
    pub labels: Arc<LabelSet>,
    /// Index of the host side of its link; `None` before there is one.
    pub ifindex: Option<u32>,
    /// The container that it was added for.
    pub container_id: String,
    /// What comes to it.
    pub ingress: Enforcement,
    /// What it sends.
    pub egress: Enforcement,
    /// What is denied passes, and is told.
    pub audit: bool,
    /// Position of the store up to which its policy is in force.
    pub policy_revision: u64,
    /// `ready`, or what it waits for.
    pub state: String,
}
