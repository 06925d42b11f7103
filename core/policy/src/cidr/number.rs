//! Numbers for classes of prefixes.

use heddle_model::Identity;
use std::collections::BTreeSet;

/// The numbers in use.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    taken: BTreeSet<Identity>,
    /// Where the search for a free number starts: a released number rests while others are free, so that
    /// a row that is not yet replaced never meets another class's number.
    next: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self {
            taken: BTreeSet::new(),
            next: Identity::NODE_FIRST.0,
        }
    }
}

impl Numbers {
    /// Takes this number; false when it is out of range or taken.
    pub(super) fn take(&mut self, identity: Identity) -> bool {
        let range = Identity::NODE_FIRST..=Identity::NODE_LAST;
        if !range.contains(&identity) || !self.taken.insert(identity) {
            return false;
        }
        self.next = self.next.max(identity.0 + 1);
        true
    }

    /// Takes the next number that nobody has; 16.7 million classes do not fit a node's memory, so one is
    /// free.
    pub(super) fn any(&mut self) -> Identity {
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

    pub(super) fn free(&mut self, identity: Identity) {
        self.taken.remove(&identity);
    }
}
