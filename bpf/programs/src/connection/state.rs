//! A connection's state, and how long it lives in it.

use super::{Ends, Report};
use crate::{
    maps::CONFIG,
    packet::{IS_ECHO_REQUEST, IS_LATER_FRAGMENT, Packet, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};
use aya_ebpf::bindings::__sk_buff;
use heddle_abi::{
    CT_ANSWERED, CT_CLOSING, CT_SEEN_REPLY, ConnectionEntry, LIFETIME_CLOSING, LIFETIME_OTHER,
    LIFETIME_RESET, LIFETIME_SYN, LIFETIME_TCP, NodeConfig,
};

/// Whether a packet that travels against its connection's direction opens a connection of its own on the same
/// addresses and ports, which policy has to allow: a SYN without ACK, and an echo request. On a closing
/// connection a SYN does so in either direction.
#[inline(always)]
pub fn opens_anew(packet: &Packet, entry: &ConnectionEntry, is_reply: bool) -> bool {
    if packet.protocol == TCP {
        let is_syn = packet.tcp_flags_or_icmp_type & (TCP_SYN | TCP_ACK) == TCP_SYN
            && !packet.is(IS_LATER_FRAGMENT);
        return is_syn && (is_reply || entry.flags & CT_CLOSING != 0);
    }
    is_reply && packet.is(IS_ECHO_REQUEST)
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
pub fn advance(
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
