//! What is about to be encapsulated.

use super::{config, finish, pass};
use crate::{
    connection::host,
    maps::DEVICES,
    packet::{self, Packet, address},
    policy::peer::{self, REMOTE_NODE},
    report::{self, Scratch},
    tunnel,
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{
    Address, DIRECTION_EGRESS, DropReason, IPCACHE_LOCAL_NODE, IpcacheValue, MARK_OTHERS,
    MARK_OVERLAY, TracePoint,
};

/// tcx egress of the overlay device.
#[classifier]
pub fn to_overlay(context: TcContext) -> i32 {
    let Some(mut scratch) = Scratch::take(DIRECTION_EGRESS, TracePoint::ToOverlay) else {
        return TC_ACT_SHOT;
    };
    let outcome = stack_encapsulates(context.skb.skb, &mut scratch);
    finish(context.skb.skb, &scratch.flow, outcome)
}

/// Packets that the node's stack sends into the overlay: the node's own, and those of pods when host
/// routing is off. What `from_pod` sent has its outer header already.
#[inline(always)]
fn stack_encapsulates(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    // SAFETY: the context is the kernel's.
    let (mark, from_here) = unsafe { ((*skb).mark, (*skb).ingress_ifindex == 0) };
    if mark & !MARK_OTHERS == MARK_OVERLAY {
        return Ok(TC_ACT_OK);
    }
    let parsed = packet::parse(skb, &mut flow.packet);
    let v6 = flow.packet.is(packet::IS_V6);
    // The node's link-local control traffic: every device sends it, and there is no link here.
    if from_here
        && packet::is_ip(skb)
        && address::is_multicast_or_reserved(&flow.packet.destination, v6)
    {
        return Ok(report::drop_silently(
            skb,
            DIRECTION_EGRESS,
            DropReason::IgmpHandled,
        ));
    }
    parsed?;
    let is_nodes = from_here || is_turned_back(skb, &flow.packet, v6);
    let identity = if is_nodes {
        // What is `host` here is `remote-node` there (reference 1.7).
        REMOTE_NODE
    } else {
        match peer::local(&flow.packet.source) {
            Some(sender) => sender.identity,
            None => return Err(DropReason::InvalidSourceIp),
        }
    };
    flow.source_identity = identity;
    let row = peer::row(&flow.packet.destination);
    let destination = peer::of_row(row, v6);
    flow.destination_identity = destination.identity;
    let node = row.map_or(Address::UNSPECIFIED, |row: &IpcacheValue| row.node);
    if node.is_unspecified() {
        return Err(DropReason::NoTunnelOrEncapsulationEndpoint);
    }
    let host = host::endpoint(config()?);
    if is_nodes && host != 0 {
        let source = host::peer(&flow.packet.source, v6);
        flow.source_identity = source.identity;
        scratch.ends.set(source, destination).source_endpoint = host;
        pass(skb, scratch, TracePoint::ToOverlay)?;
    } else {
        report::forwarded(skb, DIRECTION_EGRESS);
    }
    tunnel::set_key(skb, &node, identity)?;
    Ok(TC_ACT_OK)
}

/// Whether the stack turned a pod's answer back to the node's address that the initiator sent to: a pod's link is the
/// only one by which a packet with that source can have come, and no pod sends one itself.
#[inline(always)]
fn is_turned_back(skb: *mut __sk_buff, packet: &Packet, v6: bool) -> bool {
    // SAFETY: the context is the kernel's.
    let came_by = unsafe { (*skb).ingress_ifindex };
    // SAFETY: the entry is not read.
    unsafe { DEVICES.get(&came_by) }.is_some()
        && peer::of_row(peer::row(&packet.source), v6).is(IPCACHE_LOCAL_NODE)
}
