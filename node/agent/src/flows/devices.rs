//! Names of the node's own network devices, by interface index.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Names kept at most.
const MOST: usize = 1024;
/// After this long a name is asked for again: devices are renamed, and numbers come back after a
/// restart of the machine only.
const KNOWN: Duration = Duration::from_secs(60);
/// After this long an index that named no device is asked for again.
const UNKNOWN: Duration = Duration::from_secs(1);

struct Known {
    name: Option<String>,
    asked: Instant,
}

/// The devices of the network namespace in which the agent runs. The kernel is asked when an index is
/// seen for the first time, and then rarely.
pub(crate) struct Devices {
    known: Mutex<HashMap<u32, Known>>,
    ask: fn(u32) -> Option<String>,
}

impl Devices {
    pub(crate) fn new() -> Self {
        Self::asking(ask_kernel)
    }

    fn asking(ask: fn(u32) -> Option<String>) -> Self {
        Self {
            known: Mutex::default(),
            ask,
        }
    }

    /// The name of a device; `None` when there is none with this index.
    pub(crate) fn name(&self, index: u32) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&index) {
            let lasts = if found.name.is_some() { KNOWN } else { UNKNOWN };
            if found.asked.elapsed() < lasts {
                return found.name.clone();
            }
        }
        if known.len() >= MOST {
            known.clear();
        }
        let name = (self.ask)(index);
        let asked = Instant::now();
        known.insert(
            index,
            Known {
                name: name.clone(),
                asked,
            },
        );
        name
    }
}

fn ask_kernel(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index)
        .ok()?
        .into_string()
        .ok()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_kernels_names_are_found() {
        let devices = Devices::new();
        // A network namespace always has its loopback, and it is always the first.
        assert_eq!(devices.name(1).as_deref(), Some("lo"));
        assert_eq!(devices.name(u32::MAX), None);
    }

    #[test]
    fn the_kernel_is_asked_once_per_index_and_the_memory_is_bounded() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        let devices = Devices::asking(|index| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            (index % 2 == 0).then(|| format!("eth{index}"))
        });
        for _ in 0..3 {
            assert_eq!(devices.name(2).as_deref(), Some("eth2"));
        }
        assert_eq!(devices.name(3), None);
        assert_eq!(ASKED.load(Ordering::SeqCst), 2);
        for index in 0..5_000 {
            devices.name(index);
        }
        assert!(devices.known.lock().unwrap().len() <= MOST);
    }
}
