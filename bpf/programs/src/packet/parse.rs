//! Parsing: from bytes to a [`Packet`], or to the reason why not.

use super::{
    ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMP, ICMPV6, IS_ECHO_REPLY, IS_ECHO_REQUEST,
    IS_FIRST_FRAGMENT, IS_ICMP_ERROR, IS_LATER_FRAGMENT, IS_V6, Packet, SCTP, TCP, UDP, load,
    load_header,
};
use crate::subprogram;
use aya_ebpf::bindings::__sk_buff;
use heddle_abi::{Address, DropReason};

/// Offsets of what stands behind an IPv4 header without options, and behind an IPv6 header.
const BEHIND_IPV4: u32 = ETHERNET_LENGTH + 20;
const BEHIND_IPV6: u32 = ETHERNET_LENGTH + 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Headers behind the IPv6 header that are followed before a packet counts as hostile; the transport header is one of
/// them.
const MAX_HEADERS: u32 = 4;

const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
pub(super) const IPV4_OFFSET_MASK: u16 = 0x1fff;

/// Reads a transport header; where no options stand before it, as [`load_header`] does. The verifier
/// follows a bound best for offsets that are constant.
#[inline(always)]
fn load_transport<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    match offset {
        BEHIND_IPV4 => load_header(skb, BEHIND_IPV4),
        BEHIND_IPV6 => load_header(skb, BEHIND_IPV6),
        _ => load(skb, offset),
    }
}

#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub(super) struct Ipv4Header {
    pub(super) version_and_length: u8,
    pub(super) service: u8,
    pub(super) total_length: u16,
    pub(super) identification: u16,
    pub(super) fragment: u16,
    pub(super) time_to_live: u8,
    pub(super) protocol: u8,
    pub(super) checksum: u16,
    pub(super) source: u32,
    pub(super) destination: u32,
}

#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub(super) struct Ipv6Header {
    pub(super) version_class_flow: u32,
    pub(super) payload_length: u16,
    pub(super) next_header: u8,
    pub(super) hop_limit: u8,
    pub(super) source: [u32; 4],
    pub(super) destination: [u32; 4],
}

/// Parses the packet from its network header on; `packet` comes zeroed.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), DropReason> {
    match parse_packet(skb, packet) {
        PARSED => Ok(()),
        code => Err(subprogram::reason(code)),
    }
}

/// What [`parse_packet`] returns where it does not refuse.
const PARSED: i32 = 0;

/// [`parse`] as a subprogram.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn parse_packet(skb: *mut __sk_buff, packet: *mut Packet) -> i32 {
    // SAFETY: the verifier wants the check; the callers pass their own.
    let Some(packet) = (unsafe { packet.as_mut() }) else {
        return subprogram::code(DropReason::InvalidPacketDropped);
    };
    let parsed = match super::ethertype(skb) {
        ETHERTYPE_IPV4 => parse_ipv4(skb, packet),
        ETHERTYPE_IPV6 => parse_ipv6(skb, packet),
        _ => Err(DropReason::UnsupportedL3Protocol),
    };
    match parsed {
        Ok(()) => PARSED,
        Err(reason) => subprogram::code(reason),
    }
}

/// Bytes of the frame.
#[inline(always)]
fn length(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { (*skb).len }
}

#[inline(always)]
fn parse_ipv4(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), DropReason> {
    let header: Ipv4Header =
        load_header(skb, ETHERNET_LENGTH).ok_or(DropReason::InvalidPacketDropped)?;
    packet.source = Address::from_v4_word(header.source);
    packet.destination = Address::from_v4_word(header.destination);
    packet.protocol = header.protocol;
    packet.time_to_live = header.time_to_live;
    let header_length = u32::from(header.version_and_length & 0x0f) * 4;
    let total_length = u32::from(u16::from_be(header.total_length));
    if header.version_and_length >> 4 != 4
        || header_length < 20
        || total_length < header_length
        || total_length > length(skb).wrapping_sub(ETHERNET_LENGTH)
    {
        return Err(DropReason::InvalidPacketDropped);
    }
    packet.transport = ETHERNET_LENGTH + header_length;
    packet.end = ETHERNET_LENGTH + total_length;
    let fragment = u16::from_be(header.fragment);
    if fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK) == 0 {
        return parse_transport(skb, packet);
    }
    let offset = fragment & IPV4_OFFSET_MASK;
    // RFC 3128: a second fragment that would overwrite the TCP flags.
    if offset == 1 && header.protocol == TCP {
        return Err(DropReason::InvalidPacketDropped);
    }
    packet.identification = u32::from(header.identification);
    parse_fragment(skb, packet, offset != 0)
}

/// A fragment: only the first one has a transport header. An ICMP error quotes no more than fits into the
/// smallest packet (RFC 1812, 4.3.2.3; RFC 4443, 2.4), so nobody has to fragment one.
#[inline(always)]
fn parse_fragment(
    skb: *mut __sk_buff,
    packet: &mut Packet,
    is_later: bool,
) -> Result<(), DropReason> {
    if is_later {
        packet.kind |= IS_LATER_FRAGMENT;
        return match packet.protocol {
            TCP | UDP | SCTP | ICMP | ICMPV6 => Ok(()),
            _ => Err(DropReason::CtUnknownL4Protocol),
        };
    }
    packet.kind |= IS_FIRST_FRAGMENT;
    parse_transport(skb, packet)?;
    if packet.is(IS_ICMP_ERROR) {
        return Err(DropReason::InvalidPacketDropped);
    }
    Ok(())
}

#[inline(always)]
fn parse_ipv6(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), DropReason> {
    let header: Ipv6Header =
        load_header(skb, ETHERNET_LENGTH).ok_or(DropReason::InvalidPacketDropped)?;
    packet.kind = IS_V6;
    packet.source = Address {
        words: header.source,
    };
    packet.destination = Address {
        words: header.destination,
    };
    packet.time_to_live = header.hop_limit;
    let payload_length = u32::from(u16::from_be(header.payload_length));
    if u32::from_be(header.version_class_flow) >> 28 != 6
        || payload_length > length(skb).wrapping_sub(ETHERNET_LENGTH + 40)
        // An IPv4-mapped address in an IPv6 header would pass for another family's (RFC 4942, 2.2).
        || packet.source.is_v4()
        || packet.destination.is_v4()
    {
        return Err(DropReason::InvalidPacketDropped);
    }
    packet.transport = BEHIND_IPV6;
    packet.end = BEHIND_IPV6 + payload_length;
    packet.protocol = header.next_header;
    if matches!(header.next_header, TCP | UDP | ICMPV6 | SCTP) {
        return parse_transport(skb, packet);
    }
    parse_extension_headers(skb, packet)
}

/// Follows extension headers to the transport header. Routing headers and everything unknown are
/// refused; hop-by-hop options only stand first (RFC 8200, 4.1).
#[inline(never)]
fn parse_extension_headers(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), DropReason> {
    let mut next = packet.protocol;
    let mut offset = packet.transport;
    for index in 0..MAX_HEADERS {
        match next {
            HOP_BY_HOP if index != 0 => return Err(DropReason::InvalidIpv6ExtensionHeader),
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let [following, length]: [u8; 2] =
                    load(skb, offset).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                next = following;
                offset += (u32::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let [following, _, high, low, id0, id1, id2, id3]: [u8; 8] =
                    load(skb, offset).ok_or(DropReason::InvalidIpv6ExtensionHeader)?;
                packet.protocol = following;
                packet.transport = offset + 8;
                // RFC 7112: the first fragment holds the whole chain, so a chain that goes on behind
                // the fragment header is refused together with what no upper layer would have sent.
                if !matches!(following, TCP | UDP | ICMPV6 | SCTP) {
                    return Err(DropReason::InvalidIpv6ExtensionHeader);
                }
                let position = u16::from_be_bytes([high, low]);
                if position & 0xfff9 == 0 {
                    // An atomic fragment (RFC 6946) is a whole packet.
                    return parse_transport(skb, packet);
                }
                packet.identification = u32::from_ne_bytes([id0, id1, id2, id3]);
                return parse_fragment(skb, packet, position & 0xfff8 != 0);
            }
            ROUTING => return Err(DropReason::InvalidIpv6ExtensionHeader),
            _ => {
                packet.protocol = next;
                packet.transport = offset;
                return parse_transport(skb, packet);
            }
        }
    }
    Err(DropReason::InvalidIpv6ExtensionHeader)
}

/// Lengths of the transport headers, without options (RFC 9293, 768, 9260, 792).
const TCP_LENGTH: u32 = 20;
const UDP_LENGTH: u32 = 8;
const SCTP_LENGTH: u32 = 12;
const ICMP_LENGTH: u32 = 8;

/// Reads ports, flags and ICMP types. What stands behind the end of the IP packet is no header: the receiver
/// does not see it.
#[inline(always)]
fn parse_transport(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), DropReason> {
    let truncated = DropReason::CtTruncatedOrInvalidHeader;
    let length = match packet.protocol {
        TCP => TCP_LENGTH,
        UDP => UDP_LENGTH,
        SCTP => SCTP_LENGTH,
        _ => ICMP_LENGTH,
    };
    let is_known = matches!(packet.protocol, TCP | UDP | SCTP)
        || packet.protocol == if packet.is(IS_V6) { ICMPV6 } else { ICMP };
    if is_known && packet.transport + length > packet.end {
        return Err(truncated);
    }
    match packet.protocol {
        TCP => {
            let header: [u16; 10] = load_transport(skb, packet.transport).ok_or(truncated)?;
            packet.source_port = header[0];
            packet.destination_port = header[1];
            let [length, flags] = header[6].to_ne_bytes();
            if length >> 4 < 5 {
                return Err(truncated);
            }
            packet.tcp_flags_or_icmp_type = flags;
            let number = |at: usize| {
                u32::from(u16::from_be(header[at])) << 16 | u32::from(u16::from_be(header[at + 1]))
            };
            packet.sequence = number(2);
            packet.acknowledgment = number(4);
        }
        UDP => {
            let header: [u16; 4] = load_transport(skb, packet.transport).ok_or(truncated)?;
            packet.source_port = header[0];
            packet.destination_port = header[1];
        }
        SCTP => {
            let header: [u16; 6] = load(skb, packet.transport).ok_or(truncated)?;
            packet.source_port = header[0];
            packet.destination_port = header[1];
        }
        ICMP if !packet.is(IS_V6) => {
            let header: [u16; 4] = load(skb, packet.transport).ok_or(truncated)?;
            set_icmp(packet, header);
        }
        ICMPV6 if packet.is(IS_V6) => {
            let header: [u16; 4] = load(skb, packet.transport).ok_or(truncated)?;
            set_icmp(packet, header);
        }
        _ => return Err(DropReason::CtUnknownL4Protocol),
    }
    Ok(())
}

/// Gives an ICMP message the ports of its connection.
#[inline(always)]
pub(super) fn set_icmp(packet: &mut Packet, header: [u16; 4]) {
    let [kind, code] = header[0].to_ne_bytes();
    packet.tcp_flags_or_icmp_type = kind;
    packet.icmp_code = code;
    let v6 = packet.is(IS_V6);
    let (request, reply) = if v6 { (128, 129) } else { (8, 0) };
    let is_error = if v6 {
        kind < 128
    } else {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    };
    if kind == request {
        packet.kind |= IS_ECHO_REQUEST;
        packet.source_port = header[2];
    } else if kind == reply {
        packet.kind |= IS_ECHO_REPLY;
        packet.destination_port = header[2];
    } else if is_error {
        packet.kind |= IS_ICMP_ERROR;
    } else {
        packet.destination_port = u16::from(kind).to_be();
    }
}
