//! The entry points.

use crate::{
    address,
    connection::{Ends, Report, admit},
    deliver::{self, MARK_OVERLAY},
    fragment,
    host::{self, HOST},
    maps::{CONFIG, DEVICES},
    neighbour::{self, Outcome},
    packet::{
        self, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN,
        ETHERTYPE_VLAN, IGMP, UDP,
    },
    peer::{self, Peer},
    report::{self, Flow, Scratch},
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_TUNINFO_IPV6, TC_ACT_OK, TC_ACT_SHOT, bpf_tunnel_key},
    helpers::generated::{bpf_skb_change_type, bpf_skb_get_tunnel_key},
    macros::classifier,
    programs::TcContext,
};
use heddle_abi::{
    Address, DIRECTION_EGRESS, DIRECTION_INGRESS, DropReason, EVENT_TRACE, EVENT_VERDICT, Endpoint,
    HOST_ENDPOINT, IPCACHE_IN_CLUSTER, IPCACHE_LOCAL_NODE, IPCACHE_NODE, IpcacheValue,
    NODE_HOST_ROUTING, NODE_OVERLAY, NodeConfig, OVERLAY_PORT, TracePoint,
};

const UNMANAGED: u32 = 3;
const REMOTE_NODE: u32 = 6;
const CLUSTER_FIRST: u32 = 256;
const CLUSTER_LAST: u32 = 65_535;
const PACKET_HOST: u32 = 0;

/// Ends a program: counts and reports a drop, or gives the verdict.
#[inline(always)]
fn finish(context: &TcContext, flow: &Flow, outcome: Result<i32, DropReason>) -> i32 {
    match outcome {
        Ok(code) => code,
        Err(DropReason::TtlExceeded) => {
            report::drop(context.skb.skb, flow, DropReason::TtlExceeded);
            // The stack forwards it no further either, and tells the sender (RFC 1812, 5.3.1).
            to_stack(context.skb.skb).unwrap_or(TC_ACT_SHOT)
        }
        Err(reason) => report::drop(context.skb.skb, flow, reason),
    }
}

/// Counts a forwarded packet, and reports it if its connection is due.
#[inline(always)]
fn passed(context: &TcContext, flow: &mut Flow, due: Report, observation: TracePoint) {
    report::forwarded(context, flow.direction);
    if due != Report::Nothing {
        flow.observation = observation as u8;
        let kind = if due == Report::Verdict {
            EVENT_VERDICT
        } else {
            EVENT_TRACE
        };
        report::trace(context.skb.skb, flow, kind);
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

#[inline(always)]
fn ethertype(context: &TcContext) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { (*context.skb.skb).protocol }
}

#[inline(always)]
fn is_ip(context: &TcContext) -> bool {
    matches!(ethertype(context), ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
}

#[inline(always)]
fn device(context: &TcContext) -> Result<&'static Endpoint, DropReason> {
    // SAFETY: the context is the kernel's; a hash map entry stays readable until the program ends.
    unsafe {
        let ifindex = (*context.skb.skb).ifindex;
        DEVICES
            .get(&ifindex)
            .map(|endpoint| &*core::ptr::from_ref(endpoint))
            .ok_or(DropReason::EpNotReady)
    }
}

/// tcx ingress of a pod's host-side link.
#[classifier]
pub fn from_pod(context: TcContext) -> i32 {
    let Some(scratch) = Scratch::take(DIRECTION_EGRESS, TracePoint::FromEndpoint) else {
        return TC_ACT_SHOT;
    };
    let outcome = pod_sends(&context, scratch);
    finish(&context, &scratch.flow, outcome)
}

#[inline(always)]
fn pod_sends(context: &TcContext, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let skb = context.skb.skb;
    let device = device(context)?;
    flow.endpoint = device.id;
    flow.sender = device.id as u16;
    flow.source_identity = device.identity;
    // SAFETY: the context is the kernel's.
    if unsafe { (*skb).vlan_present } != 0 {
        return Err(DropReason::VlanFiltered);
    }
    if ethertype(context) == ETHERTYPE_ARP {
        return neighbour::arp(skb, device);
    }
    let mac = packet::source_mac(skb).ok_or(DropReason::InvalidPacketDropped)?;
    if mac != device.mac {
        return Err(DropReason::InvalidSourceMac);
    }
    packet::parse(context, &mut flow.packet).or_else(|reason| {
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
                    context,
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
        return pod_to_local_pod(context, scratch, device, source, endpoint, config);
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
    if is_encapsulated(&flow.packet)
        && (destination.is(IPCACHE_NODE) || (config.flags & NODE_OVERLAY != 0 && !is_for_pod))
    {
        return Err(DropReason::EncapsulationTrafficIsProhibited);
    }
    let ends = Ends {
        source,
        destination,
        source_endpoint: device.id,
        destination_endpoint: if destination.is(IPCACHE_LOCAL_NODE) {
            host::endpoint(config)
        } else {
            0
        },
        elsewhere: 0,
    };
    let due = admit(skb, scratch, &ends)?;
    let flow = &mut scratch.flow;
    if destination.is(IPCACHE_LOCAL_NODE) {
        passed(context, flow, due, TracePoint::ToHost);
        return Ok(TC_ACT_OK);
    }
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
        passed(context, flow, due, TracePoint::ToOverlay);
        return deliver::to_overlay(skb, &node, source.identity, config.overlay_ifindex);
    }
    if !direct {
        passed(context, flow, due, TracePoint::ToStack);
        return Ok(TC_ACT_OK);
    }
    passed(context, flow, due, TracePoint::ToNetwork);
    deliver::to_network(skb, &flow.packet, config.uplink_ifindex)
}

/// Same node: with host routing both policies are asked here and the packet goes straight in; else the
/// stack carries it to the other pod's link, where its ingress policy is asked.
#[inline(always)]
fn pod_to_local_pod(
    context: &TcContext,
    scratch: &mut Scratch,
    device: &Endpoint,
    source: Peer,
    endpoint: &Endpoint,
    config: &NodeConfig,
) -> Result<i32, DropReason> {
    let skb = context.skb.skb;
    let flow = &mut scratch.flow;
    let destination = peer::of_endpoint(endpoint, flow.packet.is(packet::IS_V6));
    flow.destination_identity = destination.identity;
    let direct = config.flags & NODE_HOST_ROUTING != 0;
    let ends = Ends {
        source,
        destination,
        source_endpoint: device.id,
        destination_endpoint: if direct { endpoint.id } else { 0 },
        elsewhere: if direct { 0 } else { endpoint.id },
    };
    let due = admit(skb, scratch, &ends)?;
    let flow = &mut scratch.flow;
    if direct && flow.by_stack == 0 {
        passed(context, flow, due, TracePoint::ToEndpoint);
        return deliver::to_endpoint(skb, endpoint);
    }
    passed(context, flow, due, TracePoint::ToStack);
    Ok(TC_ACT_OK)
}

/// Destinations that a pod cannot have: those that mean something only on a link or inside a host, and the
/// gateway, which answers for its MAC address and nothing else.
#[inline(always)]
fn is_unroutable(destination: &Address, v6: bool, config: &NodeConfig) -> bool {
    address::is_no_source(destination, v6) || (!v6 && *destination == config.gateway_ipv4)
}

/// The packet has the form of one that a node encapsulated. A later fragment has no port unless it was recalled.
#[inline(always)]
fn is_encapsulated(packet: &packet::Packet) -> bool {
    packet.protocol == UDP && packet.destination_port == OVERLAY_PORT.to_be()
}

/// Whether the frame belongs to a VLAN: pods are in none. Tag 0 gives a priority only (IEEE 802.1Q, 9.6).
#[inline(always)]
fn is_of_a_vlan(context: &TcContext) -> bool {
    // SAFETY: the context is the kernel's.
    unsafe {
        let skb = context.skb.skb;
        (*skb).vlan_present != 0 && (*skb).vlan_tci & 0xfff != 0
    }
}

/// Whether the frame has a tag behind the one that the kernel took off: it would take off the others behind this
/// hook, and give the stack a packet that no program saw.
#[inline(always)]
fn is_tagged_again(context: &TcContext) -> bool {
    matches!(ethertype(context), ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// tcx egress of a pod's host-side link.
#[classifier]
pub fn to_pod(context: TcContext) -> i32 {
    let Some(scratch) = Scratch::take(DIRECTION_INGRESS, TracePoint::FromHost) else {
        return TC_ACT_SHOT;
    };
    let outcome = stack_sends(&context, scratch);
    finish(&context, &scratch.flow, outcome)
}

#[inline(always)]
fn stack_sends(context: &TcContext, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let skb = context.skb.skb;
    let endpoint = device(context)?;
    flow.endpoint = endpoint.id;
    flow.destination_identity = endpoint.identity;
    // SAFETY: the context is the kernel's.
    let came_by = unsafe { (*skb).ingress_ifindex };
    // No ingress interface: a process of this node sent it.
    let from_here = came_by == 0;
    // The gateway's ARP answers come this way, from `neighbour`.
    if ethertype(context) == ETHERTYPE_ARP {
        return Ok(TC_ACT_OK);
    }
    packet::parse(context, &mut flow.packet)?;
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
                context,
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
    let ends = Ends {
        source,
        destination,
        source_endpoint: if from_here {
            host::endpoint(config()?)
        } else {
            0
        },
        destination_endpoint: endpoint.id,
        elsewhere,
    };
    let due = admit(skb, scratch, &ends)?;
    let flow = &mut scratch.flow;
    passed(context, flow, due, TracePoint::ToEndpoint);
    Ok(TC_ACT_OK)
}

/// tcx ingress of the uplink.
#[classifier]
pub fn from_network(context: TcContext) -> i32 {
    let Some(scratch) = Scratch::take(DIRECTION_INGRESS, TracePoint::FromNetwork) else {
        return TC_ACT_SHOT;
    };
    let outcome = network_sends(&context, scratch);
    finish(&context, &scratch.flow, outcome)
}

#[inline(always)]
fn network_sends(context: &TcContext, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    if !is_ip(context) {
        return if is_tagged_again(context) {
            Err(DropReason::VlanFiltered)
        } else {
            Ok(TC_ACT_OK)
        };
    }
    let parsed = packet::parse(context, &mut flow.packet);
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
        if is_of_a_vlan(context) {
            return Err(DropReason::VlanFiltered);
        }
        parsed?;
        if address::is_no_source(&flow.packet.source, v6) {
            return Err(DropReason::InvalidSourceIp);
        }
        return into_pod(context, scratch, source, endpoint, config);
    }
    let destination = peer::of_row(peer::row(&flow.packet.destination), v6);
    flow.destination_identity = destination.identity;
    let host = host::endpoint(config);
    recall(flow, host);
    // The kernel would open it, whichever of this node's addresses it is for. `from_overlay` sees what comes
    // another way.
    if config.flags & NODE_OVERLAY != 0 && is_encapsulated(&flow.packet) && !destination.is_remote()
    {
        if !source.is(IPCACHE_NODE) || !source.is_remote() {
            return Err(DropReason::EncapsulationTrafficIsProhibited);
        }
        // Policy is enforced on the inner packet.
        remember(flow, host);
        return Ok(TC_ACT_OK);
    }
    // A pod of this node that is gone, or not here yet.
    if destination.identity == UNMANAGED && !destination.is_remote() {
        return Err(DropReason::StaleOrUnroutableIp);
    }
    if host == 0 || destination.is_remote() {
        return Ok(TC_ACT_OK);
    }
    into_host(context, scratch, source, parsed, config)
}

/// Gives a later fragment its ports, where the node's policy is to decide on it and its datagram's first fragment is
/// remembered; where it is not, `admit` says so.
#[inline(always)]
fn recall(flow: &mut Flow, host: u32) {
    if host != 0 && flow.packet.is(packet::IS_LATER_FRAGMENT) {
        let _ = fragment::find(&mut flow.packet, host);
    }
}

/// Remembers a first fragment that passes without the node's policy, for those behind it.
#[inline(always)]
fn remember(flow: &Flow, host: u32) {
    if host != 0 && flow.packet.is(packet::IS_FIRST_FRAGMENT) {
        fragment::remember(&flow.packet, host);
    }
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

/// A packet off the uplink that is for no pod and no other node: whatever its address, the node judges it.
#[inline(always)]
fn into_host(
    context: &TcContext,
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
    let ends = Ends {
        source,
        destination,
        source_endpoint: 0,
        destination_endpoint: host::endpoint(config),
        elsewhere: 0,
    };
    let due = admit(context.skb.skb, scratch, &ends)?;
    passed(context, &mut scratch.flow, due, TracePoint::ToHost);
    Ok(TC_ACT_OK)
}

/// tcx egress of the uplink, while host policies are about this node.
#[classifier]
pub fn to_network(context: TcContext) -> i32 {
    let Some(scratch) = Scratch::take(DIRECTION_EGRESS, TracePoint::FromHost) else {
        return TC_ACT_SHOT;
    };
    let outcome = host_sends(&context, scratch);
    finish(&context, &scratch.flow, outcome)
}

/// What the node sends: from a process of its own, or from one of its addresses. Pods' packets pass by here
/// and have been judged.
#[inline(always)]
fn host_sends(context: &TcContext, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let config = config()?;
    if !is_ip(context) || host::endpoint(config) == 0 {
        return Ok(TC_ACT_OK);
    }
    let flow = &mut scratch.flow;
    let parsed = packet::parse(context, &mut flow.packet);
    let v6 = flow.packet.is(packet::IS_V6);
    // SAFETY: the context is the kernel's. No ingress interface: a process of this node sent it.
    let from_here = unsafe { (*context.skb.skb).ingress_ifindex } == 0;
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
    recall(flow, host::endpoint(config));
    // Policy was enforced on the inner packet before it was encapsulated.
    if config.flags & NODE_OVERLAY != 0
        && is_encapsulated(&flow.packet)
        && destination.is(IPCACHE_NODE)
    {
        remember(flow, host::endpoint(config));
        return Ok(TC_ACT_OK);
    }
    let ends = Ends {
        source,
        destination,
        source_endpoint: host::endpoint(config),
        destination_endpoint: 0,
        elsewhere: 0,
    };
    let due = admit(context.skb.skb, scratch, &ends)?;
    passed(context, &mut scratch.flow, due, TracePoint::ToNetwork);
    Ok(TC_ACT_OK)
}

/// A packet from elsewhere into a pod: asks its ingress policy, then delivers.
#[inline(always)]
fn into_pod(
    context: &TcContext,
    scratch: &mut Scratch,
    source: Peer,
    endpoint: &Endpoint,
    config: &NodeConfig,
) -> Result<i32, DropReason> {
    let skb = context.skb.skb;
    if config.flags & NODE_HOST_ROUTING == 0 {
        // The stack takes it to the pod's link; its policy is asked there.
        return Ok(TC_ACT_OK);
    }
    let destination = peer::of_endpoint(endpoint, scratch.flow.packet.is(packet::IS_V6));
    let ends = Ends {
        source,
        destination,
        source_endpoint: 0,
        destination_endpoint: endpoint.id,
        elsewhere: 0,
    };
    let due = admit(skb, scratch, &ends)?;
    let flow = &mut scratch.flow;
    deliver::decrement_time_to_live(skb, &flow.packet)?;
    passed(context, flow, due, TracePoint::ToEndpoint);
    deliver::to_endpoint(skb, endpoint)
}

/// tcx ingress of the overlay device.
#[classifier]
pub fn from_overlay(context: TcContext) -> i32 {
    let Some(scratch) = Scratch::take(DIRECTION_INGRESS, TracePoint::FromOverlay) else {
        return TC_ACT_SHOT;
    };
    let outcome = overlay_sends(&context, scratch);
    finish(&context, &scratch.flow, outcome)
}

#[inline(always)]
fn overlay_sends(context: &TcContext, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let outer = OuterHeader::of(context.skb.skb)?;
    if is_of_a_vlan(context) {
        return Err(DropReason::VlanFiltered);
    }
    packet::parse(context, &mut flow.packet)?;
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
        return into_pod_from_overlay(context, scratch, source, endpoint, config);
    }
    let destination = peer::of_row(peer::row(&flow.packet.destination), v6);
    flow.destination_identity = destination.identity;
    if !destination.is(IPCACHE_LOCAL_NODE) {
        return Err(DropReason::StaleOrUnroutableIp);
    }
    if host::endpoint(config) != 0 {
        let ends = Ends {
            source,
            destination,
            source_endpoint: 0,
            destination_endpoint: host::endpoint(config),
            elsewhere: 0,
        };
        let due = admit(context.skb.skb, scratch, &ends)?;
        passed(context, &mut scratch.flow, due, TracePoint::ToHost);
    }
    to_stack(context.skb.skb)
}

#[inline(always)]
fn into_pod_from_overlay(
    context: &TcContext,
    scratch: &mut Scratch,
    source: Peer,
    endpoint: &Endpoint,
    config: &NodeConfig,
) -> Result<i32, DropReason> {
    if config.flags & NODE_HOST_ROUTING == 0 {
        return to_stack(context.skb.skb);
    }
    into_pod(context, scratch, source, endpoint, config)
}

/// Up into the node's stack: the inner frame is addressed to nobody in particular.
#[inline(always)]
fn to_stack(skb: *mut __sk_buff) -> Result<i32, DropReason> {
    // SAFETY: the context is the kernel's.
    if unsafe { bpf_skb_change_type(skb, PACKET_HOST) } != 0 {
        return Err(DropReason::ErrorWritingToPacket);
    }
    Ok(TC_ACT_OK)
}

/// What the outer header and the VNI say of the sender.
struct OuterHeader {
    node: Address,
    identity: u32,
}

impl OuterHeader {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Result<Self, DropReason> {
        // SAFETY: plain integers, for which zero is a value; the helper writes a whole bpf_tunnel_key.
        unsafe {
            let mut key: bpf_tunnel_key = core::mem::zeroed();
            let size = size_of::<bpf_tunnel_key>() as u32;
            if bpf_skb_get_tunnel_key(skb, &raw mut key, size, 0) == 0 {
                let word = key.__bindgen_anon_1.remote_ipv4.to_be();
                return Ok(Self {
                    node: Address::from_v4_word(word),
                    identity: key.tunnel_id,
                });
            }
            let flags = u64::from(BPF_F_TUNINFO_IPV6);
            if bpf_skb_get_tunnel_key(skb, &raw mut key, size, flags) == 0 {
                let words = key.__bindgen_anon_1.remote_ipv6;
                return Ok(Self {
                    node: Address { words },
                    identity: key.tunnel_id,
                });
            }
        }
        Err(DropReason::ErrorRetrievingTunnelKey)
    }
}

/// tcx egress of the overlay device.
#[classifier]
pub fn to_overlay(context: TcContext) -> i32 {
    let Some(scratch) = Scratch::take(DIRECTION_EGRESS, TracePoint::ToOverlay) else {
        return TC_ACT_SHOT;
    };
    let outcome = stack_encapsulates(&context, scratch);
    finish(&context, &scratch.flow, outcome)
}

/// Packets that the node's stack sends into the overlay: the node's own, and those of pods when host
/// routing is off. What `from_pod` sent has its outer header already.
#[inline(always)]
fn stack_encapsulates(context: &TcContext, scratch: &mut Scratch) -> Result<i32, DropReason> {
    let flow = &mut scratch.flow;
    let skb = context.skb.skb;
    // SAFETY: the context is the kernel's.
    let (mark, from_here) = unsafe { ((*skb).mark, (*skb).ingress_ifindex == 0) };
    if mark == MARK_OVERLAY {
        return Ok(TC_ACT_OK);
    }
    let parsed = packet::parse(context, &mut flow.packet);
    let v6 = flow.packet.is(packet::IS_V6);
    // The node's link-local control traffic: every device sends it, and there is no link here.
    if from_here
        && is_ip(context)
        && address::is_multicast_or_reserved(&flow.packet.destination, v6)
    {
        return Ok(report::drop_silently(
            context,
            DIRECTION_EGRESS,
            DropReason::IgmpHandled,
        ));
    }
    parsed?;
    let identity = if from_here {
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
    if from_here && host != 0 {
        let source = host::peer(&flow.packet.source, v6);
        flow.source_identity = source.identity;
        let ends = Ends {
            source,
            destination,
            source_endpoint: host,
            destination_endpoint: 0,
            elsewhere: 0,
        };
        let due = admit(skb, scratch, &ends)?;
        passed(context, &mut scratch.flow, due, TracePoint::ToOverlay);
    } else {
        report::forwarded(context, DIRECTION_EGRESS);
    }
    deliver::set_tunnel_key(skb, &node, identity)?;
    Ok(TC_ACT_OK)
}
