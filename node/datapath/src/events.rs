//! Reading the ring buffer.

use crate::{
    DatapathError,
    maps::{Maps, lock, refused},
};
use heddle_abi::{Event, LOSS_CAUSES, LOSS_RING_FULL, LOSS_SAMPLED};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::Mutex,
    time::Duration,
};

/// Allowed connections do not wake the reader; it looks for them this often.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Events taken in one go, so that a flood cannot hold the reader.
const BATCH: usize = 8192;

/// What was lost up to the last look.
#[derive(Default)]
pub(crate) struct Losses(Mutex<[u64; LOSS_CAUSES as usize]>);

impl Losses {
    /// What was lost since the last look, as (ring full, sampled).
    pub(crate) fn take(&self, maps: &Maps) -> Result<(u64, u64), DatapathError> {
        let mut total = [0_u64; LOSS_CAUSES as usize];
        let losses = lock(&maps.losses);
        for (cause, sum) in (0..LOSS_CAUSES).zip(&mut total) {
            let per_cpu = losses
                .get(&cause, 0)
                .map_err(refused("read", "lost-event counters"))?;
            *sum = per_cpu.iter().sum();
        }
        drop(losses);
        let mut before = lock(&self.0);
        let since = |cause: u32| total[cause as usize].saturating_sub(before[cause as usize]);
        let result = (since(LOSS_RING_FULL), since(LOSS_SAMPLED));
        *before = total;
        Ok(result)
    }

    /// Forgets what was lost before this process started.
    pub(crate) fn start(&self, maps: &Maps) -> Result<(), DatapathError> {
        self.take(maps).map(drop)
    }
}

/// Waits for events and takes them.
pub(crate) fn poll_ring(
    maps: &Maps,
    timeout: Duration,
    events: &mut Vec<Event>,
) -> Result<(), DatapathError> {
    let mut ring = lock(&maps.events);
    let wait = timeout.min(CHECK_INTERVAL);
    {
        // The descriptor lives as long as the ring, which is locked here.
        let descriptor = borrow(&*ring);
        let mut waited = [PollFd::new(descriptor, PollFlags::POLLIN)];
        let milliseconds = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
        // An interrupted wait is a short one.
        let _ = poll(&mut waited, PollTimeout::from(milliseconds));
    }
    for _ in 0..BATCH {
        let Some(item) = ring.next() else { break };
        if let Some(event) = decode(&item) {
            events.push(event);
        }
    }
    Ok(())
}

#[allow(unsafe_code)]
fn borrow<T: AsRawFd>(owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the borrow ends before its owner does, which keeps the descriptor open.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

#[allow(unsafe_code)]
fn decode(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: the length is checked, Event is #[repr(C)] of plain integers, and the read is unaligned.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
