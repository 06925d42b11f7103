//! Parsing: from bytes to a [`Packet`], or to the reason why not.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use core::mem::MaybeUninit;
use heddle_abi::{Address, DropReason, MacAddress};

pub const ETHERNET_LENGTH: u32 = 14;
/// Offsets of what stands behind an IPv4 header without options, and behind an IPv6 header.
const BEHIND_IPV4: u32 = ETHERNET_LENGTH + 20;
const BEHIND_IPV6: u32 = ETHERNET_LENGTH + 40;
pub const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
pub const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;
pub const ETHERTYPE_ARP: u32 = 0x0806_u16.to_be() as u32;
pub const ETHERTYPE_VLAN: u32 = 0x8100_u16.to_be() as u32;
pub const ETHERTYPE_SERVICE_VLAN: u32 = 0x88a8_u16.to_be() as u32;

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Headers behind the IPv6 header that are followed before a packet counts as hostile; the transport header is one of
/// them.
const MAX_HEADERS: u32 = 4;

const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_OFFSET_MASK: u16 = 0x1fff;

/// The packet is IPv6.
pub const IS_V6: u8 = 1;
/// An ICMP error: it belongs to the connection of the packet it quotes.
pub const IS_ICMP_ERROR: u8 = 2;
/// An ICMP echo reply.
pub const IS_ECHO_REPLY: u8 = 4;
/// An ICMP echo request.
pub const IS_ECHO_REQUEST: u8 = 8;
/// A fragment other than the first: it has no transport header, see [`crate::fragment::find`].
pub const IS_LATER_FRAGMENT: u8 = 16;
/// The first fragment of several.
pub const IS_FIRST_FRAGMENT: u8 = 32;

/// What the pipeline knows of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    /// Network byte order; for ICMP see [`heddle_abi::ConnectionKey`].
    pub source_port: u16,
    /// Network byte order; for ICMP see [`heddle_abi::ConnectionKey`].
    pub destination_port: u16,
    pub protocol: u8,
    /// `IS_*` bits.
    pub kind: u8,
    /// TCP flags, or the ICMP type.
    pub tcp_flags_or_icmp_type: u8,
    pub icmp_code: u8,
    pub time_to_live: u8,
    pub reserved: [u8; 3],
    /// Offset of the transport header from the Ethernet header.
    pub transport: u32,
    /// Offset of the first byte behind the IP packet; a frame may be longer.
    pub end: u32,
    /// Of a fragment: its datagram's identification, network byte order.
    pub identification: u32,
    /// Of a TCP segment: its sequence number.
    pub sequence: u32,
    /// Of a TCP segment: its acknowledgment number.
    pub acknowledgment: u32,
}

impl Packet {
    #[inline(always)]
    pub fn is(&self, bits: u8) -> bool {
        self.kind & bits != 0
    }
}

/// Reads a `T`, plain integers of 16 bits at most, at an offset where headers usually lie: from the linear
/// part of the packet without a call, else by the helper.
#[inline(always)]
fn load_header<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    // SAFETY: the bounds are checked first, as the verifier wants it; headers stand at even offsets of a
    // packet that the kernel aligns.
    unsafe {
        let start = (*skb).data as usize + offset as usize;
        if start + size_of::<T>() <= (*skb).data_end as usize {
            return Some((start as *const T).read());
        }
    }
    load(skb, offset)
}

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

/// Reads a `T` at an offset; `T` is plain bytes.
#[inline(always)]
pub fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly size_of::<T>() bytes, or fails.
    unsafe {
        if bpf_skb_load_bytes(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
        ) != 0
        {
            return None;
        }
        Some(value.assume_init())
    }
}

#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_and_length: u8,
    service: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct Ipv6Header {
    version_class_flow: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// The source of the frame.
#[inline(always)]
pub fn source_mac(skb: *mut __sk_buff) -> Option<MacAddress> {
    load_header(skb, 6)
}

/// Parses the packet from its network header on; `packet` comes zeroed.
#[inline(always)]
pub fn parse(context: &TcContext, packet: &mut Packet) -> Result<(), DropReason> {
    let skb = context.skb.skb;
    // SAFETY: the context is the kernel's.
    let protocol = unsafe { (*skb).protocol };
    match protocol {
        ETHERTYPE_IPV4 => parse_ipv4(context, packet),
        ETHERTYPE_IPV6 => parse_ipv6(context, packet),
        _ => Err(DropReason::UnsupportedL3Protocol),
    }
}

#[inline(always)]
fn parse_ipv4(context: &TcContext, packet: &mut Packet) -> Result<(), DropReason> {
    let skb = context.skb.skb;
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
        || total_length > context.len().wrapping_sub(ETHERNET_LENGTH)
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
fn parse_ipv6(context: &TcContext, packet: &mut Packet) -> Result<(), DropReason> {
    let skb = context.skb.skb;
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
        || payload_length > context.len().wrapping_sub(ETHERNET_LENGTH + 40)
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
pub fn parse_transport(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), DropReason> {
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
pub fn set_icmp(packet: &mut Packet, header: [u16; 4]) {
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

/// The packet that an ICMP error quotes, turned round so that its ports and addresses are those of the
/// error's own direction of travel; `None` when it quotes too little or somebody else's packet.
#[inline(always)]
pub fn parse_quoted(skb: *mut __sk_buff, packet: &Packet, quoted: &mut Packet) -> Option<()> {
    *quoted = *packet;
    let inner = packet.transport + 8;
    if packet.is(IS_V6) {
        let header: Ipv6Header = load(skb, inner)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return None;
        }
        quoted.source = Address {
            words: header.source,
        };
        quoted.destination = Address {
            words: header.destination,
        };
        quoted.protocol = header.next_header;
        quoted.transport = inner + 40;
    } else {
        let header: Ipv4Header = load(skb, inner)?;
        if header.version_and_length >> 4 != 4
            || u16::from_be(header.fragment) & IPV4_OFFSET_MASK != 0
        {
            return None;
        }
        quoted.source = Address::from_v4_word(header.source);
        quoted.destination = Address::from_v4_word(header.destination);
        quoted.protocol = header.protocol;
        quoted.transport = inner + u32::from(header.version_and_length & 0x0f) * 4;
    }
    // An error goes to the sender of what it quotes; anything else is made up.
    if quoted.source != packet.destination || quoted.transport + 8 > packet.end {
        return None;
    }
    quoted.kind = packet.kind & IS_V6;
    quoted.source_port = 0;
    quoted.destination_port = 0;
    quoted.tcp_flags_or_icmp_type = 0;
    match quoted.protocol {
        TCP | UDP | SCTP => {
            let ports: [u16; 2] = load(skb, quoted.transport)?;
            quoted.source_port = ports[0];
            quoted.destination_port = ports[1];
            Some(())
        }
        ICMP | ICMPV6 => {
            let header: [u16; 4] = load(skb, quoted.transport)?;
            set_icmp(quoted, header);
            // Nobody answers an error with an error (RFC 1122, 3.2.2; RFC 4443, 2.4).
            quoted.is(IS_ECHO_REQUEST | IS_ECHO_REPLY).then_some(())
        }
        _ => None,
    }
}
