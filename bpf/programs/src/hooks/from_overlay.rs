//! What other nodes encapsulated.

use super::{config, finish, into_pod, pass};
use crate::{
    connection::host,
    deliver, packet,
    policy::peer::{self, CLUSTER_FIRST, CLUSTER_LAST, UNMANAGED},
    report::Scratch,
    tunnel,
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{
    Address, DIRECTION_INGRESS, DropReason, IPCACHE_LOCAL_NODE, IPCACHE_NODE, IpcacheValue,
    NODE_HOST_ROUTING, TracePoint,
};

/// tcx ingress of the overlay device.
#[classifier]
pub fn from_overlay(context: TcContext) -> i32 {
    let Some(mut scratch) = Scratch::take(DIRECTION_INGRESS, TracePoint::FromOverlay) else {
        return TC_ACT_SHOT;
    };
    let outcome = overlay_sends(context.skb.skb, &mut scratch);
    finish(context.skb.skb, &scratch.flow, outcome)
}

#[inline(always)]
fn overlay_sends(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let outer = tunnel::OuterHeader::of(skb)?;
    if packet::is_of_a_vlan(skb) {
        return Err(DropReason::VlanFiltered);
    }
    packet::parse(skb, &mut flow.packet)?;
    let config = config()?;
    let v6 = flow.packet.is(packet::IS_V6);
    let row = peer::row(&flow.packet.source);
    let mut source = peer::of_row(row, v6);
    flow.source_identity = source.identity;
    // However the outer packet got here: only a node encapsulates, and only what it has itself.
    let sender = peer::of_row(peer::row(&outer.node), !outer.node.is_v4());
    let owner = row.map_or(Address::UNSPECIFIED, |row: &IpcacheValue| row.node);
    if !sender.is(IPCACHE_NODE) || !sender.is_remote() || owner != outer.node {
        return Err(DropReason::InvalidSourceIp);
    }
    // The sender's identity is what this node knows of its address. Of an address in a pod range that this node
    // has not heard of yet, the node that owns the range tells the identity.
    if source.identity == UNMANAGED && (CLUSTER_FIRST..=CLUSTER_LAST).contains(&outer.identity) {
        source.identity = outer.identity;
    }
    flow.source_identity = source.identity;
    if peer::local(&flow.packet.source).is_some() {
        return Err(DropReason::InvalidSourceIp);
    }
    if let Some(endpoint) = peer::local(&flow.packet.destination) {
        flow.endpoint = endpoint.id;
        flow.destination_identity = endpoint.identity;
        if config.flags & NODE_HOST_ROUTING == 0 {
            return deliver::to_stack(skb);
        }
        return into_pod(skb, scratch, source, endpoint, config);
    }
    let destination = peer::of_row(peer::row(&flow.packet.destination), v6);
    flow.destination_identity = destination.identity;
    if !destination.is(IPCACHE_LOCAL_NODE) {
        return Err(DropReason::StaleOrUnroutableIp);
    }
    if host::endpoint(config) != 0 {
        scratch.ends.set(source, destination).destination_endpoint = host::endpoint(config);
        pass(skb, scratch, TracePoint::ToHost)?;
    }
    deliver::to_stack(skb)
}
