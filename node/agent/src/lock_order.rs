//! The order in which locks are taken: debug builds, and so all tests, end where it is broken.

use std::marker::PhantomData;

/// Locks in the order in which a thread may take them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    /// [`crate::ledger::SharedLedger`].
    Ledger,
    /// The leases of this node's addresses.
    Addresses,
    /// The tables of [`crate::directory::Directory`].
    Directory,
}

#[cfg(debug_assertions)]
thread_local! {
    static HELD: std::cell::RefCell<Vec<Level>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A lock that this thread holds, or is about to.
#[must_use]
pub(crate) struct Held {
    #[cfg(debug_assertions)]
    level: Level,
    /// It stays on its thread.
    not_send: PhantomData<*const ()>,
}

/// A thread is about to take a lock.
///
/// # Panics
/// In debug builds, when it holds this lock or a later one.
#[cfg_attr(
    not(debug_assertions),
    allow(unused_variables, clippy::missing_const_for_fn)
)]
pub(crate) fn enter(level: Level) -> Held {
    #[cfg(debug_assertions)]
    HELD.with_borrow_mut(|held| {
        assert!(
            held.iter().all(|before| *before < level),
            "{level:?} is taken while {held:?} are held"
        );
        held.push(level);
    });
    Held {
        #[cfg(debug_assertions)]
        level,
        not_send: PhantomData,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        HELD.with_borrow_mut(|held| held.retain(|level| *level != self.level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_their_order() {
        let ledger = enter(Level::Ledger);
        drop(enter(Level::Directory));
        let addresses = enter(Level::Addresses);
        drop(ledger);
        drop(addresses);
        drop(enter(Level::Ledger));
    }

    #[test]
    #[should_panic(expected = "Ledger is taken while [Directory] are held")]
    fn a_lock_that_comes_before_one_that_is_held_is_refused() {
        let _directory = enter(Level::Directory);
        let _ledger = enter(Level::Ledger);
    }
}
