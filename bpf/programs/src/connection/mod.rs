//! Connections: one entry a connection, and the policy of every local end.

pub mod established;
pub mod host;
mod key;
pub mod related;
mod state;

use crate::{
    maps::CONNECTIONS,
    memory,
    packet::{IS_FIRST_FRAGMENT, IS_ICMP_ERROR, IS_LATER_FRAGMENT, Packet, TCP, TCP_SYN, fragment},
    policy::{self, peer::Peer},
    report::{Flow, Scratch, State},
    subprogram,
};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_ktime_get_coarse_ns};
use heddle_abi::{
    CT_BY_STACK, CT_INITIATOR_IS_LOW, ConnectionEntry, ConnectionVerdict, DIRECTION_EGRESS,
    DIRECTION_INGRESS, DropReason, EVENT_AUDIT, EVENT_REPLY, HOST_ENDPOINT,
};
use key::{service_port, set_key};
use state::{advance, opens_anew};

/// Who stands at the two ends of a packet.
#[repr(C)]
pub struct Ends {
    pub source: Peer,
    pub destination: Peer,
    /// Endpoint id of the source if its policy is to be asked here, else 0.
    pub source_endpoint: u32,
    /// Endpoint id of the destination if its policy is to be asked here, else 0.
    pub destination_endpoint: u32,
    /// Endpoint id of the other end where it is a pod of this node whose policy is to be asked at another hook of
    /// the same packet, else 0.
    pub elsewhere: u32,
}

impl Ends {
    /// Two ends whose policies are not to be asked, unless the fields behind are set.
    #[inline(always)]
    pub fn set(&mut self, source: Peer, destination: Peer) -> &mut Self {
        self.source = source;
        self.destination = destination;
        self.source_endpoint = 0;
        self.destination_endpoint = 0;
        self.elsewhere = 0;
        self
    }

    /// The packet comes by another hook of this node, which evaluates the destination's policy and counts it.
    #[inline(always)]
    fn is_halfway(&self) -> bool {
        self.source_endpoint != 0 && self.elsewhere != 0
    }

    /// The endpoint to whose account go the places that a packet's fragments take: the one that sends it, if it is
    /// here.
    #[inline(always)]
    fn owner(&self) -> u32 {
        if self.source_endpoint != 0 {
            self.source_endpoint
        } else if self.elsewhere != 0 {
            self.elsewhere
        } else {
            self.destination_endpoint
        }
    }
}

/// What is to be told of an admitted packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Report {
    Nothing,
    /// A new connection.
    Verdict,
    /// A change of state, or the interval is over.
    Trace,
}

/// An end whose policy is to be asked.
#[repr(C)]
struct Subject {
    endpoint: u32,
    peer: Peer,
    /// The port (or ICMP type) that policy knows the connection by.
    port: u16,
    /// `DIRECTION_*`.
    direction: u8,
    reserved: u8,
}

/// Asks one end's policy, unless the connection holds its answer for the present circumstances; true when it allowed
/// the connection for the first time.
#[inline(always)]
fn hold(
    verdict: &mut ConnectionVerdict,
    flow: &mut Flow,
    endpoint: u32,
    direction: u8,
    peer: &Peer,
    port: u16,
) -> Result<bool, DropReason> {
    let binding = policy::binding(endpoint);
    if policy::holds(verdict, binding.generation(), peer) {
        return Ok(false);
    }
    let subject = Subject {
        endpoint,
        peer: *peer,
        port,
        direction,
        reserved: 0,
    };
    renew(verdict, flow, &subject)
}

/// Asks one end's policy; true when it allowed the connection for the first time.
#[inline(always)]
fn renew(
    verdict: &mut ConnectionVerdict,
    flow: &mut Flow,
    subject: &Subject,
) -> Result<bool, DropReason> {
    match ask_policy(verdict, flow, subject) {
        AGAIN => Ok(false),
        FIRST => Ok(true),
        code => Err(subprogram::reason(code)),
    }
}

/// What [`ask_policy`] returns where the policy allows the connection: as before, and for the first time.
const AGAIN: i32 = 0;
const FIRST: i32 = 1;

/// [`renew`] as a subprogram.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ask_policy(
    verdict: *mut ConnectionVerdict,
    flow: *mut Flow,
    subject: *const Subject,
) -> i32 {
    // SAFETY: the verifier wants the checks; the callers pass their own.
    let (Some(verdict), Some(flow), Some(subject)) =
        (unsafe { (verdict.as_mut(), flow.as_mut(), subject.as_ref()) })
    else {
        return subprogram::code(DropReason::EpNotReady);
    };
    match evaluate(verdict, flow, subject) {
        Ok(false) => AGAIN,
        Ok(true) => FIRST,
        Err(reason) => subprogram::code(reason),
    }
}

#[inline(always)]
fn evaluate(
    verdict: &mut ConnectionVerdict,
    flow: &mut Flow,
    subject: &Subject,
) -> Result<bool, DropReason> {
    let &Subject {
        endpoint,
        ref peer,
        port,
        direction,
        ..
    } = subject;
    let binding = policy::binding(endpoint);
    let generation = binding.generation();
    let mut is_first = verdict.generation == 0;
    let mut cookie = 0;
    let answer = policy::ask(
        binding,
        direction,
        peer,
        flow.packet.protocol,
        port,
        &mut cookie,
    );
    if let Err(reason) = answer {
        flow.endpoint = if endpoint == HOST_ENDPOINT {
            0
        } else {
            endpoint
        };
        flow.direction = direction;
        flow.generation = generation;
        // Who denies is told where the ingress policy's rules are; what the egress policy allowed before stays.
        if direction == DIRECTION_EGRESS {
            flow.egress_cookie = cookie;
        }
        flow.ingress_cookie = cookie;
        // Without a policy there is nothing to audit: that stays closed.
        if !binding.is_on_audit() || matches!(reason, DropReason::EpNotReady) {
            // The other direction's packets must ask again too, and be refused.
            verdict.generation = 0;
            return Err(reason);
        }
        flow.flags |= EVENT_AUDIT;
        flow.audited = reason as u8;
        is_first = true;
        // What passes only so was allowed by nobody.
        cookie = 0;
    }
    *verdict = ConnectionVerdict {
        generation,
        peer: peer.identity,
        peer_cidr: peer.cidr,
        cookie,
    };
    Ok(is_first)
}

/// Whether a pod's answer goes through the node's stack, which turns it back to what the initiator sent: the
/// initiator's policy is about that, and is enforced where the answer comes out of the stack again.
#[inline(always)]
fn is_turned_back(entry: &ConnectionEntry, ends: &Ends) -> bool {
    entry.flags & CT_BY_STACK != 0
        && ends.source_endpoint != 0
        && ends.source_endpoint != HOST_ENDPOINT
}

/// Asks both ends that are here; true when one of them allowed the connection for the first time.
#[inline(always)]
fn hold_both(
    entry: &mut ConnectionEntry,
    flow: &mut Flow,
    ends: &Ends,
    is_reply: bool,
) -> Result<bool, DropReason> {
    let mut is_first = false;
    let port = service_port(&flow.packet, is_reply);
    // In the reply direction the source is the responder.
    let (initiator, initiators_peer, responder, responders_peer) = if is_reply {
        (
            if is_turned_back(entry, ends) {
                0
            } else {
                ends.destination_endpoint
            },
            &ends.source,
            ends.source_endpoint,
            &ends.destination,
        )
    } else {
        (
            ends.source_endpoint,
            &ends.destination,
            ends.destination_endpoint,
            &ends.source,
        )
    };
    if initiator != 0 {
        let verdict = &mut entry.egress;
        is_first |= hold(
            verdict,
            flow,
            initiator,
            DIRECTION_EGRESS,
            initiators_peer,
            port,
        )?;
        flow.egress_cookie = verdict.cookie;
    }
    if responder != 0 {
        let verdict = &mut entry.ingress;
        is_first |= hold(
            verdict,
            flow,
            responder,
            DIRECTION_INGRESS,
            responders_peer,
            port,
        )?;
        // On audit it names who denies. Where both ends would, the one that is asked last is told.
        if flow.flags & EVENT_AUDIT == 0 {
            flow.ingress_cookie = verdict.cookie;
        }
    }
    Ok(is_first)
}

/// Admits a packet: finds or makes its connection and asks the policy of each end that is here.
#[inline(always)]
pub fn admit(skb: *mut __sk_buff, _scratch: &mut Scratch) -> Result<Report, DropReason> {
    match admit_packet(skb) {
        NOTHING => Ok(Report::Nothing),
        VERDICT => Ok(Report::Verdict),
        TRACE => Ok(Report::Trace),
        code => Err(subprogram::reason(code)),
    }
}

/// What [`admit_packet`] returns where it does not refuse.
const NOTHING: i32 = 0;
const VERDICT: i32 = 1;
const TRACE: i32 = 2;

/// [`admit`] as a subprogram, of this run's [`Scratch`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn admit_packet(skb: *mut __sk_buff) -> i32 {
    let Some(mut scratch) = Scratch::again() else {
        return subprogram::code(DropReason::InvalidPacketDropped);
    };
    match find_or_open(skb, &mut scratch) {
        Ok(Report::Nothing) => NOTHING,
        Ok(Report::Verdict) => VERDICT,
        Ok(Report::Trace) => TRACE,
        Err(reason) => subprogram::code(reason),
    }
}

#[inline(always)]
fn find_or_open(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<Report, DropReason> {
    if scratch.flow.packet.is(IS_LATER_FRAGMENT) {
        let owner = scratch.ends.owner();
        fragment::find(&mut scratch.flow.packet, owner)?;
    }
    // SAFETY: no arguments.
    let now = (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32;
    if scratch.flow.packet.is(IS_ICMP_ERROR) {
        match related::admit(skb, scratch, now) {
            related::TOLD => return Ok(Report::Nothing),
            related::TO_TELL => return Ok(Report::Trace),
            // An ICMP message like any other.
            _ => {}
        }
    }
    let state = &mut **scratch;
    let State {
        flow, ends, key, ..
    } = &mut *state;
    let source_is_low = set_key(key, &flow.packet);
    let is_tcp = flow.packet.protocol == TCP;
    let (found, in_established) = established::find(key);
    let mut report = None;
    if let Some(entry) = found {
        // SAFETY: the entry stays readable and writable until the program ends.
        let entry = unsafe { &mut *entry };
        let is_reply = (entry.flags & CT_INITIATOR_IS_LOW != 0) != source_is_low;
        if entry.expires >= now && !opens_anew(&flow.packet, entry, is_reply) {
            if is_reply {
                flow.flags |= EVENT_REPLY;
                flow.by_stack = u8::from(entry.flags & CT_BY_STACK != 0);
            }
            let first = hold_both(entry, flow, ends, is_reply)?;
            let is_older = entry.last_report != now;
            let due = advance(skb, entry, &flow.packet, ends, is_reply, now);
            if is_tcp {
                // Last: an entry that was moved may serve another connection already.
                let moment = established::Moment { now, is_older };
                established::settle(key, entry, ends, is_reply, in_established, &moment);
            }
            // The other end's policy was asked at another hook.
            report = Some(if first { Report::Verdict } else { due });
        }
    }
    let report = match report {
        Some(report) => report,
        None => {
            let report = open(skb, state, source_is_low, now)?;
            if in_established {
                established::remove(&state.key);
            }
            report
        }
    };
    if state.flow.packet.is(IS_FIRST_FRAGMENT) {
        fragment::remember(&state.flow.packet, state.ends.owner());
    }
    Ok(report)
}

/// Makes a connection's entry.
#[inline(always)]
fn open(
    skb: *mut __sk_buff,
    state: &mut State,
    source_is_low: bool,
    now: u32,
) -> Result<Report, DropReason> {
    let State {
        flow,
        ends,
        key,
        entry,
        ..
    } = state;
    memory::clear(entry);
    let is_reply = is_reply_of_old(skb, &flow.packet, ends);
    hold_both(entry, flow, ends, is_reply)?;
    if ends.is_halfway() {
        hold_ahead(flow, ends)?;
    }
    entry.flags = if source_is_low != is_reply {
        CT_INITIATOR_IS_LOW
    } else {
        0
    };
    if flow.by_stack != 0 {
        entry.flags |= CT_BY_STACK;
    }
    let (initiator, responder) = if is_reply {
        flow.flags |= EVENT_REPLY;
        (&ends.destination, &ends.source)
    } else {
        (&ends.source, &ends.destination)
    };
    entry.source_identity = initiator.identity;
    entry.destination_identity = responder.identity;
    entry.last_report = now;
    let _ = advance(skb, entry, &flow.packet, ends, is_reply, now);
    match CONNECTIONS.insert(&*key, &*entry, 0) {
        Ok(()) => Ok(Report::Verdict),
        Err(_) => Err(DropReason::CtMapInsertionFailed),
    }
}

/// Asks the policy that the next hook will ask, too, and tell of: what is refused there must not take the place of
/// the connection that its addresses and ports have.
#[inline(always)]
fn hold_ahead(flow: &mut Flow, ends: &Ends) -> Result<(), DropReason> {
    let told = (flow.endpoint, flow.direction, flow.generation);
    let audit = (flow.flags, flow.audited);
    let cookies = (flow.egress_cookie, flow.ingress_cookie);
    let port = service_port(&flow.packet, false);
    let subject = Subject {
        endpoint: ends.elsewhere,
        peer: ends.source,
        port,
        direction: DIRECTION_INGRESS,
        reserved: 0,
    };
    renew(&mut ConnectionVerdict::default(), flow, &subject)?;
    // What is only told there is told there.
    (flow.endpoint, flow.direction, flow.generation) = told;
    (flow.flags, flow.audited) = audit;
    (flow.egress_cookie, flow.ingress_cookie) = cookies;
    Ok(())
}

/// Whether the first packet seen of a connection travels from its responder.
///
/// The node's own connections are tracked only while host policies are about it, so some are older than
/// that. For those, and for those alone, the node has a socket that is connected: then the end that listens is
/// the responder. Pods' connections are tracked from the start, and a pod has no such benefit.
#[inline(always)]
fn is_reply_of_old(skb: *mut __sk_buff, packet: &Packet, ends: &Ends) -> bool {
    let from_node = ends.source_endpoint == HOST_ENDPOINT && ends.destination_endpoint == 0;
    let to_node = ends.source_endpoint == 0 && ends.destination_endpoint == HOST_ENDPOINT;
    if !(from_node || to_node)
        || packet.protocol != TCP
        || packet.tcp_flags_or_icmp_type & TCP_SYN != 0
        || packet.is(IS_LATER_FRAGMENT)
    {
        return false;
    }
    match host::role_in_old_connection(skb, packet, from_node) {
        host::INITIATOR => to_node,
        host::RESPONDER => from_node,
        _ => false,
    }
}
