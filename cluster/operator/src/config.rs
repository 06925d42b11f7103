//! The operator's configuration file.

use heddle_ipam::{PoolAllocator, PoolConfig, PoolConfigError};
use heddle_kube::identity::MIN_COLLECTION_INTERVAL;
use heddle_policy::CidrLimits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the YAML of a configuration.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// There is no pool.
    #[error(
        "pools: is empty; give one pool, or leave the field out for 10.244.0.0/16 and fd10:244::/48"
    )]
    NoPools,
    /// Two pools have one name.
    #[error("pools: two are named {name}; metrics and errors could not tell them apart")]
    SameName {
        /// The name.
        name: String,
    },
    /// Two pools have common addresses.
    #[error(
        "pools: {first} of {first_pool} overlaps {second} of {second_pool}; keep it in one of them"
    )]
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
    /// One pool makes no sense.
    #[error("pools: {0}")]
    Pool(#[from] PoolConfigError),
    /// A lease shorter than its renewals can be.
    #[error("leaseSeconds: is {seconds}, must be at least 3; the default is 15")]
    ShortLease {
        /// What is given.
        seconds: u32,
    },
    /// The interval is shorter than agents may take to use a number that they remember.
    #[error(
        "identityGcSeconds: is {seconds}, must be at least {least}: for so long an agent may use a number that it remembers; the default is 900"
    )]
    ShortInterval {
        /// What is given.
        seconds: u64,
        /// What is needed.
        least: u64,
    },
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

    /// Reads and checks a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file, and the field where there is one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let malformed = |reason: String| ConfigError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let config: Self =
            serde_saphyr::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        config
            .validate()
            .map_err(|error| malformed(error.to_string()))?;
        Ok(config)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let least = MIN_COLLECTION_INTERVAL.as_secs();
        if self.identity_gc_seconds < least {
            return Err(ConfigError::ShortInterval {
                seconds: self.identity_gc_seconds,
                least,
            });
        }
        if self.lease_seconds < 3 {
            return Err(ConfigError::ShortLease {
                seconds: self.lease_seconds,
            });
        }
        self.allocators().map(|_| ())
    }

    /// What policies' addresses may cost.
    pub(crate) const fn cidr_limits(&self) -> CidrLimits {
        CidrLimits {
            total: self.max_policy_cidrs as usize,
            per_namespace: self.max_cidrs_per_namespace as usize,
        }
    }

    /// The pools' allocators, if the configuration makes sense.
    pub(crate) fn allocators(&self) -> Result<Vec<PoolAllocator>, ConfigError> {
        if self.pools.is_empty() {
            return Err(ConfigError::NoPools);
        }
        for (position, pool) in self.pools.iter().enumerate() {
            for other in &self.pools[..position] {
                if other.name == pool.name {
                    return Err(ConfigError::SameName {
                        name: pool.name.clone(),
                    });
                }
                for first in &other.cidrs {
                    for second in &pool.cidrs {
                        if first.contains(second) || second.contains(first) {
                            return Err(ConfigError::Overlap {
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
