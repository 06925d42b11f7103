//! Policy maps: one for all endpoints with equal policies.
//!
//! Maps stand in slots, and an endpoint's binding names its slot. A new policy is written into a spare map
//! that no packet reads, and takes effect when the binding changes. To put a map
//! *into* a slot, the kernel waits until every program that runs has ended (an RCU grace period, 10 ms and
//! more), and a map that was left may be emptied only after such a wait; a thread of its own does both, so
//! that nobody else waits.

mod rows;
mod slots;

pub(crate) use rows::{make as make_map, read as read_rows, realised};
#[cfg(test)]
pub(crate) use slots::{REUSE_STEPS, ReuseStep};

use crate::{
    DatapathError, RealisedPolicy,
    background::BackgroundWorker,
    maps::{Maps, PolicyMap, lock, refused, room},
};
use aya::maps::IterableMap as _;
use heddle_abi::{
    MAX_ENDPOINTS, MAX_POLICY_SLOTS, POLICY_PEER_ROWS, POLICY_SLOT_NONE, PolicyBinding, map_names,
};
use heddle_policy::compiled::{CompiledPolicy, size};
use rows::Rows;
use slots::{Slot, Slots};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// A map that endpoints have.
struct InUse {
    map: PolicyMap,
    rows: Rows,
    fingerprint: u64,
    /// Of the policy; [`CompiledPolicy::size`].
    size: usize,
    endpoints: usize,
}

/// What is in force.
#[derive(Default)]
struct Bound {
    by_endpoint: HashMap<u16, u32>,
    by_slot: HashMap<u32, InUse>,
    /// Slots by their rows' [`rows::fingerprint`].
    by_rows: HashMap<u64, Vec<u32>>,
}

/// The policies of a node's endpoints.
pub(crate) struct Policies {
    maps: Arc<Maps>,
    max_entries: u32,
    bound: Mutex<Bound>,
    slots: Arc<Slots>,
    worker: BackgroundWorker,
}

impl Policies {
    /// Takes over what is bound, and starts the worker of spare maps.
    pub(crate) fn open(maps: &Arc<Maps>, max_entries: u32) -> Result<Self, DatapathError> {
        let mut bound = Bound::default();
        for endpoint in 1..MAX_ENDPOINTS as u16 {
            let slot = binding(maps, endpoint)?.slot();
            if slot != POLICY_SLOT_NONE {
                bound.by_endpoint.insert(endpoint, slot);
            }
            renew_generation(maps, endpoint)?;
        }
        let slots = Arc::new(Slots::new(Arc::clone(maps), max_entries));
        for (slot, map) in slots.take_over(bound.by_endpoint.values().copied())? {
            let endpoints = bound.by_endpoint.values().filter(|of| **of == slot).count();
            if endpoints == 0 {
                slots.retire(Slot { number: slot, map });
                continue;
            }
            let rows = rows::read(&map)?;
            let fingerprint = rows::fingerprint(&rows.entries, &rows.aliases);
            bound.enter(Slot { number: slot, map }, rows, fingerprint, endpoints);
        }
        let worker = BackgroundWorker::start("policy-slots", {
            let slots = Arc::clone(&slots);
            move |woken| slots.keep(&woken)
        })?;
        let policies = Self {
            maps: Arc::clone(maps),
            max_entries,
            bound: Mutex::new(bound),
            slots,
            worker,
        };
        policies.worker.wake();
        Ok(policies)
    }

    /// Puts a policy in force for an endpoint.
    pub(crate) fn set(&self, endpoint: u16, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        let mut bound = lock(&self.bound);
        let present = bound.by_endpoint.get(&endpoint);
        let in_kernel = binding(&self.maps, endpoint)?;
        if present
            .and_then(|slot| bound.by_slot.get(slot))
            .is_some_and(|present| present.rows.are_of(policy))
            // After a failed change the kernel may read another map than the one noted.
            && present == Some(&in_kernel.slot())
            && in_kernel.is_on_audit() == policy.audit
        {
            return Ok(());
        }
        let size = policy.size() as u64;
        if size > u64::from(self.max_entries) {
            return Err(DatapathError::MapFull {
                map: map_names::POLICIES,
                entries: size,
                max: u64::from(self.max_entries),
            });
        }
        let fingerprint = rows::fingerprint(&policy.entries, &policy.aliases);
        let number = match bound.slot_of(policy, fingerprint) {
            Some(number) => number,
            None => {
                let rows = Rows::of(policy);
                let mut slot = self.slots.spare()?;
                if let Err(error) = rows::fill(&mut slot.map, &rows) {
                    self.slots.retire(slot);
                    self.worker.wake();
                    return Err(error);
                }
                bound.enter(slot, rows, fingerprint, 0)
            }
        };
        let outcome = self.bind(&mut bound, endpoint, number, policy.audit);
        self.worker.wake();
        outcome
    }

    /// Leaves an endpoint id without a policy: nothing passes.
    pub(crate) fn clear(&self, endpoint: u16) -> Result<(), DatapathError> {
        let mut bound = lock(&self.bound);
        let outcome = self.bind(&mut bound, endpoint, POLICY_SLOT_NONE, false);
        self.worker.wake();
        outcome
    }

    /// Binds an endpoint to a slot, and retires the maps that nobody has then.
    fn bind(
        &self,
        bound: &mut Bound,
        endpoint: u16,
        slot: u32,
        audit: bool,
    ) -> Result<(), DatapathError> {
        // After a failure nobody knows which of the two maps packets read: both stay.
        self.write_binding(endpoint, slot, audit)?;
        if let Some(left) = bound.rebind(endpoint, slot) {
            self.slots.retire(left);
        }
        Ok(())
    }

    fn write_binding(&self, endpoint: u16, slot: u32, audit: bool) -> Result<(), DatapathError> {
        let mut now = binding(&self.maps, endpoint)?;
        for step in BINDING_STEPS {
            now = step.after(now, slot, audit);
            set_binding(&self.maps, endpoint, now)?;
        }
        Ok(())
    }

    /// How often an endpoint's policy has changed.
    pub(crate) fn generation(&self, endpoint: u16) -> Result<u32, DatapathError> {
        Ok(binding(&self.maps, endpoint)?.generation())
    }

    /// Size of the largest policy in force, and what its map was made for.
    pub(crate) fn largest(&self) -> Result<(u64, u64), DatapathError> {
        let bound = lock(&self.bound);
        match bound.by_slot.values().max_by_key(|it| it.size) {
            Some(it) => {
                let room = room(it.map.map(), map_names::POLICIES)?;
                let for_peers = u64::from(POLICY_PEER_ROWS);
                Ok((it.size as u64, room.saturating_sub(for_peers)))
            }
            None => Ok((0, u64::from(self.max_entries))),
        }
    }

    /// Slots that hold a map in force, or one that was left a moment ago; and how many there may be.
    pub(crate) fn slots_in_use(&self) -> (u64, u64) {
        let in_use = lock(&self.bound).by_slot.len() + self.slots.retired();
        (in_use as u64, u64::from(MAX_POLICY_SLOTS - 1))
    }

    /// An endpoint's policy as the kernel holds it.
    pub(crate) fn read(&self, endpoint: u16) -> Result<RealisedPolicy, DatapathError> {
        // Under the lock, so that the map is not emptied meanwhile.
        let _bound = lock(&self.bound);
        let binding = binding(&self.maps, endpoint)?;
        let rows = match binding.slot() {
            POLICY_SLOT_NONE => None,
            slot => slots::map_in(&self.maps, slot)?
                .map(|map| rows::read(&map))
                .transpose()?,
        };
        Ok(realised(binding, rows))
    }
}

impl Bound {
    /// The slot whose map has a policy's rows.
    fn slot_of(&self, policy: &CompiledPolicy, fingerprint: u64) -> Option<u32> {
        let mut slots = self.by_rows.get(&fingerprint)?.iter().copied();
        slots.rfind(|slot| {
            let present = self.by_slot.get(slot);
            present.is_some_and(|present| present.rows.are_of(policy))
        })
    }

    /// Takes in a map that this many endpoints have already.
    fn enter(&mut self, slot: Slot, rows: Rows, fingerprint: u64, endpoints: usize) -> u32 {
        self.by_rows
            .entry(fingerprint)
            .or_default()
            .push(slot.number);
        let in_use = InUse {
            map: slot.map,
            size: size(&rows.entries),
            rows,
            fingerprint,
            endpoints,
        };
        self.by_slot.insert(slot.number, in_use);
        slot.number
    }

    /// Notes an endpoint's new slot; the map that nobody has any more.
    fn rebind(&mut self, endpoint: u16, slot: u32) -> Option<Slot> {
        let former = match slot {
            POLICY_SLOT_NONE => self.by_endpoint.remove(&endpoint),
            _ => self.by_endpoint.insert(endpoint, slot),
        };
        if let Some(now) = self.by_slot.get_mut(&slot) {
            now.endpoints += 1;
        }
        let former = former?;
        if let Some(before) = self.by_slot.get_mut(&former) {
            before.endpoints -= 1;
        }
        self.leave(former)
    }

    /// Takes out a map that nobody has.
    fn leave(&mut self, slot: u32) -> Option<Slot> {
        if self.by_slot.get(&slot)?.endpoints > 0 {
            return None;
        }
        let left = self.by_slot.remove(&slot)?;
        if let Some(slots) = self.by_rows.get_mut(&left.fingerprint) {
            slots.retain(|it| *it != slot);
            if slots.is_empty() {
                self.by_rows.remove(&left.fingerprint);
            }
        }
        Some(Slot {
            number: slot,
            map: left.map,
        })
    }
}

/// One write of a binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BindingStep {
    /// It names the slot, under the generation that it had.
    Slot,
    /// It has its next generation.
    Generation,
}

/// A change of a binding: the kernel promises no more than that one write follows the other, and a packet that takes
/// an answer of the new map for the old one's asks again after the second.
pub(crate) const BINDING_STEPS: [BindingStep; 2] = [BindingStep::Slot, BindingStep::Generation];

impl BindingStep {
    /// What the binding is after this write.
    pub(crate) fn after(self, now: PolicyBinding, slot: u32, audit: bool) -> PolicyBinding {
        match self {
            Self::Slot => PolicyBinding::new(slot, now.generation()).on_audit(audit),
            // Generation 0 means "never asked" in a connection's entry.
            Self::Generation => {
                let next = now.generation().checked_add(1).unwrap_or(1);
                PolicyBinding::new(now.slot(), next).on_audit(now.is_on_audit())
            }
        }
    }
}

/// What a start does to a binding that it finds, so that connections ask its policy again.
///
/// A run that ended between the two writes of a change left the new slot with the old generation: what
/// connections hold of the former policy would count as the new one's for good.
pub(crate) fn renewed(present: PolicyBinding) -> PolicyBinding {
    BindingStep::Generation.after(present, present.slot(), present.is_on_audit())
}

fn renew_generation(maps: &Maps, endpoint: u16) -> Result<(), DatapathError> {
    let present = binding(maps, endpoint)?;
    // An endpoint id that never had a policy has no connections either.
    if present == PolicyBinding::default() {
        return Ok(());
    }
    set_binding(maps, endpoint, renewed(present))
}

fn set_binding(maps: &Maps, endpoint: u16, binding: PolicyBinding) -> Result<(), DatapathError> {
    lock(&maps.bindings)
        .set(u32::from(endpoint), binding, 0)
        .map_err(refused("bind policy of endpoint", endpoint.to_string()))
}

fn binding(maps: &Maps, endpoint: u16) -> Result<PolicyBinding, DatapathError> {
    lock(&maps.bindings)
        .get(&u32::from(endpoint), 0)
        .map_err(refused("read binding of endpoint", endpoint.to_string()))
}
