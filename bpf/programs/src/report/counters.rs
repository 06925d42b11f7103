//! Counters: packets by reason and direction, and events that were lost.

use crate::maps::{LOSSES, METRICS};
use aya_ebpf::bindings::__sk_buff;
use heddle_abi::metric_index;

/// Counts a packet.
#[inline(always)]
pub(super) fn count(reason: u8, direction: u8, skb: *mut __sk_buff) {
    if let Some(slot) = METRICS.get_ptr_mut(metric_index(reason, direction)) {
        // SAFETY: the context is the kernel's; a per-CPU slot, and the program is not preempted by itself.
        unsafe {
            (*slot).packets += 1;
            (*slot).bytes += u64::from((*skb).len);
        }
    }
}

/// Counts a forwarded packet.
#[inline(always)]
pub fn forwarded(skb: *mut __sk_buff, direction: u8) {
    count(0, direction, skb);
}

#[inline(always)]
pub(super) fn lost(cause: u32) {
    if let Some(slot) = LOSSES.get_ptr_mut(cause) {
        // SAFETY: a per-CPU slot.
        unsafe { *slot += 1 };
    }
}
