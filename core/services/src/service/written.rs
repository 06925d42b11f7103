//! A Service as its object writes it, and what reading one needs to know of the cluster.

use crate::{Algorithm, Family};
use heddle_model::NamespacedName;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What reading a Service needs to know of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterFacts {
    /// The cluster's families, the primary one first.
    pub families: Vec<Family>,
    /// Ports that Services may have on nodes. A Service that names another would take the port of a
    /// node's own process.
    pub node_ports: RangeInclusive<u16>,
    /// Our value of the label `service.kubernetes.io/service-proxy-name`.
    pub proxy_name: Option<String>,
    /// How backends are chosen where a Service does not say.
    pub algorithm: Algorithm,
}

impl Default for ClusterFacts {
    /// IPv4, and the API server's default range of node ports.
    fn default() -> Self {
        Self {
            families: vec![Family::V4],
            node_ports: 30_000..=32_767,
            proxy_name: None,
            algorithm: Algorithm::Random,
        }
    }
}

/// An entry of `spec.ports`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenPort {
    /// `name`; empty if it is not there.
    pub name: String,
    /// `protocol`; empty if it is not there.
    pub protocol: String,
    /// `port`.
    pub port: i64,
    /// `targetPort`, a number as text; empty if it is not there.
    pub target: String,
    /// `nodePort`; 0 if it is not there.
    pub node_port: i64,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenIngress {
    /// `ip`; empty for an entry with a host name.
    pub ip: String,
    /// `ipMode`; empty if it is not there.
    pub mode: String,
}

/// A Service's object. Text that is empty stands for a field that is not there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenService {
    /// `metadata.namespace` and `metadata.name`.
    pub name: NamespacedName,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`, in whatever unit orders Services by their age.
    pub created: u64,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `type`.
    pub kind: String,
    /// `clusterIPs`, or `clusterIP` as the only one.
    pub cluster_ips: Vec<String>,
    /// `ipFamilies`.
    pub families: Vec<String>,
    /// `ipFamilyPolicy`.
    pub family_policy: String,
    /// `ports`.
    pub ports: Vec<WrittenPort>,
    /// Whether `selector` has an entry.
    pub has_selector: bool,
    /// `externalIPs`.
    pub external_ips: Vec<String>,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<WrittenIngress>,
    /// `loadBalancerClass`.
    pub load_balancer_class: String,
    /// `allocateLoadBalancerNodePorts`.
    pub allocate_node_ports: Option<bool>,
    /// `loadBalancerSourceRanges`.
    pub source_ranges: Vec<String>,
    /// `sessionAffinity`.
    pub session_affinity: String,
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`.
    pub affinity_timeout: Option<i64>,
    /// `internalTrafficPolicy`.
    pub internal_policy: String,
    /// `externalTrafficPolicy`.
    pub external_policy: String,
    /// `trafficDistribution`.
    pub distribution: String,
    /// `healthCheckNodePort`; 0 if it is not there.
    pub health_check_port: i64,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
}

impl WrittenService {
    /// Label that gives a Service to another proxy (Kubernetes, `LabelServiceProxyName`).
    pub const PROXY_NAME: &'static str = "service.kubernetes.io/service-proxy-name";
    /// Annotations for topology hints by the nodes' CPUs (KEP-2433). The former name comes first: Kubernetes
    /// follows it where both are there.
    pub const TOPOLOGY_MODE: [&'static str; 2] = [
        "service.kubernetes.io/topology-aware-hints",
        "service.kubernetes.io/topology-mode",
    ];
    /// Annotation that chooses the algorithm, `random` or `maglev` (Cilium's).
    pub const ALGORITHM: &'static str = "service.cilium.io/lb-algorithm";
    /// Annotation that says what `loadBalancerSourceRanges` mean, `allow` or `deny` (Cilium's).
    pub const SOURCE_RANGES_POLICY: &'static str = "service.cilium.io/src-ranges-policy";

    /// The value of an annotation; empty if it is not there.
    pub(crate) fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}
