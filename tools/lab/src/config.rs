//! What a lab is to be: the configuration file, the command line, and the record of what was made.

use crate::LabError;
use heddle_agent::config::{AgentConfig, Fabric};
use heddle_kube::configuration::{ConfigurationError, load};
use heddle_model::setting::{Configuration, Setting, SettingError, Values, is_too_wide, read};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Nodes of a lab at most: the node's number is one byte of its addresses.
pub const MAX_NODES: u32 = 200;
/// Settings of agents that the lab itself is made by, and what they are beside `agent`.
const OF_THE_LAB: [(&str, &str); 4] = [
    ("fabric", "fabric"),
    ("families", "families"),
    ("podCidrs", "pools"),
    ("hostRouting", "hostRouting"),
];
/// When a change of the file takes effect.
const AT_UP: &str = "at the next `lab up`, after `lab down`";

/// A range of pod addresses, as the operator's configuration has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    #[serde(default = "default_pool_name")]
    pub name: String,
    /// Its ranges, none wider than /8 (IPv4) or /16 (IPv6).
    pub cidrs: Vec<IpNet>,
    /// Length of a node's IPv4 block.
    #[serde(default = "default_mask_v4")]
    pub mask_v4: u8,
    /// Length of a node's IPv6 block.
    #[serde(default = "default_mask_v6")]
    pub mask_v6: u8,
}

fn default_pool_name() -> String {
    "default".into()
}
const fn default_mask_v4() -> u8 {
    24
}
const fn default_mask_v6() -> u8 {
    64
}

/// The CNI plugins of each node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CniChain {
    /// Plugins after Heddle's, as in a network configuration list.
    #[serde(default)]
    pub plugins: Vec<Value>,
    /// More folders in which plugins are looked for.
    #[serde(default)]
    pub bin_dirs: Vec<PathBuf>,
    /// Version of CNI that all of them are asked in; the newest that all speak when it is left out.
    #[serde(default)]
    pub cni_version: Option<String>,
}

impl CniChain {
    /// True when a plugin declares a capability (`portMappings`, `bandwidth`).
    pub fn can(&self, capability: &str) -> bool {
        self.plugins
            .iter()
            .any(|plugin| plugin["capabilities"][capability] == true)
    }
}

/// The lab's configuration file (YAML); every key may be left out.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabConfig {
    /// Number of nodes.
    #[serde(default)]
    pub nodes: Option<u32>,
    /// Labels of nodes by name (`node-1`).
    #[serde(default)]
    pub node_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// How pods' packets cross between nodes.
    #[serde(default)]
    pub fabric: Option<Fabric>,
    /// Address families.
    #[serde(default)]
    pub families: Option<Vec<u8>>,
    /// eBPF redirects instead of the nodes' network stack.
    #[serde(default)]
    pub host_routing: Option<bool>,
    /// Ranges of pod addresses.
    #[serde(default)]
    pub pools: Vec<Pool>,
    /// CNI plugins beside Heddle's.
    #[serde(default)]
    pub cni: CniChain,
    /// Settings of every agent, as in the agent's own configuration file, but for those that the lab sets.
    #[serde(default)]
    pub agent: Map<String, Value>,
}

impl Configuration for LabConfig {
    const SETTINGS: &'static [Setting] = &[
        Setting::number("nodes", 1, MAX_NODES as u64, "nodes").changed(AT_UP),
        Setting::new("nodeLabels", Values::MAP).changed(AT_UP),
        Setting::new("fabric", Values::OneOf(&["routed", "vxlan"])).changed(AT_UP),
        Setting::new("families", Values::FAMILIES).changed(AT_UP),
        Setting::new("hostRouting", Values::Bool).changed(AT_UP),
        Setting::new("pools", Values::LIST)
            .changed(AT_UP)
            .metric("`heddle_ipam_pool_pressure` of the operator"),
        Setting::new("cni", Values::MAP).changed(AT_UP),
        Setting::new("agent", Values::MAP).changed(AT_UP),
    ];

    fn required() -> Map<String, Value> {
        Map::new()
    }

    fn validate(&self) -> Result<(), SettingError> {
        // The command line may change it first: `LabRecord::new` looks at what comes of both.
        Ok(())
    }
}

impl LabConfig {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> Result<Self, LabError> {
        load(path).map_err(|error| {
            let (field, reason) = match error {
                ConfigurationError::Unreadable { path, source } => {
                    return LabError::file("read", &path, source);
                }
                ConfigurationError::Malformed { reason, .. } => (String::new(), reason),
                ConfigurationError::Setting { source, .. } => {
                    let reason = format!("{}; {}", source.reason(), source.help());
                    (source.setting().to_owned(), reason)
                }
            };
            LabError::Config {
                origin: path.display().to_string(),
                field,
                reason,
            }
        })
    }
}

/// A lab as it was made: the content of `lab.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabRecord {
    /// Its name.
    pub name: String,
    /// Names of its nodes.
    pub nodes: Vec<String>,
    /// Labels of nodes.
    pub node_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// How pods' packets cross between nodes.
    pub fabric: Fabric,
    /// Address families.
    pub families: Vec<u8>,
    /// eBPF redirects instead of the nodes' network stack.
    pub host_routing: bool,
    /// Ranges of pod addresses.
    pub pools: Vec<Pool>,
    /// CNI plugins beside Heddle's.
    pub cni: CniChain,
    /// Settings of every agent.
    pub agent: Map<String, Value>,
    /// Where cgroup2 is mounted.
    pub cgroup_mount: PathBuf,
    /// The executable that the lab's processes run.
    pub executable: PathBuf,
    /// True when `up` has ended well.
    pub ready: bool,
}

impl LabRecord {
    /// The lab that a configuration asks for, checked.
    pub fn new(
        name: &str,
        config: LabConfig,
        origin: &str,
        cgroup_mount: PathBuf,
        executable: PathBuf,
    ) -> Result<Self, LabError> {
        let wrong = |field: &str, reason: String| LabError::Config {
            origin: origin.to_owned(),
            field: field.to_owned(),
            reason,
        };
        let count = config.nodes.unwrap_or(2);
        if !(1..=MAX_NODES).contains(&count) {
            return Err(wrong(
                "nodes",
                format!("{count} is not in 1 to {MAX_NODES}"),
            ));
        }
        let mut families = config.families.unwrap_or_else(|| vec![4, 6]);
        families.sort_unstable();
        families.dedup();
        if families.is_empty() || families.iter().any(|family| ![4, 6].contains(family)) {
            return Err(wrong("families", "families are 4, 6 or both: 4,6".into()));
        }
        let nodes: Vec<String> = (1..=count).map(|number| format!("node-{number}")).collect();
        if let Some(unknown) = config.node_labels.keys().find(|name| !nodes.contains(name)) {
            return Err(wrong(
                &format!("nodeLabels.{unknown}"),
                format!("the nodes are {} to {}", nodes[0], nodes[nodes.len() - 1]),
            ));
        }
        if let Some(version) = &config.cni.cni_version
            && !crate::pod::cni::VERSIONS.contains(&version.as_str())
        {
            return Err(wrong(
                "cni.cniVersion",
                format!(
                    "{version:?} is none of {}",
                    crate::pod::cni::VERSIONS.join(", ")
                ),
            ));
        }
        if let Some(index) = config
            .cni
            .plugins
            .iter()
            .position(|plugin| !plugin["type"].is_string())
        {
            return Err(wrong(
                &format!("cni.plugins[{index}].type"),
                "a plugin needs its type: the name of its executable".into(),
            ));
        }
        let mut pools = config.pools;
        if pools.is_empty() {
            // The ranges of the design, section 6 (cluster-pool overlay mode).
            let ranges = ["10.244.0.0/16", "fd10:244::/48"];
            pools.push(Pool {
                name: default_pool_name(),
                cidrs: ranges
                    .iter()
                    .filter_map(|range| range.parse().ok())
                    .collect(),
                mask_v4: default_mask_v4(),
                mask_v6: default_mask_v6(),
            });
        }
        for (index, pool) in pools.iter_mut().enumerate() {
            if pool.cidrs.is_empty() {
                return Err(wrong(
                    &format!("pools[{index}].cidrs"),
                    "a pool needs a range".into(),
                ));
            }
            if let Some(range) = pool.cidrs.iter().find(|range| is_too_wide(range)) {
                return Err(wrong(
                    &format!("pools[{index}].cidrs"),
                    format!(
                        "{range} is wider than /8 (IPv4) or /16 (IPv6); write the part of it that pods get addresses from"
                    ),
                ));
            }
            pool.cidrs.retain(|range| families.contains(&family(range)));
        }
        pools.retain(|pool| !pool.cidrs.is_empty());
        for family in &families {
            if !pools
                .iter()
                .flat_map(|pool| &pool.cidrs)
                .any(|range| self::family(range) == *family)
            {
                return Err(wrong("pools", format!("no pool has an IPv{family} range")));
            }
        }
        let record = Self {
            name: name.to_owned(),
            nodes,
            node_labels: config.node_labels,
            fabric: config.fabric.unwrap_or(Fabric::Routed),
            families,
            host_routing: config.host_routing.unwrap_or(true),
            pools,
            cni: config.cni,
            agent: config.agent,
            cgroup_mount,
            executable,
            ready: false,
        };
        // Wrong agent settings are said now, not in an agent's log.
        let lab = crate::paths::Lab::named(name)?;
        for node in &record.nodes {
            record
                .agent_config(&lab, node)
                .map_err(|reason| wrong("agent", reason))?;
        }
        Ok(record)
    }

    /// What keeps two records from being the same lab; empty when nothing does.
    pub fn differences(&self, other: &Self) -> String {
        let mut found = Vec::new();
        if self.nodes != other.nodes {
            found.push("nodes");
        }
        if self.fabric != other.fabric {
            found.push("fabric");
        }
        if self.families != other.families {
            found.push("families");
        }
        if self.host_routing != other.host_routing {
            found.push("host routing");
        }
        if self.pools != other.pools {
            found.push("pools");
        }
        if self.cni != other.cni
            || self.agent != other.agent
            || self.node_labels != other.node_labels
        {
            found.push("configuration");
        }
        found.join(", ")
    }

    /// The configuration of a node's agent; the error says which setting is wrong.
    pub fn agent_config(&self, lab: &crate::paths::Lab, node: &str) -> Result<AgentConfig, String> {
        let ranges: Vec<&IpNet> = self.pools.iter().flat_map(|pool| &pool.cidrs).collect();
        let mut settings = serde_json::json!({
            "nodeName": node,
            "store": lab.store_socket(),
            "stateDir": lab.node(node),
            "pinDir": lab.pins().join(node),
            "uplink": "eth0",
            "fabric": self.fabric,
            "families": self.families,
            "podCidrs": ranges,
            "hostRouting": self.host_routing,
            "metrics": "127.0.0.1:9962",
        });
        if let Some(settings) = settings.as_object_mut() {
            for (key, value) in &self.agent {
                let fixed = ["nodeName", "store", "stateDir", "pinDir", "uplink"];
                if fixed.contains(&key.as_str()) {
                    return Err(format!("{key} is set by the lab and cannot be changed"));
                }
                if let Some((_, own)) = OF_THE_LAB.iter().find(|(name, _)| name == key) {
                    return Err(format!(
                        "{key}: is {value} here, and the rest of the lab goes by its own; set it beside `agent`, as `{own}`"
                    ));
                }
                settings.insert(key.clone(), value.clone());
            }
        }
        read(settings).map_err(|error| format!("{error}; {}", error.help()))
    }

    /// The operator's configuration; the error says which setting of the agents is wrong.
    pub fn operator_config(&self, lab: &crate::paths::Lab) -> Result<Value, String> {
        let mut config = serde_json::json!({
            "cluster": "default",
            "store": lab.store_socket(),
            "stateDir": lab.state().join("operator"),
            "pools": self.pools,
            "metrics": "127.0.0.1:9963",
        });
        // What agents enforce is what the operator sums up. All of them have the same limits.
        if let Some(node) = self.nodes.first() {
            let limits = self.agent_config(lab, node)?.cidr_limits();
            config["maxPolicyCidrs"] = limits.total.into();
            config["maxCidrsPerNamespace"] = limits.per_namespace.into();
        }
        Ok(config)
    }

    /// The cgroup of everything that runs for the lab.
    pub fn cgroup(&self) -> PathBuf {
        self.cgroup_mount.join(format!("heddle-{}", self.name))
    }

    /// The cgroup of a node: its agent and its pods.
    pub fn node_cgroup(&self, node: &str) -> PathBuf {
        self.cgroup().join(node)
    }
}

/// 4 or 6.
pub fn family(range: &IpNet) -> u8 {
    if range.addr().is_ipv4() { 4 } else { 6 }
}

/// Reads a lab's record.
pub fn record(lab: &crate::paths::Lab) -> Result<LabRecord, LabError> {
    crate::files::read_json(&lab.record())?
        .ok_or_else(|| LabError::UnknownLab(lab.name().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(yaml: &str) -> Result<LabRecord, LabError> {
        let config = serde_saphyr::from_str(yaml).unwrap();
        LabRecord::new(
            "t",
            config,
            "lab.yaml",
            "/sys/fs/cgroup".into(),
            "/bin/heddle".into(),
        )
    }

    #[test]
    fn an_empty_file_is_the_default_lab() {
        let record = made("{}").unwrap();
        assert_eq!(record.nodes, ["node-1", "node-2"]);
        assert_eq!(record.families, [4, 6]);
        let lab = crate::paths::Lab::named("t").unwrap();
        let agent = record.agent_config(&lab, "node-2").unwrap();
        assert_eq!(agent.pod_cidrs.len(), 2);
        assert_eq!(agent.pin_dir, Path::new("/sys/fs/bpf/heddle/t/node-2"));
    }

    #[test]
    fn wrong_settings_are_named() {
        for (yaml, field) in [
            ("nodes: 0", "nodes"),
            ("families: [5]", "families"),
            ("nodeLabels: {node-9: {a: b}}", "nodeLabels.node-9"),
            ("pools: [{cidrs: []}]", "pools[0].cidrs"),
            ("pools: [{cidrs: [10.0.0.0/16]}]", "pools"),
            ("agent: {colour: blue}", "agent"),
            ("cni: {cniVersion: 2.0.0}", "cni.cniVersion"),
            ("cni: {plugins: [{name: portmap}]}", "cni.plugins[0].type"),
            ("agent: {uplink: eth9}", "agent"),
        ] {
            let error = made(yaml).unwrap_err();
            assert_eq!(error.field(), field, "{yaml}: {error}");
        }
    }

    #[test]
    fn a_files_wrong_settings_are_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lab.yaml");
        for (text, field, part) in [
            ("nodes: 0", "nodes", "is 0, must be 1 to 200 (nodes)"),
            (
                "speed: fast",
                "speed",
                "docs/settings.md lists the settings",
            ),
            (
                "hostrouting: true",
                "hostrouting",
                "did you mean `hostRouting`?",
            ),
            (
                "pools: [{cidr: [10.0.0.0/16]}]",
                "pools",
                "unknown field `cidr`",
            ),
            ("nodes: [", "", "lab.yaml"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = LabConfig::read(&file).unwrap_err();
            assert_eq!(error.field(), field, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        for (text, part) in [
            (
                "agent: {maxConnections: 1}",
                "maxConnections: is 1, must be 16 to 16777216",
            ),
            (
                "agent: {maxConnection: 4096}",
                "did you mean `maxConnections`?",
            ),
        ] {
            let error = made(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        std::fs::write(&file, "").unwrap();
        assert_eq!(LabConfig::read(&file).unwrap(), LabConfig::default());
    }

    #[test]
    fn what_the_lab_is_made_by_is_not_set_for_its_agents_alone() {
        for (setting, beside) in [
            ("fabric: vxlan", "`fabric`"),
            ("families: [4]", "`families`"),
            ("podCidrs: [10.9.0.0/16, \"fd09::/48\"]", "`pools`"),
            ("hostRouting: false", "`hostRouting`"),
        ] {
            let error = made(&format!("agent: {{{setting}}}")).unwrap_err();
            assert_eq!(error.field(), "agent", "{setting}: {error}");
            let (key, _) = setting.split_once(':').unwrap();
            let text = error.to_string();
            assert!(text.contains(&format!("{key}: is ")), "{text}");
            assert!(text.contains("set it beside `agent`"), "{text}");
            assert!(text.ends_with(beside), "{text}");
        }
        assert!(!made("hostRouting: false").unwrap().host_routing);
    }

    #[test]
    fn an_agents_own_check_is_made_when_the_lab_is() {
        let text = "agent: {protectedTraffic: [{direction: egress, peer: 10.0.0.1/32, protocol: TCP, port: 0}]}";
        let error = made(text).unwrap_err().to_string();
        assert!(error.contains("protectedTraffic: [0].port is 0"), "{error}");
    }

    #[test]
    fn a_pool_is_no_part_of_the_internet() {
        for range in ["0.0.0.0/0", "10.0.0.0/7", "\"::/0\"", "\"fd00::/8\""] {
            let text = format!("pools: [{{cidrs: [10.244.0.0/16, \"fd10:244::/48\", {range}]}}]");
            let error = made(&text).unwrap_err();
            assert_eq!(error.field(), "pools[0].cidrs", "{range}: {error}");
            let shown = error.to_string();
            let what = format!("{} is wider than /8", range.trim_matches('"'));
            assert!(shown.contains(&what), "{shown}");
        }
        made("pools: [{cidrs: [10.0.0.0/8, \"fd10::/16\"]}]").unwrap();
    }

    #[test]
    fn the_operator_sums_up_by_the_limits_that_the_agents_have() {
        let lab = crate::paths::Lab::named("t").unwrap();
        for (text, total, per_namespace) in [
            ("{}", 65_536, 32_768),
            ("agent: {maxIpcacheEntries: 1000}", 500, 32_768),
            (
                "agent: {maxIpcacheEntries: 1000, maxPolicyCidrs: 700}",
                500,
                32_768,
            ),
            (
                "agent: {maxIpcacheEntries: 1000, maxPolicyCidrs: 300}",
                300,
                32_768,
            ),
            ("agent: {maxCidrsPerNamespace: 9}", 65_536, 9),
        ] {
            let config = made(text).unwrap().operator_config(&lab).unwrap();
            assert_eq!(config["maxPolicyCidrs"], total, "{text}");
            assert_eq!(config["maxCidrsPerNamespace"], per_namespace, "{text}");
        }
    }

    #[test]
    fn one_family_leaves_the_others_ranges_out() {
        let record = made("families: [6]").unwrap();
        assert_eq!(
            record.pools[0].cidrs,
            ["fd10:244::/48".parse::<IpNet>().unwrap()]
        );
    }
}
