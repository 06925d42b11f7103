//! The one lock around the ledger.

use super::Ledger;
use crate::lock_order::{Held, Level, enter};
use std::ops::{Deref, DerefMut};
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

/// The ledger, locked.
pub(crate) struct LedgerGuard<'a> {
    ledger: MutexGuard<'a, Ledger>,
    _held: Held,
}

impl Deref for LedgerGuard<'_> {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl DerefMut for LedgerGuard<'_> {
    fn deref_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl SharedLedger {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger: Mutex::new(ledger),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for the ledger. It is whole even after a panic elsewhere: every writer leaves it whole at each step.
    pub(crate) fn lock(&self) -> LedgerGuard<'_> {
        let held = enter(Level::Ledger);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        LedgerGuard {
            ledger,
            _held: held,
        }
    }

    /// Waits until nobody else wants the ledger: for what nobody waits for.
    pub(crate) fn lock_last(&self) -> LedgerGuard<'_> {
        let held = enter(Level::Ledger);
        loop {
            if self.waiting.load(Ordering::SeqCst) == 0 {
                let ledger = match self.ledger.try_lock() {
                    Ok(ledger) => Some(ledger),
                    Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                    Err(TryLockError::WouldBlock) => None,
                };
                if let Some(ledger) = ledger {
                    return LedgerGuard {
                        ledger,
                        _held: held,
                    };
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
}
