//! The wished ipcache, and what has to be written to make the kernel's equal to it.

use super::prefixes::{PrefixTable, inside};
use heddle_datapath::PeerRow;
use heddle_model::Identity;
use heddle_policy::{CidrAssignment, CidrChange, CidrScope};
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

/// Identities of a prefix that policies name: of its addresses outside the cluster, and inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cidr {
    world: Option<Identity>,
    in_cluster: Option<Identity>,
}

impl Cidr {
    const fn of(&mut self, scope: CidrScope) -> &mut Option<Identity> {
        match scope {
            CidrScope::World => &mut self.world,
            CidrScope::InCluster => &mut self.in_cluster,
        }
    }
}

/// Rows that are wished, and rows that the kernel has.
#[derive(Debug, Default)]
pub(crate) struct Ipcache {
    ranges: PrefixTable<Base>,
    hosts: BTreeMap<IpAddr, Base>,
    /// Prefixes that policies name, with the identities that their addresses bear.
    cidrs: BTreeMap<IpNet, Cidr>,
    written: BTreeMap<IpNet, PeerRow>,
    /// Prefixes of a write that failed: nobody knows whether the kernel has them.
    doubtful: BTreeSet<IpNet>,
    dirty: BTreeSet<IpNet>,
    all_dirty: bool,
    /// Addresses of pods that the map had no room for.
    left_out: BTreeSet<IpNet>,
}

/// What has to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) set: Vec<PeerRow>,
    pub(crate) remove: Vec<IpNet>,
    /// Addresses of pods for which there is no room; without a row they are `unmanaged`, as their range is.
    pub(crate) left_out: BTreeSet<IpNet>,
}

impl Ipcache {
    /// Takes over what the kernel has; everything is compared at the next look.
    pub(crate) fn restore(&mut self, rows: Vec<PeerRow>, cidrs: &[CidrAssignment]) {
        for one in cidrs {
            *self.cidrs.entry(one.prefix).or_default().of(one.scope) = Some(one.identity);
        }
        self.written = rows.into_iter().map(|row| (row.prefix, row)).collect();
        self.all_dirty = true;
    }

    /// Replaces the ranges: the world, pod ranges.
    pub(crate) fn set_ranges(&mut self, ranges: BTreeMap<IpNet, Base>) {
        if *self.ranges.rows() != ranges {
            self.ranges = ranges.into_iter().collect();
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

    /// The CIDR identities that addresses bear, by the prefixes that policies name.
    pub(crate) fn cidrs(&self) -> Vec<CidrAssignment> {
        let scopes = [CidrScope::World, CidrScope::InCluster];
        self.cidrs
            .iter()
            .flat_map(|(prefix, cidr)| scopes.map(|scope| (*prefix, *cidr, scope)))
            .filter_map(|(prefix, mut cidr, scope)| {
                Some(CidrAssignment {
                    prefix,
                    scope,
                    identity: (*cidr.of(scope))?,
                })
            })
            .collect()
    }

    /// The addresses of a prefix bear another CIDR identity.
    pub(crate) fn change_cidr(&mut self, change: &CidrChange) {
        let cidr = self.cidrs.entry(change.prefix).or_default();
        *cidr.of(change.scope) = change.named.then_some(change.after);
        if *cidr == Cidr::default() {
            self.cidrs.remove(&change.prefix);
        }
        let (first, last) = (change.prefix.network(), change.prefix.broadcast());
        let hosts = self
            .hosts
            .range(first..=last)
            .map(|(host, _)| (*host).into());
        let cidrs = inside(&self.cidrs, change.prefix);
        let ranges = self.ranges.inside(change.prefix);
        self.dirty.extend(hosts.chain(cidrs.chain(ranges).copied()));
        self.dirty.insert(change.prefix);
    }

    /// The CIDR identity that addresses of a prefix bear: that of the longest prefix around it which
    /// policies name; 0 without one.
    pub(crate) fn cidr(&self, prefix: IpNet, scope: CidrScope) -> Identity {
        let mut at = Some(prefix.trunc());
        while let Some(candidate) = at {
            let cidr = self.cidrs.get(&candidate).copied();
            if let Some(identity) = cidr.and_then(|mut cidr| *cidr.of(scope)) {
                return identity;
            }
            at = candidate.supernet();
        }
        Identity::UNKNOWN
    }

    /// The ranges that hold for addresses nobody is known to have.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (IpNet, Identity)> + '_ {
        let ranges = self.ranges.rows().iter();
        ranges.map(|(prefix, base)| (*prefix, base.identity))
    }

    /// The base that covers a prefix: its own, else the longest range around it.
    fn base(&self, prefix: IpNet) -> Option<Base> {
        if prefix.prefix_len() == prefix.max_prefix_len()
            && let Some(base) = self.hosts.get(&prefix.addr())
        {
            return Some(*base);
        }
        self.range(prefix)
    }

    /// The base of the longest range around a prefix.
    fn range(&self, prefix: IpNet) -> Option<Base> {
        self.ranges.longest(prefix).map(|(_, base)| *base)
    }

    fn is_wished(&self, prefix: IpNet) -> bool {
        self.cidrs.contains_key(&prefix)
            || self.ranges.rows().contains_key(&prefix)
            || (prefix.prefix_len() == prefix.max_prefix_len()
                && self.hosts.contains_key(&prefix.addr()))
    }

    fn row(&self, prefix: IpNet) -> Option<PeerRow> {
        if !self.is_wished(prefix) {
            return None;
        }
        let base = self.base(prefix)?;
        Some(PeerRow {
            prefix,
            identity: base.identity,
            cidr: self.cidr(prefix, base.scope()),
            node: base.node,
            in_cluster: base.in_cluster,
            is_node: base.is_node,
        })
    }

    fn wished_prefixes(&self) -> BTreeSet<IpNet> {
        let hosts = self.hosts.keys().map(|address| IpNet::from(*address));
        self.cidrs
            .keys()
            .chain(self.ranges.rows().keys())
            .copied()
            .chain(hosts)
            .collect()
    }

    /// Every row that is wished.
    pub(crate) fn wished(&self) -> BTreeMap<IpNet, PeerRow> {
        self.wished_prefixes()
            .into_iter()
            .filter_map(|prefix| Some((prefix, self.row(prefix)?)))
            .collect()
    }

    /// What differs between the wish and what was written, in the order to write it in: on the way an
    /// address finds the row it had or the one it is to have, never that of a prefix in between.
    ///
    /// Beyond `most` rows, pods' addresses inside pod ranges get none: without one they are `unmanaged`.
    pub(crate) fn changes(&self, most: usize) -> Changes {
        let prefixes: BTreeSet<IpNet> = if self.all_dirty {
            let mut prefixes = self.wished_prefixes();
            prefixes.extend(self.written.keys());
            prefixes.extend(&self.doubtful);
            prefixes
        } else {
            let mut prefixes = &self.dirty | &self.doubtful;
            prefixes.extend(&self.left_out);
            prefixes
        };
        let mut changes = Changes::default();
        let mut new_pods = Vec::new();
        for prefix in prefixes {
            let doubtful = self.doubtful.contains(&prefix);
            match (self.row(prefix), self.written.get(&prefix)) {
                (Some(row), None) if !doubtful && self.can_do_without(&row) => new_pods.push(row),
                (Some(row), written) if doubtful || written != Some(&row) => {
                    changes.set.push(row);
                }
                (None, Some(_)) => changes.remove.push(prefix),
                (None, None) if doubtful => changes.remove.push(prefix),
                _ => {}
            }
        }
        let length = |prefix: &IpNet| prefix.prefix_len();
        let new = changes.set.iter();
        let new = new.filter(|row| !self.written.contains_key(&row.prefix));
        let taken = self.written.len() + new.count();
        let late = new_pods.split_off(most.saturating_sub(taken).min(new_pods.len()));
        changes.left_out = late.into_iter().map(|row| row.prefix).collect();
        changes.set.append(&mut new_pods);
        changes
            .set
            .sort_by_key(|row| std::cmp::Reverse(length(&row.prefix)));
        changes.remove.sort_by_key(length);
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

    /// Everything that [`Self::changes`] said was done, but for what was left out.
    pub(crate) fn settled(&mut self, left_out: BTreeSet<IpNet>) {
        self.dirty.clear();
        self.all_dirty = false;
        self.left_out = left_out;
    }

    /// A pod's address of which its range says `unmanaged`.
    fn can_do_without(&self, row: &PeerRow) -> bool {
        let is_address = row.prefix.prefix_len() == row.prefix.max_prefix_len();
        is_address
            && row.in_cluster
            && !row.is_node
            && !self.cidrs.contains_key(&row.prefix)
            && self
                .range(row.prefix)
                .is_some_and(|range| range.identity == Identity::UNMANAGED)
    }
}

/// The CIDR identities that the kernel's rows bear, as a former run wrote them down if that is what the rows
/// say; else each row for itself.
pub(crate) fn borne(
    rows: &[PeerRow],
    written_down: Option<Vec<CidrAssignment>>,
) -> Vec<CidrAssignment> {
    let own = |row: &PeerRow| CidrAssignment {
        prefix: row.prefix,
        scope: if row.in_cluster {
            CidrScope::InCluster
        } else {
            CidrScope::World
        },
        identity: row.cidr,
    };
    if let Some(cidrs) = written_down {
        let mut told = Ipcache::default();
        told.restore(Vec::new(), &cidrs);
        let prefixes: BTreeSet<IpNet> = rows.iter().map(|row| row.prefix).collect();
        let agrees = |row: &PeerRow| told.cidr(row.prefix, own(row).scope) == row.cidr;
        if rows.iter().all(agrees) && cidrs.iter().all(|one| prefixes.contains(&one.prefix)) {
            return cidrs;
        }
    }
    let rows = rows.iter().filter(|row| row.cidr != Identity::UNKNOWN);
    rows.map(own).collect()
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

    fn settle(cache: &mut Ipcache) -> Changes {
        settle_at_most(cache, usize::MAX)
    }

    fn settle_at_most(cache: &mut Ipcache, most: usize) -> Changes {
        let changes = cache.changes(most);
        cache.wrote(changes.set.clone());
        cache.removed(&changes.remove);
        cache.settled(changes.left_out.clone());
        changes
    }

    fn change(prefix: &str, scope: CidrScope, after: Option<u32>) -> CidrChange {
        CidrChange {
            prefix: net(prefix),
            scope,
            before: Identity::UNKNOWN,
            after: Identity(after.unwrap_or(0)),
            fresh: false,
            named: after.is_some(),
        }
    }

    #[test]
    fn only_differences_are_written() {
        let mut cache = cache();
        assert_eq!(settle(&mut cache).set.len(), 2);
        assert_eq!(settle(&mut cache), Changes::default());
        let address = "10.244.0.5".parse().unwrap();
        cache.set_host(address, Some(Base::pod(Identity(300), None)));
        let changes = settle(&mut cache);
        assert_eq!(changes.set[0].prefix, net("10.244.0.5/32"));
        cache.set_host(address, Some(Base::pod(Identity(300), None)));
        assert_eq!(settle(&mut cache), Changes::default());
        cache.set_host(address, None);
        assert_eq!(settle(&mut cache).remove, [net("10.244.0.5/32")]);
    }

    #[test]
    fn a_policy_prefix_takes_the_base_that_covers_it_and_that_bases_scope() {
        let mut cache = cache();
        cache.set_host(
            "10.244.0.5".parse().unwrap(),
            Some(Base::pod(Identity(300), None)),
        );
        for (prefix, scope, number) in [
            ("10.0.0.0/8", CidrScope::World, 1008),
            ("10.0.0.0/8", CidrScope::InCluster, 2008),
            ("10.244.0.0/24", CidrScope::InCluster, 2024),
            ("203.0.113.0/24", CidrScope::World, 1024),
        ] {
            cache.change_cidr(&change(prefix, scope, Some(number)));
        }
        let rows: BTreeMap<_, _> = settle(&mut cache)
            .set
            .into_iter()
            .map(|row| (row.prefix, (row.identity.0, row.cidr.0, row.in_cluster)))
            .collect();
        let expected = BTreeMap::from([
            (net("0.0.0.0/0"), (9, 0, false)),
            (net("10.0.0.0/8"), (9, 1008, false)),
            (net("10.244.0.0/16"), (3, 2008, true)),
            (net("10.244.0.0/24"), (3, 2024, true)),
            (net("10.244.0.5/32"), (300, 2024, true)),
            (net("203.0.113.0/24"), (9, 1024, false)),
        ]);
        assert_eq!(rows, expected);
        // Only what a change covers is looked at again, the longest prefix first.
        cache.change_cidr(&change("10.244.0.0/24", CidrScope::InCluster, None));
        let changes = settle(&mut cache);
        assert_eq!(changes.set[0].prefix, net("10.244.0.5/32"));
        assert_eq!(changes.set[0].cidr, Identity(2008));
        assert_eq!(changes.set.len(), 1);
        assert_eq!(changes.remove, [net("10.244.0.0/24")]);
    }

    #[test]
    fn what_was_written_down_counts_when_the_rows_agree() {
        let row = |prefix: &str, cidr: u32| PeerRow {
            prefix: net(prefix),
            identity: Identity::UNMANAGED,
            cidr: Identity(cidr),
            node: None,
            in_cluster: true,
            is_node: false,
        };
        let rows = [
            row("10.0.0.0/8", 7),
            row("10.244.0.5/32", 7),
            row("0.0.0.0/0", 0),
        ];
        let written = vec![CidrAssignment {
            prefix: net("10.0.0.0/8"),
            scope: CidrScope::InCluster,
            identity: Identity(7),
        }];
        assert_eq!(borne(&rows, Some(written.clone())), written);
        // A row that was moved since, or one that is gone: the rows know better.
        let moved = [row("10.0.0.0/8", 8), row("10.244.0.5/32", 7)];
        assert_eq!(borne(&moved, Some(written.clone())).len(), 2);
        assert_eq!(borne(&rows[1..], Some(written)).len(), 1);
        assert_eq!(borne(&rows, None).len(), 2);
    }

    #[test]
    fn rows_of_a_former_run_are_compared_and_stale_ones_removed() {
        let mut cache = cache();
        let first = cache.changes(usize::MAX).set;
        let mut rows = first.clone();
        rows.push(PeerRow {
            prefix: net("10.244.3.3/32"),
            ..first[1].clone()
        });
        cache.restore(rows, &[]);
        let changes = cache.changes(usize::MAX);
        assert!(changes.set.is_empty());
        assert_eq!(changes.remove, [net("10.244.3.3/32")]);
    }

    #[test]
    fn a_full_map_leaves_out_pods_and_nothing_else_and_takes_them_in_when_there_is_room() {
        let mut cache = cache();
        let pod = |number: u8| IpAddr::from([10, 244, 0, number]);
        for number in 1..=4 {
            cache.set_host(pod(number), Some(Base::pod(Identity(300), None)));
        }
        // Two ranges and two pods.
        let changes = settle_at_most(&mut cache, 4);
        assert_eq!(changes.set.len(), 4);
        assert_eq!(changes.left_out.len(), 2);
        // Nodes and policy prefixes come in all the same: without a row they would be somebody else.
        let node = "192.0.2.1".parse().unwrap();
        cache.set_host(node, Some(Base::node(Identity::REMOTE_NODE, None)));
        cache.change_cidr(&change("198.51.100.0/24", CidrScope::World, Some(1024)));
        let changes = settle_at_most(&mut cache, 4);
        assert_eq!(changes.set.len(), 2);
        assert_eq!(changes.left_out.len(), 2);
        // Rows that are there change.
        cache.set_host(pod(1), Some(Base::pod(Identity(301), None)));
        assert_eq!(settle_at_most(&mut cache, 4).set.len(), 1);
        cache.set_host(pod(1), None);
        assert_eq!(settle_at_most(&mut cache, 6).remove.len(), 1);
        let changes = settle_at_most(&mut cache, 6);
        assert_eq!((changes.set.len(), changes.left_out.len()), (1, 1));
        cache.set_host(pod(4), None);
        assert_eq!(settle_at_most(&mut cache, 6), Changes::default());
    }
}
