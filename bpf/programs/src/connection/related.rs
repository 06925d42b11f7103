//! ICMP errors: part of the connection that they quote, if they can be about it.
//!
//! A node or a router on the way may say that a packet does not fit, that its time is over or that there is no
//! way; where no router stands on the way, only a node. That nobody listens is for the destination to say, and a pod is
//! no router: both speak only about packets that were addressed to them. And policy must still allow the
//! connection, with whoever its peer is now. Whatever else an ICMP error is, it is a message of its type, for
//! policy to decide on.

use super::{Ends, established, host::HOST, is_turned_back, key};
use crate::{
    maps::CONFIG,
    packet::{ICMP, ICMPV6, IS_V6, Packet, parse_quoted},
    policy::{
        self,
        peer::{self, Peer},
    },
    report::{Scratch, State},
};
use aya_ebpf::bindings::__sk_buff;
use heddle_abi::{
    CT_BY_STACK, CT_INITIATOR_IS_LOW, ConnectionEntry, ConnectionKey, ConnectionVerdict,
    DIRECTION_EGRESS, DIRECTION_INGRESS, EVENT_RELATED, EVENT_REPLY, IPCACHE_IN_CLUSTER,
    IPCACHE_NODE, NODE_OVERLAY, NodeConfig,
};

/// It is not about a connection that is in force.
pub const UNRELATED: i32 = 0;
/// It goes with its connection, which was reported within this second.
pub const TOLD: i32 = 1;
/// It goes with its connection, and is to be reported.
pub const TO_TELL: i32 = 2;

/// Who may send an error of this type and code.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// Nobody: it is obsolete, or about the sender's routes.
    Nobody,
    /// Any router on the way, or the destination.
    Anyone,
    /// The destination of the quoted packet.
    Destination,
}

/// RFC 792, RFC 1812 and RFC 6633 for IPv4; RFC 4443 for IPv6.
#[inline(always)]
fn sender(packet: &Packet) -> Sender {
    let (kind, code) = (packet.tcp_flags_or_icmp_type, packet.icmp_code);
    if packet.is(IS_V6) {
        match (kind, code) {
            (1, 4) => Sender::Destination,
            (1..=4, _) => Sender::Anyone,
            _ => Sender::Nobody,
        }
    } else {
        match (kind, code) {
            (3, 2 | 3) => Sender::Destination,
            (3 | 11 | 12, _) => Sender::Anyone,
            _ => Sender::Nobody,
        }
    }
}

/// Whether an ICMP error goes with a live connection (reference I12): one of this module's constants.
#[inline(always)]
pub fn admit(skb: *mut __sk_buff, _scratch: &mut Scratch, now: u32) -> i32 {
    admit_error(skb, now)
}

/// [`admit`] as a subprogram, of this run's [`Scratch`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn admit_error(skb: *mut __sk_buff, now: u32) -> i32 {
    let Some(mut scratch) = Scratch::again() else {
        return UNRELATED;
    };
    let State {
        flow,
        ends,
        quoted,
        key: connection,
        ..
    } = &mut *scratch;
    let ends = &*ends;
    let sender = sender(&flow.packet);
    if sender == Sender::Nobody || parse_quoted(skb, &flow.packet, quoted).is_none() {
        return UNRELATED;
    }
    let from_destination = quoted.destination == flow.packet.source;
    let peer = if from_destination {
        ends.source
    } else {
        let destination = peer::of(&quoted.destination, flow.packet.is(IS_V6));
        if sender == Sender::Destination || !may_stand_between(&ends.source, &destination) {
            return UNRELATED;
        }
        destination
    };
    let quoted_source_is_low = key::set_key(connection, quoted);
    let (Some(entry), _) = established::find(connection) else {
        return UNRELATED;
    };
    // SAFETY: the entry stays readable and writable until the program ends.
    let entry = unsafe { &mut *entry };
    // The error travels against what it quotes.
    let is_reply = (entry.flags & CT_INITIATOR_IS_LOW != 0) == quoted_source_is_low;
    if entry.expires < now
        || !is_in_force(entry, connection, ends, is_reply, &peer, from_destination)
    {
        return UNRELATED;
    }
    flow.flags |= EVENT_RELATED;
    if is_reply {
        flow.flags |= EVENT_REPLY;
        flow.by_stack = u8::from(entry.flags & CT_BY_STACK != 0);
    }
    if entry.last_report == now {
        return TOLD;
    }
    entry.last_report = now;
    TO_TELL
}

/// Whether the sender of an error can have stopped a packet on its way to somebody else. A pod is no router. Between
/// the ends within a node there is none, nor do routers see what goes through a tunnel: there only nodes speak.
#[inline(always)]
fn may_stand_between(sender: &Peer, destination: &Peer) -> bool {
    if sender.is(IPCACHE_NODE) || sender.identity == HOST {
        return true;
    }
    let by_tunnel = CONFIG.get(0).is_none_or(|config: &NodeConfig| {
        config.flags & NODE_OVERLAY != 0 && !destination.is(IPCACHE_NODE)
    });
    let is_near = !destination.is_remote() || by_tunnel;
    !sender.is(IPCACHE_IN_CLUSTER) && !(destination.is(IPCACHE_IN_CLUSTER) && is_near)
}

/// Whether the policies of the ends that are here allow the connection still; `peer` is who is at the receiver's other
/// end now.
#[inline(always)]
fn is_in_force(
    entry: &ConnectionEntry,
    key: &ConnectionKey,
    ends: &Ends,
    is_reply: bool,
    peer: &Peer,
    from_destination: bool,
) -> bool {
    let port = if key.protocol == ICMP || key.protocol == ICMPV6 {
        u16::from(key.icmp_type).to_be()
    } else if entry.flags & CT_INITIATOR_IS_LOW != 0 {
        key.high_port
    } else {
        key.low_port
    };
    let (to, from) = if is_reply {
        (
            (&entry.egress, DIRECTION_EGRESS),
            (&entry.ingress, DIRECTION_INGRESS),
        )
    } else {
        (
            (&entry.ingress, DIRECTION_INGRESS),
            (&entry.egress, DIRECTION_EGRESS),
        )
    };
    // A router on the way is no end of the connection, and its own policy is not about it.
    let source = if from_destination {
        ends.source_endpoint
    } else {
        0
    };
    let receiver = if is_reply && is_turned_back(entry, ends) {
        0
    } else {
        ends.destination_endpoint
    };
    still_allows(to.0, receiver, to.1, peer, key.protocol, port)
        && still_allows(
            from.0,
            source,
            from.1,
            &ends.destination,
            key.protocol,
            port,
        )
}

/// Whether an end's policy allows with its present peer what it once allowed; true where the end is not here.
#[inline(always)]
fn still_allows(
    verdict: &ConnectionVerdict,
    endpoint: u32,
    direction: u8,
    peer: &Peer,
    protocol: u8,
    port: u16,
) -> bool {
    if endpoint == 0 {
        return true;
    }
    if verdict.generation == 0 {
        return false;
    }
    let binding = policy::binding(endpoint);
    if policy::holds(verdict, binding.generation(), peer) {
        return true;
    }
    let mut cookie = 0;
    policy::ask(binding, direction, peer, protocol, port, &mut cookie).is_ok()
        || binding.is_on_audit()
}
