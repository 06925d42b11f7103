//! Which connection a packet belongs to.

use crate::packet::{ICMP, ICMPV6, IS_ECHO_REPLY, IS_V6, Packet};
use heddle_abi::{ConnectionKey, ICMP_BY_HIGH, ICMP_BY_LOW};

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
pub fn service_port(packet: &Packet, is_reply: bool) -> u16 {
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
