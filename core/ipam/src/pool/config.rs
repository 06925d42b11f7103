//! A pool as it is configured, and what makes no sense in it.

use crate::block::usable_addresses;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A pool as it is configured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name.
    pub name: String,
    /// Its address ranges, of either family; blocks are taken in this order.
    pub cidrs: Vec<IpNet>,
    /// Mask of an IPv4 block.
    #[serde(default = "default_mask_v4")]
    pub mask_v4: u8,
    /// Mask of an IPv6 block.
    #[serde(default = "default_mask_v6")]
    pub mask_v6: u8,
}

const fn default_mask_v4() -> u8 {
    24
}
const fn default_mask_v6() -> u8 {
    64
}

impl Default for PoolConfig {
    /// `10.244.0.0/16` and `fd10:244::/48`.
    fn default() -> Self {
        let v6 = Ipv6Net::new_assert([0xfd10, 0x244, 0, 0, 0, 0, 0, 0].into(), 48);
        Self {
            name: "default".to_owned(),
            cidrs: vec![
                Ipv4Net::new_assert([10, 244, 0, 0].into(), 16).into(),
                v6.into(),
            ],
            mask_v4: default_mask_v4(),
            mask_v6: default_mask_v6(),
        }
    }
}

/// A pool that cannot be used as it is configured.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolConfigError {
    /// The pool has no range.
    #[error("pool {pool}: cidrs is empty; give it at least one range")]
    NoRanges {
        /// The pool.
        pool: String,
    },
    /// Two ranges have common addresses.
    #[error("pool {pool}: cidrs: {first} and {second} overlap; keep one of them")]
    Overlap {
        /// The pool.
        pool: String,
        /// A range.
        first: IpNet,
        /// Another range.
        second: IpNet,
    },
    /// A range has bits beyond its mask.
    #[error("pool {pool}: cidrs: {range} has bits beyond its mask; write {meant}")]
    HostBits {
        /// The pool.
        pool: String,
        /// The range as written.
        range: IpNet,
        /// What it should be.
        meant: IpNet,
    },
    /// A block would be larger than the range it is cut from, or have no address to give.
    #[error("pool {pool}: {field} is {mask}: {reason}")]
    Mask {
        /// The pool.
        pool: String,
        /// `maskV4` or `maskV6`.
        field: &'static str,
        /// The mask.
        mask: u8,
        /// What is wrong with it.
        reason: String,
    },
}

impl PoolConfig {
    /// Checks the ranges among themselves.
    pub(crate) fn check_ranges(&self) -> Result<(), PoolConfigError> {
        let pool = || self.name.clone();
        if self.cidrs.is_empty() {
            return Err(PoolConfigError::NoRanges { pool: pool() });
        }
        for (position, range) in self.cidrs.iter().enumerate() {
            if range.trunc() != *range {
                return Err(PoolConfigError::HostBits {
                    pool: pool(),
                    range: *range,
                    meant: range.trunc(),
                });
            }
            let overlaps = |other: &&IpNet| other.contains(range) || range.contains(*other);
            if let Some(other) = self.cidrs[..position].iter().find(overlaps) {
                return Err(PoolConfigError::Overlap {
                    pool: pool(),
                    first: *other,
                    second: *range,
                });
            }
        }
        Ok(())
    }

    /// Checks that blocks of this mask can be cut from these ranges and have addresses to give.
    pub(crate) fn check_mask(
        &self,
        field: &'static str,
        mask: u8,
        cidrs: &[&IpNet],
    ) -> Result<(), PoolConfigError> {
        let wrong = |reason: String| PoolConfigError::Mask {
            pool: self.name.clone(),
            field,
            mask,
            reason,
        };
        for range in cidrs {
            if mask < range.prefix_len() {
                return Err(wrong(format!(
                    "a /{mask} block is larger than the range {range} it is cut from"
                )));
            }
            let block = IpNet::new(range.network(), mask).map_err(|_| {
                wrong(format!(
                    "a mask of this family is at most {}",
                    range.max_prefix_len()
                ))
            })?;
            usable_addresses(&block).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(())
    }
}
