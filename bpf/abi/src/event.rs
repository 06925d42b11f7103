//! Events, counters and their bounds.

use crate::Address;

/// A packet was dropped (Cilium's monitor number, reference 3.7).
pub const EVENT_DROP: u8 = 1;
/// A packet was forwarded and its connection is due for a report.
pub const EVENT_TRACE: u8 = 4;
/// A policy decided on a new connection.
pub const EVENT_VERDICT: u8 = 5;

/// The packet travels in its connection's reply direction.
pub const EVENT_REPLY: u8 = 1;
/// The packet is IPv6.
pub const EVENT_IPV6: u8 = 2;
/// The packet is an ICMP error about its connection.
pub const EVENT_RELATED: u8 = 4;
/// A policy denies the connection, and it passed because the endpoint's policy is on audit; `reason` says
/// how it would have been dropped.
pub const EVENT_AUDIT: u8 = 8;

/// Bytes of the packet that an event carries at most.
pub const CAPTURE_LENGTH: usize = 128;

/// Where a packet was seen (Cilium's trace points, reference 3.7).
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TracePoint {
    /// On its way into a pod.
    ToEndpoint = 0,
    /// On its way to a process of this node.
    ToHost = 2,
    /// On its way into the node's network stack.
    ToStack = 3,
    /// On its way into the overlay.
    ToOverlay = 4,
    /// Just sent by a pod.
    FromEndpoint = 5,
    /// Just sent by a process of this node.
    FromHost = 7,
    /// Just out of the overlay.
    FromOverlay = 9,
    /// Just off the uplink.
    FromNetwork = 10,
    /// On its way to the uplink.
    ToNetwork = 11,
}

/// One event, as it stands in the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Nanoseconds of the boot clock.
    pub time: u64,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, host byte order; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination port, host byte order; 0 where the protocol has none.
    pub destination_port: u16,
    /// Identity of the source.
    pub source_identity: u32,
    /// Identity of the destination.
    pub destination_identity: u32,
    /// Endpoint whose program or policy speaks; 0 means the node.
    pub endpoint: u32,
    /// Interface on which the packet was seen.
    pub ifindex: u32,
    /// Cookie of the egress rules that allowed it.
    pub egress_cookie: u32,
    /// Cookie of the ingress rules that allowed it, or of the deny that stopped it (either direction).
    pub ingress_cookie: u32,
    /// Length of the packet on the wire.
    pub packet_length: u32,
    /// `EVENT_DROP`, `EVENT_TRACE` or `EVENT_VERDICT`.
    pub kind: u8,
    /// For a drop and for an [`EVENT_AUDIT`], the [`crate::DropReason`].
    pub reason: u8,
    /// [`crate::DIRECTION_INGRESS`] or [`crate::DIRECTION_EGRESS`]: whose policy or hook speaks.
    pub direction: u8,
    /// `EVENT_REPLY`, `EVENT_IPV6`, `EVENT_RELATED`, `EVENT_AUDIT`.
    pub flags: u8,
    /// A [`TracePoint`].
    pub observation: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags byte of the packet, or the ICMP type.
    pub tcp_flags_or_icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Bytes of `capture` that hold the packet.
    pub capture_length: u32,
    /// Policy generation of the endpoint.
    pub generation: u32,
    /// The packet from its Ethernet header on.
    pub capture: [u8; CAPTURE_LENGTH],
}

const _: () = assert!(size_of::<Event>() == 8 + 32 + 4 + 28 + 8 + 8 + CAPTURE_LENGTH);

/// A count of packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MetricSlot {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Number of counters: a reason and a direction each.
pub const METRIC_SLOTS: u32 = 512;

/// The counter of a reason (0 means forwarded) in a direction.
#[inline(always)]
pub const fn metric_index(reason: u8, direction: u8) -> u32 {
    ((reason as u32) << 1) | (direction as u32 & 1)
}

/// A token bucket.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sampler {
    /// Nanoseconds of the monotonic clock when `tokens` was last filled.
    pub filled: u64,
    /// Events that may still be sent.
    pub tokens: u64,
}

/// Token buckets for what is dropped on its way to one endpoint from elsewhere.
pub const ARRIVAL_SAMPLERS: u32 = 4;

/// Token buckets: eight an endpoint, of which one is not used.
pub const SAMPLERS: u32 = crate::MAX_ENDPOINTS * 8;

/// The token bucket for what an endpoint (0 means the node) tells of forwarded packets, each direction apart.
#[inline(always)]
pub const fn trace_sampler(endpoint: u32, direction: u8) -> u32 {
    (endpoint << 3) | (direction as u32 & 1)
}

/// The token bucket for the drops of what an endpoint of this node sends, wherever they happen: what one pod sends
/// does not hide what happens to others, also not at the same receiver.
#[inline(always)]
pub const fn departure_sampler(sender: u32) -> u32 {
    (sender << 3) | 2
}

/// The token bucket for the drops of what comes to an endpoint from elsewhere: one of a few, by its source.
#[inline(always)]
pub const fn arrival_sampler(receiver: u32, source: &Address) -> u32 {
    let [a, b, c, d] = source.words;
    // Only the highest bits of the product depend on all bits (Fibonacci hashing).
    let part = (a ^ b ^ c ^ d).wrapping_mul(0x9e37_79b1) >> (u32::BITS - ARRIVAL_SAMPLERS.ilog2());
    (receiver << 3) | ARRIVAL_SAMPLERS | part
}

/// The ring buffer was full.
pub const LOSS_RING_FULL: u32 = 0;
/// The endpoint's token bucket was empty.
pub const LOSS_SAMPLED: u32 = 1;
/// Number of causes.
pub const LOSS_CAUSES: u32 = 2;
