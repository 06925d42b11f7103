//! What the node's stack sends to a pod.

use super::{config, device, finish, pass};
use crate::{
    connection::host::{self, HOST},
    neighbour,
    packet::{self, ETHERTYPE_ARP, address},
    policy::peer::{self, Peer},
    report::{self, Scratch},
};
use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{DIRECTION_INGRESS, DropReason, HOST_ENDPOINT, TracePoint};

/// tcx egress of a pod's host-side link.
#[classifier]
pub fn to_pod(context: TcContext) -> i32 {
    let Some(mut scratch) = Scratch::take(DIRECTION_INGRESS, TracePoint::FromHost) else {
        return TC_ACT_SHOT;
    };
    let outcome = stack_sends(context.skb.skb, &mut scratch);
    finish(context.skb.skb, &scratch.flow, outcome)
}

#[inline(always)]
fn stack_sends(skb: *mut __sk_buff, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let endpoint = device(skb)?;
    flow.endpoint = endpoint.id;
    flow.destination_identity = endpoint.identity;
    // SAFETY: the context is the kernel's.
    let came_by = unsafe { (*skb).ingress_ifindex };
    // No ingress interface: a process of this node sent it.
    let from_here = came_by == 0;
    // The gateway's ARP answers come this way, from `neighbour`.
    if packet::ethertype(skb) == ETHERTYPE_ARP {
        return Ok(TC_ACT_OK);
    }
    packet::parse(skb, &mut flow.packet)?;
    let v6 = flow.packet.is(packet::IS_V6);
    if neighbour::is_icmpv6(&flow.packet)
        && matches!(flow.packet.tcp_flags_or_icmp_type, 135 | 136)
        && flow.packet.time_to_live == 255
    {
        return Ok(TC_ACT_OK);
    }
    if flow.packet.destination != if v6 { endpoint.ipv6 } else { endpoint.ipv4 } {
        // The node's link-local control traffic: multicast listener reports, router solicitations.
        if from_here && address::is_multicast_or_reserved(&flow.packet.destination, v6) {
            return Ok(report::drop_silently(
                skb,
                DIRECTION_INGRESS,
                DropReason::IgmpHandled,
            ));
        }
        return Err(DropReason::StaleOrUnroutableIp);
    }
    let destination = peer::of_endpoint(endpoint, v6);
    let mut elsewhere = 0;
    let source = if from_here {
        flow.sender = HOST_ENDPOINT as u16;
        let row = peer::row(&flow.packet.source);
        Peer {
            identity: HOST,
            ..peer::of_row(row, v6)
        }
    } else if let Some(sender) = peer::local(&flow.packet.source) {
        // By its own link it has passed `from_pod`. The node may have others, where nobody looks at sources.
        if sender.ifindex != came_by {
            return Err(DropReason::InvalidSourceIp);
        }
        elsewhere = sender.id;
        flow.sender = sender.id as u16;
        peer::of_endpoint(sender, v6)
    } else {
        peer::of_row(peer::row(&flow.packet.source), v6)
    };
    flow.source_identity = source.identity;
    flow.by_stack = u8::from(!from_here);
    let ends = scratch.ends.set(source, destination);
    ends.destination_endpoint = endpoint.id;
    ends.elsewhere = elsewhere;
    if from_here {
        ends.source_endpoint = host::endpoint(config()?);
    }
    pass(skb, scratch, TracePoint::ToEndpoint)?;
    Ok(TC_ACT_OK)
}
