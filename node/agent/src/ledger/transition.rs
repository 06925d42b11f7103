//! How policies and the ipcache change together without a moment in which neither the old nor the new
//! verdict holds.
//!
//! Policy rows name CIDR identities, and the ipcache says which addresses bear them; both cannot be
//! swapped in one step. So for a while both generations of CIDRs are in the ipcache, and the policies carry
//! aliases: first the new CIDRs mean what the old policy said of their addresses, then the old CIDRs mean
//! what the new policy says.

use heddle_datapath::PeerRow;
use heddle_model::Identity;
use heddle_policy::{CidrAssignment, CidrScope, CompiledPolicy};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// CIDR identities as the ipcache has them, or shall have them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CidrGeneration {
    prefixes: BTreeMap<(CidrScope, IpNet), Identity>,
}

impl CidrGeneration {
    pub(crate) fn of(assignments: &[CidrAssignment]) -> Self {
        Self {
            prefixes: assignments
                .iter()
                .map(|one| ((one.scope, one.prefix), one.identity))
                .collect(),
        }
    }

    /// What a former run wrote down, if every number in the kernel's rows is in it.
    pub(crate) fn of_file(path: &Path, rows: &[PeerRow]) -> Option<Self> {
        let content = std::fs::read(path).ok()?;
        let assignments: Vec<CidrAssignment> = serde_json::from_slice(&content).ok()?;
        let generation = Self::of(&assignments);
        let known = generation.identities();
        let complete = rows
            .iter()
            .all(|row| row.cidr == Identity::UNKNOWN || known.contains(&row.cidr));
        complete.then_some(generation)
    }

    /// Its numbers and prefixes.
    pub(crate) fn assignments(&self) -> Vec<CidrAssignment> {
        self.prefixes
            .iter()
            .map(|((scope, prefix), identity)| CidrAssignment {
                prefix: *prefix,
                scope: *scope,
                identity: *identity,
            })
            .collect()
    }

    /// Both generations; where both have a prefix, `self` counts.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut prefixes = other.prefixes.clone();
        prefixes.extend(
            self.prefixes
                .iter()
                .map(|(key, identity)| (*key, *identity)),
        );
        Self { prefixes }
    }

    /// What a former run left in the kernel. A number whose prefix can be proved stands for that prefix;
    /// any other holds for the prefixes of its rows.
    pub(crate) fn of_rows(rows: &[PeerRow]) -> Self {
        let mut generation = Self {
            prefixes: rows
                .iter()
                .filter(|row| row.cidr != Identity::UNKNOWN)
                .map(|row| {
                    let scope = if row.in_cluster {
                        CidrScope::InCluster
                    } else {
                        CidrScope::World
                    };
                    ((scope, row.prefix), row.cidr)
                })
                .collect(),
        };
        for one in generation.proved() {
            generation
                .prefixes
                .retain(|_, identity| *identity != one.identity);
            generation
                .prefixes
                .insert((one.scope, one.prefix), one.identity);
        }
        generation
    }

    /// Numbers with the one prefix that they can be proved to stand for: the shortest among their rows,
    /// where it covers the others.
    pub(crate) fn proved(&self) -> Vec<CidrAssignment> {
        let mut by_identity: BTreeMap<Identity, Vec<(CidrScope, IpNet)>> = BTreeMap::new();
        for (key, identity) in &self.prefixes {
            by_identity.entry(*identity).or_default().push(*key);
        }
        by_identity
            .into_iter()
            .filter_map(|(identity, keys)| {
                let (scope, prefix) = *keys.iter().min_by_key(|(_, prefix)| prefix.prefix_len())?;
                keys.iter()
                    .all(|(other, inner)| *other == scope && prefix.contains(inner))
                    .then_some(CidrAssignment {
                        prefix,
                        scope,
                        identity,
                    })
            })
            .collect()
    }

    fn covering_entry(&self, prefix: IpNet, scope: CidrScope) -> Option<(IpNet, Identity)> {
        let mut at = Some(prefix.trunc());
        while let Some(candidate) = at {
            if let Some(identity) = self.prefixes.get(&(scope, candidate)) {
                return Some((candidate, *identity));
            }
            at = candidate.supernet();
        }
        None
    }

    /// The identity of the longest prefix that covers `prefix`; 0 without one.
    pub(crate) fn covering(&self, prefix: IpNet, scope: CidrScope) -> Identity {
        self.covering_entry(prefix, scope)
            .map_or(Identity::UNKNOWN, |(_, identity)| identity)
    }

    /// As [`Self::covering`] with the prefixes of two generations; where both have the prefix, `self`
    /// counts.
    pub(crate) fn covering_either(
        &self,
        other: &Self,
        prefix: IpNet,
        scope: CidrScope,
    ) -> Identity {
        let length = |found: &(IpNet, Identity)| found.0.prefix_len();
        match (
            self.covering_entry(prefix, scope),
            other.covering_entry(prefix, scope),
        ) {
            (Some(mine), Some(theirs)) if length(&theirs) > length(&mine) => theirs.1,
            (Some(mine), _) => mine.1,
            (None, Some(theirs)) => theirs.1,
            (None, None) => Identity::UNKNOWN,
        }
    }

    fn identities(&self) -> BTreeSet<Identity> {
        self.prefixes.values().copied().collect()
    }

    /// For each number that only `self` has: what `other` says of its addresses.
    pub(crate) fn aliases_in(&self, other: &Self) -> Vec<(Identity, Identity)> {
        let theirs = other.identities();
        self.prefixes
            .iter()
            .filter(|(_, identity)| !theirs.contains(identity))
            .map(|((scope, prefix), identity)| (*identity, other.covering(*prefix, *scope)))
            .collect()
    }

    /// Every prefix, of both scopes.
    pub(crate) fn all_prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.prefixes.keys().map(|(_, prefix)| *prefix)
    }
}

/// The policy with each alias meaning what its original means (0: no policy CIDR); `None` when that
/// changes nothing.
pub(crate) fn with_aliases(
    policy: &CompiledPolicy,
    aliases: &[(Identity, Identity)],
) -> Option<CompiledPolicy> {
    let mut extended = policy.clone();
    for (alias, original) in aliases {
        extended
            .entries
            .retain(|entry| entry.key.identity != *alias);
        if *original == Identity::UNKNOWN {
            continue;
        }
        let originals = policy
            .entries
            .iter()
            .filter(|entry| entry.key.identity == *original);
        extended.entries.extend(originals.map(|entry| {
            let mut copy = *entry;
            copy.key.identity = *alias;
            copy
        }));
    }
    extended.entries.sort_unstable_by_key(|entry| entry.key);
    extended.entries.dedup_by_key(|entry| entry.key);
    (extended != *policy).then_some(extended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_policy::{Direction, Entry, EntryKey, EntryVerdict};

    fn generation(rows: &[(&str, u32)]) -> CidrGeneration {
        let assignments: Vec<_> = rows
            .iter()
            .map(|(prefix, number)| CidrAssignment {
                prefix: prefix.parse().unwrap(),
                scope: CidrScope::World,
                identity: Identity(*number),
            })
            .collect();
        CidrGeneration::of(&assignments)
    }

    fn allowing(identities: &[u32]) -> CompiledPolicy {
        CompiledPolicy {
            ingress_enforced: true,
            egress_enforced: true,
            entries: identities
                .iter()
                .map(|identity| Entry {
                    key: EntryKey {
                        direction: Direction::Ingress,
                        identity: Identity(*identity),
                        protocol: 0,
                        port: 0,
                        port_prefix: 0,
                    },
                    verdict: EntryVerdict::Allow,
                    precedence: 1 << 24,
                    cookie: 5,
                })
                .collect(),
        }
    }

    /// Whether an address is let in by a policy under an ipcache.
    fn lets_in(policy: &CompiledPolicy, cidr: Identity) -> bool {
        policy
            .lookup(Direction::Ingress, Identity::WORLD_IPV4, cidr, 6, 80)
            .is_some()
    }

    /// Walks the five steps and checks each address at each: the old verdict or the new one.
    fn walk(old: (&CidrGeneration, &CompiledPolicy), new: (&CidrGeneration, &CompiledPolicy)) {
        let entering = with_aliases(old.1, &new.0.aliases_in(old.0)).unwrap_or(old.1.clone());
        let leaving = with_aliases(new.1, &old.0.aliases_in(new.0)).unwrap_or(new.1.clone());
        for address in ["10.1.0.1/32", "10.2.0.1/32", "192.0.2.1/32"] {
            let address: IpNet = address.parse().unwrap();
            let before = lets_in(old.1, old.0.covering(address, CidrScope::World));
            let after = lets_in(new.1, new.0.covering(address, CidrScope::World));
            let both = new.0.covering_either(old.0, address, CidrScope::World);
            let first = old.0.covering(address, CidrScope::World);
            let last = new.0.covering(address, CidrScope::World);
            assert_eq!(lets_in(&entering, first), before, "{address} aliased");
            assert_eq!(
                lets_in(&entering, both),
                before,
                "{address} both, old policy"
            );
            assert_eq!(lets_in(&leaving, both), after, "{address} both, new policy");
            assert_eq!(lets_in(&leaving, last), after, "{address} new, aliased");
        }
    }

    #[test]
    fn every_step_holds_the_old_verdict_or_the_new_one() {
        let outer = generation(&[("10.0.0.0/8", 1)]);
        let hole = generation(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2)]);
        let none = generation(&[]);
        let policies = [
            allowing(&[]),
            allowing(&[1]),
            allowing(&[1, 2]),
            allowing(&[2]),
        ];
        for (a, b) in [
            (&outer, &hole),
            (&none, &hole),
            (&none, &outer),
            (&hole, &hole),
        ] {
            for from in &policies {
                for to in &policies {
                    walk((a, from), (b, to));
                    walk((b, from), (a, to));
                }
            }
        }
    }

    #[test]
    fn a_number_is_restored_only_with_a_prefix_that_covers_all_its_rows() {
        let row = |prefix: &str, cidr: u32| PeerRow {
            prefix: prefix.parse().unwrap(),
            identity: Identity::WORLD_IPV4,
            cidr: Identity(cidr),
            node: None,
            in_cluster: false,
            is_node: false,
        };
        let rows = [
            row("10.0.0.0/8", 1),
            row("10.1.0.0/16", 1),
            row("10.2.0.0/16", 2),
            row("10.3.0.0/16", 2),
            row("0.0.0.0/0", 0),
        ];
        let proved = CidrGeneration::of_rows(&rows).proved();
        assert_eq!(proved.len(), 1);
        assert_eq!(proved[0].prefix, "10.0.0.0/8".parse().unwrap());
    }
}
