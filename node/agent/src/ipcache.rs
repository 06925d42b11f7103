//! The wished ipcache, and what has to be written to make the kernel's equal to it.

use heddle_datapath::PeerRow;
use heddle_model::Identity;
use heddle_policy::{CidrAssignment, CidrScope};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Who an address or range is, before policy CIDRs are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) identity: Identity,
    pub(crate) node: Option<IpAddr>,
    pub(crate) in_cluster: bool,
    pub(crate) is_node: bool,
}

impl Base {
    pub(crate) const fn outside(identity: Identity) -> Self {
        Self {
            identity,
            node: None,
            in_cluster: false,
            is_node: false,
        }
    }

    pub(crate) const fn pod(identity: Identity, node: Option<IpAddr>) -> Self {
        Self {
            identity,
            node,
            in_cluster: true,
            is_node: false,
        }
    }

    pub(crate) const fn node(identity: Identity, node: Option<IpAddr>) -> Self {
        Self {
            identity,
            node,
            in_cluster: true,
            is_node: true,
        }
    }

    pub(crate) const fn scope(&self) -> CidrScope {
        if self.in_cluster {
            CidrScope::InCluster
        } else {
            CidrScope::World
        }
    }
}

/// Rows that are wished, and rows that the kernel has.
#[derive(Debug, Default)]
pub(crate) struct Ipcache {
    ranges: BTreeMap<IpNet, Base>,
    hosts: BTreeMap<IpAddr, Base>,
    /// Prefixes that policies name.
    policy: BTreeSet<IpNet>,
    assignments: Vec<CidrAssignment>,
    /// Prefixes of the former generation, while both are in the ipcache.
    former: BTreeSet<IpNet>,
    written: BTreeMap<IpNet, PeerRow>,
    /// Prefixes of a write that failed: nobody knows whether the kernel has them.
    doubtful: BTreeSet<IpNet>,
    dirty: BTreeSet<IpNet>,
    all_dirty: bool,
}

/// What has to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) set: Vec<PeerRow>,
    pub(crate) remove: Vec<IpNet>,
}

impl Ipcache {
    /// Takes over what the kernel has; everything is compared at the next look.
    pub(crate) fn restore(&mut self, rows: Vec<PeerRow>) {
        self.written = rows.into_iter().map(|row| (row.prefix, row)).collect();
        self.all_dirty = true;
    }

    /// Replaces the ranges: the world, pod ranges.
    pub(crate) fn set_ranges(&mut self, ranges: BTreeMap<IpNet, Base>) {
        if self.ranges != ranges {
            self.ranges = ranges;
            self.all_dirty = true;
        }
    }

    /// Who one address is.
    pub(crate) fn set_host(&mut self, address: IpAddr, base: Option<Base>) {
        let before = match base {
            Some(base) => self.hosts.insert(address, base),
            None => self.hosts.remove(&address),
        };
        if before != base {
            self.dirty.insert(IpNet::from(address));
        }
    }

    /// The prefixes that policies name now. True when they changed.
    pub(crate) fn set_assignments(&mut self, mut assignments: Vec<CidrAssignment>) -> bool {
        assignments.sort_unstable();
        if self.assignments == assignments {
            return false;
        }
        self.policy = assignments.iter().map(|one| one.prefix).collect();
        self.assignments = assignments;
        self.all_dirty = true;
        true
    }

    /// Keeps rows for these prefixes too.
    pub(crate) fn keep_policy_prefixes(&mut self, prefixes: impl Iterator<Item = IpNet>) {
        self.former = prefixes.collect();
        self.all_dirty = true;
    }

    /// Only what policies name now is kept.
    pub(crate) fn forget_policy_prefixes(&mut self) {
        self.former.clear();
        self.all_dirty = true;
    }

    /// The ranges that hold for addresses nobody is known to have.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (IpNet, Identity)> + '_ {
        self.ranges
            .iter()
            .map(|(prefix, base)| (*prefix, base.identity))
    }

    /// The base that covers a prefix: its own, else the longest range around it.
    fn base(&self, prefix: IpNet) -> Option<Base> {
        if prefix.prefix_len() == prefix.max_prefix_len()
            && let Some(base) = self.hosts.get(&prefix.addr())
        {
            return Some(*base);
        }
        self.ranges
            .iter()
            .filter(|(range, _)| range.contains(&prefix))
            .max_by_key(|(range, _)| range.prefix_len())
            .map(|(_, base)| *base)
    }

    fn is_wished(&self, prefix: IpNet) -> bool {
        self.policy.contains(&prefix)
            || self.former.contains(&prefix)
            || self.ranges.contains_key(&prefix)
            || (prefix.prefix_len() == prefix.max_prefix_len()
                && self.hosts.contains_key(&prefix.addr()))
    }

    fn row(
        &self,
        prefix: IpNet,
        covering: &dyn Fn(IpNet, CidrScope) -> Identity,
    ) -> Option<PeerRow> {
        if !self.is_wished(prefix) {
            return None;
        }
        let base = self.base(prefix)?;
        Some(PeerRow {
            prefix,
            identity: base.identity,
            cidr: covering(prefix, base.scope()),
            node: base.node,
            in_cluster: base.in_cluster,
            is_node: base.is_node,
        })
    }

    fn wished_prefixes(&self) -> BTreeSet<IpNet> {
        let hosts = self.hosts.keys().map(|address| IpNet::from(*address));
        self.policy
            .iter()
            .chain(&self.former)
            .chain(self.ranges.keys())
            .copied()
            .chain(hosts)
            .collect()
    }

    /// Every row that is wished.
    pub(crate) fn wished(
        &self,
        covering: &dyn Fn(IpNet, CidrScope) -> Identity,
    ) -> BTreeMap<IpNet, PeerRow> {
        self.wished_prefixes()
            .into_iter()
            .filter_map(|prefix| Some((prefix, self.row(prefix, covering)?)))
            .collect()
    }

    /// What differs between the wish and what was written; `covering` is the engine's
    /// `cidr_covering`.
    pub(crate) fn changes(&self, covering: &dyn Fn(IpNet, CidrScope) -> Identity) -> Changes {
        let prefixes: BTreeSet<IpNet> = if self.all_dirty {
            let mut prefixes = self.wished_prefixes();
            prefixes.extend(self.written.keys());
            prefixes.extend(&self.doubtful);
            prefixes
        } else {
            self.dirty.union(&self.doubtful).copied().collect()
        };
        let mut changes = Changes::default();
        for prefix in prefixes {
            let doubtful = self.doubtful.contains(&prefix);
            match (self.row(prefix, covering), self.written.get(&prefix)) {
                (Some(row), written) if doubtful || written != Some(&row) => {
                    changes.set.push(row);
                }
                (None, Some(_)) => changes.remove.push(prefix),
                (None, None) if doubtful => changes.remove.push(prefix),
                _ => {}
            }
        }
        changes
    }

    /// Writing the rows failed somewhere in the middle.
    pub(crate) fn doubt(&mut self, rows: &[PeerRow]) {
        self.doubtful.extend(rows.iter().map(|row| row.prefix));
    }

    /// The rows were written.
    pub(crate) fn wrote(&mut self, rows: Vec<PeerRow>) {
        for row in &rows {
            self.doubtful.remove(&row.prefix);
        }
        self.written
            .extend(rows.into_iter().map(|row| (row.prefix, row)));
    }

    /// The rows were removed.
    pub(crate) fn removed(&mut self, prefixes: &[IpNet]) {
        for prefix in prefixes {
            self.written.remove(prefix);
            self.doubtful.remove(prefix);
        }
    }

    /// Everything that [`Self::changes`] said was done.
    pub(crate) fn settled(&mut self) {
        self.dirty.clear();
        self.all_dirty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn cache() -> Ipcache {
        let mut cache = Ipcache::default();
        cache.set_ranges(BTreeMap::from([
            (net("0.0.0.0/0"), Base::outside(Identity::WORLD_IPV4)),
            (net("10.244.0.0/16"), Base::pod(Identity::UNMANAGED, None)),
        ]));
        cache
    }

    fn settle(cache: &mut Ipcache, covering: &dyn Fn(IpNet, CidrScope) -> Identity) -> Changes {
        let changes = cache.changes(covering);
        cache.wrote(changes.set.clone());
        cache.removed(&changes.remove);
        cache.settled();
        changes
    }

    #[test]
    fn only_differences_are_written() {
        let none = |_: IpNet, _: CidrScope| Identity::UNKNOWN;
        let mut cache = cache();
        assert_eq!(settle(&mut cache, &none).set.len(), 2);
        assert_eq!(settle(&mut cache, &none), Changes::default());
        let address = "10.244.0.5".parse().unwrap();
        cache.set_host(address, Some(Base::pod(Identity(300), None)));
        let changes = settle(&mut cache, &none);
        assert_eq!(changes.set[0].prefix, net("10.244.0.5/32"));
        cache.set_host(address, Some(Base::pod(Identity(300), None)));
        assert_eq!(settle(&mut cache, &none), Changes::default());
        cache.set_host(address, None);
        assert_eq!(settle(&mut cache, &none).remove, [net("10.244.0.5/32")]);
    }

    #[test]
    fn a_policy_prefix_takes_the_base_that_covers_it_and_that_bases_scope() {
        let mut cache = cache();
        cache.set_host(
            "10.244.0.5".parse().unwrap(),
            Some(Base::pod(Identity(300), None)),
        );
        let assignments = ["10.0.0.0/8", "10.244.0.0/24", "203.0.113.0/24"]
            .iter()
            .enumerate()
            .map(|(i, prefix)| CidrAssignment {
                prefix: net(prefix),
                scope: CidrScope::World,
                identity: Identity(Identity::NODE_FIRST.0 + u32::try_from(i).unwrap()),
            })
            .collect();
        assert!(cache.set_assignments(assignments));
        let covering = |prefix: IpNet, scope: CidrScope| match scope {
            CidrScope::World => Identity(1000 + u32::from(prefix.prefix_len())),
            CidrScope::InCluster => Identity(2000 + u32::from(prefix.prefix_len())),
        };
        let rows: BTreeMap<_, _> = settle(&mut cache, &covering)
            .set
            .into_iter()
            .map(|row| (row.prefix, (row.identity.0, row.cidr.0, row.in_cluster)))
            .collect();
        let expected = BTreeMap::from([
            (net("0.0.0.0/0"), (9, 1000, false)),
            (net("10.0.0.0/8"), (9, 1008, false)),
            (net("10.244.0.0/16"), (3, 2016, true)),
            (net("10.244.0.0/24"), (3, 2024, true)),
            (net("10.244.0.5/32"), (300, 2032, true)),
            (net("203.0.113.0/24"), (9, 1024, false)),
        ]);
        assert_eq!(rows, expected);
    }

    #[test]
    fn rows_of_a_former_run_are_compared_and_stale_ones_removed() {
        let none = |_: IpNet, _: CidrScope| Identity::UNKNOWN;
        let mut cache = cache();
        let first = cache.changes(&none).set;
        let mut rows = first.clone();
        rows.push(PeerRow {
            prefix: net("10.244.3.3/32"),
            ..first[1].clone()
        });
        cache.restore(rows);
        let changes = cache.changes(&none);
        assert!(changes.set.is_empty());
        assert_eq!(changes.remove, [net("10.244.3.3/32")]);
    }
}
