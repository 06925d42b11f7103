//! Slots of the map of policy maps: which are in use, which are spare, which were just left.

use super::rows;
use crate::{
    DatapathError,
    maps::{Maps, PolicyMap, lock, refused},
};
use aya::maps::{IterableMap, MapError};
use heddle_abi::{MAX_POLICY_SLOTS, POLICY_SLOT_NONE, map_names};
use std::sync::{Arc, Mutex, mpsc};

/// Empty maps that stand ready: new policies that can come at once without anybody waiting.
const SPARE: usize = 32;

/// A policy map and where it stands.
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) map: PolicyMap,
}

struct State {
    /// Empty maps that no packet reads.
    spare: Vec<Slot>,
    /// Maps that no endpoint has any more, but that a running program may still read.
    retired: Vec<Slot>,
    /// The lowest slot that never had a map.
    unused: u32,
}

/// The slots that no endpoint has.
pub(super) struct Slots {
    maps: Arc<Maps>,
    max_entries: u32,
    state: Mutex<State>,
}

impl Slots {
    pub(super) fn new(maps: Arc<Maps>, max_entries: u32) -> Self {
        Self {
            maps,
            max_entries,
            state: Mutex::new(State {
                spare: Vec::new(),
                retired: Vec::new(),
                unused: POLICY_SLOT_NONE + 1,
            }),
        }
    }

    /// The maps that a former run left in their slots.
    pub(super) fn take_over(&self) -> Result<Vec<(u32, PolicyMap)>, DatapathError> {
        let mut found = Vec::new();
        for slot in POLICY_SLOT_NONE + 1..MAX_POLICY_SLOTS {
            // Slots are taken in order, and never emptied.
            let Some(map) = map_in(&self.maps, slot)? else {
                break;
            };
            found.push((slot, map));
            lock(&self.state).unused = slot + 1;
        }
        Ok(found)
    }

    /// An empty map. Without a spare one, it is made on the spot, which takes a grace period.
    pub(super) fn spare(&self) -> Result<Slot, DatapathError> {
        if let Some(slot) = lock(&self.state).spare.pop() {
            return Ok(slot);
        }
        if let Some(slot) = self.grow()? {
            return Ok(slot);
        }
        self.recycle();
        lock(&self.state)
            .spare
            .pop()
            .ok_or_else(|| DatapathError::MapFull {
                map: map_names::POLICIES,
                entries: u64::from(MAX_POLICY_SLOTS),
                max: u64::from(MAX_POLICY_SLOTS - 1),
            })
    }

    /// Takes back a map that no endpoint has.
    pub(super) fn retire(&self, slot: Slot) {
        lock(&self.state).retired.push(slot);
    }

    /// Maps that wait for their grace period.
    pub(super) fn retired(&self) -> usize {
        lock(&self.state).retired.len()
    }

    /// Keeps spare maps ready each time it is woken, until nobody is left to wake it.
    pub(super) fn keep(&self, woken: &mpsc::Receiver<()>) {
        while woken.recv().is_ok() {
            loop {
                // What a burst left first: only without that a new map is worth its wait.
                self.recycle();
                if lock(&self.state).spare.len() >= SPARE {
                    break;
                }
                match self.grow() {
                    Ok(Some(slot)) => lock(&self.state).spare.push(slot),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "no spare policy map; the next new policy waits for one");
                        break;
                    }
                }
                if woken.try_recv() == Err(mpsc::TryRecvError::Disconnected) {
                    return;
                }
            }
        }
    }

    /// Makes spare what was retired.
    fn recycle(&self) {
        let retired = std::mem::take(&mut lock(&self.state).retired);
        if retired.is_empty() {
            return;
        }
        if let Err(error) = self.wait_for_running_programs() {
            tracing::warn!(%error, "left policy maps stay as they are for now");
            lock(&self.state).retired.extend(retired);
            return;
        }
        for slot in retired {
            match self.renew(slot) {
                Ok(slot) => lock(&self.state).spare.push(slot),
                Err(error) => tracing::warn!(%error, "a policy map is lost until the next start"),
            }
        }
    }

    /// An empty map in the slot of one that no packet reads.
    fn renew(&self, mut slot: Slot) -> Result<Slot, DatapathError> {
        let room = slot
            .map
            .map()
            .info()
            .map_err(refused("ask about", "a policy map"))?
            .max_entries();
        if room == self.max_entries {
            rows::clear(&mut slot.map)?;
            return Ok(slot);
        }
        // Made under another setting.
        self.put(slot.number)
    }

    /// A map in the next slot that never had one; `None` when there is no such slot.
    fn grow(&self) -> Result<Option<Slot>, DatapathError> {
        let number = {
            let mut state = lock(&self.state);
            if state.unused == MAX_POLICY_SLOTS {
                return Ok(None);
            }
            state.unused += 1;
            state.unused - 1
        };
        self.put(number).map(Some)
    }

    fn put(&self, number: u32) -> Result<Slot, DatapathError> {
        let map = rows::make(self.max_entries)?;
        lock(&self.maps.policies)
            .set(number, &map, 0)
            .map_err(refused("put policy map in slot", number.to_string()))?;
        Ok(Slot { number, map })
    }

    /// Returns when every program that ran at the call has ended: that is what the kernel does when a
    /// slot is written. Slot 0 is nobody's.
    fn wait_for_running_programs(&self) -> Result<(), DatapathError> {
        self.put(POLICY_SLOT_NONE).map(drop)
    }
}

/// The map in a slot.
pub(super) fn map_in(maps: &Maps, slot: u32) -> Result<Option<PolicyMap>, DatapathError> {
    match lock(&maps.policies).get(&slot, 0) {
        Ok(map) => Ok(Some(map)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(refused("read policy slot", slot.to_string())(error)),
    }
}
