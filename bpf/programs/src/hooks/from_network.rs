//! What comes off the uplink: from other nodes and from outside.

use super::{config, finish, into_pod, pass};
use crate::{
    connection::host,
    packet::{self, address, fragment},
    policy::peer::{self, Peer, UNMANAGED},
    report::{Flow, Scratch},
    tunnel,
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{
    DIRECTION_INGRESS, DropReason, IPCACHE_IN_CLUSTER, IPCACHE_LOCAL_NODE, IPCACHE_NODE,
    NODE_OVERLAY, NodeConfig, TracePoint,
};

/// tcx ingress of the uplink.
#[classifier]
pub fn from_network(context: TcContext) -> i32 {
    let Some(mut scratch) = Scratch::take(DIRECTION_INGRESS, TracePoint::FromNetwork) else {
        return TC_ACT_SHOT;
    };
    let outcome = network_sends(context.skb.skb, &mut scratch);
    finish(context.skb.skb, &scratch.flow, outcome)
}

#[inline(always)]
fn network_sends(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    if !packet::is_ip(skb) {
        return if packet::is_tagged_again(skb) {
            Err(DropReason::VlanFiltered)
        } else {
            Ok(TC_ACT_OK)
        };
    }
    let parsed = packet::parse(skb, &mut flow.packet);
    let config = config()?;
    let v6 = flow.packet.is(packet::IS_V6);
    let source = peer::of_row(peer::row(&flow.packet.source), v6);
    flow.source_identity = source.identity;
    let local = peer::local(&flow.packet.destination);
    if let Some(endpoint) = local {
        flow.endpoint = endpoint.id;
        flow.destination_identity = endpoint.identity;
    }
    // Wherever it is going: the stack would encapsulate it, or send it back, in the name of the pod.
    if is_forged(source, flow, config) {
        return Err(DropReason::InvalidSourceIp);
    }
    if let Some(endpoint) = local {
        if packet::is_of_a_vlan(skb) {
            return Err(DropReason::VlanFiltered);
        }
        parsed?;
        if address::is_no_source(&flow.packet.source, v6) {
            return Err(DropReason::InvalidSourceIp);
        }
        return into_pod(skb, scratch, source, endpoint, config);
    }
    let destination = peer::of_row(peer::row(&flow.packet.destination), v6);
    flow.destination_identity = destination.identity;
    let host = host::endpoint(config);
    fragment::recall(&mut flow.packet, host);
    // The kernel would open it, whichever of this node's addresses it is for. `from_overlay` sees what comes
    // another way.
    if config.flags & NODE_OVERLAY != 0
        && tunnel::is_encapsulated(&flow.packet)
        && !destination.is_remote()
    {
        if !source.is(IPCACHE_NODE) || !source.is_remote() {
            return Err(DropReason::EncapsulationTrafficIsProhibited);
        }
        // Policy is enforced on the inner packet.
        fragment::note(&flow.packet, host);
        return Ok(TC_ACT_OK);
    }
    // A pod of this node that is gone, or not here yet.
    if destination.identity == UNMANAGED && !destination.is_remote() {
        return Err(DropReason::StaleOrUnroutableIp);
    }
    if host == 0 || destination.is_remote() {
        return Ok(TC_ACT_OK);
    }
    into_host(skb, scratch, source, parsed, config)
}

/// This node's own addresses cannot come from outside; with an overlay, no pod's can.
#[inline(always)]
fn is_forged(source: Peer, flow: &Flow, config: &NodeConfig) -> bool {
    peer::local(&flow.packet.source).is_some()
        || source.is(IPCACHE_LOCAL_NODE)
        || (config.flags & NODE_OVERLAY != 0
            && source.is(IPCACHE_IN_CLUSTER)
            && !source.is(IPCACHE_NODE))
}

/// A packet off the uplink that is for no pod and no other node: whatever its address, the policy of the node is evaluated.
#[inline(always)]
fn into_host(
    skb: *mut __sk_buff,
    scratch: &mut Scratch,
    source: Peer,
    parsed: Result<(), DropReason>,
    config: &NodeConfig,
) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    if host::readable(parsed)? && host::is_neighbourhood(&flow.packet) {
        return Ok(TC_ACT_OK);
    }
    let v6 = flow.packet.is(packet::IS_V6);
    let destination = host::peer(&flow.packet.destination, v6);
    flow.destination_identity = destination.identity;
    scratch.ends.set(source, destination).destination_endpoint = host::endpoint(config);
    pass(skb, scratch, TracePoint::ToHost)?;
    Ok(TC_ACT_OK)
}
