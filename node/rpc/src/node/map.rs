//! `bpf.policy`, `bpf.ct`, `bpf.ipcache`: the kernel's maps, decoded.

use crate::message::Call;
use heddle_model::{Identity, LabelSet};
use heddle_policy::RuleRef;
use heddle_policy::compiled::{Direction, EntryVerdict};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Rows of a map, or of a map of each endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapRows<T> {
    /// As many as an answer holds.
    pub rows: Vec<T>,
    /// How many there are beyond these.
    pub left_out: u64,
}

/// `bpf.policy`: the rows of the policy maps. Where there are more than an answer holds, each endpoint has a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPolicies {
    /// Of this endpoint; `None`: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<u16>,
}

impl Call for ListPolicies {
    const METHOD: &'static str = "bpf.policy";
    type Answer = MapRows<PolicyRow>;
}

/// A row of an endpoint's policy map.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyRow {
    /// The endpoint.
    pub endpoint: u16,
    /// Its pod: namespace and name.
    pub pod: String,
    /// Which way.
    pub direction: Direction,
    /// Whom it is about; 0 for anybody.
    pub identity: Identity,
    /// What that identity stands for.
    pub labels: Arc<LabelSet>,
    /// The protocol's name, its number where it has none here, `any`.
    pub protocol: String,
    /// `any`, `80`, `80-95`; for ICMP the message type.
    pub port: String,
    /// What happens.
    pub verdict: EntryVerdict,
    /// The higher one wins.
    pub precedence: u32,
    /// Leads to the rules.
    pub cookie: u32,
    /// Counts the endpoint's policies.
    pub generation: u32,
    /// The rules that it is from.
    pub rules: Vec<RuleRef>,
}

/// `bpf.ct`: tracked connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConnections {
    /// Of this endpoint; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<u16>,
}

impl Call for ListConnections {
    const METHOD: &'static str = "bpf.ct";
    type Answer = MapRows<TrackedConnection>;
}

/// A tracked connection, its initiator as the source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackedConnection {
    /// The protocol's name, or its number.
    pub protocol: String,
    /// Who opened it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// How far it is.
    pub state: ConnectionState,
    /// The initiator's identity.
    pub source_identity: Identity,
    /// The other end's.
    pub destination_identity: Identity,
    /// What the initiator's policy said, where it is asked here.
    pub egress: Option<Admission>,
    /// What the other end's policy said, where it is asked here.
    pub ingress: Option<Admission>,
    /// Packets from the initiator, and to it.
    pub packets: [u64; 2],
    /// Bytes from the initiator, and to it.
    pub bytes: [u64; 2],
    /// The TCP flags seen from the initiator, and to it.
    pub tcp_flags: [u8; 2],
    /// Until its place may be taken.
    pub remaining_seconds: u32,
}

impl TrackedConnection {
    /// Those of these rows that this build can read: one that another has written in another way is left out.
    pub fn each_that_fits(rows: Vec<Value>) -> Vec<Self> {
        let rows = rows.into_iter();
        rows.filter_map(|row| serde_json::from_value(row).ok())
            .collect()
    }
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionState {
    /// Nobody has answered.
    New,
    /// It was answered.
    Established,
    /// An end has closed or reset it.
    Closing,
}

/// What an end's policy said of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// The policy's generation.
    pub generation: u32,
    /// Who the peer was.
    pub peer: Identity,
    /// Its CIDR identity; 0 for none.
    pub peer_cidr: Identity,
    /// Leads to the rules.
    pub cookie: u32,
}

/// `bpf.ipcache`: who has which addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IpcacheList {}

impl Call for IpcacheList {
    const METHOD: &'static str = "bpf.ipcache";
    type Answer = MapRows<IpcacheRow>;
}

/// A row of the ipcache.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpcacheRow {
    /// The addresses.
    pub prefix: IpNet,
    /// Whose they are.
    pub identity: Identity,
    /// What that identity stands for.
    pub labels: Arc<LabelSet>,
    /// CIDR identity; 0 for none.
    pub cidr: Identity,
    /// Underlay address of the node that has them.
    pub node_address: Option<IpAddr>,
    /// They are in the cluster.
    pub in_cluster: bool,
    /// They are a node's own.
    pub is_node: bool,
    /// The pod that has the address: namespace and name.
    pub pod: Option<String>,
}
