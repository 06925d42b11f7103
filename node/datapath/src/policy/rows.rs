//! Rows of a policy map.

use crate::{
    DatapathError, RealisedPolicy, batch,
    maps::{PolicyMap, refused},
};
use aya::maps::{IterableMap as _, lpm_trie::Key};
use heddle_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, POLICY_ANY_PORT_PREFIX, POLICY_ANY_PROTOCOL_PREFIX,
    POLICY_PEER_ROWS, POLICY_VERDICT_ALIAS, POLICY_VERDICT_ALLOW, POLICY_VERDICT_DENY,
    PolicyBinding, PolicyKey, PolicyValue,
};
use heddle_model::Identity;
use heddle_policy::compiled::{Alias, CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};
use std::hash::{Hash as _, Hasher};

/// `BPF_F_NO_PREALLOC`, which the kernel wants of every trie: rows take memory when they are written.
const NO_PREALLOC: u32 = 1;

/// What a policy map holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rows {
    pub(crate) entries: Vec<Entry>,
    pub(crate) aliases: Vec<Alias>,
}

impl Rows {
    pub(super) fn of(policy: &CompiledPolicy) -> Self {
        Self {
            entries: policy.entries.clone(),
            aliases: policy.aliases.clone(),
        }
    }

    pub(super) fn are_of(&self, policy: &CompiledPolicy) -> bool {
        self.entries == policy.entries && self.aliases == policy.aliases
    }
}

/// A binding, and the rows of the map that it leads to.
pub(crate) fn realised(binding: PolicyBinding, rows: Option<Rows>) -> RealisedPolicy {
    let (entries, aliases) = rows.map(|rows| (rows.entries, rows.aliases)).unzip();
    RealisedPolicy {
        generation: binding.generation(),
        audit: binding.is_on_audit(),
        entries,
        aliases: aliases.unwrap_or_default(),
    }
}

/// A number that equal rows share, and others hardly ever: what it is equal for is compared.
pub(super) fn fingerprint(entries: &[Entry], aliases: &[Alias]) -> u64 {
    let mut mixed = Mixer::default();
    entries.hash(&mut mixed);
    aliases.hash(&mut mixed);
    mixed.finish()
}

/// A hasher for tens of thousands of small fields, each in a step: the standard one takes ten times as long.
#[derive(Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        // An odd multiplier spreads each bit to all higher ones (Fibonacci hashing), the rotation to the lower ones.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.mix(number as u64);
    }
}

/// Rows that a map is made for whose policies may have this size (see [`CompiledPolicy::size`]).
pub(super) const fn capacity(max_entries: u32) -> u32 {
    max_entries.saturating_add(POLICY_PEER_ROWS)
}

/// An empty policy map for policies of at most this size.
pub(crate) fn make(max_entries: u32) -> Result<PolicyMap, DatapathError> {
    PolicyMap::create(capacity(max_entries), NO_PREALLOC).map_err(refused("make", "a policy map"))
}

/// Writes the rows of a map that no packet reads yet.
pub(super) fn fill(map: &mut PolicyMap, rows: &Rows) -> Result<(), DatapathError> {
    let entries = rows.entries.iter().map(encode);
    let (keys, values): (Vec<_>, Vec<_>) =
        entries.chain(rows.aliases.iter().map(encode_alias)).unzip();
    batch::update(map.map(), &keys, &values)
        .map_err(|(_, error)| refused("write", "a policy map")(error))
}

/// Empties a map that no packet reads any more.
pub(super) fn clear(map: &mut PolicyMap) -> Result<(), DatapathError> {
    let mut keys: Vec<Key<PolicyKey>> = Vec::new();
    batch::read(map.map(), |key, _: &PolicyValue| keys.push(*key))
        .map_err(refused("read", "a policy map"))?;
    batch::remove(map.map(), &keys).map_err(|(_, error)| refused("empty", "a policy map")(error))
}

/// The rows of a map, sorted.
pub(crate) fn read(map: &PolicyMap) -> Result<Rows, DatapathError> {
    let mut rows = Rows {
        entries: Vec::new(),
        aliases: Vec::new(),
    };
    batch::read(map.map(), |key: &Key<PolicyKey>, value: &PolicyValue| {
        if value.verdict == POLICY_VERDICT_ALIAS {
            rows.aliases.push(decode_alias(key, value));
        } else {
            rows.entries.push(decode(key, value));
        }
    })
    .map_err(refused("read", "a policy map"))?;
    rows.entries.sort_unstable();
    rows.aliases.sort_unstable();
    Ok(rows)
}

fn encode_alias(alias: &Alias) -> (Key<PolicyKey>, PolicyValue) {
    let data = PolicyKey {
        identity: alias.identity.0,
        direction: direction_number(alias.direction),
        protocol: 0,
        port: 0,
    };
    let value = PolicyValue {
        cookie: alias.like.0,
        verdict: POLICY_VERDICT_ALIAS,
        ..PolicyValue::default()
    };
    (Key::new(POLICY_ANY_PROTOCOL_PREFIX, data), value)
}

fn decode_alias(key: &Key<PolicyKey>, value: &PolicyValue) -> Alias {
    let data = key.data();
    Alias {
        direction: direction_of(data.direction),
        identity: Identity(data.identity),
        like: Identity(value.cookie),
    }
}

const fn direction_number(direction: Direction) -> u8 {
    match direction {
        Direction::Ingress => DIRECTION_INGRESS,
        Direction::Egress => DIRECTION_EGRESS,
    }
}

const fn direction_of(number: u8) -> Direction {
    if number == DIRECTION_INGRESS {
        Direction::Ingress
    } else {
        Direction::Egress
    }
}

fn encode(entry: &Entry) -> (Key<PolicyKey>, PolicyValue) {
    let key = entry.key;
    let prefix = match key.protocol {
        0 => POLICY_ANY_PROTOCOL_PREFIX,
        _ => POLICY_ANY_PORT_PREFIX + u32::from(key.port_prefix),
    };
    let data = PolicyKey {
        identity: key.identity.0,
        direction: direction_number(key.direction),
        protocol: key.protocol,
        port: key.port.to_be(),
    };
    let verdict = match entry.verdict {
        EntryVerdict::Allow => POLICY_VERDICT_ALLOW,
        EntryVerdict::Deny => POLICY_VERDICT_DENY,
    };
    let value = PolicyValue {
        precedence: entry.precedence,
        cookie: entry.cookie,
        verdict,
        parser: 0,
        proxy_port: 0,
    };
    (Key::new(prefix, data), value)
}

fn decode(key: &Key<PolicyKey>, value: &PolicyValue) -> Entry {
    let (prefix, data) = (key.prefix_len(), key.data());
    Entry {
        key: EntryKey {
            direction: direction_of(data.direction),
            identity: Identity(data.identity),
            protocol: data.protocol,
            port: u16::from_be(data.port),
            port_prefix: u8::try_from(prefix.saturating_sub(POLICY_ANY_PORT_PREFIX)).unwrap_or(0),
        },
        // What another version means by other numbers is no allow.
        verdict: if value.verdict == POLICY_VERDICT_ALLOW {
            EntryVerdict::Allow
        } else {
            EntryVerdict::Deny
        },
        precedence: value.precedence,
        cookie: value.cookie,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_kernels_layout() {
        for (protocol, port, port_prefix) in [
            (0, 0, 0),
            (6, 0, 0),
            (6, 80, 16),
            (17, 8192, 3),
            (58, 128, 16),
        ] {
            for (direction, verdict) in [
                (Direction::Ingress, EntryVerdict::Allow),
                (Direction::Egress, EntryVerdict::Deny),
            ] {
                let entry = Entry {
                    key: EntryKey {
                        direction,
                        identity: Identity(20_001),
                        protocol,
                        port,
                        port_prefix,
                    },
                    verdict,
                    precedence: 1 << 24,
                    cookie: 7,
                };
                let (key, value) = encode(&entry);
                assert_eq!(decode(&key, &value), entry);
                let alias = Alias {
                    direction,
                    identity: Identity(20_001),
                    like: Identity(7),
                };
                let (key, value) = encode_alias(&alias);
                assert_eq!(decode_alias(&key, &value), alias);
            }
        }
    }
}
