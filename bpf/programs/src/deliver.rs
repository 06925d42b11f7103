//! The last step: where an admitted packet goes.

use crate::packet::{ETHERNET_LENGTH, IS_V6, Packet};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK},
    helpers::generated::{
        bpf_l3_csum_replace, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
        bpf_skb_store_bytes,
    },
};
use heddle_abi::{DropReason, Endpoint};

/// Addresses the frame to a pod's interface, from the host side of its link.
#[inline(always)]
pub fn address_frame(skb: *mut __sk_buff, endpoint: &Endpoint) -> Result<(), DropReason> {
    let addresses = [endpoint.mac, endpoint.host_mac];
    // SAFETY: 12 bytes of the array are read.
    match unsafe { bpf_skb_store_bytes(skb, 0, addresses.as_ptr().cast(), 12, 0) } {
        0 => Ok(()),
        _ => Err(DropReason::ErrorWritingToPacket),
    }
}

/// Into a local pod.
#[inline(always)]
pub fn to_endpoint(skb: *mut __sk_buff, endpoint: &Endpoint) -> Result<i32, DropReason> {
    address_frame(skb, endpoint)?;
    // SAFETY: no pointers.
    unsafe { Ok(bpf_redirect_peer(endpoint.ifindex, 0) as i32) }
}

/// Out of the uplink, to whatever neighbour the node's routes name.
#[inline(always)]
pub fn to_network(uplink: u32) -> i32 {
    // SAFETY: no parameters: the kernel looks the neighbour up.
    unsafe { bpf_redirect_neigh(uplink, core::ptr::null_mut(), 0, 0) as i32 }
}

/// One hop less to live.
#[inline(always)]
pub fn decrement_time_to_live(skb: *mut __sk_buff, packet: &Packet) -> Result<(), DropReason> {
    let before = packet.time_to_live;
    if before <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let after = before - 1;
    // SAFETY: one byte is read; offsets lie in the header that was parsed.
    unsafe {
        if packet.is(IS_V6) {
            if bpf_skb_store_bytes(skb, ETHERNET_LENGTH + 7, (&raw const after).cast(), 1, 0) != 0 {
                return Err(DropReason::ErrorWritingToPacket);
            }
            return Ok(());
        }
        let word = |ttl: u8| u64::from(u16::from_ne_bytes([ttl, packet.protocol]));
        if bpf_l3_csum_replace(skb, ETHERNET_LENGTH + 10, word(before), word(after), 2) != 0
            || bpf_skb_store_bytes(skb, ETHERNET_LENGTH + 8, (&raw const after).cast(), 1, 0) != 0
        {
            return Err(DropReason::ErrorWhileCorrectingL3Checksum);
        }
    }
    Ok(())
}

/// `PACKET_HOST` (linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// Up into the node's stack: the inner frame is addressed to nobody in particular.
#[inline(always)]
pub fn to_stack(skb: *mut __sk_buff) -> Result<i32, DropReason> {
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_skb_change_type(skb, PACKET_HOST) } != 0 {
        return Err(DropReason::ErrorWritingToPacket);
    }
    Ok(TC_ACT_OK)
}
