//! One pool's blocks: each node has one per family, and no two nodes have a common address.

use crate::block::{to_address, to_number, usable_addresses};
pub use config::{PoolConfig, PoolConfigError};
use heddle_model::Family;
use ipnet::IpNet;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// A node; a node that was deleted and made again under its name has another uid and is another node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeKey {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.name`.
    pub name: String,
}

impl NodeKey {
    /// The node with this uid and name.
    pub fn new(uid: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            uid: uid.into(),
            name: name.into(),
        }
    }
}

/// A pool has no block left.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// Every block is taken.
    #[error(
        "pool {pool} has no {family} block (/{mask}) left for node {node}: {used} of {total} are in use"
    )]
    Exhausted {
        /// The pool.
        pool: String,
        /// The family that has none left.
        family: Family,
        /// Mask of a block.
        mask: u8,
        /// The node that needs one.
        node: String,
        /// Blocks that are taken.
        used: u128,
        /// Blocks that the pool has.
        total: u128,
    },
}

impl PoolError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        "ipam/pool-exhausted"
    }

    /// What to do.
    pub const fn help(&self) -> &'static str {
        "add a range to the pool's cidrs, delete nodes that are gone, or use a longer mask for new nodes; nodes that wait get a block by themselves"
    }
}

/// A block that a node says it has cannot be entered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("node {node} has block {block}, which overlaps {held} of node {holder}")]
pub struct RestoreError {
    /// The node.
    pub node: String,
    /// Its block.
    pub block: IpNet,
    /// The block that was there first.
    pub held: IpNet,
    /// Whose it is.
    pub holder: String,
}

/// Counts of one family's blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockStats {
    /// Blocks that the pool has.
    pub total: u128,
    /// Blocks that are not free; a node's block of another size takes as many as it touches.
    pub used: u128,
    /// Addresses that each block can give to endpoints.
    pub addresses_per_block: u64,
}

/// A taken range of addresses, by its first one.
#[derive(Clone, Debug)]
struct Taken {
    last: u128,
    block: IpNet,
    uid: String,
}

/// One family's share of a pool.
#[derive(Clone, Debug)]
struct Blocks {
    family: Family,
    mask: u8,
    /// First and last address of each range of the pool.
    ranges: Vec<(u128, u128)>,
    /// Blocks of nodes, those outside of the pool's ranges too: they never overlap.
    taken: BTreeMap<u128, Taken>,
    /// Range and address from which on blocks were never given.
    cursor: (usize, u128),
    /// Released blocks, oldest first, with the name of the node that had them.
    released: VecDeque<(IpNet, String)>,
}

/// Hands out the blocks of one pool. Pure: restore what nodes have before the first allocation.
#[derive(Clone, Debug)]
pub struct PoolAllocator {
    name: String,
    families: Vec<Blocks>,
    nodes: BTreeMap<String, (NodeKey, Vec<IpNet>)>,
}

impl PoolAllocator {
    /// A pool with every block free.
    ///
    /// # Errors
    ///
    /// [`PoolConfigError`] names the field that makes no sense.
    pub fn new(config: &PoolConfig) -> Result<Self, PoolConfigError> {
        config.check_ranges()?;
        let mut families = Vec::new();
        for (family, field, mask) in [
            (Family::V4, "maskV4", config.mask_v4),
            (Family::V6, "maskV6", config.mask_v6),
        ] {
            let cidrs: Vec<_> = config
                .cidrs
                .iter()
                .filter(|range| Family::of_network(range) == family)
                .collect();
            config.check_mask(field, mask, &cidrs)?;
            let ranges: Vec<_> = cidrs
                .iter()
                .map(|range| (to_number(range.network()), to_number(range.broadcast())))
                .collect();
            // A family without ranges gives nothing, but still sees that nodes' blocks do not overlap.
            families.push(Blocks {
                family,
                mask,
                cursor: (0, ranges.first().map_or(0, |range| range.0)),
                ranges,
                taken: BTreeMap::new(),
                released: VecDeque::new(),
            });
        }
        Ok(Self {
            name: config.name.clone(),
            families,
            nodes: BTreeMap::new(),
        })
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Enters the blocks that a node has (from its Node object), wherever they lie.
    ///
    /// Entering them again does nothing. A block outside of the pool's ranges or of another size stays
    /// the node's, so that a changed configuration moves nobody.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when another node has a common address; nothing is entered then.
    pub fn restore(&mut self, node: &NodeKey, blocks: &[IpNet]) -> Result<(), RestoreError> {
        for block in blocks {
            let (first, last) = bounds(block);
            for taken in self.taken_between(Family::of_network(block), first, last) {
                if taken.uid != node.uid {
                    return Err(RestoreError {
                        node: node.name.clone(),
                        block: *block,
                        held: taken.block,
                        holder: self.name_of(&taken.uid),
                    });
                }
            }
        }
        let known = self
            .nodes
            .get(&node.uid)
            .map(|(_, blocks)| blocks.clone())
            .unwrap_or_default();
        for block in blocks {
            if !known.contains(block) {
                self.take(node, *block);
            }
        }
        Ok(())
    }

    /// The node's block of each of the pool's families; those that it lacks are given to it, all or none.
    ///
    /// A node that comes back under its name gets the block it had, if it is free; else one that nobody
    /// had, else the one that was released longest ago.
    ///
    /// # Errors
    ///
    /// [`PoolError::Exhausted`]; nothing is given then.
    pub fn allocate(&mut self, node: &NodeKey) -> Result<Vec<IpNet>, PoolError> {
        let held = self.blocks_of(&node.uid).to_vec();
        let mut given = Vec::new();
        for blocks in &mut self.families {
            let has_one = held
                .iter()
                .any(|block| Family::of_network(block) == blocks.family);
            if has_one || blocks.ranges.is_empty() {
                continue;
            }
            let block = blocks.free_block(&node.name).ok_or_else(|| {
                let stats = blocks.stats();
                PoolError::Exhausted {
                    pool: self.name.clone(),
                    family: blocks.family,
                    mask: blocks.mask,
                    node: node.name.clone(),
                    used: stats.used,
                    total: stats.total,
                }
            })?;
            given.push(block);
        }
        for block in given {
            self.take(node, block);
        }
        let mut all = self.blocks_of(&node.uid).to_vec();
        all.sort_by_key(Family::of_network);
        Ok(all)
    }

    /// Frees a node's blocks; they are given again after all others. Gives those that were freed.
    pub fn release(&mut self, uid: &str) -> Vec<IpNet> {
        let Some((node, held)) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        for block in &held {
            for blocks in &mut self.families {
                if blocks.family == Family::of_network(block) {
                    blocks.taken.remove(&to_number(block.network()));
                    if blocks.is_own(block) {
                        blocks.released.push_back((*block, node.name.clone()));
                    }
                }
            }
        }
        held
    }

    /// The blocks of the node with this uid.
    pub fn blocks_of(&self, uid: &str) -> &[IpNet] {
        self.nodes.get(uid).map_or(&[], |(_, blocks)| blocks)
    }

    /// Every node with blocks.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeKey, &[IpNet])> {
        self.nodes
            .values()
            .map(|(node, blocks)| (node, blocks.as_slice()))
    }

    /// Counts of each of the pool's families.
    pub fn stats(&self) -> impl Iterator<Item = (Family, BlockStats)> {
        self.families
            .iter()
            .filter(|blocks| !blocks.ranges.is_empty())
            .map(|blocks| (blocks.family, blocks.stats()))
    }

    fn name_of(&self, uid: &str) -> String {
        self.nodes
            .get(uid)
            .map_or_else(|| uid.to_owned(), |(node, _)| node.name.clone())
    }

    fn taken_between(
        &self,
        family: Family,
        first: u128,
        last: u128,
    ) -> impl Iterator<Item = &Taken> {
        self.families
            .iter()
            .filter(move |blocks| blocks.family == family)
            .flat_map(move |blocks| blocks.overlapping(first, last))
    }

    /// Enters a block that overlaps nobody else's.
    fn take(&mut self, node: &NodeKey, block: IpNet) {
        let (first, last) = bounds(&block);
        for blocks in &mut self.families {
            if blocks.family == Family::of_network(&block) {
                blocks.released.retain(|(released, _)| {
                    let (start, end) = bounds(released);
                    end < first || last < start
                });
                blocks.taken.insert(
                    first,
                    Taken {
                        last,
                        block,
                        uid: node.uid.clone(),
                    },
                );
            }
        }
        self.nodes
            .entry(node.uid.clone())
            .or_insert_with(|| (node.clone(), Vec::new()))
            .1
            .push(block);
    }
}

impl Blocks {
    fn stats(&self) -> BlockStats {
        let size = self.block_size();
        let total = self.ranges.iter().map(|range| self.count(*range)).sum();
        let used = self
            .ranges
            .iter()
            .map(|(start, end)| {
                // Several small foreign blocks may lie in one of ours: count ours once.
                let (mut used, mut counted_to) = (0, None);
                for taken in self.overlapping(*start, *end) {
                    let from = (to_number(taken.block.network()).max(*start) - start) / size;
                    let to = (taken.last.min(*end) - start) / size;
                    let from = counted_to.map_or(from, |counted: u128| from.max(counted + 1));
                    used += (to + 1).saturating_sub(from);
                    counted_to = Some(counted_to.map_or(to, |counted: u128| counted.max(to)));
                }
                used
            })
            .sum();
        let sample = IpNet::new(
            self.address(self.ranges.first().map_or(0, |range| range.0)),
            self.mask,
        );
        BlockStats {
            total,
            used,
            addresses_per_block: sample
                .ok()
                .and_then(|block| usable_addresses(&block).ok())
                .unwrap_or(0),
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        to_address(self.family == Family::V4, number)
    }

    fn width(&self) -> u8 {
        match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// Addresses of a block; the mask is never 0 where this matters (a /0 pool of /0 blocks has one).
    fn block_size(&self) -> u128 {
        1_u128
            .checked_shl((self.width() - self.mask).into())
            .unwrap_or(u128::MAX)
    }

    /// Blocks of a range.
    fn count(&self, (start, end): (u128, u128)) -> u128 {
        ((end - start) / self.block_size()).saturating_add(1)
    }

    /// Taken blocks with an address between these two, in order.
    fn overlapping(&self, first: u128, last: u128) -> impl Iterator<Item = &Taken> {
        // Taken blocks do not overlap each other: only the last one that begins before can reach in.
        let before = self
            .taken
            .range(..first)
            .next_back()
            .filter(|(_, taken)| taken.last >= first);
        before
            .into_iter()
            .chain(self.taken.range(first..=last))
            .map(|(_, taken)| taken)
    }

    /// True for a block of this pool's ranges and size.
    fn is_own(&self, block: &IpNet) -> bool {
        let (first, last) = bounds(block);
        block.prefix_len() == self.mask
            && self
                .ranges
                .iter()
                .any(|(start, end)| *start <= first && last <= *end)
    }

    /// A block that nobody has.
    fn free_block(&mut self, node_name: &str) -> Option<IpNet> {
        if let Some((block, _)) = self.released.iter().find(|(_, name)| name == node_name) {
            return Some(*block);
        }
        let fresh = self.next_free(self.cursor);
        if let Some((position, start)) = fresh {
            self.cursor = (position, start);
            return IpNet::new(self.address(start), self.mask).ok();
        }
        self.cursor = (self.ranges.len(), 0);
        if let Some((block, _)) = self.released.front() {
            return Some(*block);
        }
        // Space that a foreign block left is on neither list.
        let start = self.ranges.first()?.0;
        let (_, start) = self.next_free((0, start))?;
        IpNet::new(self.address(start), self.mask).ok()
    }

    /// The first block at or after a place that is neither taken nor waiting among the released.
    fn next_free(&self, (mut position, mut start): (usize, u128)) -> Option<(usize, u128)> {
        let size = self.block_size();
        while let Some((range_start, range_end)) = self.ranges.get(position).copied() {
            while start <= range_end {
                let end = start + (size - 1);
                let reached = match self.overlapping(start, end).last() {
                    Some(taken) => taken.last.max(end),
                    None if self.is_released(start) => end,
                    None => return Some((position, start)),
                };
                if reached >= range_end {
                    break;
                }
                // On to the first block that begins after what is taken.
                let blocks = (reached - range_start) / size + 1;
                start = range_start + blocks * size;
            }
            position += 1;
            start = self.ranges.get(position).map_or(0, |range| range.0);
        }
        None
    }

    fn is_released(&self, start: u128) -> bool {
        self.released
            .iter()
            .any(|(block, _)| to_number(block.network()) == start)
    }
}

/// First and last address of a block.
fn bounds(block: &IpNet) -> (u128, u128) {
    (to_number(block.network()), to_number(block.broadcast()))
}

mod config;
#[cfg(test)]
mod tests;
