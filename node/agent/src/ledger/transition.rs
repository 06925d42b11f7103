//! Rows for CIDR identities that no policy map knows yet.

use heddle_model::Identity;
use heddle_policy::{CidrChange, CompiledPolicy};

/// The policy with rows for the fresh numbers of some changes: each means what the number that its addresses
/// bore meant. `None` when that changes nothing.
///
/// The changes are taken one after the other: one may build on a number that an earlier one made.
pub(super) fn with_fresh(
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
        extended
            .entries
            .retain(|entry| entry.key.identity != change.after);
        if change.before == Identity::UNKNOWN {
            continue;
        }
        let mut copies: Vec<_> = extended
            .entries
            .iter()
            .filter(|entry| entry.key.identity == change.before)
            .copied()
            .collect();
        for copy in &mut copies {
            copy.key.identity = change.after;
        }
        extended.entries.extend(copies);
    }
    extended.entries.sort_unstable_by_key(|entry| entry.key);
    (extended != *policy).then_some(extended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_policy::{CidrScope, Direction, Entry, EntryKey, EntryVerdict};

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
        assert_eq!(
            with_fresh(&policy, &[fresh(1, 3), fresh(1, 3), fresh(3, 4)]),
            Some(allowing(&[1, 3, 4, 9]))
        );
        // A number that stale rows are left of starts anew.
        assert_eq!(with_fresh(&policy, &[fresh(0, 9)]), Some(allowing(&[1])));
        let told = CidrChange {
            fresh: false,
            ..fresh(1, 5)
        };
        assert_eq!(with_fresh(&policy, &[told]), None);
    }
}
