//! How far the agent has come with what it heard, as others see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// How far the agent has come.
#[derive(Debug)]
pub(crate) struct Progress {
    restored: bool,
    ready: bool,
    realised: Arc<AtomicU64>,
    changed: watch::Sender<()>,
}

impl Progress {
    /// `realised` is the store revision up to which everything is in force; `changed` wakes those who look for work.
    pub(super) const fn new(realised: Arc<AtomicU64>, changed: watch::Sender<()>) -> Self {
        Self {
            restored: false,
            ready: false,
            realised,
            changed,
        }
    }

    /// The former run's state is known: before, nothing is written.
    pub(crate) const fn is_restored(&self) -> bool {
        self.restored
    }

    pub(crate) const fn set_restored(&mut self) {
        self.restored = true;
    }

    /// The former run's state is taken over, and new pods are served.
    pub(crate) const fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) const fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Everything up to a store revision is in force.
    pub(super) fn realise(&self, revision: u64) {
        self.realised.fetch_max(revision, Ordering::SeqCst);
    }

    /// Wakes those who look for work.
    pub(super) fn wake(&self) {
        self.changed.send_replace(());
    }
}
