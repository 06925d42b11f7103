//! The addresses of one node: leased to endpoints, rested after release, never given twice.

use crate::block::{Block, BlockError};
use crate::lease::{AddressError, Lease, Owner, Released, Resting, Snapshot, Stats};
use heddle_model::Family;
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;

/// The addresses of one node's blocks.
///
/// Times are whole seconds of any clock that the caller likes, as long as it goes on over restarts; a
/// clock that jumps back only lengthens a rest by at most the cooldown.
#[derive(Clone, Debug)]
pub struct NodeAddresses {
    blocks: Vec<Block>,
    leases: BTreeMap<Owner, Lease>,
    holders: HashMap<IpAddr, Owner>,
    /// Freed addresses, oldest first; per family.
    freed: [VecDeque<Resting>; 2],
    cooldown: u64,
    generation: u64,
}

impl NodeAddresses {
    /// Default cooldown in seconds.
    pub const DEFAULT_COOLDOWN: u64 = 30;

    /// The addresses of these blocks; a freed address rests for `cooldown` seconds.
    ///
    /// # Errors
    ///
    /// [`BlockError`] for a block that is too small to give any address.
    pub fn new(blocks: &[IpNet], cooldown: u64) -> Result<Self, BlockError> {
        let mut addresses = Self {
            blocks: Vec::new(),
            leases: BTreeMap::new(),
            holders: HashMap::new(),
            freed: [VecDeque::new(), VecDeque::new()],
            cooldown,
            generation: 0,
        };
        addresses.set_blocks(blocks)?;
        Ok(addresses)
    }

    /// Replaces the blocks: new ones are given from, missing ones are not any more. Leases stay.
    ///
    /// # Errors
    ///
    /// [`BlockError`] for a block that is too small; then nothing changes.
    pub fn set_blocks(&mut self, blocks: &[IpNet]) -> Result<(), BlockError> {
        let mut fresh: Vec<Block> = Vec::new();
        for net in blocks {
            let mut block = Block::new(*net)?;
            // A block inside another one adds nothing.
            if fresh.iter().any(|other| other.net.contains(&block.net)) {
                continue;
            }
            fresh.retain(|other| !block.net.contains(&other.net));
            for address in self.holders.keys() {
                block.mark(*address);
            }
            for resting in self.freed.iter().flatten() {
                block.mark(resting.address);
            }
            fresh.push(block);
        }
        // Addresses of blocks that are gone need no rest here.
        for freed in &mut self.freed {
            freed.retain(|resting| fresh.iter().any(|block| block.has(resting.address)));
        }
        self.blocks = fresh;
        Ok(())
    }

    /// The blocks that addresses are given from.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        self.blocks.iter().map(|block| block.net)
    }

    /// The families that an endpoint gets: those that there are blocks of.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(|family| self.blocks_of(*family).next().is_some())
    }

    fn blocks_of(&self, family: Family) -> impl Iterator<Item = &Block> {
        self.blocks
            .iter()
            .filter(move |block| Family::of_network(&block.net) == family)
    }

    /// Leases an address of each of these families, all or none; the lease that the owner has, if any.
    ///
    /// Never-used addresses come first, then those freed longest ago, once they have rested.
    ///
    /// # Errors
    ///
    /// [`AddressError`] names the family and blocks that had none; nothing was given then.
    pub fn allocate(
        &mut self,
        owner: &Owner,
        families: &[Family],
        now: u64,
    ) -> Result<Lease, AddressError> {
        if let Some(lease) = self.leases.get(owner) {
            return Ok(lease.clone());
        }
        self.heed_clock(now);
        let (mut ipv4, mut ipv6) = (None, None);
        for family in Family::ALL {
            if families.contains(&family) {
                match self.candidate(family, now)? {
                    IpAddr::V4(address) => ipv4 = Some(address),
                    IpAddr::V6(address) => ipv6 = Some(address),
                }
            }
        }
        for address in ipv4.map(IpAddr::V4).into_iter().chain(ipv6.map(IpAddr::V6)) {
            for block in &mut self.blocks {
                if block.is_fresh(address) {
                    block.advance(address);
                }
            }
        }
        self.generation += 1;
        let lease = Lease {
            owner: owner.clone(),
            ipv4,
            ipv6,
            generation: self.generation,
        };
        self.hold(lease.clone());
        Ok(lease)
    }

    /// The address that is given next; nothing is marked.
    fn candidate(&self, family: Family, now: u64) -> Result<IpAddr, AddressError> {
        if let Some(address) = self.blocks_of(family).find_map(Block::next_fresh) {
            return Ok(address);
        }
        let stats = || self.stats(family, now);
        let blocks = || {
            let nets: Vec<_> = self
                .blocks_of(family)
                .map(|block| block.net.to_string())
                .collect();
            nets.join(", ")
        };
        match self.freed[family.index()].front() {
            Some(oldest) => match self.remaining_rest(oldest, now) {
                0 => Ok(oldest.address),
                seconds => {
                    let Stats {
                        total,
                        used,
                        resting,
                        ..
                    } = stats();
                    Err(AddressError::Resting {
                        family,
                        blocks: blocks(),
                        used,
                        total,
                        resting,
                        seconds,
                    })
                }
            },
            None => match stats() {
                Stats { total: 0, .. } => Err(AddressError::NoBlock { family }),
                Stats { total, used, .. } => Err(AddressError::Exhausted {
                    family,
                    blocks: blocks(),
                    used,
                    total,
                }),
            },
        }
    }

    /// Seconds until an address may be given again.
    const fn remaining_rest(&self, resting: &Resting, now: u64) -> u64 {
        self.cooldown
            .saturating_sub(now.saturating_sub(resting.freed_at))
    }

    /// A clock that was set back must not make an address rest for years: the rest begins anew.
    fn heed_clock(&mut self, now: u64) {
        for freed in &mut self.freed {
            // Oldest first, so only the newest ones can lie in the future.
            for resting in freed.iter_mut().rev() {
                if resting.freed_at <= now {
                    break;
                }
                resting.freed_at = now;
            }
        }
    }

    /// Enters a lease whose addresses are free.
    fn hold(&mut self, lease: Lease) {
        for address in lease.addresses() {
            let was_fresh = self.blocks.iter_mut().any(|block| block.mark(address));
            if !was_fresh {
                // Given addresses come from the front, restored ones from anywhere.
                let freed = &mut self.freed[Family::of(address).index()];
                if let Some(at) = freed.iter().position(|resting| resting.address == address) {
                    freed.remove(at);
                }
            }
            self.holders.insert(address, lease.owner.clone());
        }
        self.leases.insert(lease.owner.clone(), lease);
    }

    /// Gives an owner back the lease that it had before a restart.
    ///
    /// Addresses outside the node's blocks are kept too: a running pod keeps its address.
    ///
    /// # Errors
    ///
    /// [`AddressError::Taken`] or [`AddressError::Differs`]; nothing changes then.
    pub fn restore(&mut self, lease: Lease) -> Result<(), AddressError> {
        if let Some(held) = self.leases.get_mut(&lease.owner) {
            if (held.ipv4, held.ipv6) != (lease.ipv4, lease.ipv6) {
                return Err(AddressError::Differs { owner: lease.owner });
            }
            held.generation = held.generation.max(lease.generation);
            self.generation = self.generation.max(lease.generation);
            return Ok(());
        }
        for address in lease.addresses() {
            if let Some(holder) = self.holders.get(&address) {
                return Err(AddressError::Taken {
                    address,
                    wanted: lease.owner,
                    holder: holder.clone(),
                });
            }
        }
        self.generation = self.generation.max(lease.generation);
        self.hold(lease);
        Ok(())
    }

    /// Frees an owner's lease, if it is still the one of `generation`; its addresses rest from `now`.
    pub fn release(&mut self, owner: &Owner, generation: u64, now: u64) -> Released {
        match self.leases.get(owner) {
            None => return Released::NotHeld,
            Some(lease) if lease.generation != generation => {
                return Released::Newer {
                    generation: lease.generation,
                };
            }
            Some(_) => {}
        }
        let Some(lease) = self.leases.remove(owner) else {
            return Released::NotHeld;
        };
        self.heed_clock(now);
        for address in lease.addresses() {
            self.holders.remove(&address);
            self.rest(Resting {
                address,
                freed_at: now,
            });
        }
        Released::Done(lease)
    }

    fn rest(&mut self, resting: Resting) {
        if self.blocks.iter().any(|block| block.has(resting.address)) {
            self.freed[Family::of(resting.address).index()].push_back(resting);
        }
    }

    /// The lease of an owner.
    pub fn lease(&self, owner: &Owner) -> Option<&Lease> {
        self.leases.get(owner)
    }

    /// Who has an address.
    pub fn holder(&self, address: IpAddr) -> Option<&Owner> {
        self.holders.get(&address)
    }

    /// Every lease, in the order of owners.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Counts of one family.
    pub fn stats(&self, family: Family, now: u64) -> Stats {
        let total: u64 = self.blocks_of(family).map(Block::total).sum();
        let fresh: u64 = self.blocks_of(family).map(Block::fresh).sum();
        let freed = &self.freed[family.index()];
        let resting = freed
            .iter()
            .filter(|resting| self.remaining_rest(resting, now) > 0)
            .count() as u64;
        Stats {
            total,
            used: total - fresh - freed.len() as u64,
            resting,
            free: fresh + freed.len() as u64 - resting,
        }
    }

    /// What must be kept so that nothing is given twice, or too early, after a restart.
    pub fn snapshot(&self, now: u64) -> Snapshot {
        Snapshot {
            leases: self.leases.values().cloned().collect(),
            resting: self
                .freed
                .iter()
                .flatten()
                .filter(|resting| self.remaining_rest(resting, now) > 0)
                .copied()
                .collect(),
            next: self.blocks.iter().map(Block::cursor).collect(),
            generation: self.generation,
        }
    }

    /// The addresses of these blocks as a snapshot had them.
    ///
    /// Leases that cannot be restored (an address that two owners claim) are returned, not dropped
    /// silently.
    ///
    /// # Errors
    ///
    /// [`BlockError`] for a block that is too small.
    pub fn from_snapshot(
        blocks: &[IpNet],
        cooldown: u64,
        snapshot: Snapshot,
    ) -> Result<(Self, Vec<AddressError>), BlockError> {
        let mut addresses = Self::new(blocks, cooldown)?;
        let refused = snapshot
            .leases
            .into_iter()
            .filter_map(|lease| addresses.restore(lease).err())
            .collect();
        addresses.generation = addresses.generation.max(snapshot.generation);
        for address in snapshot.next {
            for block in &mut addresses.blocks {
                block.set_cursor(address);
            }
        }
        for resting in snapshot.resting {
            let is_new = addresses
                .blocks
                .iter_mut()
                .any(|block| block.mark(resting.address));
            if is_new {
                addresses.rest(resting);
            }
        }
        Ok((addresses, refused))
    }
}

#[cfg(test)]
mod tests;
