//! Connections: one entry a connection, and the policy of every local end.

use crate::{
    maps::{CONFIG, CONNECTIONS},
    packet::{
        ICMP, ICMPV6, IS_ECHO_REPLY, IS_ECHO_REQUEST, IS_ICMP_ERROR, IS_LATER_FRAGMENT, IS_V6,
        Packet, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, parse_quoted,
    },
    peer::Peer,
    policy,
    report::{Flow, Scratch},
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_coarse_ns};
use heddle_abi::{
    CT_BY_STACK, CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY, ConnectionEntry, ConnectionKey,
    ConnectionVerdict, DIRECTION_EGRESS, DIRECTION_INGRESS, DropReason, EVENT_AUDIT, EVENT_RELATED,
    EVENT_REPLY, HOST_ENDPOINT, NodeConfig,
};

/// Lifetimes in seconds (reference 3.3).
const LIFETIME_TCP: u32 = 8000;
const LIFETIME_SYN: u32 = 60;
const LIFETIME_CLOSING: u32 = 10;
const LIFETIME_OTHER: u32 = 60;

/// Who stands at the two ends of a packet.
pub struct Ends {
    pub source: Peer,
    pub destination: Peer,
    /// Endpoint id of the source if its policy is to be asked here, else 0.
    pub source_endpoint: u32,
    /// Endpoint id of the destination if its policy is to be asked here, else 0.
    pub destination_endpoint: u32,
}

/// What is to be told of an admitted packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Report {
    Nothing,
    /// A new connection.
    Verdict,
    /// A change of state, or the interval is over.
    Trace,
}

#[inline(always)]
fn key(packet: &Packet) -> (ConnectionKey, bool) {
    let half = |a: u32, b: u32| (u64::from(a) << 32) | u64::from(b);
    let (s, d) = (&packet.source.words, &packet.destination.words);
    let (s0, s1) = (half(s[0], s[1]), half(s[2], s[3]));
    let (d0, d1) = (half(d[0], d[1]), half(d[2], d[3]));
    let source_is_low = s0 < d0
        || (s0 == d0 && (s1 < d1 || (s1 == d1 && packet.source_port <= packet.destination_port)));
    let key = if source_is_low {
        ConnectionKey {
            low: packet.source,
            high: packet.destination,
            low_port: packet.source_port,
            high_port: packet.destination_port,
            protocol: packet.protocol,
            reserved: [0; 3],
        }
    } else {
        ConnectionKey {
            low: packet.destination,
            high: packet.source,
            low_port: packet.destination_port,
            high_port: packet.source_port,
            protocol: packet.protocol,
            reserved: [0; 3],
        }
    };
    (key, source_is_low)
}

/// The port (or ICMP type) that policy knows a connection by.
#[inline(always)]
fn service_port(packet: &Packet, is_reply: bool) -> u16 {
    if packet.protocol == ICMP || packet.protocol == ICMPV6 {
        if packet.is(IS_ECHO_REQUEST | IS_LATER_FRAGMENT) || (is_reply && packet.is(IS_ECHO_REPLY))
        {
            let request: u16 = if packet.is(IS_V6) { 128 } else { 8 };
            return request.to_be();
        }
        return u16::from(packet.tcp_flags_or_icmp_type).to_be();
    }
    if is_reply {
        packet.source_port
    } else {
        packet.destination_port
    }
}

/// Asks one end's policy, unless the connection holds its answer for the present circumstances.
#[inline(always)]
fn hold(
    verdict: &mut ConnectionVerdict,
    flow: &mut Flow,
    endpoint: u32,
    direction: u8,
    peer: &Peer,
    port: u16,
    is_first: &mut bool,
) -> Result<u32, DropReason> {
    let binding = policy::binding(endpoint);
    let generation = binding.generation();
    if verdict.generation == generation
        && generation != 0
        && verdict.peer == peer.identity
        && verdict.peer_cidr == peer.cidr
    {
        return Ok(verdict.cookie);
    }
    let mut cookie = 0;
    let answer = policy::ask(
        binding,
        direction,
        peer,
        flow.packet.protocol,
        port,
        &mut cookie,
    );
    if let Err(reason) = answer {
        flow.endpoint = if endpoint == HOST_ENDPOINT {
            0
        } else {
            endpoint
        };
        flow.direction = direction;
        flow.generation = generation;
        flow.egress_cookie = cookie;
        flow.ingress_cookie = cookie;
        // Without a policy there is nothing to audit: that stays closed.
        if !binding.is_on_audit() || matches!(reason, DropReason::EpNotReady) {
            // The other direction's packets must ask again too, and be refused.
            verdict.generation = 0;
            return Err(reason);
        }
        flow.flags |= EVENT_AUDIT;
        flow.audited = reason as u8;
        *is_first = true;
        // What passes only so was allowed by nobody.
        cookie = 0;
    }
    *is_first |= verdict.generation == 0;
    *verdict = ConnectionVerdict {
        generation,
        peer: peer.identity,
        peer_cidr: peer.cidr,
        cookie,
    };
    Ok(cookie)
}

/// Asks both ends that are here; true when one of them allowed the connection for the first time.
#[inline(always)]
fn hold_both(
    entry: &mut ConnectionEntry,
    flow: &mut Flow,
    ends: &Ends,
    is_reply: bool,
) -> Result<bool, DropReason> {
    let mut first = false;
    let port = service_port(&flow.packet, is_reply);
    // In the reply direction the source is the responder.
    let (initiator, initiators_peer, responder, responders_peer) = if is_reply {
        (
            ends.destination_endpoint,
            &ends.source,
            ends.source_endpoint,
            &ends.destination,
        )
    } else {
        (
            ends.source_endpoint,
            &ends.destination,
            ends.destination_endpoint,
            &ends.source,
        )
    };
    if initiator != 0 {
        flow.egress_cookie = hold(
            &mut entry.egress,
            flow,
            initiator,
            DIRECTION_EGRESS,
            initiators_peer,
            port,
            &mut first,
        )?;
    }
    if responder != 0 {
        flow.ingress_cookie = hold(
            &mut entry.ingress,
            flow,
            responder,
            DIRECTION_INGRESS,
            responders_peer,
            port,
            &mut first,
        )?;
    }
    Ok(first)
}

/// Admits a packet: finds or makes its connection and asks the policy of each end that is here.
#[inline(always)]
pub fn admit(
    skb: *mut __sk_buff,
    scratch: &mut Scratch,
    ends: &Ends,
) -> Result<Report, DropReason> {
    let Scratch {
        flow,
        quoted,
        entry: new,
    } = scratch;
    // SAFETY: no arguments.
    let now = (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32;
    if flow.packet.is(IS_ICMP_ERROR) {
        if is_related(skb, flow, quoted, now) {
            return Ok(Report::Nothing);
        }
        flow.packet.destination_port = u16::from(flow.packet.tcp_flags_or_icmp_type).to_be();
    }
    let (key, source_is_low) = key(&flow.packet);
    if let Some(entry) = CONNECTIONS.get_ptr_mut(&key) {
        // SAFETY: the entry stays readable and writable until the program ends.
        let entry = unsafe { &mut *entry };
        let is_reply = (entry.flags & CT_INITIATOR_IS_LOW != 0) != source_is_low;
        // A SYN without ACK on a closed connection is a new connection on an old tuple.
        let is_reused = entry.flags & CT_CLOSING != 0
            && flow.packet.protocol == TCP
            && flow.packet.tcp_flags_or_icmp_type & (TCP_SYN | TCP_ACK) == TCP_SYN;
        if entry.expires >= now && !is_reused {
            if is_reply {
                flow.flags |= EVENT_REPLY;
                flow.by_stack = u8::from(entry.flags & CT_BY_STACK != 0);
            }
            let first = hold_both(entry, flow, ends, is_reply)?;
            let due = advance(skb, entry, &flow.packet, is_reply, now);
            // The other end's policy was asked at another hook.
            return Ok(if first { Report::Verdict } else { due });
        }
    }
    open(skb, flow, new, ends, &key, source_is_low, now)
}

/// Makes a connection's entry.
#[inline(always)]
fn open(
    skb: *mut __sk_buff,
    flow: &mut Flow,
    entry: &mut ConnectionEntry,
    ends: &Ends,
    key: &ConnectionKey,
    source_is_low: bool,
    now: u32,
) -> Result<Report, DropReason> {
    // SAFETY: plain integers, for which zero is a value.
    *entry = unsafe { core::mem::zeroed() };
    let is_reply = is_reply_of_old(&flow.packet, ends);
    hold_both(entry, flow, ends, is_reply)?;
    entry.flags = if source_is_low != is_reply {
        CT_INITIATOR_IS_LOW
    } else {
        0
    };
    if flow.by_stack != 0 {
        entry.flags |= CT_BY_STACK;
    }
    let (initiator, responder) = if is_reply {
        flow.flags |= EVENT_REPLY;
        (&ends.destination, &ends.source)
    } else {
        (&ends.source, &ends.destination)
    };
    entry.source_identity = initiator.identity;
    entry.destination_identity = responder.identity;
    entry.last_report = now;
    let _ = advance(skb, entry, &flow.packet, is_reply, now);
    match CONNECTIONS.insert(key, &*entry, 0) {
        Ok(()) => Ok(Report::Verdict),
        Err(_) => Err(DropReason::CtMapInsertionFailed),
    }
}

/// Whether the first packet seen of a connection travels from its responder.
///
/// The node's own connections are tracked only while host policies are about it, so some are older than
/// that. A TCP packet without SYN opens nothing at the node, whichever end is asked about it; the lower port is
/// taken for the service's. Pods' connections are tracked from the start, and a pod has no such benefit.
#[inline(always)]
fn is_reply_of_old(packet: &Packet, ends: &Ends) -> bool {
    let only_the_node = (ends.source_endpoint == HOST_ENDPOINT && ends.destination_endpoint == 0)
        || (ends.source_endpoint == 0 && ends.destination_endpoint == HOST_ENDPOINT);
    only_the_node
        && packet.protocol == TCP
        && packet.tcp_flags_or_icmp_type & TCP_SYN == 0
        && u16::from_be(packet.source_port) < u16::from_be(packet.destination_port)
}

/// Moves a connection's state on by one packet.
#[inline(always)]
fn advance(
    skb: *mut __sk_buff,
    entry: &mut ConnectionEntry,
    packet: &Packet,
    is_reply: bool,
    now: u32,
) -> Report {
    let side = usize::from(is_reply);
    entry.packets[side] += 1;
    // SAFETY: the context is the kernel's.
    entry.bytes[side] += u64::from(unsafe { (*skb).len });
    if is_reply {
        entry.flags |= CT_SEEN_REPLY;
    }
    let mut report = Report::Nothing;
    let lifetime = if packet.protocol == TCP {
        let seen = &mut entry.tcp_flags;
        seen[side] |= packet.tcp_flags_or_icmp_type;
        let was_closing = entry.flags & CT_CLOSING != 0;
        if (seen[0] | seen[1]) & TCP_RST != 0 || seen[0] & seen[1] & TCP_FIN != 0 {
            entry.flags |= CT_CLOSING;
            if !was_closing {
                report = Report::Trace;
            }
            LIFETIME_CLOSING
        } else if entry.flags & CT_SEEN_REPLY != 0
            || packet.tcp_flags_or_icmp_type & (TCP_SYN | TCP_ACK) == TCP_ACK
        {
            LIFETIME_TCP
        } else {
            LIFETIME_SYN
        }
    } else {
        LIFETIME_OTHER
    };
    entry.expires = now + lifetime;
    let interval = CONFIG
        .get(0)
        .map_or(5, |config: &NodeConfig| config.report_interval);
    if now - entry.last_report >= interval {
        report = Report::Trace;
    }
    if report == Report::Trace {
        entry.last_report = now;
    }
    report
}

/// True for an ICMP error about a live connection; fragmentation-needed and packet-too-big with it
/// (reference I12).
#[inline(never)]
fn is_related(skb: *mut __sk_buff, flow: &mut Flow, quoted: &mut Packet, now: u32) -> bool {
    if parse_quoted(skb, &flow.packet, quoted).is_none() {
        return false;
    }
    let (key, quoted_source_is_low) = key(quoted);
    // SAFETY: read at once.
    let Some(entry) = (unsafe { CONNECTIONS.get(&key) }) else {
        return false;
    };
    if entry.expires < now {
        return false;
    }
    flow.flags |= EVENT_RELATED;
    // The error travels against what it quotes.
    if (entry.flags & CT_INITIATOR_IS_LOW != 0) == quoted_source_is_low {
        flow.flags |= EVENT_REPLY;
    }
    true
}
