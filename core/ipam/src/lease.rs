//! Leases: who has which addresses, what a release does, and why there is none.

use heddle_model::Family;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who has a lease: a container's interface.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The runtime's container (sandbox) id.
    pub container_id: String,
    /// The interface's name in the container.
    pub interface: String,
}

impl Owner {
    /// The owner of a container's interface.
    pub fn new(container_id: impl Into<String>, interface: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            interface: interface.into(),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.interface)
    }
}

/// The addresses of one endpoint, at most one per family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    /// Who has it.
    pub owner: Owner,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// Grows with every lease: a release that names an older one is too late and does nothing.
    pub generation: u64,
}

impl Lease {
    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.ipv4.map(IpAddr::V4);
        let v6 = self.ipv6.map(IpAddr::V6);
        v4.into_iter().chain(v6)
    }
}

/// What a release did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Released {
    /// The lease is gone and its addresses rest.
    Done(Lease),
    /// The owner has no lease: nothing to do.
    NotHeld,
    /// The owner has a newer lease than the one to be released: it stays.
    Newer {
        /// Generation of the lease that stays.
        generation: u64,
    },
}

/// Why no address was given or a lease was not restored.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// There is no block of a family that the endpoint needs.
    #[error("this node has no {family} block")]
    NoBlock {
        /// The family.
        family: Family,
    },
    /// Every address is leased.
    #[error("no {family} address is left in {blocks}: {used} of {total} are in use")]
    Exhausted {
        /// The family.
        family: Family,
        /// The node's blocks of this family, joined.
        blocks: String,
        /// Addresses in use.
        used: u64,
        /// Addresses that the blocks have.
        total: u64,
    },
    /// Every address that is not leased was freed a moment ago.
    #[error(
        "no {family} address is ready in {blocks}: {used} of {total} are in use and {resting} rest after their release; the next is free in {seconds} s"
    )]
    Resting {
        /// The family.
        family: Family,
        /// The node's blocks of this family, joined.
        blocks: String,
        /// Addresses in use.
        used: u64,
        /// Addresses that the blocks have.
        total: u64,
        /// Addresses that rest.
        resting: u64,
        /// Seconds until the first of them may be given.
        seconds: u64,
    },
    /// A restored address belongs to somebody else.
    #[error("{address} cannot be restored to {wanted}: {holder} has it")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who wants it back.
        wanted: Owner,
        /// Who has it.
        holder: Owner,
    },
    /// A lease to be restored differs from the one that its owner has.
    #[error("{owner} has other addresses than those to be restored")]
    Differs {
        /// The owner.
        owner: Owner,
    },
}

impl AddressError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoBlock { .. } => "ipam/no-block",
            Self::Exhausted { .. } | Self::Resting { .. } => "ipam/pool-exhausted",
            Self::Taken { .. } | Self::Differs { .. } => "ipam/address-in-use",
        }
    }

    /// What to do.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::NoBlock { .. } => {
                "wait for the operator to give this node a block, or see the node's condition PodCIDRAllocated"
            }
            Self::Exhausted { .. } => {
                "delete pods on this node, or give nodes larger blocks (a shorter pool mask)"
            }
            Self::Resting { .. } => {
                "try again then; a shorter address cooldown or larger blocks avoid the wait"
            }
            Self::Taken { .. } | Self::Differs { .. } => {
                "delete the pod that should not have the address, its sandbox is made anew"
            }
        }
    }
}

/// An address that rests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resting {
    /// The address.
    pub address: IpAddr,
    /// When it was freed, in seconds of the caller's clock.
    pub freed_at: u64,
}

/// Everything that must outlive the process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Every lease, in the order of owners.
    pub leases: Vec<Lease>,
    /// Addresses whose rest is not over, oldest first.
    pub resting: Vec<Resting>,
    /// Where the search for a fresh address goes on, for each block.
    #[serde(default)]
    pub next: Vec<IpAddr>,
    /// Generation of the last lease.
    pub generation: u64,
}

/// Counts of one family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Addresses that the node's blocks have.
    pub total: u64,
    /// Leased.
    pub used: u64,
    /// Freed less than the cooldown ago.
    pub resting: u64,
    /// May be given now.
    pub free: u64,
}
