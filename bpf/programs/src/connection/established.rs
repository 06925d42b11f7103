//! Established TCP connections: kept where nobody else's connections can push them out.
//!
//! `CONNECTIONS` evicts what was idle longest, whoever's it is, so a flood of new connections would make room for
//! itself by making the node forget others' idle ones; the next packet of such a connection's responder would
//! then be taken for the initiator's. A TCP connection whose initiator acknowledged the answer ([`is_established`])
//! is therefore moved to `ESTABLISHED`, which evicts nothing, as long as the share of its end ([`share_index`]) has
//! room. Where it has none, the connection stays where it is.
//!
//! It may fall silent at once, so it is moved at once. To move it and to move it back when it closes costs as much as
//! two of its packets, so an end that opens more connections in a second than its share has places has the rest of
//! them moved only if they are used for longer than a second.

use super::{
    Ends,
    state::{is_established, is_reset},
};
use crate::{
    maps::{CONFIG, CONNECTIONS, ESTABLISHED, PROMOTIONS, SHARES},
    packet::TCP,
};
use heddle_abi::{CT_CLOSING, ConnectionEntry, ConnectionKey, NodeConfig, share_index};

/// How many connections of a share were moved within the second that they were made or reported in.
#[repr(C)]
pub struct Promotions {
    /// The second that they are counted for.
    second: u32,
    count: u32,
}

/// When a connection is looked at.
pub struct Moment {
    /// Second of the monotonic clock.
    pub now: u32,
    /// The connection was neither made nor reported in this second.
    pub is_older: bool,
}

/// A connection's entry in either table, and whether it is in `ESTABLISHED`, where only TCP's are.
#[inline(always)]
pub fn find(key: &ConnectionKey) -> (Option<*mut ConnectionEntry>, bool) {
    if key.protocol == TCP
        && let Some(entry) = ESTABLISHED.get_ptr_mut(key)
    {
        return (Some(entry), true);
    }
    (CONNECTIONS.get_ptr_mut(key), false)
}

/// Puts a connection that is in `ESTABLISHED`, or is not, into the table that its state calls for. The entry at hand
/// must not be used after it.
#[inline(always)]
pub fn settle(
    key: &ConnectionKey,
    entry: &mut ConnectionEntry,
    ends: &Ends,
    is_reply: bool,
    is_in: bool,
    moment: &Moment,
) {
    if is_in {
        if entry.flags & CT_CLOSING != 0 {
            demote(key, entry);
        }
    } else if is_established(entry) && !is_reset(entry) {
        promote(key, entry, owner(ends, is_reply), moment);
    }
}

/// The share of the local initiator, else that of the local responder. Where the stack carries a packet between
/// two pods of the node, each hook sees its own end only: a connection takes a place of whichever is first.
#[inline(always)]
fn owner(ends: &Ends, is_reply: bool) -> u32 {
    let (initiator, responder) = if is_reply {
        (ends.destination_endpoint, ends.source_endpoint)
    } else {
        (ends.source_endpoint, ends.destination_endpoint)
    };
    if initiator != 0 {
        share_index(initiator, true)
    } else {
        share_index(responder, false)
    }
}

#[inline(never)]
fn promote(key: &ConnectionKey, entry: &mut ConnectionEntry, share: u32, moment: &Moment) {
    let limit = CONFIG
        .get(0)
        .map_or(0, |config: &NodeConfig| config.established_share);
    let Some(count) = count(share) else { return };
    // SAFETY: an array's element stays readable and writable.
    if unsafe { *count } >= limit {
        return;
    }
    if !moment.is_older && !is_among_first(share, moment.now, limit) {
        return;
    }
    entry.share = share as u16;
    entry.answer_high = 0;
    if ESTABLISHED.insert(key, &*entry, 0).is_ok() {
        // SAFETY: as above. Two CPUs may lose one of their changes; user space counts anew when it collects dead
        // entries.
        unsafe { *count += 1 };
        let _ = CONNECTIONS.remove(key);
    } else {
        entry.share = 0;
    }
}

/// Counts a young connection's move; false where the share has had enough of them in this second. Two CPUs may lose one
/// of their changes: a few more are moved.
#[inline(always)]
fn is_among_first(share: u32, now: u32, limit: u32) -> bool {
    let Some(promotions) = PROMOTIONS.get_ptr_mut(share) else {
        return false;
    };
    // SAFETY: an array's element stays readable and writable.
    let promotions = unsafe { &mut *promotions };
    if promotions.second != now {
        promotions.second = now;
        promotions.count = 0;
    }
    promotions.count += 1;
    promotions.count <= limit
}

#[inline(never)]
fn demote(key: &ConnectionKey, entry: &mut ConnectionEntry) {
    if CONNECTIONS.insert(key, &*entry, 0).is_ok() {
        release(key, u32::from(entry.share));
    }
}

/// Forgets an established connection: its addresses and ports serve another now.
#[inline(never)]
pub fn remove(key: &ConnectionKey) {
    if let Some(entry) = ESTABLISHED.get_ptr_mut(key) {
        // SAFETY: the entry stays readable until the program ends.
        let share = u32::from(unsafe { (*entry).share });
        release(key, share);
    }
}

#[inline(always)]
fn release(key: &ConnectionKey, share: u32) {
    // Only whoever really removes it gives its place back.
    if ESTABLISHED.remove(key).is_ok()
        && let Some(count) = count(share)
    {
        // SAFETY: as in `promote`.
        unsafe { *count = (*count).saturating_sub(1) };
    }
}

/// How many connections a share holds.
#[inline(always)]
fn count(share: u32) -> Option<*mut u32> {
    SHARES.get_ptr_mut(share)
}
