//! One allocation for each name of a node, a zone or a port, however many endpoints bear it.

use crate::slice::EndpointSlice;
use std::collections::HashSet;
use std::sync::Arc;

/// Names before the first look for those that nobody has any more.
const FIRST_SWEEP: usize = 1024;

/// Names that are in use.
#[derive(Clone, Debug)]
pub(super) struct Names {
    known: HashSet<Arc<str>>,
    /// How many names there are before the next look for those that nobody has any more.
    sweep_at: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl Names {
    /// Makes a slice use the names that are there already.
    pub(super) fn share(&mut self, slice: &mut EndpointSlice) {
        self.sweep();
        let mut ports = slice.ports.to_vec();
        for port in &mut ports {
            self.intern(&mut port.name);
        }
        slice.ports = ports.into();
        for endpoint in &mut slice.endpoints {
            for name in [&mut endpoint.node, &mut endpoint.zone]
                .into_iter()
                .flatten()
            {
                self.intern(name);
            }
            if let Some(hints) = &mut endpoint.hints {
                for name in hints.zones.iter_mut().chain(&mut hints.nodes) {
                    self.intern(name);
                }
            }
        }
    }

    fn intern(&mut self, name: &mut Arc<str>) {
        if let Some(known) = self.known.get(name) {
            *name = Arc::clone(known);
        } else {
            self.known.insert(Arc::clone(name));
        }
    }

    /// Forgets names that nobody has any more. Twice as many as were kept have to come before the next time, so that a
    /// name costs the same however many there are.
    fn sweep(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = (2 * self.known.len()).max(FIRST_SWEEP);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}
