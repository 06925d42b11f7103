//! What becomes of a Service, or of a pod with host ports, on this node: frontends, backends, and why.

use crate::maglev::{Maglev, MaglevConfig};
use crate::{
    Algorithm, BackendKey, BackendState, Family, Ignored, Kind, Problem, Protocol, Sources,
    Subject, Topology, TrafficPolicy,
};
use std::net::IpAddr;
use std::sync::Arc;

/// Backends of a port and family that are used; the rest are left out, the greatest keys first, and reported. A table
/// of the kernel counts them with 16 bits, and the default Maglev table has about as many places.
pub const MAX_BACKENDS: usize = 16_384;

/// Whose connections a frontend is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// Everybody's.
    Both,
    /// Those of pods and of processes of nodes.
    Internal,
    /// Those that come to the node from outside of the cluster.
    External,
}

/// An address and port that leads to backends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// Whose connections it is for. One address, port and protocol has `Both`, or one of each of the others.
    pub scope: Scope,
    /// What made it.
    pub kind: Kind,
    /// Which of [`Outcome::selections`] its backends are in.
    pub selection: usize,
    /// Whether only [`Outcome::sources`] may connect.
    pub restricted: bool,
}

/// An endpoint behind a port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
    /// Where its packets go. The port is 0 for one that does not have the Service's.
    pub key: BackendKey,
    /// Its share, beside the others' weights.
    pub weight: u16,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// The zone it is in.
    pub zone: Option<Arc<str>>,
    /// The pod it is, in the Service's namespace.
    pub pod: Option<Arc<str>>,
    /// Whether it takes new connections.
    pub state: BackendState,
}

/// What is done with a connection that no backend takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NoBackend {
    /// It is refused at once: there is no backend anywhere.
    Reject,
    /// Its packets are dropped: the policy is `Local`, and there are backends on other nodes. A client that was
    /// refused would not try another node (kube-proxy does likewise).
    Drop,
}

/// The backends of a port of a Service, of one family, for one traffic policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selection {
    /// The name of the Service's port.
    pub port_name: Arc<str>,
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The family of the backends.
    pub family: Family,
    /// The policy.
    pub policy: TrafficPolicy,
    /// What of the topology decided.
    pub topology: Topology,
    /// How one is chosen: as the Service says, and by Maglev where those that are in have different weights, which a
    /// random choice knows nothing of.
    pub algorithm: Algorithm,
    /// Every backend, in the order of their keys.
    pub backends: Vec<Backend>,
    /// Backends beyond [`MAX_BACKENDS`], which are left out.
    pub left_out: usize,
    /// What is done when none is in.
    pub no_backend: NoBackend,
}

impl Selection {
    /// Those that take new connections.
    pub fn active(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| backend.state.is_in())
    }

    /// The Maglev table of those that take new connections.
    pub fn maglev(&self, config: MaglevConfig) -> Maglev {
        Maglev::new(
            config,
            self.active().map(|backend| (backend.key, backend.weight)),
        )
    }
}

/// What a load balancer outside asks the node for (`healthCheckNodePort`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthCheck {
    /// The port of the node, TCP.
    pub port: u16,
    /// Backends of this node that are ready and that neither an operator nor a probe speaks against. None: the load
    /// balancer is to send nothing here.
    pub local: usize,
}

/// What becomes of a Service, or of a pod with host ports, on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Of whom.
    pub subject: Subject,
    /// Its uid: one that was deleted and made again is another, with nothing of the former one's connections.
    pub uid: String,
    /// Why it has no frontends, if that is its own wish.
    pub ignored: Option<Ignored>,
    /// Its frontends, sorted.
    pub frontends: Vec<Frontend>,
    /// Backends of its ports, in the order of ports, families and policies.
    pub selections: Vec<Selection>,
    /// Addresses that are its Service's: a connection to another port there is refused and goes nowhere else. A load
    /// balancer's address can be that of several Services, and is refused at as long as one has it.
    pub addresses: Vec<IpAddr>,
    /// Seconds that a client keeps its backend.
    pub affinity_timeout: Option<u32>,
    /// Who may connect to restricted frontends.
    pub sources: Sources,
    /// The health check for load balancers.
    pub health_check: Option<HealthCheck>,
    /// What could not be used of the Service, its EndpointSlices and its claims.
    pub problems: Vec<Problem>,
}

/// A backend as somebody sees it who is on no particular node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Behind {
    /// Where packets to the Service end.
    pub key: BackendKey,
    /// The pod it is, in the Service's namespace.
    pub pod: Option<Arc<str>>,
    /// Whether some node sends new connections to it.
    pub state: BackendState,
}
