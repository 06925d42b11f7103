//! The node as an end of a connection.

use crate::{
    neighbour,
    packet::Packet,
    peer::{self, Peer},
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
