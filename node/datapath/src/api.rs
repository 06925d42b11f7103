//! The datapath as the agent sees it.

use crate::PathQuestion;
use heddle_abi::{ConnectionEntry, ConnectionKey, Event, MetricSlot};
use heddle_model::Identity;
use heddle_policy::compiled::CompiledPolicy;
use heddle_verify::path::Seen;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Something the kernel refused, in an operator's words.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// A step failed.
    #[error("{doing} {object}: {reason}")]
    Failed {
        /// What was being done ("attach program from_pod to").
        doing: &'static str,
        /// To what.
        object: String,
        /// The kernel's answer.
        reason: String,
    },
    /// The network namespace of a pod is not there.
    #[error("network namespace {path} cannot be opened: {reason}")]
    NoNamespace {
        /// Its path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// What another ABI version left cannot be taken over; nothing was touched.
    #[error(
        "version {own} of the datapath cannot take over from version {version} in {directory}: {reason}; nothing was touched; {help}"
    )]
    OtherVersion {
        /// The version that is in force.
        version: u32,
        /// The version that was to take over.
        own: u32,
        /// Where the pins of the one in force are.
        directory: PathBuf,
        /// Why not.
        reason: String,
        /// What to do.
        help: String,
    },
    /// A map is full; nothing was opened by it.
    #[error("map {map} is full ({entries} of {max} entries)")]
    MapFull {
        /// Its name.
        map: &'static str,
        /// Entries in it.
        entries: u64,
        /// Entries it can hold.
        max: u64,
    },
}

/// What a pod's link should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkSpec {
    /// Endpoint id (1 to 4095); names the host side `hd<id>`.
    pub endpoint: u16,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Name of the interface in the pod, usually `eth0`.
    pub interface: String,
    /// The pod's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// A pod's link as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodLink {
    /// Interface index of the host side.
    pub ifindex: u32,
    /// Name of the host side.
    pub name: String,
    /// MAC address of the pod's interface.
    pub mac: [u8; 6],
    /// MAC address of the host side.
    pub host_mac: [u8; 6],
    /// MTU of the pod's interface.
    pub mtu: u32,
    /// The gateway addresses that the pod's routes use.
    pub gateways: Vec<IpAddr>,
}

/// Facts about an endpoint that its programs use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Endpoint id.
    pub endpoint: u16,
    /// Interface index of the host side of its link.
    pub ifindex: u32,
    /// The pod's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The pod's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// Security identity.
    pub identity: Identity,
    /// CIDR identity of its IPv4 address in the in-cluster scope; 0 for none.
    pub cidr_ipv4: Identity,
    /// CIDR identity of its IPv6 address in the in-cluster scope; 0 for none.
    pub cidr_ipv6: Identity,
    /// MAC address of the pod's interface.
    pub mac: [u8; 6],
    /// MAC address of the host side.
    pub host_mac: [u8; 6],
}

/// One row of the ipcache: who an address range is, and where it lives. The longest prefix counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRow {
    /// The addresses.
    pub prefix: IpNet,
    /// Security identity.
    pub identity: Identity,
    /// CIDR identity; 0 for none.
    pub cidr: Identity,
    /// Underlay address of the node that holds the addresses; `None` for this node and outside.
    pub node: Option<IpAddr>,
    /// True for pods, nodes and pod ranges.
    pub in_cluster: bool,
    /// True for a node's own address (this node's when `node` is `None`).
    pub is_node: bool,
}

/// A tracked connection, decoded by the reader.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Its key.
    pub key: ConnectionKey,
    /// Its state.
    pub entry: ConnectionEntry,
    /// Seconds until it expires; 0 when it is dead.
    pub remaining_seconds: u32,
}

/// Tracked connections that were asked for.
#[derive(Clone, Debug, Default)]
pub struct ConnectionRows {
    /// As many as were asked for.
    pub rows: Vec<ConnectionRow>,
    /// How many there are beyond these.
    pub left_out: u64,
}

/// An endpoint as the kernel holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RealisedEndpoint {
    /// Its facts.
    pub facts: Facts,
    /// True when its programs are attached in both directions.
    pub attached: bool,
}

/// A policy as the kernel holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealisedPolicy {
    /// Generation that the programs compare with.
    pub generation: u32,
    /// Whether what the rows deny is told and passes.
    pub audit: bool,
    /// Rows, sorted; `None` when the endpoint has no policy map (then everything is dropped).
    pub entries: Option<Vec<heddle_policy::compiled::Entry>>,
    /// The identities that have another's rows, sorted.
    pub aliases: Vec<heddle_policy::compiled::Alias>,
}

/// The node's kernel routes of the main table, beside those that the datapath sets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RealisedRoutes {
    /// By which device those lead that [`Datapath::set_routes`] sets; `None` where it sets none.
    pub overlay: Option<String>,
    /// Prefix and device of the routes to the prefixes that were asked for, and of all others that the datapath has set by
    /// the overlay; no device for those that lead nowhere.
    pub routes: BTreeSet<(IpNet, Option<String>)>,
}

/// How full a map is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapUse {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries it can hold.
    pub max: u64,
}

/// A counter: (drop reason or 0 for forwarded, direction), and its sum over CPUs.
pub type Counter = ((u8, u8), MetricSlot);

/// Whether a kernel feature is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeatureState {
    /// Used.
    On,
    /// The kernel has it, the configuration does not want it.
    Off,
    /// The kernel has it not, or refuses it.
    Unavailable,
}

/// A kernel feature and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name ("tcx", "host-routing", "overlay").
    pub name: String,
    /// Its state.
    pub state: FeatureState,
    /// Why, where it is not on.
    pub why: String,
}

/// What the agent asks of the kernel. Every call blocks; call it where blocking is fine.
///
/// Calls are idempotent: the same call again changes nothing. Nothing is open before
/// [`Datapath::attach`]: until then the host side of the link is down.
pub trait Datapath: Send + Sync + 'static {
    /// Makes the pod's link: a veth pair, its pod side in the namespace with addresses, routes and
    /// neighbours, its host side down. A leftover of the same endpoint id is removed first.
    fn create_link(&self, spec: &LinkSpec) -> Result<PodLink, DatapathError>;

    /// Puts an endpoint's policy in force, in one step: a packet sees the old one or the new one. Endpoints
    /// given equal policies share a map.
    fn set_policy(&self, endpoint: u16, policy: &CompiledPolicy) -> Result<(), DatapathError>;

    /// Puts the node's own policy in force, in one step; `None`: no policy is evaluated for the node's traffic.
    fn set_node_policy(&self, policy: Option<&CompiledPolicy>) -> Result<(), DatapathError>;

    /// How often an endpoint's policy has changed, as events name it; 0 before its first. Endpoint 0 is the
    /// node.
    fn policy_generation(&self, endpoint: u16) -> Result<u32, DatapathError>;

    /// The node's own policy as the kernel holds it; `None` when none is evaluated for its traffic.
    fn node_policy(&self) -> Result<Option<RealisedPolicy>, DatapathError>;

    /// Writes the endpoint's facts.
    fn set_facts(&self, facts: &Facts) -> Result<(), DatapathError>;

    /// Attaches the programs and brings the host side up, with the node's route to the pod.
    fn attach(&self, endpoint: u16, ifindex: u32) -> Result<(), DatapathError>;

    /// Removes all there is of an endpoint: programs, link, routes, facts, policy, connections. What is
    /// not there is no error.
    fn remove_endpoint(&self, endpoint: u16) -> Result<(), DatapathError>;

    /// Writes ipcache rows.
    fn set_peers(&self, rows: &[PeerRow]) -> Result<(), DatapathError>;

    /// Removes ipcache rows.
    fn remove_peers(&self, prefixes: &[IpNet]) -> Result<(), DatapathError>;

    /// Sets the node's kernel routes to other nodes' pod ranges: exactly these, each with the underlay
    /// address of its node. (Routed fabric without host routing, overlay, and traffic of the node itself.)
    fn set_routes(&self, routes: &[(IpNet, IpAddr)]) -> Result<(), DatapathError>;

    /// The node's kernel routes to these prefixes, with all others that [`Datapath::set_routes`] has set; `None` where there
    /// are no routes.
    fn routes(&self, _: &BTreeSet<IpNet>) -> Result<Option<RealisedRoutes>, DatapathError> {
        Ok(None)
    }

    /// Waits up to `timeout` for the addresses to change at which this node takes packets for itself, and returns them
    /// as they are: of all its devices, the broadcast addresses of their networks, and prefixes routed to `local`.
    fn node_addresses(
        &self,
        timeout: std::time::Duration,
    ) -> Result<std::collections::BTreeSet<IpNet>, DatapathError>;

    /// What the kernel says of the way between one of this node's ends and its peer. Nothing is sent; what cannot be
    /// asked has the reason in its place.
    fn path(&self, question: &PathQuestion) -> Result<Seen, DatapathError>;

    /// Waits up to `timeout` for events and appends them; returns the number of events lost since the
    /// last call as (ring full, sampled).
    fn poll_events(
        &self,
        timeout: std::time::Duration,
        events: &mut Vec<Event>,
    ) -> Result<(u64, u64), DatapathError>;

    /// Removes dead connections; returns (alive, removed).
    fn collect_connections(&self) -> Result<(u64, u64), DatapathError>;

    /// Every endpoint the kernel holds.
    fn endpoints(&self) -> Result<Vec<RealisedEndpoint>, DatapathError>;

    /// An endpoint's policy as the kernel holds it.
    fn policy(&self, endpoint: u16) -> Result<RealisedPolicy, DatapathError>;

    /// The ipcache as the kernel holds it.
    fn peers(&self) -> Result<Vec<PeerRow>, DatapathError>;

    /// Connections whose keys fit, at most `limit`, a share of those without an answer among them.
    fn connections(
        &self,
        fits: &dyn Fn(&ConnectionKey) -> bool,
        limit: usize,
    ) -> Result<ConnectionRows, DatapathError>;

    /// Counters; those that are zero are left out.
    fn metrics(&self) -> Result<Vec<Counter>, DatapathError>;

    /// How full the maps are.
    fn map_use(&self) -> Result<Vec<MapUse>, DatapathError>;

    /// Features and their states.
    fn features(&self) -> Vec<Feature>;

    /// Nanoseconds of the boot clock that events use, now.
    fn now(&self) -> u64;
}
