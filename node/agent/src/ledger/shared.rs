//! The one lock around the ledger.

use super::Ledger;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// Pause of those who let others go first.
const PAUSE: Duration = Duration::from_millis(1);

/// The ledger as the agent's parts share it.
pub(crate) struct SharedLedger {
    ledger: Mutex<Ledger>,
    waiting: AtomicUsize,
}

impl SharedLedger {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for the ledger. It is whole even after a panic elsewhere: every writer leaves it whole at each step.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        ledger
    }

    /// Waits until nobody else wants the ledger: for what nobody waits for.
    pub(crate) fn lock_last(&self) -> MutexGuard<'_, Ledger> {
        loop {
            if self.waiting.load(Ordering::SeqCst) == 0 {
                match self.ledger.try_lock() {
                    Ok(ledger) => return ledger,
                    Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}
