//! The agent's configuration file.

use heddle_policy::{CidrLimits, Direction, EnforcementMode, Policy, protocol};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// How packets reach other nodes' pods.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fabric {
    /// The network between the nodes knows their pod ranges.
    Routed,
    /// The network knows only the nodes; packets between pods are encapsulated.
    Vxlan,
}

/// The agent's configuration file (YAML, camelCase keys; unknown keys are refused).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentConfig {
    /// Name of this node's Node object.
    pub node_name: String,
    /// The cluster's name (label `io.cilium.k8s.policy.cluster`).
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Unix socket of the embedded store.
    pub store: PathBuf,
    /// Where the agent keeps its state and its socket (`agent.sock`); root-only.
    pub state_dir: PathBuf,
    /// Directory on a bpffs where programs, links and maps are pinned.
    pub pin_dir: PathBuf,
    /// Interface that leads to the other nodes.
    pub uplink: String,
    /// How packets reach other nodes' pods.
    pub fabric: Fabric,
    /// Address families of pods: 4, 6 or both.
    #[serde(default = "default_families")]
    pub families: Vec<u8>,
    /// The cluster's pod ranges: an address in them that no pod is known to have is `unmanaged`.
    pub pod_cidrs: Vec<IpNet>,
    /// eBPF redirects instead of the node's network stack.
    #[serde(default = "default_true")]
    pub host_routing: bool,
    /// Attach a new pod's programs by clsact first and by tcx soon after: an ADD takes a tenth of the time.
    /// Off where a plugin behind Heddle's puts a qdisc of its own on the ingress of the pod's host-side link.
    #[serde(default = "default_true")]
    pub quick_attach: bool,
    /// Where metrics are served (`127.0.0.1:9962`); none without it.
    #[serde(default)]
    pub metrics: Option<std::net::SocketAddr>,
    /// Seconds a freed address rests before it is given again.
    #[serde(default = "default_cooldown")]
    pub address_cooldown_seconds: u64,
    /// Seconds between two events of one connection.
    #[serde(default = "default_report")]
    pub flow_report_seconds: u32,
    /// Flows kept for `observe` (2^n - 1, at most 65535; reference 4.3).
    #[serde(default = "default_flows")]
    pub flow_capacity: usize,
    /// Connections tracked at most, and established TCP connections beside them. A smaller number takes effect at a
    /// start that finds at most half as many.
    #[serde(default = "default_connections")]
    pub max_connections: u32,
    /// Rows in an endpoint's policy map at most.
    #[serde(default = "default_policy_entries")]
    pub max_policy_entries: u32,
    /// Rows in the ipcache at most.
    #[serde(default = "default_ipcache_entries")]
    pub max_ipcache_entries: u32,
    /// What the addresses that policies name may cost at most, groups included: each prefix, and 16 for each rule
    /// that names some. Never more than half of `maxIpcacheEntries`.
    #[serde(default = "default_policy_cidrs")]
    pub max_policy_cidrs: u32,
    /// What the addresses that the policies of one namespace name may cost at most.
    #[serde(default = "default_cidrs_per_namespace")]
    pub max_cidrs_per_namespace: u32,
    /// Identities of one namespace at most.
    #[serde(default = "default_identities_per_namespace")]
    pub max_identities_per_namespace: u32,
    /// New identities per minute that this node makes for one namespace at most; four minutes' worth may come at
    /// once.
    #[serde(default = "default_new_identities")]
    pub new_identities_per_minute: u32,
    /// Drop events per second at most for an endpoint, a direction and a CPU.
    #[serde(default = "default_drop_events")]
    pub drop_events_per_second: u32,
    /// Verdict and trace events per second at most for an endpoint, a direction and a CPU.
    #[serde(default = "default_trace_events")]
    pub trace_events_per_second: u32,
    /// Established TCP connections that no others can evict: this many that an endpoint opens, and as many that
    /// are opened to it. Lowered, with a warning, to `maxConnections` / 256, so that the shares of 128 endpoints fit.
    #[serde(default = "default_established")]
    pub established_per_endpoint: u32,
    /// Label keys left out of identities instead of the default list.
    #[serde(default)]
    pub excluded_labels: Option<Vec<String>>,
    /// When policy is enforced (references D1 to D3): `default`, `always` or `never`.
    #[serde(default)]
    pub policy_enforcement: EnforcementMode,
    /// What becomes of the pods that a policy selects which is refused and was never valid.
    #[serde(default)]
    pub unenforceable_policies: UnenforceablePolicies,
    /// Whose policies are on audit, so that what they deny is told and passes: nobody's, the node's own, or all.
    #[serde(default)]
    pub policy_audit: PolicyAudit,
    /// Whether Pods annotated `heddle.dev/policy-audit: "true"` are on audit, in Namespaces annotated
    /// `heddle.dev/allow-policy-audit: "true"` and where no cluster-wide policy is about them.
    #[serde(default)]
    pub allow_pod_audit: bool,
    /// Whether a pod's own node passes the pod's default deny (reference D11).
    #[serde(default)]
    pub allow_localhost: AllowLocalhost,
    /// Which addresses Kubernetes' `ipBlock` selects.
    #[serde(default)]
    pub policy_cidr_match_mode: CidrMatchMode,
    /// Traffic of this node that no host policy may cut, beside what the agent knows of.
    #[serde(default)]
    pub protected_traffic: Vec<ProtectedTraffic>,
}

/// Whose policies are on audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyAudit {
    /// Nobody's, but for nodes that are annotated `heddle.dev/policy-audit: "true"`, and pods where
    /// `allowPodAudit` permits it.
    #[default]
    None,
    /// The node's own: host policies begin by telling what they would do.
    Host,
    /// Every pod's and the node's.
    All,
}

/// Whether a pod's own node passes the pod's default deny.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllowLocalhost {
    /// It does, so that probes reach their pods.
    #[default]
    Always,
    /// It does where a rule says so.
    Policy,
}

/// What a policy does that cannot be enforced as it is written, and of which no version ever was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnenforceablePolicies {
    /// Nothing: the pods that it selects are as open as without it, and its status says which.
    #[default]
    Ignore,
    /// It isolates them in the directions that it is about, and allows nothing. Where its selector cannot be read,
    /// all pods of its namespace.
    Isolate,
}

/// Which addresses Kubernetes' `ipBlock` selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CidrMatchMode {
    /// All in the block, those of pods and nodes too, as the specification has it.
    #[default]
    Specification,
    /// Those outside the cluster, as Cilium has it (reference I1).
    Outside,
}

impl CidrMatchMode {
    /// A policy as it is meant in this mode.
    pub fn meant(self, policy: Policy) -> Policy {
        match self {
            Self::Specification => policy,
            Self::Outside => crate::ledger::outside_only(policy),
        }
    }
}

/// Traffic of this node that no host policy may cut.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProtectedTraffic {
    /// `egress`: the node connects; `ingress`: it is connected to.
    pub direction: Direction,
    /// The other end.
    pub peer: IpNet,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: ProtectedProtocol,
    /// The port that is connected to.
    pub port: u16,
}

/// The protocols of [`ProtectedTraffic`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProtectedProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl ProtectedProtocol {
    /// Its IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

impl fmt::Display for ProtectedTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        };
        let spoken = protocol::describe(self.protocol.number(), self.port);
        write!(f, "{spoken} {way} {} (protectedTraffic)", self.peer)
    }
}

fn default_cluster() -> String {
    "default".to_owned()
}
fn default_families() -> Vec<u8> {
    vec![4, 6]
}
const fn default_true() -> bool {
    true
}
const fn default_cooldown() -> u64 {
    30
}
const fn default_report() -> u32 {
    5
}
const fn default_flows() -> usize {
    4095
}
const fn default_connections() -> u32 {
    131_072
}
const fn default_policy_entries() -> u32 {
    16_384
}
const fn default_ipcache_entries() -> u32 {
    131_072
}
const fn default_policy_cidrs() -> u32 {
    CidrLimits::DEFAULT.total as u32
}
const fn default_cidrs_per_namespace() -> u32 {
    CidrLimits::DEFAULT.per_namespace as u32
}
const fn default_identities_per_namespace() -> u32 {
    8_192
}
const fn default_new_identities() -> u32 {
    60
}
const fn default_drop_events() -> u32 {
    250
}
const fn default_trace_events() -> u32 {
    1_000
}
const fn default_established() -> u32 {
    256
}
