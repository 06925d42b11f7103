//! The operator's configuration file.

use heddle_ipam::{PoolAllocator, PoolConfig, PoolConfigError};
use heddle_kube::identity::MIN_COLLECTION_INTERVAL;
use heddle_model::setting::{Configuration, Setting, SettingError, Values, is_too_wide};
use heddle_policy::CidrLimits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Seconds of a week: more is a slip.
const WEEK: u64 = 7 * 24 * 60 * 60;
/// Who shows that policies do not fit.
const AT_AGENTS: &str = "`heddle_not_in_force` of the agents";

/// The operator's configuration file (YAML, camelCase keys; unknown keys are refused).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorConfig {
    /// The cluster's name.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Unix socket of the embedded store.
    pub store: PathBuf,
    /// Where the operator keeps files of its own; root-only.
    pub state_dir: PathBuf,
    /// Pools that nodes' blocks are taken from; a node gets its blocks from the first pool with room.
    #[serde(default = "default_pools")]
    pub pools: Vec<PoolConfig>,
    /// Where metrics are served (`127.0.0.1:9963`); none without it.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Seconds between two looks for what nobody uses; what is unused in two looks is deleted. At least 60: an
    /// agent may use a number that it remembers for that long.
    #[serde(default = "default_gc")]
    pub identity_gc_seconds: u64,
    /// Seconds for which a lease holds that nobody renews: of several operators one works, and another takes over
    /// so long after the first was lost. At least 3.
    #[serde(default = "default_lease")]
    pub lease_seconds: u32,
    /// What the addresses that policies name may cost at most, as the agents have it (`maxPolicyCidrs`, never more
    /// than half of `maxIpcacheEntries`).
    #[serde(default = "default_policy_cidrs")]
    pub max_policy_cidrs: u32,
    /// What those of one namespace may cost at most, as the agents have it.
    #[serde(default = "default_cidrs_per_namespace")]
    pub max_cidrs_per_namespace: u32,
}

fn default_cluster() -> String {
    "default".to_owned()
}
fn default_pools() -> Vec<PoolConfig> {
    vec![PoolConfig::default()]
}
const fn default_gc() -> u64 {
    15 * 60
}

const fn default_lease() -> u32 {
    15
}
const fn default_policy_cidrs() -> u32 {
    CidrLimits::DEFAULT.total as u32
}
const fn default_cidrs_per_namespace() -> u32 {
    CidrLimits::DEFAULT.per_namespace as u32
}

/// Pools that make no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolsError {
    /// There is no pool.
    #[error("is empty; give one pool, or leave it out for 10.244.0.0/16 and fd10:244::/48")]
    NoPools,
    /// Two pools have one name.
    #[error("two are named {name}; metrics and errors could not tell them apart")]
    SameName {
        /// The name.
        name: String,
    },
    /// Two pools have common addresses.
    #[error("{first} of {first_pool} overlaps {second} of {second_pool}; keep it in one of them")]
    Overlap {
        /// A pool.
        first_pool: String,
        /// Its range.
        first: IpNet,
        /// Another pool.
        second_pool: String,
        /// Its range.
        second: IpNet,
    },
    /// A range that no agent takes for one of pods.
    #[error(
        "pool {pool}: cidrs: {range} is wider than /8 (IPv4) or /16 (IPv6); write the part of it that pods get addresses from"
    )]
    TooWide {
        /// The pool.
        pool: String,
        /// The range.
        range: IpNet,
    },
    /// One pool makes no sense.
    #[error("{0}")]
    Pool(#[from] PoolConfigError),
}

impl From<PoolsError> for SettingError {
    fn from(error: PoolsError) -> Self {
        Self::Refused {
            name: "pools",
            reason: error.to_string(),
        }
    }
}

impl Configuration for OperatorConfig {
    const SETTINGS: &'static [Setting] = &[
        Setting::new("cluster", Values::TEXT),
        Setting::new("store", Values::TEXT),
        Setting::new("stateDir", Values::TEXT),
        Setting::new("pools", Values::LIST).metric("`heddle_ipam_pool_pressure`"),
        Setting::new("metrics", Values::LISTEN_ADDRESS),
        Setting::number(
            "identityGcSeconds",
            MIN_COLLECTION_INTERVAL.as_secs(),
            WEEK,
            "seconds",
        )
        .metric("`cilium_operator_identity_gc_latency`"),
        Setting::number("leaseSeconds", 3, 3_600, "seconds"),
        Setting::number("maxPolicyCidrs", 0, 1 << 24, "addresses").metric(AT_AGENTS),
        Setting::number("maxCidrsPerNamespace", 0, 1 << 24, "addresses").metric(AT_AGENTS),
    ];

    fn required() -> Map<String, Value> {
        Map::from_iter(
            [
                ("store", "/run/heddle/store.sock"),
                ("stateDir", "/var/lib/heddle-operator"),
            ]
            .map(|(name, value)| (name.to_owned(), value.into())),
        )
    }

    fn validate(&self) -> Result<(), SettingError> {
        self.allocators()?;
        Ok(())
    }
}

impl OperatorConfig {
    /// A configuration with defaults for everything that has one.
    pub fn new(store: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            cluster: default_cluster(),
            store: store.into(),
            state_dir: state_dir.into(),
            pools: default_pools(),
            metrics: None,
            identity_gc_seconds: default_gc(),
            lease_seconds: default_lease(),
            max_policy_cidrs: default_policy_cidrs(),
            max_cidrs_per_namespace: default_cidrs_per_namespace(),
        }
    }

    /// What policies' addresses may cost.
    pub(crate) const fn cidr_limits(&self) -> CidrLimits {
        CidrLimits {
            total: self.max_policy_cidrs as usize,
            per_namespace: self.max_cidrs_per_namespace as usize,
        }
    }

    /// The pools' allocators, if the configuration makes sense.
    pub(crate) fn allocators(&self) -> Result<Vec<PoolAllocator>, PoolsError> {
        if self.pools.is_empty() {
            return Err(PoolsError::NoPools);
        }
        for (position, pool) in self.pools.iter().enumerate() {
            if let Some(range) = pool.cidrs.iter().find(|range| is_too_wide(range)) {
                return Err(PoolsError::TooWide {
                    pool: pool.name.clone(),
                    range: *range,
                });
            }
            for other in &self.pools[..position] {
                if other.name == pool.name {
                    return Err(PoolsError::SameName {
                        name: pool.name.clone(),
                    });
                }
                for first in &other.cidrs {
                    for second in &pool.cidrs {
                        if first.contains(second) || second.contains(first) {
                            return Err(PoolsError::Overlap {
                                first_pool: other.name.clone(),
                                first: *first,
                                second_pool: pool.name.clone(),
                                second: *second,
                            });
                        }
                    }
                }
            }
        }
        let allocators = self.pools.iter().map(PoolAllocator::new);
        Ok(allocators.collect::<Result<_, _>>()?)
    }
}
