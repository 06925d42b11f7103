//! What becomes of a policy in force when addresses get other CIDR identities.

use heddle_model::Identity;
use heddle_policy::compiled::{PRECEDENCE_CLOSED, size};
use heddle_policy::{CidrChange, CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};
use std::collections::BTreeSet;

/// The policy with rows for the fresh numbers of some changes: each means what the number that its addresses
/// bore meant. `None` when that changes nothing.
///
/// The changes are taken one after the other: one may build on a number that an earlier one made.
pub(crate) fn with_fresh(
    policy: &CompiledPolicy,
    changes: &[CidrChange],
) -> Option<CompiledPolicy> {
    let mut extended = policy.clone();
    let mut done = Vec::<Identity>::new();
    for change in changes.iter().filter(|change| change.fresh) {
        if done.contains(&change.after) {
            continue;
        }
        done.push(change.after);
        extended.forget(change.after);
        if change.before != Identity::UNKNOWN {
            extended.give(change.after, change.before);
        }
    }
    (extended != *policy).then_some(extended)
}

/// A policy that is not the wished one, before numbers of addresses are joined because the wished policies say
/// the same of them. Where this one does not, it denies both from now on, by entries with this cookie: it can no
/// longer tell them apart. `None` when it says the same of all.
pub(crate) fn with_joined(
    policy: &CompiledPolicy,
    changes: &[CidrChange],
    cookie: u32,
) -> Option<CompiledPolicy> {
    let without_peer = |row: &Entry| EntryKey {
        identity: Identity::UNKNOWN,
        ..row.key
    };
    let rows = |identity: Identity| -> Vec<_> {
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .flat_map(|direction| policy.entries_of(direction, identity))
            .map(|row| (without_peer(row), row.verdict, row.precedence))
            .collect()
    };
    let denied: BTreeSet<Identity> = changes
        .iter()
        .filter(|change| !change.fresh && change.before != change.after)
        .filter(|change| rows(change.before) != rows(change.after))
        .map(|change| change.after)
        .collect();
    if denied.is_empty() {
        return None;
    }
    let mut reduced = policy.clone();
    reduced.replace(&denied, |key| Entry {
        key,
        verdict: EntryVerdict::Deny,
        precedence: PRECEDENCE_CLOSED,
        cookie,
    });
    Some(reduced)
}

/// A policy of at most this size (see [`CompiledPolicy::size`]): all entries that deny, and of those that allow the ones for reserved identities, pods and
/// then addresses, as far as there is room; those for the identities in `last` go first. It allows nothing that
/// the whole policy does not: of the entries for one peer, a wider one is never stronger than a narrower one.
pub(crate) fn truncated(
    policy: &CompiledPolicy,
    most: usize,
    last: &BTreeSet<Identity>,
) -> CompiledPolicy {
    let (mut entries, mut allowing): (Vec<Entry>, Vec<Entry>) = policy
        .entries
        .iter()
        .partition(|entry| entry.verdict == EntryVerdict::Deny);
    let mut taken = size(&entries);
    if taken > most {
        return closed();
    }
    let peer = |entry: &Entry| (entry.key.direction, entry.key.identity);
    let mut peers: BTreeSet<_> = entries.iter().map(peer).collect();
    allowing.sort_by_key(|entry| (last.contains(&entry.key.identity), entry.key.identity));
    for entry in allowing {
        if !peers.insert(peer(&entry)) {
            if taken == most {
                continue;
            }
            taken += 1;
        }
        entries.push(entry);
    }
    entries.sort_unstable_by_key(|entry| entry.key);
    let mut aliases = policy.aliases.clone();
    aliases.retain(|alias| peers.contains(&(alias.direction, alias.like)));
    CompiledPolicy {
        entries,
        aliases,
        ..policy.clone()
    }
}

/// A policy that lets nothing pass.
const fn closed() -> CompiledPolicy {
    CompiledPolicy {
        ingress_enforced: true,
        egress_enforced: true,
        entries: Vec::new(),
        aliases: Vec::new(),
        audit: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_policy::CidrScope;

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
            aliases: Vec::new(),
            audit: false,
        }
    }

    fn fresh(before: u32, after: u32) -> CidrChange {
        CidrChange {
            prefix: "192.0.2.0/24".parse().unwrap(),
            scope: CidrScope::World,
            before: Identity(before),
            after: Identity(after),
            fresh: true,
            named: true,
        }
    }

    #[test]
    fn a_fresh_number_means_what_the_one_before_it_meant() {
        let policy = allowing(&[1, 9]);
        assert_eq!(with_fresh(&policy, &[]), None);
        assert_eq!(with_fresh(&policy, &[fresh(2, 3)]), None);
        let extended = with_fresh(&policy, &[fresh(1, 3), fresh(1, 3), fresh(3, 4)]).unwrap();
        for identity in [3, 4] {
            let said = |identity| extended.entries_of(Direction::Ingress, Identity(identity));
            assert_eq!(said(identity), said(1));
        }
        assert_eq!(extended.size(), policy.size());
        // A number that stale rows are left of starts anew.
        assert_eq!(with_fresh(&policy, &[fresh(0, 9)]), Some(allowing(&[1])));
        let told = CidrChange {
            fresh: false,
            ..fresh(1, 5)
        };
        assert_eq!(with_fresh(&policy, &[told]), None);
    }

    #[test]
    fn a_policy_denies_addresses_that_it_can_no_longer_tell_apart() {
        let joined = |before, after| CidrChange {
            fresh: false,
            ..fresh(before, after)
        };
        let policy = allowing(&[1, 2, 9]);
        // It says the same of both.
        assert_eq!(with_joined(&policy, &[joined(1, 2)], 7), None);
        assert_eq!(with_joined(&policy, &[joined(3, 4), fresh(3, 1)], 7), None);
        // Allowed joins what is not, and the other way round.
        for (before, after) in [(3, 1), (1, 3)] {
            let reduced = with_joined(&policy, &[joined(before, after)], 7).unwrap();
            for direction in [Direction::Ingress, Direction::Egress] {
                let found = reduced.lookup(direction, Identity(9), Identity(after), 6, 80);
                assert_eq!(found.unwrap().verdict, EntryVerdict::Deny);
                assert_eq!(found.unwrap().cookie, 7);
            }
            let other = reduced.lookup(Direction::Ingress, Identity(0), Identity(2), 6, 80);
            assert_eq!(other.unwrap().verdict, EntryVerdict::Allow);
        }
        assert_eq!(
            closed().lookup(Direction::Ingress, Identity::HOST, Identity(0), 6, 80),
            None
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_of_what_is_allowed_and_never_of_what_is_denied() {
        // Two entries for each: the first does not count.
        let mut policy = allowing(&[0, 0, 300, 300, 301, 301, 1 << 24, 1 << 24]);
        for (number, entry) in policy.entries.iter_mut().enumerate() {
            entry.key.protocol = [6, 17][number % 2];
        }
        for entry in &mut policy.entries[2..4] {
            entry.verdict = EntryVerdict::Deny;
        }
        let identities = |policy: &CompiledPolicy| -> Vec<u32> {
            policy
                .entries
                .iter()
                .filter(|entry| entry.key.protocol == 17)
                .map(|entry| entry.key.identity.0)
                .collect()
        };
        let none = BTreeSet::new();
        assert_eq!(
            identities(&truncated(&policy, 4, &none)),
            [0, 300, 301, 1 << 24]
        );
        assert_eq!(identities(&truncated(&policy, 3, &none)), [0, 300, 301]);
        let last = BTreeSet::from([Identity(0)]);
        assert_eq!(
            identities(&truncated(&policy, 3, &last)),
            [300, 301, 1 << 24]
        );
        assert_eq!(identities(&truncated(&policy, 1, &none)), [300]);
        assert_eq!(truncated(&policy, 1, &none).entries.len(), 5);
        assert_eq!(truncated(&policy, 0, &none), closed());
    }
}
