//! Counters and events: what became of a packet.

use crate::{
    maps::{CONFIG, EVENTS, LOSSES, METRICS, SAMPLERS, SCRATCH},
    packet::{IS_V6, Packet},
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_ktime_get_coarse_ns, bpf_skb_load_bytes},
    programs::TcContext,
};
use heddle_abi::{
    CAPTURE_LENGTH, ConnectionEntry, ConnectionKey, DIRECTION_EGRESS, DropReason, EVENT_DROP,
    EVENT_IPV6, Event, LOSS_RING_FULL, LOSS_SAMPLED, NodeConfig, TracePoint, arrival_sampler,
    departure_sampler, metric_index, trace_sampler,
};

/// `BPF_RB_NO_WAKEUP`: the agent looks by itself several times a second.
const NO_WAKEUP: u64 = 1;
/// `BPF_RB_FORCE_WAKEUP`: somebody may be waiting for this one.
const FORCE_WAKEUP: u64 = 2;

/// What is known of a packet on its way through a program; becomes an event.
#[repr(C)]
pub struct Flow {
    pub packet: Packet,
    pub source_identity: u32,
    pub destination_identity: u32,
    /// Endpoint that speaks; 0 for the node.
    pub endpoint: u32,
    pub egress_cookie: u32,
    pub ingress_cookie: u32,
    pub generation: u32,
    /// `DIRECTION_*`.
    pub direction: u8,
    /// `EVENT_*` flags.
    pub flags: u8,
    /// A [`TracePoint`].
    pub observation: u8,
    /// Why it would have been dropped, were the policy not on audit; a drop reason's number or 0.
    pub audited: u8,
    /// 1 where the node's stack forwards the packet to a pod; and in an answer to such a connection.
    pub by_stack: u8,
    pub reserved: u8,
    /// Endpoint of this node that is known to have sent the packet; [`heddle_abi::HOST_ENDPOINT`] for a process of the
    /// node, 0 where it came from elsewhere.
    pub sender: u16,
}

/// Words of a [`Flow`].
const FLOW_WORDS: usize = size_of::<Flow>() / size_of::<u64>();

const _: () = assert!(size_of::<Flow>() == FLOW_WORDS * size_of::<u64>());

/// Working memory of one program run; a program's stack is 512 bytes.
///
/// Per CPU, and a program is not interrupted by another of these: all run with bottom halves off.
#[repr(C)]
pub struct Scratch {
    pub flow: Flow,
    /// The packet that an ICMP error quotes.
    pub quoted: Packet,
    /// The connection of the packet, or of the quoted one.
    pub key: ConnectionKey,
    /// A connection in the making.
    pub entry: ConnectionEntry,
}

impl Scratch {
    /// This run's working memory, with a flow that knows only where it was seen.
    #[inline(always)]
    pub fn take(direction: u8, observation: TracePoint) -> Option<&'static mut Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: the slot is this CPU's, a map's values are aligned to words, Flow stands first in it, and
        // zero is a value of each of its plain integers.
        unsafe {
            let words = scratch.cast::<u64>();
            for word in 0..FLOW_WORDS {
                // Volatile: else this becomes a call of memset, which goes byte by byte.
                words.add(word).write_volatile(0);
            }
            (*scratch).flow.direction = direction;
            (*scratch).flow.observation = observation as u8;
            Some(&mut *scratch)
        }
    }
}

/// Counts a packet.
#[inline(always)]
fn count(reason: u8, direction: u8, length: u32) {
    if let Some(slot) = METRICS.get_ptr_mut(metric_index(reason, direction)) {
        // SAFETY: a per-CPU slot, and the program is not preempted by itself.
        unsafe {
            (*slot).packets += 1;
            (*slot).bytes += u64::from(length);
        }
    }
}

/// Counts a forwarded packet.
#[inline(always)]
pub fn forwarded(context: &TcContext, direction: u8) {
    count(0, direction, context.len());
}

/// Counts and reports a packet that goes no further.
#[inline(never)]
pub fn drop(skb: *mut __sk_buff, flow: &Flow, reason: DropReason) -> i32 {
    let context = TcContext::new(skb);
    count(reason as u8, flow.direction, context.len());
    if has_token(flow, true) {
        send(skb, flow, EVENT_DROP, reason as u8, FORCE_WAKEUP);
    } else {
        lost(LOSS_SAMPLED);
    }
    TC_ACT_SHOT
}

/// Counts a packet that goes no further and that nobody needs to hear of.
#[inline(always)]
pub fn drop_silently(context: &TcContext, direction: u8, reason: DropReason) -> i32 {
    count(reason as u8, direction, context.len());
    TC_ACT_SHOT
}

/// Reports a forwarded packet; `kind` is `EVENT_VERDICT` or `EVENT_TRACE`.
#[inline(never)]
pub fn trace(skb: *mut __sk_buff, flow: &Flow, kind: u8) {
    if has_token(flow, false) {
        send(skb, flow, kind, flow.audited, NO_WAKEUP);
    } else {
        lost(LOSS_SAMPLED);
    }
}

/// Takes a token from the bucket that an event is charged to, one second's worth deep. A drop is charged to whoever
/// sent the packet, where that is known.
#[inline(always)]
fn has_token(flow: &Flow, is_drop: bool) -> bool {
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
fn lost(cause: u32) {
    if let Some(slot) = LOSSES.get_ptr_mut(cause) {
        // SAFETY: a per-CPU slot.
        unsafe { *slot += 1 };
    }
}

#[inline(always)]
fn send(skb: *mut __sk_buff, flow: &Flow, kind: u8, reason: u8, wakeup: u64) {
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
            let bounded = length & (CAPTURE_LENGTH as u32 - 1);
            if bounded != 0 && bpf_skb_load_bytes(skb.cast(), 0, capture, bounded) == 0 {
                (*event).capture_length = bounded;
            }
        }
    }
    entry.submit(wakeup);
}
