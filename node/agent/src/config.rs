//! The agent's configuration file.

mod values;

pub use values::{
    AllowLocalhost, CidrMatchMode, Fabric, PolicyAudit, ProtectedProtocol, ProtectedTraffic,
    UnenforceablePolicies,
};

use heddle_model::setting::{Configuration, Setting, SettingError, Values};
use heddle_policy::{CidrLimits, EnforcementMode};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Rows of a table that a setting may ask for: two tables of so many connections take 4 GiB.
const TWO_TO_24: u64 = 1 << 24;
/// Seconds of a week: more is a slip.
const WEEK: u64 = 7 * 24 * 60 * 60;
/// What becomes of a change of a map's size.
const RESIZED: &str = "at restart; a smaller size only when the table is at most half as full";
/// Where a limit shows that no metric has.
const IN_STATUS: &str = "none; `warnings` of `heddle status`";
/// Where policies show that do not fit.
const NOT_IN_FORCE: &str = "`heddle_not_in_force`";
/// Where events show that were left out.
const SAMPLED: &str = "`heddle_events_sampled_total`";
/// Events per second that no CPU can send.
const MILLION: u64 = 1_000_000;
/// Names of the kernel's interfaces are 15 bytes at most (IFNAMSIZ).
const INTERFACE: Values = Values::Checked {
    rule: "the name of an interface, 1 to 15 characters (`ip link` shows them)",
    accepts: |value| {
        value
            .as_str()
            .is_some_and(|name| !name.is_empty() && name.len() <= 15)
    },
};
/// As Hubble has it (reference 4.3).
const FLOWS: Values = Values::Checked {
    rule: "2^n - 1, 1 to 65535 (flows)",
    accepts: |value| {
        value
            .as_u64()
            .is_some_and(|flows| (1..=65_535).contains(&flows) && (flows + 1).is_power_of_two())
    },
};

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

impl Configuration for AgentConfig {
    const SETTINGS: &'static [Setting] = &[
        Setting::new("nodeName", Values::TEXT),
        Setting::new("cluster", Values::TEXT),
        Setting::new("store", Values::PATH),
        Setting::new("stateDir", Values::PATH),
        Setting::new("pinDir", Values::PATH),
        Setting::new("uplink", INTERFACE),
        Setting::new("fabric", Values::OneOf(&["routed", "vxlan"])),
        Setting::new("families", Values::FAMILIES),
        Setting::new("podCidrs", Values::RANGES),
        Setting::new("hostRouting", Values::Bool),
        Setting::new("quickAttach", Values::Bool),
        Setting::new("metrics", Values::LISTEN_ADDRESS),
        Setting::number("addressCooldownSeconds", 0, WEEK, "seconds")
            .metric("`heddle_ipam_addresses{state=\"resting\"}`"),
        Setting::number("flowReportSeconds", 0, WEEK, "seconds")
            .metric("`hubble_flows_processed_total`"),
        Setting::new("flowCapacity", FLOWS)
            .metric("`hubble_lost_events_total{source=\"hubble_ring_buffer\"}`"),
        Setting::number("maxConnections", 16, TWO_TO_24, "connections")
            .metric("`cilium_bpf_map_pressure`, `map_name` `CONNECTIONS` and `ESTABLISHED`")
            .changed(RESIZED),
        Setting::number("maxPolicyEntries", 1, 1 << 20, "rows")
            .metric("`cilium_bpf_map_pressure{map_name=\"POLICIES\"}`, of the largest policy"),
        Setting::number("maxIpcacheEntries", 16, TWO_TO_24, "rows")
            .metric("`cilium_bpf_map_pressure{map_name=\"IPCACHE\"}`")
            .changed(RESIZED),
        Setting::number("maxPolicyCidrs", 0, TWO_TO_24, "addresses").metric(NOT_IN_FORCE),
        Setting::number("maxCidrsPerNamespace", 0, TWO_TO_24, "addresses").metric(NOT_IN_FORCE),
        Setting::number("maxIdentitiesPerNamespace", 1, 65_280, "identities").metric(IN_STATUS),
        Setting::number("newIdentitiesPerMinute", 1, 65_280, "per minute").metric(IN_STATUS),
        Setting::number("dropEventsPerSecond", 0, MILLION, "per second").metric(SAMPLED),
        Setting::number("traceEventsPerSecond", 0, MILLION, "per second").metric(SAMPLED),
        Setting::number("establishedPerEndpoint", 0, TWO_TO_24, "connections")
            .metric("`cilium_bpf_map_pressure{map_name=\"ESTABLISHED\"}`, of all endpoints"),
        Setting::new("excludedLabels", Values::LIST),
        Setting::new(
            "policyEnforcement",
            Values::OneOf(&["default", "always", "never"]),
        ),
        Setting::new(
            "unenforceablePolicies",
            Values::OneOf(&["ignore", "isolate"]),
        )
        .metric("`heddle_not_in_force`"),
        Setting::new("policyAudit", Values::OneOf(&["none", "host", "all"])),
        Setting::new("allowPodAudit", Values::Bool),
        Setting::new("allowLocalhost", Values::OneOf(&["always", "policy"])),
        Setting::new(
            "policyCidrMatchMode",
            Values::OneOf(&["specification", "outside"]),
        ),
        Setting::new("protectedTraffic", Values::LIST),
    ];

    fn required() -> Map<String, Value> {
        let named = json!({
            "nodeName": "node-1",
            "store": "/run/heddle/store.sock",
            "stateDir": "/run/heddle",
            "pinDir": "/sys/fs/bpf/heddle",
            "uplink": "eth0",
            "fabric": "routed",
            "podCidrs": ["10.244.0.0/16", "fd10:244::/48"],
        });
        match named {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    fn validate(&self) -> Result<(), SettingError> {
        for family in &self.families {
            let has = |range: &IpNet| range.addr().is_ipv4() == (*family == 4);
            if !self.pod_cidrs.iter().any(has) {
                return Err(SettingError::Refused {
                    name: "podCidrs",
                    reason: format!(
                        "has no IPv{family} range, and families has {family}; name every range that pods of the cluster get addresses from"
                    ),
                });
            }
        }
        for (index, one) in self.protected_traffic.iter().enumerate() {
            if one.port == 0 {
                return Err(SettingError::Refused {
                    name: "protectedTraffic",
                    reason: format!(
                        "[{index}].port is 0, to which nobody connects, so it would protect nothing; name the port that is connected to, 1 to 65535"
                    ),
                });
            }
        }
        Ok(())
    }
}

impl AgentConfig {
    /// What the addresses that policies name may cost: pods and nodes have half of the ipcache for themselves.
    pub const fn cidr_limits(&self) -> CidrLimits {
        let half = self.max_ipcache_entries / 2;
        let total = if self.max_policy_cidrs < half {
            self.max_policy_cidrs
        } else {
            half
        };
        CidrLimits {
            total: total as usize,
            per_namespace: self.max_cidrs_per_namespace as usize,
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_model::setting::read;

    /// A configuration with this setting beside those without defaults.
    fn with(name: &str, value: Value) -> Result<AgentConfig, SettingError> {
        let mut settings = AgentConfig::required();
        settings.insert(name.to_owned(), value);
        read(Value::Object(settings))
    }

    #[test]
    fn protected_traffic_has_a_port() {
        let to = |port: u16| json!({"direction": "egress", "peer": "10.0.0.1/32", "protocol": "TCP", "port": port});
        assert!(with("protectedTraffic", json!([to(1), to(65_535)])).is_ok());
        let error = with("protectedTraffic", json!([to(6443), to(0)])).unwrap_err();
        assert_eq!(error.setting(), "protectedTraffic");
        let reason = error.reason();
        assert!(reason.starts_with("[1].port is 0"), "{reason}");
        assert!(reason.contains("1 to 65535"), "{reason}");
    }

    #[test]
    fn the_world_is_no_range_of_pods() {
        for range in ["0.0.0.0/0", "::/0"] {
            let error = with("podCidrs", json!(["10.244.0.0/16", "fd10::/16", range]));
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with("podCidrs: is ["), "{error}");
            assert!(error.contains(range), "{error}");
            assert!(error.contains("no wider than /8 (IPv4)"), "{error}");
        }
    }

    #[test]
    fn pods_and_nodes_keep_half_of_the_ipcache() {
        for (ipcache, total) in [(131_072, 65_536), (1_000, 500)] {
            let config = with("maxIpcacheEntries", json!(ipcache)).unwrap();
            assert_eq!(config.cidr_limits().total, total);
        }
    }
}
