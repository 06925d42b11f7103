//! What became of a packet: what is known of it on its way, counters and events.

mod counters;
mod events;

pub use counters::forwarded;

use crate::{connection::Ends, maps::SCRATCH, memory, packet::Packet};
use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use heddle_abi::{
    ConnectionEntry, ConnectionKey, DropReason, EVENT_DROP, LOSS_SAMPLED, TracePoint,
};

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

/// What one program run works with; a program's stack is 512 bytes.
#[repr(C)]
pub struct State {
    pub flow: Flow,
    /// Who stands at its ends.
    pub ends: Ends,
    /// The packet that an ICMP error quotes.
    pub quoted: Packet,
    /// The connection of the packet, or of the quoted one.
    pub key: ConnectionKey,
    /// A connection in the making.
    pub entry: ConnectionEntry,
}

/// This run's [`State`].
///
/// It is per CPU, and a program is not interrupted by another of these: all run with bottom halves off. A real-time
/// kernel may let them interrupt each other (`CONFIG_PREEMPT_RT` without `CONFIG_PREEMPT_RT_NEEDS_BH_LOCK`).
///
/// A pointer rather than a reference, because a subprogram takes it anew ([`Scratch::again`]) instead of being passed
/// it: verifiers before Linux 6.2 accept a map's value as the key of a look-up, but not memory that a global function
/// was passed. So whoever calls a subprogram holds this, and nothing borrowed from it.
pub struct Scratch(NonNull<State>);

impl Scratch {
    /// Begins a run: the flow knows only where it was seen.
    #[inline(always)]
    pub fn take(direction: u8, observation: TracePoint) -> Option<Self> {
        let mut scratch = Self::again()?;
        memory::clear(&mut scratch.flow);
        scratch.flow.direction = direction;
        scratch.flow.observation = observation as u8;
        Some(scratch)
    }

    /// The state of the run that is under way.
    #[inline(always)]
    pub fn again() -> Option<Self> {
        NonNull::new(SCRATCH.get_ptr_mut(0)?).map(Self)
    }
}

impl Deref for Scratch {
    type Target = State;

    #[inline(always)]
    fn deref(&self) -> &State {
        // SAFETY: the slot is this CPU's as long as this run, and no subprogram runs while this is borrowed.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Scratch {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut State {
        // SAFETY: as in `deref`.
        unsafe { self.0.as_mut() }
    }
}

/// Counts and reports a packet that goes no further.
#[inline(never)]
pub fn drop(skb: *mut __sk_buff, flow: &Flow, reason: DropReason) -> i32 {
    counters::count(reason as u8, flow.direction, skb);
    if events::has_token(flow, true) {
        events::send(skb, flow, EVENT_DROP, reason as u8, events::FORCE_WAKEUP);
    } else {
        counters::lost(LOSS_SAMPLED);
    }
    TC_ACT_SHOT
}

/// Counts a packet that goes no further and that nobody needs to hear of.
#[inline(always)]
pub fn drop_silently(skb: *mut __sk_buff, direction: u8, reason: DropReason) -> i32 {
    counters::count(reason as u8, direction, skb);
    TC_ACT_SHOT
}

/// Reports a forwarded packet; `kind` is `EVENT_VERDICT` or `EVENT_TRACE`.
#[inline(never)]
pub fn trace(skb: *mut __sk_buff, flow: &Flow, kind: u8) {
    if events::has_token(flow, false) {
        events::send(skb, flow, kind, flow.audited, events::NO_WAKEUP);
    } else {
        counters::lost(LOSS_SAMPLED);
    }
}
