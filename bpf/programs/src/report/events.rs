//! Events: who may send how many, and what stands in one.

use super::{Flow, counters::lost};
use crate::{
    maps::{CONFIG, EVENTS, SAMPLERS},
    packet::IS_V6,
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_skb_load_bytes},
};
use heddle_abi::{
    CAPTURE_LENGTH, DIRECTION_EGRESS, EVENT_IPV6, Event, LOSS_RING_FULL, NodeConfig,
    arrival_sampler, departure_sampler, trace_sampler,
};

/// `BPF_RB_NO_WAKEUP`: the agent looks by itself several times a second.
pub(super) const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`: somebody may be waiting for this one.
pub(super) const FORCE_WAKEUP: u64 = 2;

/// Takes a token from the bucket that an event is charged to, one second's worth deep. A drop is charged to whoever
/// sent the packet, where that is known.
#[inline(always)]
pub(super) fn has_token(flow: &Flow, is_drop: bool) -> bool {
    let rate = CONFIG.get(0).map_or(0, |config: &NodeConfig| {
        u64::from(if is_drop {
            config.drop_event_rate
        } else {
            config.trace_event_rate
        })
    });
    let index = if !is_drop {
        trace_sampler(flow.endpoint, flow.direction)
    } else if flow.sender != 0 {
        departure_sampler(u32::from(flow.sender))
    } else if flow.direction == DIRECTION_EGRESS {
        departure_sampler(flow.endpoint)
    } else {
        arrival_sampler(flow.endpoint, &flow.packet.source)
    };
    let Some(bucket) = SAMPLERS.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: a per-CPU slot, and the program is not preempted by itself.
    unsafe {
        let elapsed = now - (*bucket).filled;
        if elapsed >= 1_000_000_000 {
            (*bucket).tokens = rate;
            (*bucket).filled = now;
        }
        if (*bucket).tokens == 0 {
            return false;
        }
        (*bucket).tokens -= 1;
    }
    true
}

#[inline(always)]
pub(super) fn send(skb: *mut __sk_buff, flow: &Flow, kind: u8, reason: u8, wakeup: u64) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        lost(LOSS_RING_FULL);
        return;
    };
    let packet = &flow.packet;
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation is an Event, and every field is written before it is submitted.
    unsafe {
        (*event).time = bpf_ktime_get_boot_ns();
        (*event).source = packet.source;
        (*event).destination = packet.destination;
        (*event).source_port = u16::from_be(packet.source_port);
        (*event).destination_port = u16::from_be(packet.destination_port);
        (*event).source_identity = flow.source_identity;
        (*event).destination_identity = flow.destination_identity;
        (*event).endpoint = flow.endpoint;
        (*event).ifindex = (*skb).ifindex;
        (*event).egress_cookie = flow.egress_cookie;
        (*event).ingress_cookie = flow.ingress_cookie;
        (*event).packet_length = (*skb).len;
        (*event).kind = kind;
        (*event).reason = reason;
        (*event).direction = flow.direction;
        (*event).flags = flow.flags | if packet.is(IS_V6) { EVENT_IPV6 } else { 0 };
        (*event).observation = flow.observation;
        (*event).protocol = packet.protocol;
        (*event).tcp_flags_or_icmp_type = packet.tcp_flags_or_icmp_type;
        (*event).icmp_code = packet.icmp_code;
        (*event).generation = flow.generation;
        (*event).capture_length = 0;
        let length = (*skb).len;
        // A fixed length where it fits, so that the verifier sees the bound.
        if length >= CAPTURE_LENGTH as u32 {
            let capture = (&raw mut (*event).capture).cast();
            if bpf_skb_load_bytes(skb.cast(), 0, capture, CAPTURE_LENGTH as u32) == 0 {
                (*event).capture_length = CAPTURE_LENGTH as u32;
            }
        } else {
            (*event).capture = [0; CAPTURE_LENGTH];
            let capture = (&raw mut (*event).capture).cast();
            // From 1 to the whole, whatever the length: verifiers before Linux 6.8 learn nothing from `!= 0`. A length
            // of 0 becomes more than there is, and the helper refuses it.
            let bounded = (length.wrapping_sub(1) & (CAPTURE_LENGTH as u32 - 1)) + 1;
            if bpf_skb_load_bytes(skb.cast(), 0, capture, bounded) == 0 {
                (*event).capture_length = bounded;
            }
        }
    }
    entry.submit(wakeup);
}
