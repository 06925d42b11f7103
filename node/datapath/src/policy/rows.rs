//! Rows of a policy map.

use crate::{
    DatapathError,
    maps::{PolicyMap, refused},
};
use aya::maps::{MapError, lpm_trie::Key};
use heddle_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, POLICY_ANY_PORT_PREFIX, POLICY_ANY_PROTOCOL_PREFIX,
    POLICY_VERDICT_ALLOW, POLICY_VERDICT_DENY, PolicyKey, PolicyValue,
};
use heddle_model::Identity;
use heddle_policy::compiled::{Direction, Entry, EntryKey, EntryVerdict};

/// `BPF_F_NO_PREALLOC`, which the kernel wants of every trie: rows take memory when they are written.
const NO_PREALLOC: u32 = 1;

/// An empty policy map with room for this many rows.
pub(super) fn make(max_entries: u32) -> Result<PolicyMap, DatapathError> {
    // A trie without room for one row is refused.
    PolicyMap::create(max_entries.max(1), NO_PREALLOC).map_err(refused("make", "a policy map"))
}

/// Writes the rows of a map that no packet reads yet.
pub(super) fn fill(map: &mut PolicyMap, entries: &[Entry]) -> Result<(), DatapathError> {
    for entry in entries {
        let (key, value) = encode(entry);
        map.insert(&key, value, 0)
            .map_err(refused("write", "a policy map"))?;
    }
    Ok(())
}

/// Empties a map that no packet reads any more.
pub(super) fn clear(map: &mut PolicyMap) -> Result<(), DatapathError> {
    while let Some(first) = map.keys().next() {
        let removed = first.and_then(|key| map.remove(&key));
        match removed {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(refused("empty", "a policy map")(error)),
        }
    }
    Ok(())
}

/// The rows of a map, sorted.
pub(crate) fn read(map: &PolicyMap) -> Result<Vec<Entry>, DatapathError> {
    let mut entries = map
        .iter()
        .map(|row| row.map(|(key, value)| decode(&key, &value)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused("read", "a policy map"))?;
    entries.sort_unstable();
    Ok(entries)
}

fn encode(entry: &Entry) -> (Key<PolicyKey>, PolicyValue) {
    let key = entry.key;
    let prefix = match key.protocol {
        0 => POLICY_ANY_PROTOCOL_PREFIX,
        _ => POLICY_ANY_PORT_PREFIX + u32::from(key.port_prefix),
    };
    let direction = match key.direction {
        Direction::Ingress => DIRECTION_INGRESS,
        Direction::Egress => DIRECTION_EGRESS,
    };
    let data = PolicyKey {
        identity: key.identity.0,
        direction,
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
        reserved: 0,
        redirect_port: 0,
    };
    (Key::new(prefix, data), value)
}

fn decode(key: &Key<PolicyKey>, value: &PolicyValue) -> Entry {
    let (prefix, data) = (key.prefix_len(), key.data());
    Entry {
        key: EntryKey {
            direction: if data.direction == DIRECTION_INGRESS {
                Direction::Ingress
            } else {
                Direction::Egress
            },
            identity: Identity(data.identity),
            protocol: data.protocol,
            port: u16::from_be(data.port),
            port_prefix: u8::try_from(prefix.saturating_sub(POLICY_ANY_PORT_PREFIX)).unwrap_or(0),
        },
        verdict: if value.verdict == POLICY_VERDICT_DENY {
            EntryVerdict::Deny
        } else {
            EntryVerdict::Allow
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
            }
        }
    }
}
