//! Slots of the map of policy maps: which are in use, which are spare, which were just left.

use super::rows;
use crate::{
    DatapathError,
    maps::{Maps, PolicyMap, lock, refused},
};
use aya::maps::{IterableMap, MapError};
use heddle_abi::{MAX_POLICY_SLOTS, POLICY_SLOT_NONE, map_names};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, mpsc},
};

/// Empty maps that stand ready: new policies that can come at once without anybody waiting.
const SPARE: usize = 32;

/// One step from a map that no endpoint has any more to one that another can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReuseStep {
    /// Until every program that may still read it has ended.
    Wait,
    /// Its rows go.
    Empty,
}

/// How a retired map becomes a spare one.
pub(crate) const REUSE_STEPS: [ReuseStep; 2] = [ReuseStep::Wait, ReuseStep::Empty];

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
}

/// Which slots never had a map.
#[derive(PartialEq, Eq, Debug)]
struct Numbers {
    /// Slots below `unused` without a map.
    holes: Vec<u32>,
    /// From here on no slot has a map, and no endpoint is bound to one.
    unused: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            holes: Vec::new(),
            unused: POLICY_SLOT_NONE + 1,
        }
    }
}

impl Numbers {
    /// The numbers that are left when these slots have a map or are bound to.
    fn after(used: BTreeSet<u32>) -> Self {
        let unused = used.last().map_or(POLICY_SLOT_NONE, |last| *last) + 1;
        let holes = (POLICY_SLOT_NONE + 1..unused).filter(|slot| !used.contains(slot));
        Self {
            holes: holes.collect(),
            unused,
        }
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(hole) = self.holes.pop() {
            return Some(hole);
        }
        let number = self.unused;
        (number < MAX_POLICY_SLOTS).then(|| {
            self.unused += 1;
            number
        })
    }
}

/// Takes a number and puts a map there; the number is free again if that fails. `None` without a number.
fn take_and_fill<T, E>(
    numbers: &Mutex<Numbers>,
    put: impl FnOnce(u32) -> Result<T, E>,
) -> Result<Option<T>, E> {
    let Some(number) = lock(numbers).take() else {
        return Ok(None);
    };
    let outcome = put(number);
    if outcome.is_err() {
        lock(numbers).holes.push(number);
    }
    outcome.map(Some)
}

/// The slots that no endpoint has.
pub(super) struct Slots {
    maps: Arc<Maps>,
    max_entries: u32,
    state: Mutex<State>,
    numbers: Mutex<Numbers>,
}

impl Slots {
    pub(super) fn new(maps: Arc<Maps>, max_entries: u32) -> Self {
        Self {
            maps,
            max_entries,
            state: Mutex::new(State {
                spare: Vec::new(),
                retired: Vec::new(),
            }),
            numbers: Mutex::default(),
        }
    }

    /// The maps that a former run left in their slots, given the slots that endpoints are bound to.
    pub(super) fn take_over(
        &self,
        bound: impl Iterator<Item = u32>,
    ) -> Result<Vec<(u32, PolicyMap)>, DatapathError> {
        let mut found = Vec::new();
        // All of them: a former run may have failed to fill one and gone on.
        for slot in POLICY_SLOT_NONE + 1..MAX_POLICY_SLOTS {
            if let Some(map) = map_in(&self.maps, slot)? {
                found.push((slot, map));
            }
        }
        let used = found.iter().map(|(slot, _)| *slot).chain(bound);
        *lock(&self.numbers) = Numbers::after(used.collect());
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
        let mut retired = std::mem::take(&mut lock(&self.state).retired);
        if retired.is_empty() {
            return;
        }
        for step in REUSE_STEPS {
            match step {
                ReuseStep::Wait => {
                    if let Err(error) = self.wait_for_running_programs() {
                        tracing::warn!(%error, "left policy maps stay as they are for now");
                        lock(&self.state).retired.append(&mut retired);
                        return;
                    }
                }
                ReuseStep::Empty => {
                    for slot in retired.drain(..) {
                        match self.renew(slot) {
                            Ok(slot) => lock(&self.state).spare.push(slot),
                            Err(error) => {
                                tracing::warn!(%error, "a policy map is lost until the next start");
                            }
                        }
                    }
                }
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
        if room == rows::capacity(self.max_entries) {
            rows::clear(&mut slot.map)?;
            return Ok(slot);
        }
        // Made under another setting.
        self.put(slot.number)
    }

    /// A map in the next slot that never had one; `None` when there is no such slot.
    fn grow(&self) -> Result<Option<Slot>, DatapathError> {
        take_and_fill(&self.numbers, |number| self.put(number))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_whose_map_was_refused_is_taken_again() {
        let numbers = Mutex::new(Numbers::default());
        let put = |number| Ok::<_, ()>(number);
        assert_eq!(take_and_fill(&numbers, put), Ok(Some(1)));
        assert_eq!(
            take_and_fill(&numbers, |_| Err::<u32, _>("refused")),
            Err("refused")
        );
        assert_eq!(take_and_fill(&numbers, put), Ok(Some(2)));
        assert_eq!(take_and_fill(&numbers, put), Ok(Some(3)));
    }

    #[test]
    fn slots_that_are_bound_or_behind_a_hole_are_not_taken() {
        let mut numbers = Numbers::after([1, 2, 4, 7].into());
        let taken: Vec<_> = std::iter::from_fn(|| numbers.take()).take(5).collect();
        assert_eq!(taken, [6, 5, 3, 8, 9]);
        let mut full = Numbers::after([MAX_POLICY_SLOTS - 1].into());
        full.holes.clear();
        assert_eq!(full.take(), None);
    }
}
