//! An EndpointSlice as it is meant: endpoints whose addresses are plausible, with conditions and hints.

mod read;
#[cfg(test)]
mod tests;

pub use read::{WrittenEndpoint, WrittenEndpointSlice, WrittenSlicePort};

use crate::{Family, Problem, Protocol};
use heddle_model::NamespacedName;
use std::net::IpAddr;
use std::sync::Arc;

/// Endpoints of a slice that are used (Kubernetes API, `EndpointSlice.endpoints`).
pub const MAX_SLICE_ENDPOINTS: usize = 1000;
/// Ports of a slice that are used (Kubernetes API, `EndpointSlice.ports`).
pub const MAX_SLICE_PORTS: usize = 100;
/// Zones, and nodes, of an endpoint's hints that are used (Kubernetes API, `EndpointHints`).
pub const MAX_HINTS: usize = 8;
/// The weight of an endpoint that has none (Cilium's `DefaultBackendWeight`).
pub const DEFAULT_WEIGHT: u16 = 100;

/// A port of a slice's endpoints.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlicePort {
    /// The name of the Service's port that it serves.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// Whether an endpoint may be used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conditions {
    /// It takes traffic.
    pub ready: bool,
    /// It would take traffic, were it not terminating.
    pub serving: bool,
    /// It is about to go.
    pub terminating: bool,
}

impl Conditions {
    /// Conditions as an object writes them. What is not there is true, `terminating` false (Kubernetes API,
    /// `EndpointConditions`).
    pub fn new(ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>) -> Self {
        Self {
            ready: ready.unwrap_or(true),
            serving: serving.unwrap_or(true),
            terminating: terminating.unwrap_or(false),
        }
    }
}

/// Whose traffic an endpoint is meant for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Hints {
    /// Clients in these zones.
    pub zones: Vec<Arc<str>>,
    /// Clients on these nodes.
    pub nodes: Vec<Arc<str>>,
}

/// An endpoint of a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its address, of the slice's family.
    pub address: IpAddr,
    /// Whether it may be used.
    pub conditions: Conditions,
    /// Its share of the traffic, beside the others' weights; 0 takes no new connections.
    pub weight: u16,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// The zone it is in.
    pub zone: Option<Arc<str>>,
    /// The pod it is, in the slice's namespace.
    pub pod: Option<Arc<str>>,
    /// The name that the DNS gives it under its Service's.
    pub hostname: Option<Arc<str>>,
    /// Whose traffic it is meant for; `None`: anybody's.
    pub hints: Option<Arc<Hints>>,
}

/// Endpoints of one family and one set of ports of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EndpointSlice {
    /// Its namespace and name.
    pub name: NamespacedName,
    /// The Service that it is of (label `kubernetes.io/service-name`), in the slice's namespace.
    pub service: NamespacedName,
    /// The family of its addresses.
    pub family: Family,
    /// Its ports.
    pub ports: Arc<[SlicePort]>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// What could not be used of the object.
    pub problems: Vec<Problem>,
}

impl EndpointSlice {
    /// The port that serves a Service's port.
    pub(crate) fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let mut ports = self.ports.iter();
        ports
            .find(|port| *port.name == *name && port.protocol == protocol)
            .map(|port| port.number)
    }
}
