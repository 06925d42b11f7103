//! Neighbour discovery: the gateway answers, and nobody else speaks.

use crate::{
    deliver::address_frame,
    maps::CONFIG,
    packet::{ETHERNET_LENGTH, IS_V6, Packet, load},
};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes},
};
use heddle_abi::{Address, DropReason, Endpoint};

const ARP_REQUEST: u16 = 1_u16.to_be();
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const IPV6_LENGTH: u32 = 40;
/// An advertisement with the target link-layer address option.
const ADVERTISEMENT_LENGTH: u8 = 32;
const MULTICAST_LISTENER: [u8; 4] = [130, 131, 132, 143];

/// What becomes of a neighbour discovery packet.
pub enum Outcome {
    /// It was turned into the answer; this is the program's return code.
    Answered(i32),
    /// It is not neighbour discovery.
    Other,
    /// Multicast membership: every host sends it, and there is nothing to join.
    Ignored,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: u16,
    operation: u16,
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

/// Answers an ARP request for the gateway; refuses all other ARP, above all claims on foreign addresses.
#[inline(never)]
pub fn arp(skb: *mut __sk_buff, device: &Endpoint) -> Result<i32, DropReason> {
    let request: Arp = load(skb, ETHERNET_LENGTH).ok_or(DropReason::InvalidPacketDropped)?;
    let source_mac: [u8; 6] = load(skb, 6).ok_or(DropReason::InvalidPacketDropped)?;
    let mac = device.mac.bytes();
    if source_mac != mac || request.sender_mac != mac {
        return Err(DropReason::InvalidSourceMac);
    }
    if Address::from_v4_word(u32::from_ne_bytes(request.sender)) != device.ipv4 {
        return Err(DropReason::InvalidSourceIp);
    }
    let gateway = CONFIG
        .get(0)
        .map_or(Address::UNSPECIFIED, |config| config.gateway_ipv4);
    if request.operation != ARP_REQUEST
        || Address::from_v4_word(u32::from_ne_bytes(request.target)) != gateway
    {
        return Err(DropReason::UnknownL3TargetAddress);
    }
    let reply = Arp {
        operation: 2_u16.to_be(),
        sender_mac: device.host_mac.bytes(),
        sender: request.target,
        target_mac: mac,
        target: request.sender,
        ..request
    };
    write(skb, ETHERNET_LENGTH, &reply)?;
    send_back(skb, device)
}

/// Sum over the pseudo-header (RFC 8200, 8.1) and the message.
#[repr(C)]
struct Checksummed {
    source: [u32; 4],
    destination: [u32; 4],
    length: u32,
    next_header: u32,
    message: [u32; 8],
}

/// Answers a neighbour solicitation for the gateway (RFC 4861, 7.2.4); refuses router messages,
/// advertisements and redirects from pods.
#[inline(never)]
pub fn ndp(skb: *mut __sk_buff, packet: &Packet, device: &Endpoint) -> Result<Outcome, DropReason> {
    let kind = packet.tcp_flags_or_icmp_type;
    if MULTICAST_LISTENER.contains(&kind) {
        return Ok(Outcome::Ignored);
    }
    if !(ROUTER_SOLICITATION..=REDIRECT).contains(&kind) {
        return Ok(Outcome::Other);
    }
    if kind != NEIGHBOUR_SOLICITATION || packet.time_to_live != 255 || packet.icmp_code != 0 {
        return Err(DropReason::ForbiddenIcmpv6Message);
    }
    let is_link_local = u32::from_be(packet.source.words[0]) & 0xffc0_0000 == 0xfe80_0000;
    if packet.source != device.ipv6 && !is_link_local {
        return Err(DropReason::InvalidSourceIp);
    }
    let target: [u32; 4] =
        load(skb, packet.transport + 8).ok_or(DropReason::InvalidPacketDropped)?;
    let gateway = CONFIG
        .get(0)
        .map_or(Address::UNSPECIFIED, |config| config.gateway_ipv6);
    if target != gateway.words || packet.transport != ETHERNET_LENGTH + 40 {
        return Err(DropReason::ForbiddenIcmpv6Message);
    }
    let mac = device.host_mac.bytes();
    let mut advertisement = Checksummed {
        source: gateway.words,
        destination: packet.source.words,
        length: u32::from(ADVERTISEMENT_LENGTH).to_be(),
        next_header: u32::from(crate::packet::ICMPV6).to_be(),
        message: [
            u32::from_ne_bytes([NEIGHBOUR_ADVERTISEMENT, 0, 0, 0]),
            // Router, solicited, override.
            0xe000_0000_u32.to_be(),
            target[0],
            target[1],
            target[2],
            target[3],
            u32::from_ne_bytes([2, 1, mac[0], mac[1]]),
            u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]]),
        ],
    };
    // SAFETY: the helper reads size_of::<Checksummed>() bytes, a multiple of four.
    let total = unsafe {
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            (&raw mut advertisement).cast(),
            size_of::<Checksummed>() as u32,
            0,
        )
    } as u32;
    let folded = (total & 0xffff) + (total >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [high, low] = (!(folded as u16)).to_ne_bytes();
    advertisement.message[0] = u32::from_ne_bytes([NEIGHBOUR_ADVERTISEMENT, 0, high, low]);
    let message = ETHERNET_LENGTH + IPV6_LENGTH;
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_skb_change_tail(skb, message + u32::from(ADVERTISEMENT_LENGTH), 0) } != 0 {
        return Err(DropReason::ErrorWritingToPacket);
    }
    // Version 6, no class, no label; then payload length, next header and hop limit.
    write(
        skb,
        ETHERNET_LENGTH,
        &[0x60_u8, 0, 0, 0, 0, 32, crate::packet::ICMPV6, 255],
    )?;
    write(skb, ETHERNET_LENGTH + 8, &advertisement.source)?;
    write(skb, ETHERNET_LENGTH + 24, &advertisement.destination)?;
    write(skb, message, &advertisement.message)?;
    send_back(skb, device).map(Outcome::Answered)
}

/// True for an IPv6 packet that [`ndp`] must see before its source is checked.
#[inline(always)]
pub fn is_icmpv6(packet: &Packet) -> bool {
    packet.is(IS_V6) && packet.protocol == crate::packet::ICMPV6
}

#[inline(always)]
fn write<T>(skb: *mut __sk_buff, offset: u32, value: &T) -> Result<(), DropReason> {
    // SAFETY: the helper reads size_of::<T>() bytes.
    let code = unsafe {
        bpf_skb_store_bytes(
            skb,
            offset,
            core::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
            0,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(DropReason::ErrorWritingToPacket)
    }
}

/// Back to the pod that asked.
#[inline(always)]
fn send_back(skb: *mut __sk_buff, device: &Endpoint) -> Result<i32, DropReason> {
    address_frame(skb, device)?;
    // SAFETY: no pointers.
    Ok(unsafe { bpf_redirect(device.ifindex, 0) } as i32)
}
