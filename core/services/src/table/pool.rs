//! One allocation for each value that many endpoints have: names of nodes, zones and ports, and hints.

use crate::slice::{EndpointSlice, Hints, SlicePort};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values before the first look for those that nobody has any more.
const FIRST_SWEEP: usize = 1024;

/// Values of a kind that are in use.
#[derive(Debug)]
struct Pool<T: ?Sized + Eq + Hash> {
    known: HashSet<Arc<T>>,
    /// How many there are before the next look for those that nobody has any more.
    sweep_at: usize,
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    fn new() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: FIRST_SWEEP,
        }
    }

    /// Replaces a value by the equal one that is there.
    fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.known.get(value) {
            *value = Arc::clone(known);
            return;
        }
        self.sweep();
        self.known.insert(Arc::clone(value));
    }

    /// Forgets values that nobody has any more. As many as were kept have to come before the next time, so that a value
    /// costs the same however many there are.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (2 * self.known.len()).max(FIRST_SWEEP);
        }
    }
}

/// Values that slices share.
#[derive(Debug)]
pub(super) struct Pools {
    names: Pool<str>,
    ports: Pool<[SlicePort]>,
    hints: Pool<Hints>,
}

impl Default for Pools {
    fn default() -> Self {
        Self {
            names: Pool::new(),
            ports: Pool::new(),
            hints: Pool::new(),
        }
    }
}

impl Pools {
    /// Makes a slice use the values that are there already.
    pub(super) fn share(&mut self, slice: &mut EndpointSlice) {
        self.ports.share(&mut slice.ports);
        for endpoint in &mut slice.endpoints {
            let names = [&mut endpoint.node, &mut endpoint.zone];
            for name in names.into_iter().flatten() {
                self.names.share(name);
            }
            if let Some(hints) = &mut endpoint.hints {
                self.hints.share(hints);
            }
        }
    }

    /// How many values there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.names.known.len() + self.ports.known.len() + self.hints.known.len()
    }
}
