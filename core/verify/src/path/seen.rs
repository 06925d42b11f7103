//! What a node's kernel says of the way between an end and its peer, as its agent tells it.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Something that was asked of a kernel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Observed<T> {
    /// Its answer.
    Seen(T),
    /// Why there is none.
    Failed(String),
}

impl<T> Observed<T> {
    /// The answer, if there is one.
    pub const fn seen(&self) -> Option<&T> {
        match self {
            Self::Seen(value) => Some(value),
            Self::Failed(_) => None,
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Observed<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Seen(value),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// A network device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What it is like; `None` when there is none of this name.
    pub state: Option<DeviceState>,
}

/// What a network device is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceState {
    /// Somebody has set it up.
    pub up: bool,
    /// The other side of the link is there.
    pub carrier: bool,
    /// Bytes of a packet at most.
    pub mtu: u32,
}

/// Whether the link-layer address of a next hop is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Neighbour {
    /// It is.
    Known,
    /// Nobody has asked for it lately, or nobody needs to.
    Absent,
    /// It is being asked for.
    Incomplete,
    /// It was asked for, and there was no answer.
    Failed,
}

/// Why a kernel gives no route.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NoRoute {
    /// None covers the address.
    Missing,
    /// A route of type `unreachable`.
    Unreachable,
    /// A route of type `prohibit`.
    Prohibited,
    /// A route of type `blackhole`.
    Blackhole,
}

/// What a kernel's routes say of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Route {
    /// Where packets go.
    #[serde(rename_all = "camelCase")]
    Leads {
        /// By which device.
        device: Device,
        /// The next hop; `None` when the address is on the link.
        gateway: Option<IpAddr>,
        /// The route's own MTU, or one that was learnt for the path.
        mtu: Option<u32>,
        /// Whether the link-layer address of the next hop is known.
        neighbour: Neighbour,
        /// Seconds since that changed.
        #[serde(default)]
        since: Option<u32>,
        /// All next hops of a route that has several, of which the one above is what the look-up chose.
        #[serde(default)]
        hops: Vec<NextHop>,
    },
    /// Nowhere.
    Refused(NoRoute),
}

/// One next hop of a route.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextHop {
    /// By which device.
    pub device: Device,
    /// Its address; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether its link-layer address is known.
    pub neighbour: Neighbour,
    /// Seconds since that changed.
    pub since: Option<u32>,
}

/// What a pod's network namespace looks like from inside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inside {
    /// The pod's interface.
    pub device: Device,
    /// The pod's route to the peer.
    pub to_peer: Option<Observed<Route>>,
    /// Who takes packets for the port that was asked about.
    pub listeners: Option<Observed<Vec<Listener>>>,
}

/// A socket that takes packets for the port that was asked about: TCP that listens, UDP that is bound.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// The local address that it is bound to; unspecified for all.
    pub address: IpAddr,
    /// An IPv6 socket that takes no IPv4.
    pub ipv6_only: bool,
    /// The device that it is bound to: it takes what comes by that alone.
    #[serde(default)]
    pub device: Option<String>,
}

/// Where the peer is, as the node's datapath has it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A pod of this node: its own end tells of the route to it.
    Pod,
    /// This node itself.
    ThisNode,
    /// A pod of another node.
    #[serde(rename_all = "camelCase")]
    RemotePod {
        /// The address of that node.
        node: IpAddr,
    },
    /// Another node.
    #[serde(rename_all = "camelCase")]
    RemoteNode {
        /// The address by which packets are encapsulated to it.
        node: IpAddr,
    },
    /// Outside the cluster.
    Outside,
    /// It has no address that anybody is known to have.
    #[default]
    Unknown,
}

/// What a node's kernel says of the way between one of its ends and the peer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Whether programs redirect pods' packets, so that the node's stack does not carry them.
    pub host_routing: bool,
    /// Where the peer is.
    pub place: Place,
    /// The device that leads to the other nodes.
    pub uplink: Option<Observed<Device>>,
    /// The overlay device, where packets to other nodes' pods are encapsulated.
    pub overlay: Option<Observed<Device>>,
    /// The host side of the link of the pod that is the end.
    pub pod_link: Option<Observed<Device>>,
    /// That pod's network namespace.
    pub inside: Option<Observed<Inside>>,
    /// The node's route to the peer.
    pub to_peer: Option<Observed<Route>>,
    /// With an overlay: the node's route to the node that the peer is on, or is.
    pub to_node: Option<Observed<Route>>,
    /// The node's route to the pod that is the end.
    pub to_own: Option<Observed<Route>>,
    /// Of an end that is the node: who takes packets for the port that was asked about.
    pub listeners: Option<Observed<Vec<Listener>>>,
}

impl Seen {
    /// The MTU of the pod that is the end.
    pub fn pod_mtu(&self) -> Option<u32> {
        let inside = self.inside.as_ref().and_then(Observed::seen)?;
        inside.device.state.map(|state| state.mtu)
    }
}
