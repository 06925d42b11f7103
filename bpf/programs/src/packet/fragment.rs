//! Fragments: what the first one of a datagram says, remembered for the others.
//!
//! A datagram is remembered once its first fragment was admitted: what was refused, or came with a forged
//! address, lends its ports to nobody. Each endpoint has places of its own ([`FragmentKey`]); a newer datagram
//! takes the place of an older one.

use crate::{
    maps::FRAGMENTS,
    packet::{IS_ECHO_REPLY, IS_ECHO_REQUEST, IS_FIRST_FRAGMENT, IS_LATER_FRAGMENT, IS_V6, Packet},
};
use heddle_abi::{DropReason, FRAGMENT_SLOTS, FragmentEntry, FragmentKey};

/// What a first fragment says of its kind, for the later ones.
const KEPT_KINDS: u8 = IS_ECHO_REQUEST | IS_ECHO_REPLY;

#[inline(always)]
fn key(packet: &Packet, endpoint: u32) -> FragmentKey {
    let (s, d) = (&packet.source.words, &packet.destination.words);
    let mixed = packet.identification
        ^ (packet.identification >> 16)
        ^ s[3]
        ^ (s[3] >> 16)
        ^ d[3]
        ^ (d[3] >> 16)
        ^ u32::from(packet.protocol);
    FragmentKey {
        endpoint,
        // Identifications count up in one of these two bytes, whatever the byte order.
        slot: (mixed ^ (mixed >> 8)) & (FRAGMENT_SLOTS - 1),
    }
}

/// Gives a later fragment what its datagram's first one said; a fragment whose first is not known goes no
/// further.
#[inline(never)]
pub fn find(packet: &mut Packet, endpoint: u32) -> Result<(), DropReason> {
    let key = key(packet, endpoint);
    // SAFETY: the entry stays readable until the program ends. One that is being overwritten belongs to the same
    // endpoint and was admitted, as what it is compared with was.
    let Some(found) = (unsafe { FRAGMENTS.get(&key) }) else {
        return Err(DropReason::FirstLogicalDatagramFragmentNotFound);
    };
    if found.identification != packet.identification
        || found.protocol != packet.protocol
        || found.source != packet.source
        || found.destination != packet.destination
    {
        return Err(DropReason::FirstLogicalDatagramFragmentNotFound);
    }
    packet.source_port = found.source_port;
    packet.destination_port = found.destination_port;
    packet.tcp_flags_or_icmp_type = found.icmp_type;
    packet.kind = (packet.kind & !KEPT_KINDS) | (found.kind & KEPT_KINDS);
    Ok(())
}

/// As [`find`] for a later fragment where the node's policy is to decide (`host` is its endpoint id, else 0); where its
/// first one is not known, `admit` says so.
#[inline(always)]
pub fn recall(packet: &mut Packet, host: u32) {
    if host != 0 && packet.is(IS_LATER_FRAGMENT) {
        let _ = find(packet, host);
    }
}

/// Remembers a first fragment that passes without the node's policy, for those behind it.
#[inline(always)]
pub fn note(packet: &Packet, host: u32) {
    if host != 0 && packet.is(IS_FIRST_FRAGMENT) {
        remember(packet, host);
    }
}

/// Remembers a first fragment that was admitted.
#[inline(never)]
pub fn remember(packet: &Packet, endpoint: u32) {
    let is_icmp = packet.protocol
        == if packet.is(IS_V6) {
            crate::packet::ICMPV6
        } else {
            crate::packet::ICMP
        };
    let entry = FragmentEntry {
        source: packet.source,
        destination: packet.destination,
        identification: packet.identification,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        icmp_type: if is_icmp {
            packet.tcp_flags_or_icmp_type
        } else {
            0
        },
        kind: packet.kind,
        reserved: 0,
    };
    let key = key(packet, endpoint);
    match FRAGMENTS.get_ptr_mut(&key) {
        // In place: a new element takes memory of which there may be none while many are made at once.
        // SAFETY: the entry stays writable until the program ends; see `find` for who may be reading it.
        Some(place) => unsafe { *place = entry },
        // Without room the later fragments are dropped and counted; this one may still pass.
        None => {
            let _ = FRAGMENTS.insert(&key, &entry, 0);
        }
    }
}
