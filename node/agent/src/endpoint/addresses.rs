//! The addresses of this node's pods: who leases which, and which rest.

use super::record::{AttachmentKey, Record};
use crate::lock_order::{Level, enter};
use heddle_ipam::{AddressError, Family, Lease, NodeAddresses, Owner, Released, Snapshot};
use heddle_rpc::{ApiError, error_codes};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// This node's addresses, and the file in which freed ones outlive the agent.
#[derive(Debug)]
pub(crate) struct Addresses {
    path: PathBuf,
    leases: Mutex<Option<NodeAddresses>>,
}

/// Seconds since 1970: a clock that goes on while the agent is away.
pub(crate) fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

pub(super) fn owner(key: &AttachmentKey) -> Owner {
    Owner::new(&key.container_id, &key.interface)
}

impl Addresses {
    pub(crate) fn new(state_dir: &std::path::Path) -> Self {
        Self {
            path: state_dir.join("resting-addresses.json"),
            leases: Mutex::new(None),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<NodeAddresses>) -> T) -> T {
        let _held = enter(Level::Addresses);
        work(&mut self.leases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over the leases of a former run.
    pub(super) fn restore(
        &self,
        blocks: &[ipnet::IpNet],
        cooldown: u64,
        leases: Vec<Lease>,
    ) -> Result<Vec<AddressError>, ApiError> {
        // A lost or damaged file only means that freed addresses do not rest; who has which is in the
        // endpoints' own records.
        let mut snapshot: Snapshot = std::fs::read(&self.path)
            .ok()
            .and_then(|content| serde_json::from_slice(&content).ok())
            .unwrap_or_default();
        snapshot.leases = leases;
        let (addresses, refused) = NodeAddresses::from_snapshot(blocks, cooldown, snapshot)
            .map_err(|error| ApiError::new("ipam/bad-block", error.to_string()))?;
        self.with(|slot| *slot = Some(addresses));
        Ok(refused)
    }

    /// The node's blocks changed.
    pub(crate) fn set_blocks(&self, blocks: &[ipnet::IpNet]) {
        self.with(|slot| {
            if let Some(addresses) = slot
                && addresses.blocks().ne(blocks.iter().copied())
                && let Err(error) = addresses.set_blocks(blocks)
            {
                tracing::error!(%error, "the node's pod ranges cannot be used");
            }
        });
    }

    pub(super) fn lease(
        &self,
        key: &AttachmentKey,
        families: &[Family],
    ) -> Result<Lease, ApiError> {
        self.with(|slot| {
            let addresses = slot.as_mut().ok_or_else(|| {
                ApiError::new(
                    error_codes::NOT_READY,
                    "this node's pod ranges are not known yet",
                )
            })?;
            let wanted: Vec<Family> = addresses
                .families()
                .filter(|family| families.contains(family))
                .collect();
            if wanted.is_empty() {
                return Err(ApiError::new(
                    "ipam/no-block",
                    "this node has no pod range of a family that pods use",
                )
                .help("see spec.podCIDRs of the Node and families in the agent's configuration"));
            }
            addresses
                .allocate(&owner(key), &wanted, unix_seconds())
                .map_err(|error| ApiError::new(error.code(), error.to_string()).help(error.help()))
        })
    }

    /// Frees a lease; its addresses rest, also over a restart.
    pub(super) fn release(&self, record: &Record) {
        self.release_owner(&owner(&record.key), record.generation);
    }

    /// Whether an attachment has the lease that its record says.
    pub(super) fn holds(&self, record: &Record) -> bool {
        self.with(|slot| {
            let lease = slot.as_ref()?.lease(&owner(&record.key))?;
            Some(lease.ipv4 == record.ipv4 && lease.ipv6 == record.ipv6)
        })
        .unwrap_or(false)
    }

    /// Keeps addresses from being given, as far as nobody has them.
    pub(super) fn reserve(&self, owner: &Owner, addresses: impl Iterator<Item = std::net::IpAddr>) {
        self.with(|slot| {
            let Some(leases) = slot else { return };
            let (mut ipv4, mut ipv6) = (None, None);
            for address in addresses.filter(|address| leases.holder(*address).is_none()) {
                match address {
                    std::net::IpAddr::V4(v4) => ipv4 = Some(v4),
                    std::net::IpAddr::V6(v6) => ipv6 = Some(v6),
                }
            }
            let lease = Lease {
                owner: owner.clone(),
                ipv4,
                ipv6,
                generation: 0,
            };
            if let Err(error) = leases.restore(lease) {
                tracing::error!(%error, "addresses that the kernel holds could not be reserved");
            }
        });
    }

    pub(super) fn release_owner(&self, owner: &Owner, generation: u64) {
        let now = unix_seconds();
        // Written under the lock: the file never goes back in time.
        let kept = self.with(|slot| {
            let addresses = slot.as_mut()?;
            match addresses.release(owner, generation, now) {
                Released::Done(_) => Some(self.keep(addresses.snapshot(now))),
                Released::NotHeld | Released::Newer { .. } => None,
            }
        });
        if let Some(Err(error)) = kept {
            tracing::warn!(%error, path = %self.path.display(), "freed addresses will not rest over a restart");
        }
    }

    /// Not synced to the disk: a power failure ends every pod, and then no address needs a rest.
    fn keep(&self, mut snapshot: Snapshot) -> std::io::Result<()> {
        snapshot.leases.clear();
        heddle_rpc::durable::replace_file(&self.path, &serde_json::to_vec(&snapshot)?)
    }

    /// Counts of a family: (family, total, used, resting, free).
    pub(crate) fn stats(&self) -> Vec<(Family, heddle_ipam::Stats)> {
        self.with(|slot| {
            slot.as_ref().map_or_else(Vec::new, |addresses| {
                let now = unix_seconds();
                addresses
                    .families()
                    .map(|family| (family, addresses.stats(family, now)))
                    .collect()
            })
        })
    }

    /// The ranges that this node's addresses are of.
    pub(crate) fn blocks(&self) -> Vec<ipnet::IpNet> {
        self.with(|slot| {
            slot.as_ref()
                .map_or_else(Vec::new, |addresses| addresses.blocks().collect())
        })
    }

    #[cfg(test)]
    pub(crate) fn leased(&self) -> usize {
        self.with(|slot| {
            slot.as_ref()
                .map_or(0, |addresses| addresses.leases().count())
        })
    }
}
