//! What the node itself sends by the uplink, while host policies are about it.

use super::{config, finish, pass};
use crate::{
    connection::host,
    packet::{self, fragment},
    policy::peer,
    report::Scratch,
    tunnel,
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{
    DIRECTION_EGRESS, DropReason, IPCACHE_LOCAL_NODE, IPCACHE_NODE, NODE_OVERLAY, TracePoint,
};

/// tcx egress of the uplink, while host policies are about this node.
#[classifier]
pub fn to_network(context: TcContext) -> i32 {
    let Some(mut scratch) = Scratch::take(DIRECTION_EGRESS, TracePoint::FromHost) else {
        return TC_ACT_SHOT;
    };
    let outcome = host_sends(context.skb.skb, &mut scratch);
    finish(context.skb.skb, &scratch.flow, outcome)
}

/// What the node sends: from a process of its own, or from one of its addresses. Pods' packets pass by here
/// and policy has been evaluated for them.
#[inline(always)]
fn host_sends(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let config = config()?;
    if !packet::is_ip(skb) || host::endpoint(config) == 0 {
        return Ok(TC_ACT_OK);
    }
    let flow = &mut scratch.flow;
    let parsed = packet::parse(skb, &mut flow.packet);
    let v6 = flow.packet.is(packet::IS_V6);
    // SAFETY: the context is the kernel's. No ingress interface: a process of this node sent it.
    let from_here = unsafe { (*skb).ingress_ifindex } == 0;
    let source = host::peer(&flow.packet.source, v6);
    if !from_here && !source.is(IPCACHE_LOCAL_NODE) {
        return Ok(TC_ACT_OK);
    }
    if host::readable(parsed)? && host::is_neighbourhood(&flow.packet) {
        return Ok(TC_ACT_OK);
    }
    let destination = peer::of_row(peer::row(&flow.packet.destination), v6);
    flow.source_identity = source.identity;
    flow.destination_identity = destination.identity;
    fragment::recall(&mut flow.packet, host::endpoint(config));
    // Policy was enforced on the inner packet before it was encapsulated.
    if config.flags & NODE_OVERLAY != 0
        && tunnel::is_encapsulated(&flow.packet)
        && destination.is(IPCACHE_NODE)
    {
        fragment::note(&flow.packet, host::endpoint(config));
        return Ok(TC_ACT_OK);
    }
    scratch.ends.set(source, destination).source_endpoint = host::endpoint(config);
    pass(skb, scratch, TracePoint::ToNetwork)?;
    Ok(TC_ACT_OK)
}
