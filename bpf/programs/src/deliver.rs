//! The last step: where an admitted packet goes.

use crate::packet::{ETHERNET_LENGTH, IS_V6, Packet};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::generated::{
        bpf_l3_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
        bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
    },
};
use heddle_abi::{Address, DropReason, Endpoint};

/// `skb->mark` of a packet whose tunnel key is set (Cilium's MARK_MAGIC_OVERLAY, reference 3.2).
/// A pod cannot set it: the mark is cleared where a packet leaves the pod's namespace.
pub const MARK_OVERLAY: u32 = 0x0400;

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
pub fn to_network(skb: *mut __sk_buff, packet: &Packet, uplink: u32) -> Result<i32, DropReason> {
    decrement_time_to_live(skb, packet)?;
    // SAFETY: no parameters: the kernel looks the neighbour up.
    Ok(unsafe { bpf_redirect_neigh(uplink, core::ptr::null_mut(), 0, 0) } as i32)
}

/// To another node, encapsulated, with the sender's identity as VNI.
#[inline(always)]
pub fn to_overlay(
    skb: *mut __sk_buff,
    node: &Address,
    identity: u32,
    overlay: u32,
) -> Result<i32, DropReason> {
    set_tunnel_key(skb, node, identity)?;
    // SAFETY: the context is the kernel's.
    unsafe {
        (*skb).mark = MARK_OVERLAY;
        Ok(bpf_redirect(overlay, 0) as i32)
    }
}

/// Writes the outer header's address and the identity beside the packet.
#[inline(always)]
pub fn set_tunnel_key(
    skb: *mut __sk_buff,
    node: &Address,
    identity: u32,
) -> Result<(), DropReason> {
    // SAFETY: plain integers, for which zero is a value.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    key.tunnel_id = identity;
    key.tunnel_ttl = 64;
    // SAFETY: the union's fields are plain integers; the helper reads a whole bpf_tunnel_key.
    unsafe {
        let flags = if node.is_v4() {
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(node.words[3]);
            u64::from(BPF_F_ZERO_CSUM_TX)
        } else {
            key.__bindgen_anon_1.remote_ipv6 = node.words;
            u64::from(BPF_F_TUNINFO_IPV6)
        };
        if bpf_skb_set_tunnel_key(skb, &raw mut key, size_of::<bpf_tunnel_key>() as u32, flags) != 0
        {
            return Err(DropReason::ErrorRetrievingTunnelKey);
        }
    }
    Ok(())
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
