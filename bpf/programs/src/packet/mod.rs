//! A packet: what the pipeline knows of it, and how its bytes are read.

pub mod address;
pub mod fragment;
mod parse;
mod quoted;

pub use parse::parse;
pub use quoted::parse_quoted;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes};
use core::mem::MaybeUninit;
use heddle_abi::{Address, MacAddress};

pub const ETHERNET_LENGTH: u32 = 14;
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

/// The source of the frame.
#[inline(always)]
pub fn source_mac(skb: *mut __sk_buff) -> Option<MacAddress> {
    load_header(skb, 6)
}

/// Whether the frame belongs to a VLAN: pods are in none. Tag 0 gives a priority only (IEEE 802.1Q, 9.6).
#[inline(always)]
pub fn is_of_a_vlan(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe { (*skb).vlan_present != 0 && (*skb).vlan_tci & 0xfff != 0 }
}

/// The packet's Ethernet type, behind a VLAN tag that the kernel took off; network byte order.
#[inline(always)]
pub fn ethertype(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { (*skb).protocol }
}

#[inline(always)]
pub fn is_ip(skb: *mut __sk_buff) -> bool {
    matches!(ethertype(skb), ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
}

/// Whether the frame has a tag behind the one that the kernel took off: it would take off the others behind this
/// hook, and give the stack a packet that no program saw.
#[inline(always)]
pub fn is_tagged_again(skb: *mut __sk_buff) -> bool {
    matches!(ethertype(skb), ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}
