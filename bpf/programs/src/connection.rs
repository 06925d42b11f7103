//! Connections: one entry a connection, and the policy of every local end.

use crate::{
    established, fragment, host,
    maps::{CONFIG, CONNECTIONS},
    packet::{
        ICMP, ICMPV6, IS_ECHO_REPLY, IS_ECHO_REQUEST, IS_FIRST_FRAGMENT, IS_ICMP_ERROR,
        IS_LATER_FRAGMENT, IS_V6, Packet, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
    },
    peer::Peer,
    policy, related,
    report::{Flow, Scratch},
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_coarse_ns};
use heddle_abi::{
    CT_ANSWERED, CT_BY_STACK, CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY, ConnectionEntry,
    ConnectionKey, ConnectionVerdict, DIRECTION_EGRESS, DIRECTION_INGRESS, DropReason, EVENT_AUDIT,
    EVENT_REPLY, HOST_ENDPOINT, ICMP_BY_HIGH, ICMP_BY_LOW, NodeConfig,
};

/// Lifetimes in seconds (reference 3.3).
const LIFETIME_TCP: u32 = 8000;
const LIFETIME_SYN: u32 = 60;
const LIFETIME_CLOSING: u32 = 10;
/// After an RST on an established connection: nobody here knows whether its receiver accepts it, so the connection
/// gets the time that RFC 6146, 3.5.2.2, gives it for the same reason, and RFC 5382, 5, demands at least.
const LIFETIME_RESET: u32 = 240;
const LIFETIME_OTHER: u32 = 60;

/// Who stands at the two ends of a packet.
pub struct Ends {
    pub source: Peer,
    pub destination: Peer,
    /// Endpoint id of the source if its policy is to be asked here, else 0.
    pub source_endpoint: u32,
    /// Endpoint id of the destination if its policy is to be asked here, else 0.
    pub destination_endpoint: u32,
    /// Endpoint id of the other end where it is a pod of this node whose policy is to be asked at another hook of
    /// the same packet, else 0.
    pub elsewhere: u32,
}

impl Ends {
    /// The packet comes by another hook of this node, which evaluates the destination's policy and counts it.
    #[inline(always)]
    fn is_halfway(&self) -> bool {
        self.source_endpoint != 0 && self.elsewhere != 0
    }

    /// The endpoint to whose account go the places that a packet's fragments take: the one that sends it, if it is
    /// here.
    #[inline(always)]
    fn owner(&self) -> u32 {
        if self.source_endpoint != 0 {
            self.source_endpoint
        } else if self.elsewhere != 0 {
            self.elsewhere
        } else {
            self.destination_endpoint
        }
    }
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

/// Writes a packet's connection; true when its source is the low side.
#[inline(always)]
pub fn set_key(key: &mut ConnectionKey, packet: &Packet) -> bool {
    let half = |a: u32, b: u32| (u64::from(a) << 32) | u64::from(b);
    let (s, d) = (&packet.source.words, &packet.destination.words);
    let (s0, s1) = (half(s[0], s[1]), half(s[2], s[3]));
    let (d0, d1) = (half(d[0], d[1]), half(d[2], d[3]));
    let source_is_low = s0 < d0
        || (s0 == d0 && (s1 < d1 || (s1 == d1 && packet.source_port <= packet.destination_port)));
    if source_is_low {
        key.low = packet.source;
        key.high = packet.destination;
        key.low_port = packet.source_port;
        key.high_port = packet.destination_port;
    } else {
        key.low = packet.destination;
        key.high = packet.source;
        key.low_port = packet.destination_port;
        key.high_port = packet.source_port;
    }
    key.protocol = packet.protocol;
    (key.icmp_type, key.icmp_sender) = icmp_key(packet, source_is_low);
    key.reserved = 0;
    source_is_low
}

#[inline(always)]
fn is_icmp(packet: &Packet) -> bool {
    packet.protocol == if packet.is(IS_V6) { ICMPV6 } else { ICMP }
}

/// ICMP type of an echo request.
#[inline(always)]
const fn echo_request(v6: bool) -> u8 {
    if v6 { 128 } else { 8 }
}

/// What tells ICMP messages apart beside their addresses: see [`ConnectionKey`].
#[inline(always)]
fn icmp_key(packet: &Packet, source_is_low: bool) -> (u8, u8) {
    if !is_icmp(packet) {
        return (0, 0);
    }
    let is_reply = packet.is(IS_ECHO_REPLY);
    let kind = if is_reply {
        echo_request(packet.is(IS_V6))
    } else {
        packet.tcp_flags_or_icmp_type
    };
    let sender = if source_is_low != is_reply {
        ICMP_BY_LOW
    } else {
        ICMP_BY_HIGH
    };
    (kind, sender)
}

/// The port (or ICMP type) that policy knows a connection by.
#[inline(always)]
fn service_port(packet: &Packet, is_reply: bool) -> u16 {
    if is_icmp(packet) {
        let kind = if is_reply {
            echo_request(packet.is(IS_V6))
        } else {
            packet.tcp_flags_or_icmp_type
        };
        return u16::from(kind).to_be();
    }
    if is_reply {
        packet.source_port
    } else {
        packet.destination_port
    }
}

/// Whether a packet that travels against its connection's direction opens a connection of its own on the same
/// addresses and ports, which policy has to allow: a SYN without ACK, and an echo request. On a closing
/// connection a SYN does so in either direction.
#[inline(always)]
fn opens_anew(packet: &Packet, entry: &ConnectionEntry, is_reply: bool) -> bool {
    if packet.protocol == TCP {
        let is_syn = packet.tcp_flags_or_icmp_type & (TCP_SYN | TCP_ACK) == TCP_SYN
            && !packet.is(IS_LATER_FRAGMENT);
        return is_syn && (is_reply || entry.flags & CT_CLOSING != 0);
    }
    is_reply && packet.is(IS_ECHO_REQUEST)
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
    if policy::holds(verdict, generation, peer) {
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
    if scratch.flow.packet.is(IS_LATER_FRAGMENT) {
        fragment::find(&mut scratch.flow.packet, ends.owner())?;
    }
    // SAFETY: no arguments.
    let now = (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32;
    if scratch.flow.packet.is(IS_ICMP_ERROR) {
        match related::admit(skb, scratch, ends, now) {
            related::TOLD => return Ok(Report::Nothing),
            related::TO_TELL => return Ok(Report::Trace),
            // An ICMP message like any other.
            _ => {}
        }
    }
    let Scratch {
        flow,
        key,
        entry: new,
        ..
    } = scratch;
    let source_is_low = set_key(key, &flow.packet);
    let is_tcp = flow.packet.protocol == TCP;
    let (found, in_established) = established::find(key);
    let mut report = None;
    if let Some(entry) = found {
        // SAFETY: the entry stays readable and writable until the program ends.
        let entry = unsafe { &mut *entry };
        let is_reply = (entry.flags & CT_INITIATOR_IS_LOW != 0) != source_is_low;
        if entry.expires >= now && !opens_anew(&flow.packet, entry, is_reply) {
            if is_reply {
                flow.flags |= EVENT_REPLY;
                flow.by_stack = u8::from(entry.flags & CT_BY_STACK != 0);
            }
            let first = hold_both(entry, flow, ends, is_reply)?;
            let is_older = entry.last_report != now;
            let due = advance(skb, entry, &flow.packet, ends, is_reply, now);
            if is_tcp {
                // Last: an entry that was moved may serve another connection already.
                let moment = established::Moment { now, is_older };
                established::settle(key, entry, ends, is_reply, in_established, &moment);
            }
            // The other end's policy was asked at another hook.
            report = Some(if first { Report::Verdict } else { due });
        }
    }
    let report = match report {
        Some(report) => report,
        None => {
            let report = open(skb, flow, new, ends, key, source_is_low, now)?;
            if in_established {
                established::remove(key);
            }
            report
        }
    };
    if flow.packet.is(IS_FIRST_FRAGMENT) {
        fragment::remember(&flow.packet, ends.owner());
    }
    Ok(report)
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
    let is_reply = is_reply_of_old(skb, &flow.packet, ends);
    hold_both(entry, flow, ends, is_reply)?;
    if ends.is_halfway() {
        hold_ahead(flow, ends)?;
    }
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
    let _ = advance(skb, entry, &flow.packet, ends, is_reply, now);
    match CONNECTIONS.insert(key, &*entry, 0) {
        Ok(()) => Ok(Report::Verdict),
        Err(_) => Err(DropReason::CtMapInsertionFailed),
    }
}

/// Asks the policy that the next hook will ask, too, and tell of: what is refused there must not take the place of
/// the connection that its addresses and ports have.
#[inline(always)]
fn hold_ahead(flow: &mut Flow, ends: &Ends) -> Result<(), DropReason> {
    let (flags, audited) = (flow.flags, flow.audited);
    let port = service_port(&flow.packet, false);
    hold(
        &mut ConnectionVerdict::default(),
        flow,
        ends.elsewhere,
        DIRECTION_INGRESS,
        &ends.source,
        port,
        &mut false,
    )?;
    (flow.flags, flow.audited) = (flags, audited);
    Ok(())
}

/// Whether the first packet seen of a connection travels from its responder.
///
/// The node's own connections are tracked only while host policies are about it, so some are older than
/// that. For those, and for those alone, the node has a socket that is connected: then the end that listens is
/// the responder. Pods' connections are tracked from the start, and a pod has no such benefit.
#[inline(always)]
fn is_reply_of_old(skb: *mut __sk_buff, packet: &Packet, ends: &Ends) -> bool {
    let from_node = ends.source_endpoint == HOST_ENDPOINT && ends.destination_endpoint == 0;
    let to_node = ends.source_endpoint == 0 && ends.destination_endpoint == HOST_ENDPOINT;
    if !(from_node || to_node)
        || packet.protocol != TCP
        || packet.tcp_flags_or_icmp_type & TCP_SYN != 0
        || packet.is(IS_LATER_FRAGMENT)
    {
        return false;
    }
    match host::role_in_old_connection(skb, packet, from_node) {
        host::INITIATOR => to_node,
        host::RESPONDER => from_node,
        _ => false,
    }
}

/// Whether both ends of a TCP connection say that there is one: the responder has answered, and the initiator
/// has acknowledged. An answer alone goes to whoever stands in a SYN as its source; a host that sent none
/// resets the connection or says nothing, and who acknowledges in its name without having read the answer does not
/// know its sequence number. Of a connection whose answer was not seen, since it is older than its entry, any
/// acknowledgment counts.
#[inline(always)]
pub fn is_established(entry: &ConnectionEntry) -> bool {
    entry.flags & (CT_SEEN_REPLY | CT_CLOSING) == CT_SEEN_REPLY && entry.tcp_flags[0] & TCP_ACK != 0
}

/// Whether an RST was seen since the last segment that speaks against it.
#[inline(always)]
pub fn is_reset(entry: &ConnectionEntry) -> bool {
    (entry.tcp_flags[0] | entry.tcp_flags[1]) & TCP_RST != 0
}

/// Notes a TCP segment; gives the connection's lifetime, and whether it is to be told.
///
/// Whoever can put an address into a packet can send an RST in its name, which the receiver ignores unless its
/// sequence number and checksum are right. So an RST marks an established connection only, which stays what it is
/// for [`LIFETIME_RESET`]; a later segment of either end takes the mark away: no end sends one after it accepted an
/// RST. One that did so answers what the other still sends with an RST, which marks the connection again.
#[inline(always)]
fn note_segment(entry: &mut ConnectionEntry, packet: &Packet, is_reply: bool) -> (u32, bool) {
    let flags = packet.tcp_flags_or_icmp_type;
    let side = usize::from(is_reply);
    let (was_reset, was_closing) = (is_reset(entry), entry.flags & CT_CLOSING != 0);
    if flags & TCP_RST != 0 {
        // Whatever else it says, it answers and acknowledges nothing.
        entry.tcp_flags[side] |= TCP_RST;
    } else {
        let has_acknowledged =
            entry.flags & CT_SEEN_REPLY != 0 && entry.tcp_flags[0] & TCP_ACK != 0;
        if is_reply {
            if !has_acknowledged && flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK {
                entry.set_answer(packet.sequence);
                // It cannot have been this answer.
                entry.tcp_flags[0] &= !TCP_ACK;
            }
            entry.flags |= CT_SEEN_REPLY;
        }
        let proves_nothing = !is_reply
            && !has_acknowledged
            && entry.flags & CT_ANSWERED != 0
            && packet.acknowledgment != entry.answer().wrapping_add(1);
        let kept = match flags & (TCP_SYN | TCP_FIN | TCP_ACK) {
            TCP_ACK => !TCP_RST,
            // After a reset the initiator may use its port for the next connection, which has not ended yet.
            TCP_SYN if was_reset && !is_reply => !TCP_FIN,
            _ => !0,
        };
        entry.tcp_flags[0] &= kept;
        entry.tcp_flags[1] &= kept;
        entry.tcp_flags[side] |= if proves_nothing {
            flags & !TCP_ACK
        } else {
            flags
        };
    }
    let is_reset = is_reset(entry);
    entry.flags &= !CT_CLOSING;
    if entry.tcp_flags[0] & entry.tcp_flags[1] & TCP_FIN != 0
        || (is_reset && !is_established(entry))
    {
        entry.flags |= CT_CLOSING;
    }
    let is_closing = entry.flags & CT_CLOSING != 0;
    let lifetime = if is_closing {
        LIFETIME_CLOSING
    } else if is_reset {
        LIFETIME_RESET
    } else if is_established(entry) {
        LIFETIME_TCP
    } else {
        LIFETIME_SYN
    };
    (
        lifetime,
        (is_closing && !was_closing) || (is_reset && !was_reset),
    )
}

/// Moves a connection's state on by one packet.
#[inline(always)]
fn advance(
    skb: *mut __sk_buff,
    entry: &mut ConnectionEntry,
    packet: &Packet,
    ends: &Ends,
    is_reply: bool,
    now: u32,
) -> Report {
    let side = usize::from(is_reply);
    if !ends.is_halfway() {
        entry.packets[side] += 1;
        // SAFETY: the context is the kernel's.
        entry.bytes[side] += u64::from(unsafe { (*skb).len });
    }
    let mut report = Report::Nothing;
    let lifetime = if packet.protocol == TCP {
        let (lifetime, is_told) = note_segment(entry, packet, is_reply);
        if is_told {
            report = Report::Trace;
        }
        lifetime
    } else {
        if is_reply {
            entry.flags |= CT_SEEN_REPLY;
        }
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
