//! The node as an end of a connection.

use crate::{
    memory, neighbour,
    packet::{IS_V6, Packet},
    policy::peer::{self, Peer},
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_tuple},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_release},
};
use heddle_abi::{Address, DropReason, HOST_ENDPOINT, NODE_HOST_POLICY, NodeConfig};

/// The node itself (reference 1.7).
pub const HOST: u32 = 1;

/// ICMPv6 types (RFC 2710, RFC 4861, RFC 3810).
const LISTENER_FIRST: u8 = 130;
const LISTENER_LAST: u8 = 132;
const NEIGHBOUR_FIRST: u8 = 133;
const NEIGHBOUR_LAST: u8 = 137;
const LISTENER_REPORT: u8 = 143;

/// The endpoint id of the node where host policies are about it, else 0.
#[inline(always)]
pub fn endpoint(config: &NodeConfig) -> u32 {
    if config.flags & NODE_HOST_POLICY != 0 {
        HOST_ENDPOINT
    } else {
        0
    }
}

/// The node as a peer, under one of its addresses.
#[inline(always)]
pub fn peer(address: &Address, v6: bool) -> Peer {
    Peer {
        identity: HOST,
        ..peer::of_row(peer::row(address), v6)
    }
}

/// Whether the packet has a transport header that is known. A host speaks protocols that pods may not:
/// rules that name no protocol are about these, too.
#[inline(always)]
pub fn readable(parsed: Result<(), DropReason>) -> Result<bool, DropReason> {
    match parsed {
        Ok(()) => Ok(true),
        Err(DropReason::CtUnknownL4Protocol) => Ok(false),
        Err(reason) => Err(reason),
    }
}

/// Neighbour discovery and multicast listening, without which a link does not work; they come from the link
/// itself (RFC 4890, 4.4.1).
#[inline(always)]
pub fn is_neighbourhood(packet: &Packet) -> bool {
    neighbour::is_icmpv6(packet)
        && match packet.tcp_flags_or_icmp_type {
            NEIGHBOUR_FIRST..=NEIGHBOUR_LAST => packet.time_to_live == 255,
            LISTENER_FIRST..=LISTENER_LAST | LISTENER_REPORT => packet.time_to_live == 1,
            _ => false,
        }
}

/// The node has no connected socket for the packet.
pub const NO_PART: u32 = 0;
/// The node opened the packet's connection.
pub const INITIATOR: u32 = 1;
/// The connection was opened to the node.
pub const RESPONDER: u32 = 2;

/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;
/// `BPF_TCP_LISTEN`.
const LISTEN: u32 = 10;
const TUPLE_IPV4: u32 = 12;
const TUPLE_IPV6: u32 = 36;

/// What part the node has in the TCP connection of a packet that it sends or receives: one of the constants
/// above. Where it has a connected socket, it is the responder if another one listens on the same port; where none
/// does (any more), the lower port is taken for the service's.
#[inline(never)]
pub fn role_in_old_connection(skb: *mut __sk_buff, packet: &Packet, from_node: bool) -> u32 {
    match socket_state(skb, packet, from_node, true) {
        0 | LISTEN => NO_PART,
        _ if socket_state(skb, packet, from_node, false) == LISTEN => RESPONDER,
        _ => {
            let source_is_lower =
                u16::from_be(packet.source_port) < u16::from_be(packet.destination_port);
            if source_is_lower == from_node {
                RESPONDER
            } else {
                INITIATOR
            }
        }
    }
}

/// The state of the node's TCP socket for a packet, 0 where there is none. Without the peer's port only a
/// socket that listens can match.
#[inline(always)]
fn socket_state(skb: *mut __sk_buff, packet: &Packet, from_node: bool, with_port: bool) -> u32 {
    let (local, local_port, remote, remote_port) = if from_node {
        (
            &packet.source,
            packet.source_port,
            &packet.destination,
            packet.destination_port,
        )
    } else {
        (
            &packet.destination,
            packet.destination_port,
            &packet.source,
            packet.source_port,
        )
    };
    let remote_port = if with_port { remote_port } else { 0 };
    // SAFETY: plain integers, for which zero is a value; the helper reads as many bytes as the family has, and
    // the socket is released on every path that has one.
    unsafe {
        let mut tuple: bpf_sock_tuple = memory::zeroed();
        let size = if packet.is(IS_V6) {
            let tuple = &mut tuple.__bindgen_anon_1.ipv6;
            tuple.saddr = remote.words;
            tuple.daddr = local.words;
            tuple.sport = remote_port;
            tuple.dport = local_port;
            TUPLE_IPV6
        } else {
            let tuple = &mut tuple.__bindgen_anon_1.ipv4;
            tuple.saddr = remote.words[3];
            tuple.daddr = local.words[3];
            tuple.sport = remote_port;
            tuple.dport = local_port;
            TUPLE_IPV4
        };
        let socket = bpf_sk_lookup_tcp(skb.cast(), &raw mut tuple, size, CURRENT_NETNS, 0);
        if socket.is_null() {
            return 0;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state
    }
}
