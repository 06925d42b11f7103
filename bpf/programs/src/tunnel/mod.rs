//! The overlay: what stands in an outer header, and what is believed of it.

use crate::{
    memory,
    packet::{Packet, UDP},
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::generated::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
};
use heddle_abi::{Address, DropReason, MARK_OTHERS, MARK_OVERLAY, OVERLAY_PORT};

/// The packet has the form of one that a node encapsulated. A later fragment has no port unless it was recalled.
#[inline(always)]
pub fn is_encapsulated(packet: &Packet) -> bool {
    packet.protocol == UDP && packet.destination_port == OVERLAY_PORT.to_be()
}

/// What the outer header and the VNI say of the sender.
pub struct OuterHeader {
    pub node: Address,
    pub identity: u32,
}

impl OuterHeader {
    /// Its own function, so that its stack is free again when the policies are asked.
    #[inline(never)]
    pub fn of(skb: *mut __sk_buff) -> Result<Self, DropReason> {
        // SAFETY: the helper writes a whole bpf_tunnel_key.
        unsafe {
            let mut key: bpf_tunnel_key = memory::zeroed();
            let size = size_of::<bpf_tunnel_key>() as u32;
            if bpf_skb_get_tunnel_key(skb, &raw mut key, size, 0) == 0 {
                let word = key.__bindgen_anon_1.remote_ipv4.to_be();
                return Ok(Self {
                    node: Address::from_v4_word(word),
                    identity: key.tunnel_id,
                });
            }
            let flags = u64::from(BPF_F_TUNINFO_IPV6);
            if bpf_skb_get_tunnel_key(skb, &raw mut key, size, flags) == 0 {
                let words = key.__bindgen_anon_1.remote_ipv6;
                return Ok(Self {
                    node: Address { words },
                    identity: key.tunnel_id,
                });
            }
        }
        Err(DropReason::ErrorRetrievingTunnelKey)
    }
}

/// To the node that [`set_key`] has named, encapsulated.
#[inline(always)]
pub fn send(skb: *mut __sk_buff, overlay: u32) -> i32 {
    // SAFETY: the context is the kernel's.
    unsafe {
        (*skb).mark = (*skb).mark & MARK_OTHERS | MARK_OVERLAY;
        bpf_redirect(overlay, 0) as i32
    }
}

/// Writes the outer header's address, and the sender's identity as VNI, beside the packet.
#[inline(always)]
pub fn set_key(skb: *mut __sk_buff, node: &Address, identity: u32) -> Result<(), DropReason> {
    let mut key: bpf_tunnel_key = memory::zeroed();
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
