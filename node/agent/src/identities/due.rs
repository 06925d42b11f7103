//! Work that is due.

use std::collections::BTreeSet;

/// Keys that something is to be done about. What is asked for again while it is under way is due again once that has
/// ended: nobody begins it a second time before.
#[derive(Debug)]
pub(crate) struct Due<K> {
    keys: BTreeSet<K>,
    under_way: BTreeSet<K>,
    /// Asked for while it was under way.
    again: BTreeSet<K>,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self {
            keys: BTreeSet::new(),
            under_way: BTreeSet::new(),
            again: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Copy + 'static> Due<K> {
    pub(crate) fn insert(&mut self, key: K) {
        self.keys.insert(key);
        if self.under_way.contains(&key) {
            self.again.insert(key);
        }
    }

    pub(crate) fn extend(&mut self, keys: impl IntoIterator<Item = K>) {
        keys.into_iter().for_each(|key| self.insert(key));
    }

    /// It is not due any more, whoever is at it. True when it was.
    pub(crate) fn remove(&mut self, key: K) -> bool {
        self.again.remove(&key);
        self.keys.remove(&key)
    }

    /// At most so many that are due and that nobody is at. They stay due until [`Self::done`].
    pub(crate) fn begin(&mut self, most: usize) -> Vec<K> {
        let waiting = self.keys.difference(&self.under_way).take(most);
        let waiting: Vec<K> = waiting.copied().collect();
        self.under_way.extend(&waiting);
        waiting
    }

    /// What was begun is done, unless it was asked for again meanwhile.
    pub(crate) fn done(&mut self, key: K) {
        if self.under_way.remove(&key) && !self.again.remove(&key) {
            self.keys.remove(&key);
        }
    }

    /// What was begun failed: it waits again.
    pub(crate) fn failed(&mut self, key: K) {
        self.under_way.remove(&key);
        self.again.remove(&key);
    }

    /// Nothing is due, and nothing under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Something is due that nobody is at.
    pub(crate) fn is_waiting(&self) -> bool {
        self.keys.difference(&self.under_way).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_again_while_it_is_under_way_is_due_again() {
        let mut due: Due<u16> = Due::default();
        due.extend([1, 2, 3]);
        assert!(due.is_waiting());
        assert_eq!(due.begin(1), [1]);
        assert_eq!(due.begin(9), [2, 3]);
        assert!(due.begin(9).is_empty());
        assert!(!due.is_waiting() && !due.is_empty());
        due.insert(2);
        assert!(due.begin(9).is_empty(), "it is begun once at a time");
        due.done(1);
        due.done(2);
        due.failed(3);
        assert!(due.is_waiting());
        assert_eq!(due.begin(9), [2, 3]);
        assert!(due.remove(2) && !due.remove(2));
        due.done(2);
        due.done(3);
        assert!(due.is_empty() && !due.is_waiting());
    }
}
