//! The last flows, in a ring that readers follow at their own pace.

use heddle_flow::Response;
use std::collections::VecDeque;
use std::sync::Arc;

/// The last `capacity` records. Each has a sequence number; a reader that asks for a number that was
/// overwritten is told how many it missed.
#[derive(Debug)]
pub(super) struct Ring {
    records: VecDeque<Arc<Response>>,
    capacity: usize,
    /// Sequence number of the oldest record.
    first: u64,
}

/// What a reader gets.
pub(super) struct Batch {
    /// Records that were overwritten before the reader came by.
    pub(super) missed: u64,
    /// The next records, oldest first.
    pub(super) records: Vec<Arc<Response>>,
    /// Sequence number of the record after them.
    pub(super) next: u64,
}

impl Ring {
    /// An empty ring of at least one record.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            records: VecDeque::new(),
            capacity: capacity.max(1),
            first: 0,
        }
    }

    /// Adds a record, in place of the oldest one when the ring is full.
    pub(super) fn push(&mut self, record: Arc<Response>) {
        if self.records.len() == self.capacity {
            self.records.pop_front();
            self.first += 1;
        }
        self.records.push_back(record);
    }

    /// Sequence number that the next record will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Records held.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// All records, oldest first, and the sequence number after them.
    pub(super) fn snapshot(&self) -> (Vec<Arc<Response>>, u64) {
        (self.records.iter().cloned().collect(), self.next())
    }

    /// At most `limit` records from sequence number `from` on.
    pub(super) fn read(&self, from: u64, limit: usize) -> Batch {
        let start = from.clamp(self.first, self.next());
        let skip = usize::try_from(start - self.first).unwrap_or(usize::MAX);
        let records: Vec<_> = self
            .records
            .iter()
            .skip(skip)
            .take(limit)
            .cloned()
            .collect();
        Batch {
            missed: start.saturating_sub(from),
            next: start + records.len() as u64,
            records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_flow::{Line, Timestamp};

    fn record(number: u64) -> Arc<Response> {
        Arc::new(Response {
            line: Line::Flow(Box::default()),
            node_name: String::new(),
            time: Timestamp(number),
        })
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed() {
        let mut ring = Ring::new(3);
        for number in 0..5 {
            ring.push(record(number));
        }
        assert_eq!((ring.len(), ring.next()), (3, 5));
        let batch = ring.read(1, 2);
        let times: Vec<_> = batch.records.iter().map(|one| one.time.0).collect();
        assert_eq!((batch.missed, times, batch.next), (1, vec![2, 3], 4));
        let batch = ring.read(4, 10);
        assert_eq!((batch.missed, batch.records.len(), batch.next), (0, 1, 5));
        let batch = ring.read(5, 10);
        assert_eq!((batch.missed, batch.records.len(), batch.next), (0, 0, 5));
    }
}
