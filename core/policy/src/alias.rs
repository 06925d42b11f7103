//! Reading and changing a compiled policy by identity, where many identities have one's entries.

use crate::compiled::{self, Alias, CompiledPolicy, Direction, Entry, EntryKey};
use heddle_model::Identity;
use std::{collections::BTreeSet, ops::Range};

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

impl CompiledPolicy {
    /// The entry that decides, found as the datapath finds it: for the peer's identity, its CIDR identity
    /// (if not 0) and anybody the longest prefix each, then the highest precedence. `None` drops. Where the entry is
    /// another identity's, its key names the one that was asked about.
    ///
    /// For ICMP the port is the message type.
    pub fn lookup(
        &self,
        direction: Direction,
        peer: Identity,
        cidr: Identity,
        protocol: u8,
        port: u16,
    ) -> Option<Entry> {
        let mut found: Option<Entry> = None;
        let keys = [
            Some(peer),
            Some(cidr).filter(|c| c.0 != 0),
            Some(Identity::UNKNOWN),
        ];
        for identity in keys.into_iter().flatten() {
            let like = self.like(direction, identity);
            let Some(mut entry) = self.longest(direction, like, protocol, port).copied() else {
                continue;
            };
            entry.key.identity = identity;
            if found.is_none_or(|best| entry.precedence > best.precedence) {
                found = Some(entry);
            }
        }
        found
    }

    /// The entry with the longest prefix for one key.
    fn longest(
        &self,
        direction: Direction,
        identity: Identity,
        protocol: u8,
        port: u16,
    ) -> Option<&Entry> {
        let find = |protocol: u8, port: u16, port_prefix: u8| {
            let key = EntryKey {
                direction,
                identity,
                protocol,
                port,
                port_prefix,
            };
            self.entries
                .binary_search_by(|entry| entry.key.cmp(&key))
                .ok()
                .map(|at| &self.entries[at])
        };
        (0..=16u8)
            .rev()
            .find_map(|bits| {
                let mask = u16::MAX.checked_shl(16 - u32::from(bits)).unwrap_or(0);
                find(protocol, port & mask, bits)
            })
            .or_else(|| find(0, 0, 0))
    }

    /// How much of an endpoint's room for entries the policy takes: the entries beyond the first of each identity
    /// and direction. One for each is not counted, and aliases are not: how many identities there are is not the
    /// policy's doing.
    pub fn size(&self) -> usize {
        compiled::size(&self.entries)
    }

    /// The entries that count for an identity; their keys may name another. Those for anybody are not among them.
    pub fn entries_of(&self, direction: Direction, identity: Identity) -> &[Entry] {
        let range = self.range(direction, self.like(direction, identity));
        self.entries.get(range).unwrap_or_default()
    }

    /// All entries, as if every identity had its own, sorted. There may be millions of them: no list is made.
    pub fn expanded(&self) -> impl Iterator<Item = Entry> {
        self.identities()
            .into_iter()
            .flat_map(|(_, identity, entries)| {
                entries.iter().map(move |entry| {
                    let mut entry = *entry;
                    entry.key.identity = identity;
                    entry
                })
            })
    }

    /// How many entries [`Self::expanded`] gives.
    pub fn expanded_len(&self) -> usize {
        let identities = self.identities().into_iter();
        identities.map(|(_, _, entries)| entries.len()).sum()
    }

    /// Each identity of each direction, sorted, with the entries that count for it.
    fn identities(&self) -> Vec<(Direction, Identity, &[Entry])> {
        let place = |entry: &Entry| (entry.key.direction, entry.key.identity);
        let own = self
            .entries
            .chunk_by(|one, next| place(one) == place(next))
            .filter_map(|entries| {
                let (direction, identity) = place(entries.first()?);
                Some((direction, identity, entries))
            });
        let aliases = self.aliases.iter().map(|alias| {
            let shared = self.entries_of(alias.direction, alias.like);
            (alias.direction, alias.identity, shared)
        });
        let mut identities: Vec<_> = own.chain(aliases).collect();
        identities.sort_unstable_by_key(|(direction, identity, _)| (*direction, *identity));
        identities
    }

    /// Makes an identity mean nothing. Where others have its entries, they keep them.
    pub fn forget(&mut self, identity: Identity) {
        for direction in DIRECTIONS {
            if let Ok(at) = self.find_alias(direction, identity) {
                self.aliases.remove(at);
                continue;
            }
            let range = self.range(direction, identity);
            if range.is_empty() {
                continue;
            }
            let mut entries: Vec<Entry> = self.entries.drain(range).collect();
            let follows = |alias: &Alias| alias.direction == direction && alias.like == identity;
            let Some(first) = self.aliases.iter().position(follows) else {
                continue;
            };
            let heir = self.aliases.remove(first).identity;
            for alias in self.aliases.iter_mut().filter(|alias| follows(alias)) {
                alias.like = heir;
            }
            for entry in &mut entries {
                entry.key.identity = heir;
            }
            let at = self.range(direction, heir).start;
            self.entries.splice(at..at, entries);
        }
    }

    /// Makes an identity that means nothing yet mean what another means.
    pub fn give(&mut self, identity: Identity, like: Identity) {
        for direction in DIRECTIONS {
            let like = self.like(direction, like);
            if self.range(direction, like).is_empty() {
                continue;
            }
            if let Err(at) = self.find_alias(direction, identity) {
                let alias = Alias {
                    direction,
                    identity,
                    like,
                };
                self.aliases.insert(at, alias);
            }
        }
    }

    /// Replaces all that is said of some identities by one entry in each direction.
    pub fn replace(&mut self, identities: &BTreeSet<Identity>, entry: impl Fn(EntryKey) -> Entry) {
        for identity in identities {
            self.forget(*identity);
        }
        for identity in identities {
            self.entries.extend(DIRECTIONS.map(|direction| {
                entry(EntryKey {
                    direction,
                    identity: *identity,
                    protocol: 0,
                    port: 0,
                    port_prefix: 0,
                })
            }));
        }
        self.entries.sort_unstable_by_key(|entry| entry.key);
    }

    /// The identity whose entries count for this one.
    fn like(&self, direction: Direction, identity: Identity) -> Identity {
        let found = self.find_alias(direction, identity).ok();
        let alias = found.and_then(|at| self.aliases.get(at));
        alias.map_or(identity, |alias| alias.like)
    }

    fn find_alias(&self, direction: Direction, identity: Identity) -> Result<usize, usize> {
        self.aliases
            .binary_search_by_key(&(direction, identity), |alias| {
                (alias.direction, alias.identity)
            })
    }

    fn range(&self, direction: Direction, identity: Identity) -> Range<usize> {
        let place = |entry: &Entry| (entry.key.direction, entry.key.identity);
        let wanted = (direction, identity);
        let start = self.entries.partition_point(|entry| place(entry) < wanted);
        let end = self.entries.partition_point(|entry| place(entry) <= wanted);
        start..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiled::EntryVerdict;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What a policy says, written out: direction, identity, protocol and port, and cookie.
    type Meaning = BTreeMap<(Direction, u32), Vec<(u16, u32)>>;

    fn meaning(policy: &CompiledPolicy) -> Meaning {
        let mut meaning = Meaning::new();
        for entry in policy.expanded() {
            let key = (entry.key.direction, entry.key.identity.0);
            let said = (entry.key.port, entry.cookie);
            meaning.entry(key).or_default().push(said);
        }
        meaning
    }

    fn entry(direction: Direction, identity: u32, port: u16, cookie: u32) -> Entry {
        Entry {
            key: EntryKey {
                direction,
                identity: Identity(identity),
                protocol: 6,
                port,
                port_prefix: 16,
            },
            verdict: EntryVerdict::Allow,
            precedence: 1,
            cookie,
        }
    }

    /// A policy in which every third identity has entries, and some of the others have theirs.
    fn policies() -> impl Strategy<Value = CompiledPolicy> {
        let owners = prop::collection::vec((any::<bool>(), 1..4u16), 4);
        let others = prop::collection::vec((any::<bool>(), prop::option::of(0..4u32)), 8);
        (owners, others).prop_map(|(owners, others)| {
            let direction = |ingress: bool| DIRECTIONS[usize::from(!ingress)];
            let mut policy = CompiledPolicy {
                ingress_enforced: true,
                egress_enforced: true,
                entries: Vec::new(),
                aliases: Vec::new(),
                audit: false,
            };
            for (number, (ingress, ports)) in (0..).zip(&owners) {
                policy.entries.extend(
                    (0..*ports)
                        .map(|port| entry(direction(*ingress), 3 * number + 1, port, number)),
                );
            }
            for (number, (_, like)) in (0..).zip(&others) {
                let Some(like) = like else { continue };
                // Never a number that has entries: those are 1, 4, 7 and 10.
                let identity = 3 * (number / 2) + 2 + number % 2;
                policy.aliases.push(Alias {
                    direction: direction(owners[*like as usize].0),
                    identity: Identity(identity),
                    like: Identity(3 * like + 1),
                });
            }
            policy.entries.sort_unstable();
            policy.aliases.sort_unstable();
            policy
        })
    }

    proptest! {
        /// Against a map in which every identity has its own entries.
        #[test]
        fn changes_mean_what_they_say(
            policy in policies(),
            changes in prop::collection::vec((1..14u32, prop::option::of(1..14u32)), 0..12),
        ) {
            let mut policy = policy;
            let mut expected = meaning(&policy);
            for (identity, like) in changes {
                policy.forget(Identity(identity));
                for direction in DIRECTIONS {
                    expected.remove(&(direction, identity));
                }
                if let Some(like) = like {
                    policy.give(Identity(identity), Identity(like));
                    for direction in DIRECTIONS {
                        if let Some(said) = expected.get(&(direction, like)).cloned() {
                            expected.insert((direction, identity), said);
                        }
                    }
                }
                prop_assert_eq!(&meaning(&policy), &expected);
                prop_assert!(policy.entries.is_sorted_by_key(|entry| entry.key));
                prop_assert!(policy.aliases.is_sorted());
                for alias in &policy.aliases {
                    let own = policy.range(alias.direction, alias.identity);
                    prop_assert!(own.is_empty(), "{alias:?} has entries, too");
                    let like = policy.range(alias.direction, alias.like);
                    prop_assert!(!like.is_empty(), "{alias:?} has nobody's entries");
                }
            }
        }

        #[test]
        fn a_lookup_finds_what_the_identitys_own_entries_would_say(policy in policies()) {
            let mut written_out = policy.clone();
            written_out.entries = policy.expanded().collect();
            prop_assert_eq!(policy.expanded_len(), written_out.entries.len());
            prop_assert!(written_out.entries.is_sorted_by_key(|entry| entry.key));
            written_out.aliases.clear();
            for direction in DIRECTIONS {
                for identity in 0..14 {
                    for port in 0..4 {
                        let found = |policy: &CompiledPolicy| {
                            policy.lookup(direction, Identity(identity), Identity(0), 6, port)
                        };
                        prop_assert_eq!(found(&policy), found(&written_out));
                    }
                }
            }
        }
    }

    #[test]
    fn only_entries_beyond_an_identitys_first_count() {
        let mut policy = CompiledPolicy {
            ingress_enforced: true,
            egress_enforced: true,
            entries: vec![
                entry(Direction::Ingress, 1, 80, 1),
                entry(Direction::Ingress, 1, 81, 1),
                entry(Direction::Ingress, 2, 80, 1),
                entry(Direction::Egress, 2, 80, 1),
                entry(Direction::Egress, 2, 81, 1),
                entry(Direction::Egress, 2, 82, 1),
            ],
            aliases: Vec::new(),
            audit: false,
        };
        assert_eq!(policy.size(), 3);
        policy.give(Identity(3), Identity(2));
        assert_eq!((policy.size(), policy.aliases.len()), (3, 2));
    }
}
