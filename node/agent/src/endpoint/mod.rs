//! Endpoints: attaching pods, detaching them, and taking over those of a former run.

mod add;
mod check;
mod orphans;
mod publish;
pub(crate) mod record;
mod remove;
mod restore;
#[cfg(test)]
mod tests;

pub(crate) use add::Step;
pub(crate) use orphans::Orphan;
pub(crate) use publish::Publisher;
pub(crate) use remove::Removals;
pub(crate) use restore::{Restoration, as_compiled};

use crate::agent::Agent;
use crate::ledger::Ledger;
use heddle_cni::protocol::{ApiError, error_codes};
use heddle_datapath::DatapathError;
use heddle_ipam::{AddressError, Family, Lease, NodeAddresses, Owner, Released, Snapshot};
use record::{AttachmentKey, Record};
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

fn owner(key: &AttachmentKey) -> Owner {
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
        work(&mut self.leases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over the leases of a former run.
    fn restore(
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

    fn lease(&self, key: &AttachmentKey, families: &[Family]) -> Result<Lease, ApiError> {
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
    fn release(&self, record: &Record) {
        self.release_owner(&owner(&record.key), record.generation);
    }

    /// Whether an attachment has the lease that its record says.
    fn holds(&self, record: &Record) -> bool {
        self.with(|slot| {
            let lease = slot.as_ref()?.lease(&owner(&record.key))?;
            Some(lease.ipv4 == record.ipv4 && lease.ipv6 == record.ipv6)
        })
        .unwrap_or(false)
    }

    /// Keeps addresses from being given, as far as nobody has them.
    fn reserve(&self, owner: &Owner, addresses: impl Iterator<Item = std::net::IpAddr>) {
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

    fn release_owner(&self, owner: &Owner, generation: u64) {
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
        heddle_cni::pending::replace_file(&self.path, &serde_json::to_vec(&snapshot)?)
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

    #[cfg(test)]
    pub(crate) fn leased(&self) -> usize {
        self.with(|slot| {
            slot.as_ref()
                .map_or(0, |addresses| addresses.leases().count())
        })
    }
}

impl Agent {
    /// Works on the ledger where blocking is fine.
    pub(crate) async fn on_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> T {
        let ledger = std::sync::Arc::clone(&self.ledger);
        blocking(move || work(&mut ledger.lock())).await
    }
}

/// Runs what blocks away from the event loop.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The work panicked, or the runtime is going down: there is nobody to answer to.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// A kernel failure in the words of the API.
pub(crate) fn kernel_failure(error: &DatapathError) -> ApiError {
    match error {
        DatapathError::NoNamespace { .. } => {
            ApiError::new(error_codes::NO_NAMESPACE, error.to_string())
                .help("the container's network namespace must exist until DEL")
        }
        DatapathError::MapFull { .. } => ApiError::new("datapath/map-full", error.to_string())
            .help("raise the map's size in the agent's configuration; nothing was opened"),
        DatapathError::OtherVersion { help, .. } => {
            ApiError::new("datapath/other-version", error.to_string()).help(help.clone())
        }
        DatapathError::Failed { .. } => ApiError::new("datapath/failed", error.to_string())
            .help("see the agent's log and `heddle status`"),
    }
}
