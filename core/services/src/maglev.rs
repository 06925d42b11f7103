//! Maglev tables: the same set of backends gives the same table on every node, and a change moves little.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4.
//! The hash, its seed, what of a backend is hashed and the order of turns are those of Cilium, so that nodes
//! of both agree while backends have equal weights.

mod murmur;
#[cfg(test)]
mod tests;

use crate::BackendKey;
use murmur::murmur3_x64_128;

/// The sizes that a table may have: primes, since each backend's steps must visit every place (Cilium's
/// `bpf-lb-maglev-table-size`).
pub const TABLE_SIZES: [u32; 10] = [
    251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071,
];

/// Size and seed of tables. All nodes of a cluster need the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaglevConfig {
    size: u32,
    seed: u32,
}

impl Default for MaglevConfig {
    /// 16,381 places, which keeps 160 backends within 1 % of each other; and the seed `JLfvgnHc2kaSUFaI`
    /// (Cilium's `bpf-lb-maglev-hash-seed`), of whose 12 bytes in base64 this hash takes the first four.
    fn default() -> Self {
        Self {
            size: 16_381,
            seed: 0x24b7_ef82,
        }
    }
}

/// A table cannot have this size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a Maglev table cannot have {size} places; it can have one of {TABLE_SIZES:?}")]
pub struct TableSizeError {
    /// The size.
    pub size: u32,
}

impl MaglevConfig {
    /// Tables of this size, with the default seed.
    ///
    /// # Errors
    ///
    /// [`TableSizeError`] for a size that is not one of [`TABLE_SIZES`].
    pub fn with_size(size: u32) -> Result<Self, TableSizeError> {
        if !TABLE_SIZES.contains(&size) {
            return Err(TableSizeError { size });
        }
        Ok(Self {
            size,
            ..Self::default()
        })
    }

    /// Places of a table.
    pub const fn size(self) -> u32 {
        self.size
    }
}

/// A backend's steps through the places of a table.
struct Turns {
    /// The place that it wants next.
    place: u32,
    /// From one place to the next that it wants; coprime to the size.
    skip: u32,
    weight: u64,
    /// What `weight` times the round has to reach before the next turn.
    due: u64,
}

/// A table of places, each of one backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Maglev {
    backends: Vec<BackendKey>,
    table: Vec<u32>,
}

impl Maglev {
    /// The table for backends with their weights. Their order means nothing; one that comes several times counts
    /// with the first of its weights in ascending order, and one of weight 0 not at all.
    ///
    /// A backend's share is its weight's share of the sum, to within the places that all take turns for. Of more
    /// backends than places, those that come first in the order of their printed forms have one each, and the
    /// others none.
    pub fn new(
        config: MaglevConfig,
        backends: impl IntoIterator<Item = (BackendKey, u16)>,
    ) -> Self {
        let mut sorted: Vec<(String, BackendKey, u16)> = backends
            .into_iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(key, weight)| (hashed_text(&key), key, weight))
            .collect();
        sorted.sort();
        sorted.dedup_by_key(|(_, key, _)| *key);
        let size = config.size;
        let mut turns: Vec<Turns> = sorted
            .iter()
            .map(|(text, _, weight)| {
                let (first, second) = murmur3_x64_128(text.as_bytes(), config.seed);
                Turns {
                    // Both are smaller than the size, which has 32 bits.
                    place: (first % u64::from(size)) as u32,
                    skip: (second % u64::from(size - 1)) as u32 + 1,
                    weight: u64::from(*weight),
                    due: 0,
                }
            })
            .collect();
        Self {
            backends: sorted.into_iter().map(|(_, key, _)| key).collect(),
            table: fill(size, &mut turns),
        }
    }

    /// The backends, in the order that the table counts them by.
    pub fn backends(&self) -> &[BackendKey] {
        &self.backends
    }

    /// For each place, which of [`Maglev::backends`] has it; empty without backends.
    pub fn table(&self) -> &[u32] {
        &self.table
    }

    /// The backend of a connection with this hash.
    pub fn backend(&self, hash: u64) -> Option<&BackendKey> {
        let place = hash.checked_rem(self.table.len() as u64)?;
        let at = self.table.get(usize::try_from(place).ok()?)?;
        self.backends.get(usize::try_from(*at).ok()?)
    }
}

/// What of a backend is hashed, and what it is sorted by. It must never change: nodes of two versions would
/// send the packets of one connection to different backends.
fn hashed_text(key: &BackendKey) -> String {
    format!("[{key},State:active]")
}

/// Gives each place to a backend: they take turns, in rounds, and each takes the next place that it wants and
/// that is free. In a round the heaviest backends have a turn, and a lighter one where its weight's share of the
/// heaviest one's adds up to a turn.
fn fill(size: u32, turns: &mut [Turns]) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let Some(heaviest) = turns.iter().map(|turns| turns.weight).max() else {
        return Vec::new();
    };
    let mut table = vec![FREE; size as usize];
    let mut left = size;
    let mut round = 0_u64;
    // A round gives at least one place away, to the heaviest: there are at most `size` rounds.
    while left > 0 {
        round += 1;
        for (at, backend) in turns.iter_mut().enumerate() {
            if round * backend.weight < backend.due {
                continue;
            }
            backend.due += heaviest;
            while table[backend.place as usize] != FREE {
                backend.place = (backend.place + backend.skip) % size;
            }
            // There are fewer backends than an index has numbers: a round ends when the table is full.
            table[backend.place as usize] = at as u32;
            left -= 1;
            if left == 0 {
                break;
            }
        }
    }
    table
}
