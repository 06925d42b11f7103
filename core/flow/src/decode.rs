//! A kernel event becomes a flow.

use crate::packet::{icmpv4_words, icmpv6_words, mac_addresses};
use crate::record::{
    Direction, Endpoint, Ethernet, EventType, Flow, FlowType, Icmp, Interface, Ip, IpVersion,
    Layer4, Policy, Ports, Tcp, TcpFlags, TraceReason, Verdict, drop_reason_name, event_kind,
    observation_name,
};
use crate::{Asked, Denied, Resolver, Timestamp};
use heddle_abi::{
    CAPTURE_LENGTH, DIRECTION_EGRESS, DropReason, EVENT_AUDIT, EVENT_DROP, EVENT_IPV6,
    EVENT_RELATED, EVENT_REPLY, EVENT_TRACE, EVENT_VERDICT, Event,
};
use heddle_model::Identity;
use std::net::IpAddr;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_SCTP: u8 = 132;

/// What an event does not carry itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Name of the node that saw the packet.
    pub node: &'a str,
    /// Time of day of the boot clock's zero: event times are added to it.
    pub boot: Timestamp,
    /// 128 bits that no other flow of any node has; printed as the flow's UUID.
    pub unique: u128,
}

/// Makes a flow from an event. Any bytes give a flow: what cannot be read stays empty.
pub fn decode(event: &Event, context: &Context<'_>, resolver: &dyn Resolver) -> Flow {
    let direction = direction_of(event);
    let (source, destination) = (IpAddr::from(event.source), IpAddr::from(event.destination));
    let has_ip = !event.source.is_unspecified() || !event.destination.is_unspecified();
    let l4 = if has_ip { layer4(event) } else { None };
    let mut flow = Flow {
        time: Timestamp(context.boot.0.saturating_add(event.time)),
        uuid: uuid(context.unique),
        ethernet: ethernet(event),
        ip: has_ip.then(|| Ip {
            source: source.to_string(),
            destination: destination.to_string(),
            version: if event.flags & EVENT_IPV6 != 0 {
                IpVersion::V6
            } else {
                IpVersion::V4
            },
        }),
        l4,
        flow_type: FlowType::L3L4,
        node_name: context.node.to_owned(),
        traffic_direction: direction,
        interface: (event.ifindex != 0).then(|| Interface {
            index: event.ifindex,
            name: resolver.interface(event.ifindex).unwrap_or_default(),
        }),
        summary: l4.map(|l4| summary(&l4, event)).unwrap_or_default(),
        ..Flow::default()
    };
    if has_ip {
        flow.source = endpoint(source, event.source_identity, resolver);
        flow.destination = endpoint(destination, event.destination_identity, resolver);
    }
    // The event names the endpoint that speaks; the directory may not know a young pod's address yet.
    if event.endpoint != 0 {
        // The egress policy is the initiator's, who is the destination of a reply.
        let own = if (direction == Direction::Egress) == is_reply(event) {
            &mut flow.destination
        } else {
            &mut flow.source
        };
        if own.id == 0 && own.identity >= Identity::CLUSTER_FIRST.0 && event.kind != EVENT_TRACE {
            own.id = event.endpoint;
        }
    }
    judge(event, direction, resolver, &mut flow);
    flow
}

/// Fills verdict, reasons and the policies behind them.
fn judge(event: &Event, direction: Direction, resolver: &dyn Resolver, flow: &mut Flow) {
    let reply = is_reply(event);
    match event.kind {
        EVENT_DROP => {
            flow.verdict = Verdict::Dropped;
            flow.drop_reason = u32::from(event.reason);
            flow.drop_reason_desc = drop_reason_name(event.reason).to_owned();
            flow.event_type = EventType {
                kind: event_kind::DROP,
                sub_type: u32::from(event.reason),
            };
            // Nothing is known about the direction of a packet that no policy was asked about.
            flow.is_reply = reply.then_some(true);
            deny(event, direction, resolver, flow);
        }
        EVENT_VERDICT if event.flags & EVENT_AUDIT != 0 => {
            flow.verdict = Verdict::Audit;
            flow.drop_reason = u32::from(event.reason);
            flow.drop_reason_desc = drop_reason_name(event.reason).to_owned();
            flow.event_type.kind = event_kind::POLICY_VERDICT;
            deny(event, direction, resolver, flow);
        }
        EVENT_VERDICT => {
            flow.verdict = Verdict::Forwarded;
            flow.event_type.kind = event_kind::POLICY_VERDICT;
            flow.is_reply = Some(reply);
            flow.egress_allowed_by = behind(event.egress_cookie, resolver);
            flow.ingress_allowed_by = behind(event.ingress_cookie, resolver);
            let cookie = match direction {
                Direction::Egress => event.egress_cookie,
                Direction::Ingress | Direction::Unknown => event.ingress_cookie,
            };
            flow.policy_match_type = if cookie == 0 {
                MATCH_ALL
            } else {
                match_type(event, direction, cookie, resolver)
            };
        }
        EVENT_TRACE => {
            flow.verdict = Verdict::Forwarded;
            flow.event_type = EventType {
                kind: event_kind::TRACE,
                sub_type: u32::from(event.observation),
            };
            flow.trace_observation_point = observation_name(event.observation).to_owned();
            flow.trace_reason = match event.flags {
                flags if flags & EVENT_RELATED != 0 => TraceReason::Related,
                flags if flags & EVENT_REPLY != 0 => TraceReason::Reply,
                _ => TraceReason::Established,
            };
            flow.is_reply = Some(reply);
            flow.egress_allowed_by = behind(event.egress_cookie, resolver);
            flow.ingress_allowed_by = behind(event.ingress_cookie, resolver);
        }
        other => flow.event_type.kind = u32::from(other),
    }
}

/// The connection that an event says no rule allowed: what nearly allowed it is worth knowing, and goes into its
/// flow's [`Extensions`](crate::Extensions). [`decode`] does not ask: that may take longer than an event may.
pub fn denial(event: &Event) -> Option<Denied> {
    let is_audited = event.kind == EVENT_VERDICT && event.flags & EVENT_AUDIT != 0;
    if event.reason != DropReason::PolicyDenied as u8 || !(event.kind == EVENT_DROP || is_audited) {
        return None;
    }
    let direction = direction_of(event);
    // The egress policy is the initiator's, and its peer the responder; in a reply they have changed sides.
    let (peer, address) = if (direction == Direction::Egress) == is_reply(event) {
        (event.source_identity, event.source)
    } else {
        (event.destination_identity, event.destination)
    };
    Some(Denied {
        endpoint: event.endpoint,
        direction,
        generation: event.generation,
        peer,
        address: address.into(),
        protocol: event.protocol,
        port: asked_port(event),
    })
}

/// Fills in who denies what a policy was asked about, whether or not it was dropped.
fn deny(event: &Event, direction: Direction, resolver: &dyn Resolver, flow: &mut Flow) {
    let denied_by = match DropReason::from_number(event.reason) {
        // No rule allowed it: the policies that isolate the endpoint are why that is a drop.
        Some(DropReason::PolicyDenied) => resolver.isolating(event.endpoint, direction),
        Some(DropReason::PolicyDeny) => {
            let rules = behind(event.ingress_cookie, resolver);
            // Under a rule that passes on, default deny is a row of its own, with no rules behind it.
            if rules.is_empty() {
                resolver.isolating(event.endpoint, direction)
            } else {
                rules
            }
        }
        _ => return,
    };
    flow.is_reply = Some(is_reply(event));
    flow.policy_match_type = if event.reason == DropReason::PolicyDeny as u8 {
        match_type(event, direction, event.ingress_cookie, resolver)
    } else {
        0
    };
    match direction {
        Direction::Egress => flow.egress_denied_by = denied_by,
        Direction::Ingress | Direction::Unknown => {
            flow.ingress_denied_by = denied_by;
            // On one node the source's egress policy has spoken before.
            flow.egress_allowed_by = behind(event.egress_cookie, resolver);
        }
    }
}

const fn direction_of(event: &Event) -> Direction {
    if event.direction == DIRECTION_EGRESS {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// Policy match type of an entry that matches everything (reference 3.7): no policy is enforced.
const MATCH_ALL: u32 = 4;

const fn is_reply(event: &Event) -> bool {
    event.flags & EVENT_REPLY != 0
}

/// What the policy was asked about: the connection, whichever way this packet of it travels.
fn match_type(event: &Event, direction: Direction, cookie: u32, resolver: &dyn Resolver) -> u32 {
    resolver.match_type(&Asked {
        endpoint: event.endpoint,
        direction,
        cookie,
        protocol: event.protocol,
        port: asked_port(event),
    })
}

/// The port or ICMP type that the policy was asked about.
const fn asked_port(event: &Event) -> u16 {
    let reply = is_reply(event);
    match (event.protocol, event.tcp_flags_or_icmp_type, reply) {
        // An echo reply answers an echo request.
        (PROTOCOL_ICMP, 0, true) => 8,
        (PROTOCOL_ICMPV6, 129, true) => 128,
        (PROTOCOL_ICMP | PROTOCOL_ICMPV6, kind, _) => kind as u16,
        (_, _, true) => event.source_port,
        (_, _, false) => event.destination_port,
    }
}

fn behind(cookie: u32, resolver: &dyn Resolver) -> Vec<Policy> {
    if cookie == 0 {
        Vec::new()
    } else {
        resolver.policies(cookie)
    }
}

fn endpoint(address: IpAddr, identity: u32, resolver: &dyn Resolver) -> Endpoint {
    let peer = resolver.peer(address).unwrap_or_default();
    // The kernel's identity is what the decision was made with; the directory may be newer.
    let (identity, labels) = if identity == 0 || identity == peer.identity {
        (peer.identity, peer.labels)
    } else {
        (identity, resolver.labels(identity))
    };
    let labels = match Identity(identity).reserved_name() {
        Some(name) if labels.is_empty() => vec![format!("reserved:{name}")],
        _ => labels,
    };
    let (namespace, pod_name) = peer
        .pod
        .map(|pod| (pod.namespace, pod.name))
        .unwrap_or_default();
    Endpoint {
        id: peer.endpoint,
        identity,
        cluster_name: peer.cluster,
        namespace,
        labels,
        pod_name,
        workloads: peer.workloads,
    }
}

fn ethernet(event: &Event) -> Option<Ethernet> {
    let length = usize::try_from(event.capture_length)
        .unwrap_or(usize::MAX)
        .min(CAPTURE_LENGTH);
    let (source, destination) = mac_addresses(event.capture.get(..length)?)?;
    Some(Ethernet {
        source,
        destination,
    })
}

fn layer4(event: &Event) -> Option<Layer4> {
    let ports = Ports {
        source_port: u32::from(event.source_port),
        destination_port: u32::from(event.destination_port),
    };
    let icmp = Icmp {
        kind: u32::from(event.tcp_flags_or_icmp_type),
        code: u32::from(event.icmp_code),
    };
    match event.protocol {
        PROTOCOL_TCP => Some(Layer4::Tcp(Tcp {
            source_port: ports.source_port,
            destination_port: ports.destination_port,
            flags: TcpFlags::from_byte(event.tcp_flags_or_icmp_type),
        })),
        PROTOCOL_UDP => Some(Layer4::Udp(ports)),
        PROTOCOL_SCTP => Some(Layer4::Sctp(ports)),
        PROTOCOL_ICMP => Some(Layer4::Icmpv4(icmp)),
        PROTOCOL_ICMPV6 => Some(Layer4::Icmpv6(icmp)),
        _ => None,
    }
}

fn summary(l4: &Layer4, event: &Event) -> String {
    let (kind, code) = (event.tcp_flags_or_icmp_type, event.icmp_code);
    match l4 {
        Layer4::Tcp(tcp) => format!("TCP Flags: {}", tcp.flags.names().join(", ")),
        Layer4::Udp(_) => "UDP".to_owned(),
        Layer4::Sctp(_) => "SCTP".to_owned(),
        Layer4::Icmpv4(_) => format!("ICMPv4 {}", icmpv4_words(kind, code)),
        Layer4::Icmpv6(_) => format!("ICMPv6 {}", icmpv6_words(kind, code)),
    }
}

/// The UUID (RFC 9562, version 8: the bits are the maker's own) with these bits.
fn uuid(unique: u128) -> String {
    let bits = (unique & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
    let text = format!("{bits:032x}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

#[cfg(test)]
pub(crate) mod tests;
