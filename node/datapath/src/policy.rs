//! Policy maps: one for all endpoints with equal policies, swapped in whole.

use crate::{
    DatapathError, RealisedPolicy,
    maps::{Maps, PolicyMap, lock, refused},
};
use aya::maps::lpm_trie::Key;
use heddle_abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, POLICY_ANY_PORT_PREFIX, POLICY_ANY_PROTOCOL_PREFIX,
    POLICY_VERDICT_ALLOW, POLICY_VERDICT_DENY, PolicyKey, PolicyValue, map_names,
};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

/// `BPF_F_NO_PREALLOC`, which the kernel wants of every trie.
const NO_PREALLOC: u32 = 1;

/// What is in force, so that equal policies share a map and an unchanged one is left alone.
#[derive(Default)]
pub(crate) struct Installed {
    by_endpoint: HashMap<u16, (Arc<CompiledPolicy>, Arc<PolicyMap>)>,
    by_policy: HashMap<Arc<CompiledPolicy>, Weak<PolicyMap>>,
}

impl Installed {
    /// Puts a policy in force for an endpoint.
    pub(crate) fn set(
        &mut self,
        maps: &Maps,
        endpoint: u16,
        policy: &CompiledPolicy,
        max_entries: u32,
    ) -> Result<(), DatapathError> {
        if self
            .by_endpoint
            .get(&endpoint)
            .is_some_and(|(installed, _)| **installed == *policy)
        {
            return Ok(());
        }
        if policy.entries.len() as u64 > u64::from(max_entries) {
            return Err(DatapathError::MapFull {
                map: map_names::POLICIES,
                entries: policy.entries.len() as u64,
                max: u64::from(max_entries),
            });
        }
        let (policy, map) = match self.by_policy.get_key_value(policy) {
            Some((known, map)) if map.strong_count() > 0 => (known.clone(), map.upgrade()),
            _ => (Arc::new(policy.clone()), None),
        };
        let map = match map {
            Some(map) => map,
            None => Arc::new(build(&policy)?),
        };
        swap(maps, endpoint, &map)?;
        self.by_policy.retain(|_, map| map.strong_count() > 0);
        self.by_policy.insert(policy.clone(), Arc::downgrade(&map));
        self.by_endpoint.insert(endpoint, (policy, map));
        Ok(())
    }

    /// Rows of the largest policy in force.
    pub(crate) fn largest(&self) -> usize {
        self.by_endpoint
            .values()
            .map(|(policy, _)| policy.entries.len())
            .max()
            .unwrap_or(0)
    }

    /// Leaves an endpoint id with a policy that allows nothing.
    pub(crate) fn clear(&mut self, maps: &Maps, endpoint: u16) -> Result<(), DatapathError> {
        self.by_endpoint.remove(&endpoint);
        let empty = CompiledPolicy {
            ingress_enforced: true,
            egress_enforced: true,
            entries: Vec::new(),
        };
        swap(maps, endpoint, &build(&empty)?)
    }
}

/// Swaps a map in, then bumps the generation: a packet that read the old generation may still use the
/// old answer, and asks again afterwards.
fn swap(maps: &Maps, endpoint: u16, map: &PolicyMap) -> Result<(), DatapathError> {
    let index = u32::from(endpoint);
    lock(&maps.policies)
        .set(index, map, 0)
        .map_err(refused("swap in policy of endpoint", endpoint.to_string()))?;
    let mut generations = lock(&maps.generations);
    let now = generations
        .get(&index, 0)
        .map_err(refused("read generation of endpoint", endpoint.to_string()))?;
    // 0 means "never asked" in a connection's entry.
    let next = now.checked_add(1).unwrap_or(1);
    generations
        .set(index, next, 0)
        .map_err(refused("bump generation of endpoint", endpoint.to_string()))
}

fn build(policy: &CompiledPolicy) -> Result<PolicyMap, DatapathError> {
    // A trie without room for one row is refused.
    let room = u32::try_from(policy.entries.len())
        .unwrap_or(u32::MAX)
        .max(1);
    let mut map = PolicyMap::create(room, NO_PREALLOC).map_err(refused("make", "a policy map"))?;
    for entry in &policy.entries {
        let (key, value) = encode(entry);
        map.insert(&key, value, 0)
            .map_err(refused("write", "a policy map"))?;
    }
    Ok(map)
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

/// An endpoint's policy as the kernel holds it.
pub(crate) fn read(maps: &Maps, endpoint: u16) -> Result<RealisedPolicy, DatapathError> {
    let index = u32::from(endpoint);
    let generation = lock(&maps.generations)
        .get(&index, 0)
        .map_err(refused("read generation of endpoint", endpoint.to_string()))?;
    let map = match lock(&maps.policies).get(&index, 0) {
        Ok(map) => map,
        Err(aya::maps::MapError::KeyNotFound) => {
            return Ok(RealisedPolicy {
                generation,
                entries: None,
            });
        }
        Err(error) => {
            return Err(refused("read policy of endpoint", endpoint.to_string())(
                error,
            ));
        }
    };
    let mut entries = Vec::new();
    for row in map.iter() {
        let (key, value) = row.map_err(refused("read policy of endpoint", endpoint.to_string()))?;
        entries.push(decode(&key, &value));
    }
    entries.sort_unstable();
    Ok(RealisedPolicy {
        generation,
        entries: Some(entries),
    })
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
