//! The prefixes that matter to policy, in one scope.

use super::{AreaNo, classes::ClassNo};
use crate::facts::{family, shorten};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Why a prefix is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Point {
    /// The areas that begin here, and those that have a hole here.
    pub(super) marks: Vec<(AreaNo, bool)>,
    /// Known from before a restart, and not yet settled.
    pub(super) held: bool,
    pub(super) class: Option<ClassNo>,
}

impl Point {
    /// True when policies name it, or did before a restart.
    pub(super) fn is_named(&self) -> bool {
        self.held || !self.marks.is_empty()
    }
}

/// How many prefixes there are of each length, by family.
pub(super) type Lengths = [BTreeMap<u8, usize>; 2];

/// The prefixes of one scope.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    pub(super) points: BTreeMap<IpNet, Point>,
    lengths: Lengths,
}

impl Points {
    pub(super) fn get(&self, prefix: IpNet) -> Option<&Point> {
        self.points.get(&prefix)
    }

    pub(super) fn entry(&mut self, prefix: IpNet) -> &mut Point {
        self.points.entry(prefix).or_insert_with(|| {
            *self.lengths[family(prefix)]
                .entry(prefix.prefix_len())
                .or_default() += 1;
            Point::default()
        })
    }

    pub(super) fn remove(&mut self, prefix: IpNet) {
        if self.points.remove(&prefix).is_some() {
            let lengths = &mut self.lengths[family(prefix)];
            if let Some(count) = lengths.get_mut(&prefix.prefix_len()) {
                *count -= 1;
                if *count == 0 {
                    lengths.remove(&prefix.prefix_len());
                }
            }
        }
    }

    /// The known prefixes that cover `prefix`, itself included, the longest first.
    pub(super) fn around(&self, prefix: IpNet) -> impl Iterator<Item = &Point> {
        self.lengths[family(prefix)]
            .range(..=prefix.prefix_len())
            .rev()
            .filter_map(move |(length, _)| self.get(shorten(prefix, *length)?))
    }

    /// The known prefixes inside a block, itself included.
    pub(super) fn within(&self, block: IpNet) -> impl Iterator<Item = (IpNet, &Point)> {
        // Prefixes sort by network address, then length: those inside are a contiguous range.
        let last = IpNet::from(block.broadcast());
        self.points
            .range(block..=last)
            .filter(move |(prefix, _)| block.contains(*prefix))
            .map(|(prefix, point)| (*prefix, point))
    }
}
