//! The hooks: a file each, a few lines over the shared stages; and what several of them do.

mod from_network;
mod from_overlay;
mod from_pod;
mod to_network;
mod to_overlay;
mod to_pod;

use crate::{
    connection::{self, Report},
    deliver,
    maps::{CONFIG, DEVICES},
    packet,
    policy::peer::{self, Peer},
    report::{self, Flow, Scratch},
};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT};
use heddle_abi::{
    DropReason, EVENT_TRACE, EVENT_VERDICT, Endpoint, NODE_HOST_ROUTING, NodeConfig, TracePoint,
};

/// Ends a program: counts and reports a drop, or gives the verdict.
#[inline(always)]
fn finish(skb: *mut __sk_buff, flow: &Flow, outcome: Result<i32, DropReason>) -> i32 {
    match outcome {
        Ok(code) => code,
        Err(DropReason::TtlExceeded) => {
            report::drop(skb, flow, DropReason::TtlExceeded);
            // The stack forwards it no further either, and tells the sender (RFC 1812, 5.3.1).
            deliver::to_stack(skb).unwrap_or(TC_ACT_SHOT)
        }
        Err(reason) => report::drop(skb, flow, reason),
    }
}

/// Admits a packet, counts it, and reports it if its connection is due; `way` is where it goes.
#[inline(always)]
fn pass(skb: *mut __sk_buff, scratch: &mut Scratch, way: TracePoint) -> Result<(), DropReason> {
    let due = connection::admit(skb, scratch)?;
    passed(skb, &mut scratch.flow, due, way);
    Ok(())
}

/// Counts a forwarded packet, and reports it if its connection is due.
#[inline(always)]
fn passed(skb: *mut __sk_buff, flow: &mut Flow, due: Report, way: TracePoint) {
    report::forwarded(skb, flow.direction);
    if due != Report::Nothing {
        flow.observation = way as u8;
        let kind = if due == Report::Verdict {
            EVENT_VERDICT
        } else {
            EVENT_TRACE
        };
        report::trace(skb, flow, kind);
    }
}

#[inline(always)]
fn config() -> Result<&'static NodeConfig, DropReason> {
    match CONFIG.get(0) {
        // SAFETY: array elements live as long as the program.
        Some(config) => Ok(unsafe { &*core::ptr::from_ref(config) }),
        None => Err(DropReason::NoConfigurationAvailableToPerformPolicyDecision),
    }
}

/// The pod on whose link the packet is.
#[inline(always)]
fn device(skb: *mut __sk_buff) -> Result<&'static Endpoint, DropReason> {
    // SAFETY: the context is the kernel's; a hash map entry stays readable until the program ends.
    unsafe {
        let ifindex = (*skb).ifindex;
        DEVICES
            .get(&ifindex)
            .map(|endpoint| &*core::ptr::from_ref(endpoint))
            .ok_or(DropReason::EpNotReady)
    }
}

/// A packet from elsewhere into a pod: its ingress policy is enforced, then it is delivered.
#[inline(always)]
fn into_pod(
    skb: *mut __sk_buff,
    scratch: &mut Scratch,
    source: Peer,
    endpoint: &Endpoint,
    config: &NodeConfig,
) -> Result<i32, DropReason> {
    if config.flags & NODE_HOST_ROUTING == 0 {
        // The stack takes it to the pod's link, where its policy is enforced.
        return Ok(TC_ACT_OK);
    }
    let destination = peer::of_endpoint(endpoint, scratch.flow.packet.is(packet::IS_V6));
    scratch.ends.set(source, destination).destination_endpoint = endpoint.id;
    let due = connection::admit(skb, scratch)?;
    let flow = &mut scratch.flow;
    deliver::decrement_time_to_live(skb, &flow.packet)?;
    passed(skb, flow, due, TracePoint::ToEndpoint);
    deliver::to_endpoint(skb, endpoint)
}
