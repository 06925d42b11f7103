//! Identity numbers of policy CIDRs (reference I11), in two scopes.

use heddle_model::Identity;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which addresses a policy CIDR's identity is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CidrScope {
    /// Addresses outside the cluster: every policy CIDR and every `except` counts.
    World,
    /// Addresses of pods and nodes and pod ranges: only Kubernetes `ipBlock` counts, because the
    /// Kubernetes API selects pods and nodes by ipBlock and Cilium's CIDR rules do not (reference I1).
    InCluster,
}

/// The identity of a policy CIDR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CidrAssignment {
    /// The prefix as some policy has it, host bits cleared.
    pub prefix: IpNet,
    /// Which addresses it is for.
    pub scope: CidrScope,
    /// Its number, from `Identity::NODE_FIRST`.
    pub identity: Identity,
}

#[derive(Clone, Debug)]
struct Slot {
    identity: Identity,
    users: usize,
}

/// The prefixes in use and their numbers.
#[derive(Clone, Debug)]
pub(crate) struct CidrTable {
    slots: BTreeMap<(CidrScope, IpNet), Slot>,
    /// Numbers that the kernel still holds from before a restart; a prefix gets its own back.
    restored: BTreeMap<(CidrScope, IpNet), Identity>,
    taken: BTreeSet<Identity>,
    /// Where the search for a free number starts: a released number rests while others are free, so that
    /// a row that is not yet replaced never meets another prefix's number.
    next: u32,
}

impl Default for CidrTable {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            restored: BTreeMap::new(),
            taken: BTreeSet::new(),
            next: Identity::NODE_FIRST.0,
        }
    }
}

impl CidrTable {
    pub(crate) fn restore(&mut self, prefix: IpNet, scope: CidrScope, identity: Identity) {
        let key = (scope, prefix.trunc());
        let wanted = (Identity::NODE_FIRST..=Identity::NODE_LAST).contains(&identity);
        if !wanted || self.slots.contains_key(&key) || !self.taken.insert(identity) {
            return;
        }
        if let Some(before) = self.restored.insert(key, identity) {
            self.taken.remove(&before);
        }
        self.next = self.next.max(identity.0 + 1);
    }

    /// Counts one more user; true when the prefix is new.
    pub(crate) fn acquire(&mut self, prefix: IpNet, scope: CidrScope) -> bool {
        let key = (scope, prefix.trunc());
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.users += 1;
            return false;
        }
        let identity = match self.restored.remove(&key) {
            Some(identity) => identity,
            None => self.free_number(),
        };
        self.slots.insert(key, Slot { identity, users: 1 });
        true
    }

    /// Counts one user less; true when the prefix is gone.
    pub(crate) fn release(&mut self, prefix: IpNet, scope: CidrScope) -> bool {
        let key = (scope, prefix.trunc());
        let Some(slot) = self.slots.get_mut(&key) else {
            return false;
        };
        slot.users -= 1;
        if slot.users > 0 {
            return false;
        }
        self.taken.remove(&slot.identity);
        self.slots.remove(&key);
        true
    }

    /// The next number that nobody has; 16.7 million prefixes do not fit a node's memory, so one is free.
    fn free_number(&mut self) -> Identity {
        loop {
            if self.next > Identity::NODE_LAST.0 {
                self.next = Identity::NODE_FIRST.0;
            }
            let identity = Identity(self.next);
            self.next += 1;
            if self.taken.insert(identity) {
                return identity;
            }
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = CidrAssignment> + '_ {
        self.slots
            .iter()
            .map(|((scope, prefix), slot)| CidrAssignment {
                prefix: *prefix,
                scope: *scope,
                identity: slot.identity,
            })
    }

    /// The prefixes in use that lie in `block`.
    pub(crate) fn within(
        &self,
        block: IpNet,
        scope: CidrScope,
    ) -> impl Iterator<Item = (IpNet, Identity)> + '_ {
        // Prefixes sort by network address, then length: those inside are a contiguous range.
        let block = block.trunc();
        let last = IpNet::from(block.broadcast());
        self.slots
            .range((scope, block)..=(scope, last))
            .map(|((_, prefix), slot)| (*prefix, slot.identity))
            .filter(move |(prefix, _)| block.contains(prefix))
    }

    /// The identity of the longest prefix in use that covers `prefix`.
    pub(crate) fn covering(&self, prefix: IpNet, scope: CidrScope) -> Identity {
        let mut at = Some(prefix.trunc());
        while let Some(candidate) = at {
            if let Some(slot) = self.slots.get(&(scope, candidate)) {
                return slot.identity;
            }
            at = candidate.supernet();
        }
        Identity::UNKNOWN
    }
}
