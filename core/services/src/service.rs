//! A Service as it is meant: parsed, bounded, and with a list of what could not be used.

mod read;
#[cfg(test)]
mod tests;
mod words;
mod written;

pub use written::{ClusterFacts, WrittenIngress, WrittenPort, WrittenService};

use crate::{Family, Problem, Protocol};
use heddle_model::NamespacedName;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Ports of a Service that are used. The API has no bound; load balancers of clouds end at 250 to 1,000.
pub const MAX_PORTS: usize = 1024;
/// External IPs, and addresses of load balancers, of a Service that are used.
pub const MAX_ADDRESSES: usize = 256;
/// Source ranges of a Service that are used.
pub const MAX_SOURCE_RANGES: usize = 1024;
/// Seconds that a client keeps its backend when `sessionAffinityConfig` does not say (Kubernetes API,
/// `ClientIPConfig`).
pub const DEFAULT_AFFINITY_TIMEOUT: u32 = 10_800;
/// The longest `timeoutSeconds` that the API takes: a day. It fits the 24 bits (0xFFFFFF) that the
/// affinity time-out has in maps.
pub const MAX_AFFINITY_TIMEOUT: u32 = 86_400;

/// `spec.type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum ServiceType {
    /// Reached by its cluster IPs.
    #[default]
    ClusterIp,
    /// By a port of every node too.
    NodePort,
    /// By addresses of a load balancer too.
    LoadBalancer,
    /// A name in the DNS: nothing to balance.
    ExternalName,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Both where the cluster has both.
    PreferDualStack,
    /// Both.
    RequireDualStack,
}

/// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum TrafficPolicy {
    /// Backends of all nodes.
    #[default]
    Cluster,
    /// Those of the node that the traffic meets, and no others.
    Local,
}

/// `spec.trafficDistribution` (KEP-4444, KEP-3015).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Distribution {
    /// `PreferSameZone`, and its former name `PreferClose`.
    SameZone,
    /// `PreferSameNode`: the same node, else the same zone.
    SameNode,
}

/// How a backend is chosen for a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Algorithm {
    /// At random.
    #[default]
    Random,
    /// By a Maglev table: every node sends a connection to the same backend.
    Maglev,
}

/// `status.loadBalancer.ingress[].ipMode` (KEP-1860).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum IngressMode {
    /// Packets come with this destination: nodes answer for the address.
    #[default]
    Vip,
    /// The load balancer is a proxy, and packets come to a node's address: traffic for this one goes out to it.
    Proxy,
}

/// An address that a load balancer has for the Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ingress {
    /// The address.
    pub address: IpAddr,
    /// Where packets for it go.
    pub mode: IngressMode,
}

/// Who may connect by the load balancer's addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Sources {
    /// Everybody.
    #[default]
    Everybody,
    /// Clients in these ranges; an empty list is nobody.
    Only(Vec<IpNet>),
    /// Clients outside of these ranges.
    AllBut(Vec<IpNet>),
}

impl Sources {
    /// Whether a client may connect.
    pub fn admit(&self, client: IpAddr) -> bool {
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&client));
        match self {
            Self::Everybody => true,
            Self::Only(ranges) => within(ranges),
            Self::AllBut(ranges) => !within(ranges),
        }
    }
}

/// What a port of a Service leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// This port of each pod.
    Number(u16),
    /// The port that a container of the pod gives this name: pods may differ.
    Name(Arc<str>),
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// Its name; empty for the one port of a Service. EndpointSlices refer to it.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
    /// What it leads to.
    pub target: Target,
    /// The port of every node that leads here too.
    pub node_port: Option<u16>,
}

/// Where a Service is reached in the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClusterIps {
    /// Nowhere (`clusterIP: None`): clients connect to its endpoints by themselves.
    Headless,
    /// At these addresses, one per family at most; none before they are allocated.
    At(Vec<IpAddr>),
}

/// A Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its namespace and name.
    pub name: NamespacedName,
    /// `metadata.uid`: one that was deleted and made again has another.
    pub uid: String,
    /// When it was made, in whatever unit orders Services by their age.
    pub created: u64,
    /// Its type.
    pub kind: ServiceType,
    /// Its addresses in the cluster.
    pub cluster_ips: ClusterIps,
    /// Its families, the primary one first.
    pub families: Vec<Family>,
    /// How many families it wants.
    pub family_policy: FamilyPolicy,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Whether its endpoints are the pods that it selects. If not, somebody writes its EndpointSlices.
    pub has_selector: bool,
    /// Addresses that lead to nodes by somebody else's doing.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of its load balancer.
    pub ingress: Vec<Ingress>,
    /// Who is to give it a load balancer; it changes nothing about addresses that are there.
    pub load_balancer_class: Option<String>,
    /// Whether ports of nodes are allocated for a load balancer's sake. Those that are there serve all the same.
    pub allocate_node_ports: bool,
    /// Who may connect by the load balancer's addresses.
    pub sources: Sources,
    /// Seconds that a client (its address) keeps its backend.
    pub affinity_timeout: Option<u32>,
    /// For traffic to cluster IPs.
    pub internal_policy: TrafficPolicy,
    /// For traffic that comes from outside to the other addresses.
    pub external_policy: TrafficPolicy,
    /// Which endpoints its traffic prefers.
    pub distribution: Option<Distribution>,
    /// `service.kubernetes.io/topology-mode: Auto` (KEP-2433), which wins over `distribution`.
    pub topology_auto: bool,
    /// The port of every node that tells load balancers whether the node has ready backends.
    pub health_check_port: Option<u16>,
    /// Whether its pods are used whether or not they are ready.
    pub publish_not_ready: bool,
    /// The proxy that is to serve it, when that is another one than ours
    /// (`service.kubernetes.io/service-proxy-name`).
    pub other_proxy: Option<String>,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// What could not be used of the object.
    pub problems: Vec<Problem>,
}

impl Service {
    /// Why nothing is done for it, if nothing is.
    pub fn ignored(&self) -> Option<Ignored> {
        if let Some(proxy) = &self.other_proxy {
            Some(Ignored::OtherProxy(proxy.clone()))
        } else if self.kind == ServiceType::ExternalName {
            Some(Ignored::ExternalName)
        } else if self.cluster_ips == ClusterIps::Headless {
            Some(Ignored::Headless)
        } else {
            None
        }
    }

    /// Whether traffic from outside can have a way in.
    pub(crate) fn has_outside(&self) -> bool {
        !self.external_ips.is_empty()
            || !self.ingress.is_empty()
            || self.ports.iter().any(|port| port.node_port.is_some())
    }
}

/// Why a Service has no frontends by its own wish.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ignored {
    /// It is a name in the DNS.
    #[error("it is of type ExternalName")]
    ExternalName,
    /// Clients connect to its endpoints.
    #[error("it is headless")]
    Headless,
    /// Another proxy serves it.
    #[error("its label service.kubernetes.io/service-proxy-name gives it to {0}")]
    OtherProxy(String),
}
