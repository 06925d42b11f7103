//! What a pod sends.

use super::{config, device, finish, pass, passed};
use crate::{
    connection::{admit, host},
    deliver,
    neighbour::{self, Outcome},
    packet::{self, ETHERTYPE_ARP, IGMP, address},
    policy::peer::{self, Peer},
    report::{self, Scratch},
    tunnel,
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{
    Address, DIRECTION_EGRESS, DropReason, Endpoint, IPCACHE_IN_CLUSTER, IPCACHE_LOCAL_NODE,
    IPCACHE_NODE, IpcacheValue, NODE_HOST_ROUTING, NODE_OVERLAY, NodeConfig, TracePoint,
};

/// tcx ingress of a pod's host-side link.
#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    let Some(mut scratch) = Scratch::take(DIRECTION_EGRESS, TracePoint::FromEndpoint) else {
        return TC_ACT_SHOT;
    };
    let outcome = pod_sends(context.skb.skb, &mut scratch);
    finish(context.skb.skb, &scratch.flow, outcome)
}

#[inline(always)]
fn pod_sends(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let device = device(skb)?;
    flow.endpoint = device.id;
    flow.sender = device.id as u16;
    flow.source_identity = device.identity;
    // SAFETY: the context is the kernel's.
    if unsafe { (*skb).vlan_present } != 0 {
        return Err(DropReason::VlanFiltered);
    }
    if packet::ethertype(skb) == ETHERTYPE_ARP {
        return neighbour::arp(skb, device);
    }
    let mac = packet::source_mac(skb).ok_or(DropReason::InvalidPacketDropped)?;
    if mac != device.mac {
        return Err(DropReason::InvalidSourceMac);
    }
    packet::parse(skb, &mut flow.packet).or_else(|reason| {
        // Every host sends IGMP; there is no multicast to join.
        if flow.packet.protocol == IGMP {
            Err(DropReason::IgmpHandled)
        } else {
            Err(reason)
        }
    })?;
    if neighbour::is_icmpv6(&flow.packet) {
        match neighbour::ndp(skb, &flow.packet, device)? {
            Outcome::Answered(code) => return Ok(code),
            Outcome::Ignored => {
                return Ok(report::drop_silently(
                    skb,
                    DIRECTION_EGRESS,
                    DropReason::IgmpHandled,
                ));
            }
            Outcome::Other => {}
        }
    }
    let v6 = flow.packet.is(packet::IS_V6);
    if flow.packet.source != if v6 { device.ipv6 } else { device.ipv4 }
        || flow.packet.source.is_unspecified()
    {
        return Err(DropReason::InvalidSourceIp);
    }
    let config = config()?;
    let source = peer::of_endpoint(device, v6);
    if let Some(endpoint) = peer::local(&flow.packet.destination) {
        return pod_to_local_pod(skb, scratch, device, source, endpoint, config);
    }
    let row = peer::row(&flow.packet.destination);
    let destination = peer::of_row(row, v6);
    flow.destination_identity = destination.identity;
    // Nothing that a pod can reach has such an address, but the node's stack would take some for its own.
    if is_unroutable(&flow.packet.destination, v6, config) {
        return Err(DropReason::StaleOrUnroutableIp);
    }
    // Only nodes encapsulate. What leaves the cluster may come back under a node's address.
    let is_for_pod = destination.is(IPCACHE_IN_CLUSTER) && !destination.is(IPCACHE_NODE);
    if tunnel::is_encapsulated(&flow.packet)
        && (destination.is(IPCACHE_NODE) || (config.flags & NODE_OVERLAY != 0 && !is_for_pod))
    {
        return Err(DropReason::EncapsulationTrafficIsProhibited);
    }
    scratch.ends.set(source, destination).source_endpoint = device.id;
    if destination.is(IPCACHE_LOCAL_NODE) {
        scratch.ends.destination_endpoint = host::endpoint(config);
        pass(skb, scratch, TracePoint::ToHost)?;
        return Ok(TC_ACT_OK);
    }
    let due = admit(skb, scratch)?;
    let flow = &mut scratch.flow;
    let direct = config.flags & NODE_HOST_ROUTING != 0 && flow.by_stack == 0;
    // The stack would send what is for another node itself out of the uplink, with the pod's address,
    // which the network between the nodes does not know.
    if config.flags & NODE_OVERLAY != 0
        && destination.is(IPCACHE_IN_CLUSTER)
        && (direct || destination.is(IPCACHE_NODE))
    {
        let node = row.map_or(Address::UNSPECIFIED, |row: &IpcacheValue| row.node);
        if node.is_unspecified() {
            return Err(DropReason::NoTunnelOrEncapsulationEndpoint);
        }
        tunnel::set_key(skb, &node, source.identity)?;
        passed(skb, flow, due, TracePoint::ToOverlay);
        return Ok(tunnel::send(skb, config.overlay_ifindex));
    }
    if !direct {
        passed(skb, flow, due, TracePoint::ToStack);
        return Ok(TC_ACT_OK);
    }
    deliver::decrement_time_to_live(skb, &flow.packet)?;
    passed(skb, flow, due, TracePoint::ToNetwork);
    Ok(deliver::to_network(config.uplink_ifindex))
}

/// Same node: with host routing both policies are asked here and the packet goes straight in; else the
/// stack carries it to the other pod's link, where its ingress policy is asked.
#[inline(always)]
fn pod_to_local_pod(
    skb: *mut __sk_buff,
    scratch: &mut Scratch,
    device: &Endpoint,
    source: Peer,
    endpoint: &Endpoint,
    config: &NodeConfig,
) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let destination = peer::of_endpoint(endpoint, flow.packet.is(packet::IS_V6));
    flow.destination_identity = destination.identity;
    let direct = config.flags & NODE_HOST_ROUTING != 0;
    scratch.ends.set(source, destination).source_endpoint = device.id;
    if direct {
        scratch.ends.destination_endpoint = endpoint.id;
    } else {
        scratch.ends.elsewhere = endpoint.id;
    }
    let due = admit(skb, scratch)?;
    let flow = &mut scratch.flow;
    if direct && flow.by_stack == 0 {
        passed(skb, flow, due, TracePoint::ToEndpoint);
        return deliver::to_endpoint(skb, endpoint);
    }
    passed(skb, flow, due, TracePoint::ToStack);
    Ok(TC_ACT_OK)
}

/// Destinations that a pod cannot have: those that mean something only on a link or inside a host, and the
/// gateway, which answers for its MAC address and nothing else.
#[inline(always)]
fn is_unroutable(destination: &Address, v6: bool, config: &NodeConfig) -> bool {
    address::is_no_source(destination, v6) || (!v6 && *destination == config.gateway_ipv4)
}
