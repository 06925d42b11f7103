//! Events in, flows out.

use super::*;
use crate::record::{Line, LossSource, LostEvents, Response};
use heddle_abi::{Address, DIRECTION_INGRESS};
use heddle_model::NamespacedName;
use proptest::prelude::*;
use serde_json::json;

/// Two pods of the shop, one policy per cookie.
pub(crate) struct Shop;

impl Resolver for Shop {
    fn peer(&self, address: IpAddr) -> Option<crate::Peer> {
        let (name, identity, endpoint) = match address.to_string().as_str() {
            "10.244.0.5" | "fd10:244::5" => ("web-1", 20_001, 7),
            "10.244.1.9" => ("db-0", 20_002, 0),
            _ => return None,
        };
        Some(crate::Peer {
            identity,
            labels: self.labels(identity),
            pod: Some(NamespacedName::new("shop", name)),
            endpoint,
            cluster: "default".to_owned(),
            workloads: Vec::new(),
        })
    }
    fn labels(&self, identity: u32) -> Vec<String> {
        match identity {
            20_001 => vec!["k8s:app=web".to_owned()],
            20_002 => vec!["k8s:app=db".to_owned()],
            20_003 => vec!["k8s:app=old".to_owned()],
            _ => Vec::new(),
        }
    }
    fn policies(&self, cookie: u32) -> Vec<Policy> {
        vec![policy(&format!("rule-{cookie}"))]
    }
    fn isolating(&self, endpoint: u32, direction: Direction) -> Vec<Policy> {
        vec![policy(&format!("isolate-{endpoint}-{}", direction.name()))]
    }
    fn interface(&self, index: u32) -> Option<String> {
        (index == 12).then(|| "hd7".to_owned())
    }
    fn match_type(&self, asked: &Asked) -> u32 {
        match (asked.endpoint, asked.protocol, asked.port) {
            (7, 6, 5_432) => 2,
            (7, 1, 8) => 1,
            _ => 0,
        }
    }
}

fn policy(name: &str) -> Policy {
    Policy {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        kind: "NetworkPolicy".to_owned(),
        ..Policy::default()
    }
}

/// A SYN from web-1 to db-0:5432, denied on its way out.
pub(crate) fn denied() -> Event {
    let mut capture = [0; CAPTURE_LENGTH];
    capture[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0xa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);
    let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
    Event {
        time: 1_500,
        source: address("10.244.0.5"),
        destination: address("10.244.1.9"),
        source_port: 40_000,
        destination_port: 5_432,
        source_identity: 20_001,
        destination_identity: 20_002,
        endpoint: 7,
        ifindex: 12,
        egress_cookie: 0,
        ingress_cookie: 0,
        packet_length: 74,
        kind: EVENT_DROP,
        reason: 133,
        direction: DIRECTION_EGRESS,
        flags: 0,
        observation: 5,
        protocol: 6,
        tcp_flags_or_icmp_type: 2,
        icmp_code: 0,
        capture_length: 74,
        generation: 1,
        capture,
    }
}

pub(crate) fn flow_of(event: &Event) -> Flow {
    let context = Context {
        node: "node-1",
        boot: Timestamp(1_795_249_800_000_000_000),
        unique: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
    };
    decode(event, &context, &Shop)
}

#[test]
fn a_denied_connection_is_hubbles_json() {
    let flow = flow_of(&denied());
    let response = Response {
        node_name: flow.node_name.clone(),
        time: flow.time,
        line: Line::Flow(Box::new(flow)),
    };
    assert_eq!(
        serde_json::to_string(&response).unwrap(),
        concat!(
            r#"{"flow":{"time":"2026-11-21T08:30:00.000001500Z","uuid":"01234567-89ab-8def-8123-456789abcdef","#,
            r#""verdict":"DROPPED","drop_reason":133,"#,
            r#""ethernet":{"source":"0a:bb:cc:dd:ee:ff","destination":"02:00:00:00:00:01"},"#,
            r#""IP":{"source":"10.244.0.5","destination":"10.244.1.9","ipVersion":"IPv4"},"#,
            r#""l4":{"TCP":{"source_port":40000,"destination_port":5432,"flags":{"SYN":true}}},"#,
            r#""source":{"ID":7,"identity":20001,"cluster_name":"default","namespace":"shop","labels":["k8s:app=web"],"pod_name":"web-1"},"#,
            r#""destination":{"identity":20002,"cluster_name":"default","namespace":"shop","labels":["k8s:app=db"],"pod_name":"db-0"},"#,
            r#""Type":"L3_L4","node_name":"node-1","event_type":{"type":1,"sub_type":133},"#,
            r#""traffic_direction":"EGRESS","drop_reason_desc":"POLICY_DENIED","is_reply":false,"#,
            r#""interface":{"index":12,"name":"hd7"},"Summary":"TCP Flags: SYN","#,
            r#""egress_denied_by":[{"name":"isolate-7-EGRESS","namespace":"shop","kind":"NetworkPolicy"}]},"#,
            r#""node_name":"node-1","time":"2026-11-21T08:30:00.000001500Z"}"#,
        )
    );
    let read: Response = serde_json::from_str(&serde_json::to_string(&response).unwrap()).unwrap();
    assert_eq!(read, response);
}

#[test]
fn lost_events_are_hubbles_json() {
    let response = Response {
        line: Line::LostEvents(LostEvents {
            source: LossSource::PerfEventRingBuffer,
            num_events_lost: 12,
        }),
        node_name: "node-1".to_owned(),
        time: Timestamp(0),
    };
    let value = serde_json::to_value(&response).unwrap();
    assert_eq!(
        value,
        json!({"lost_events":{"source":"PERF_EVENT_RING_BUFFER","num_events_lost":"12"},
               "node_name":"node-1","time":"1970-01-01T00:00:00.000000000Z"})
    );
    assert_eq!(serde_json::from_value::<Response>(value).unwrap(), response);
}

#[test]
fn an_explicit_deny_names_the_rules_behind_its_cookie() {
    let flow = flow_of(&Event {
        reason: 181,
        direction: DIRECTION_INGRESS,
        ingress_cookie: 9,
        egress_cookie: 4,
        ..denied()
    });
    assert_eq!(flow.drop_reason_desc, "POLICY_DENY");
    assert_eq!(flow.ingress_denied_by, [policy("rule-9")]);
    assert_eq!(flow.egress_allowed_by, [policy("rule-4")]);
    assert!(flow.egress_denied_by.is_empty());
}

#[test]
fn a_default_deny_that_is_a_row_of_its_own_names_the_isolating_policies() {
    let isolated = flow_of(&denied()).egress_denied_by;
    assert!(!isolated.is_empty());
    let flow = flow_of(&Event {
        reason: 181,
        ingress_cookie: 0,
        ..denied()
    });
    assert_eq!(flow.egress_denied_by, isolated);
}

#[test]
fn a_default_deny_is_asked_about_the_other_end_of_the_connection() {
    let out = denied();
    let (source, destination) = (IpAddr::from(out.source), IpAddr::from(out.destination));
    let asked = denial(&out).unwrap();
    assert_eq!((asked.endpoint, asked.generation), (7, out.generation));
    assert_eq!((asked.protocol, asked.port), (6, out.destination_port));
    let peer = |event: &Event| denial(event).map(|it| (it.address, it.peer, it.port));
    let (from, to) = (out.source_identity, out.destination_identity);
    assert_eq!(peer(&out), Some((destination, to, out.destination_port)));
    let inward = Event {
        direction: DIRECTION_INGRESS,
        ..out
    };
    assert_eq!(peer(&inward), Some((source, from, out.destination_port)));
    // The reply of a connection that is not allowed any more: its responder is its source.
    let reply = Event {
        flags: EVENT_REPLY,
        ..out
    };
    assert_eq!(peer(&reply), Some((source, from, out.source_port)));
    let audited = Event {
        kind: EVENT_VERDICT,
        flags: EVENT_AUDIT,
        ..out
    };
    assert_eq!(peer(&audited), peer(&out));
    let explicit = Event { reason: 181, ..out };
    assert_eq!(denial(&explicit), None);
    let allowed = Event {
        kind: EVENT_VERDICT,
        ..out
    };
    assert_eq!(denial(&allowed), None);
}

#[test]
fn an_audited_denial_is_told_as_one_that_passed() {
    let flow = flow_of(&Event {
        kind: EVENT_VERDICT,
        flags: EVENT_AUDIT,
        ..denied()
    });
    assert_eq!(flow.verdict, Verdict::Audit);
    assert_eq!(
        (flow.drop_reason, flow.event_type.kind),
        (133, event_kind::POLICY_VERDICT)
    );
    assert_eq!(flow.egress_denied_by, flow_of(&denied()).egress_denied_by);
}

#[test]
fn an_allowed_connection_names_the_policies_of_both_directions() {
    let flow = flow_of(&Event {
        kind: EVENT_VERDICT,
        reason: 0,
        egress_cookie: 3,
        ..denied()
    });
    assert_eq!(flow.verdict, Verdict::Forwarded);
    assert_eq!(flow.event_type.kind, event_kind::POLICY_VERDICT);
    assert_eq!(flow.policy_match_type, 2);
    assert_eq!(flow.egress_allowed_by, [policy("rule-3")]);
    assert!(flow.ingress_allowed_by.is_empty(), "cookie 0: not enforced");
    assert_eq!(flow.is_reply, Some(false));
    assert_eq!(flow.drop_reason, 0);
}

#[test]
fn the_policys_question_is_about_the_request_though_the_packet_may_be_the_reply() {
    let reply = Event {
        kind: EVENT_VERDICT,
        reason: 0,
        flags: EVENT_REPLY,
        egress_cookie: 3,
        source_port: 5_432,
        destination_port: 40_000,
        ..denied()
    };
    assert_eq!(flow_of(&reply).policy_match_type, 2);
    let pong = Event {
        protocol: 1,
        tcp_flags_or_icmp_type: 0,
        source_port: 0,
        destination_port: 0,
        ..reply
    };
    assert_eq!(flow_of(&pong).policy_match_type, 1);
}

#[test]
fn a_report_of_a_reply_names_its_point_and_reason() {
    let flow = flow_of(&Event {
        kind: EVENT_TRACE,
        reason: 0,
        flags: EVENT_REPLY,
        observation: 10,
        ..denied()
    });
    assert_eq!(flow.trace_observation_point, "FROM_NETWORK");
    assert_eq!(flow.trace_reason, TraceReason::Reply);
    assert_eq!(flow.is_reply, Some(true));
    assert_eq!(flow.event_type.sub_type, 10);
}

#[test]
fn the_kernels_identity_wins_over_the_directory() {
    let flow = flow_of(&Event {
        source_identity: 20_003,
        destination_identity: 9,
        destination: Address::from("192.0.2.1".parse::<IpAddr>().unwrap()),
        ..denied()
    });
    assert_eq!(flow.source.identity, 20_003);
    assert_eq!(flow.source.labels, ["k8s:app=old"]);
    assert_eq!(flow.source.pod_name, "web-1");
    assert_eq!(flow.destination.labels, ["reserved:world-ipv4"]);
}

#[test]
fn a_drop_that_is_no_policys_doing_blames_none() {
    let flow = flow_of(&Event {
        reason: DropReason::InvalidSourceIp as u8,
        ..denied()
    });
    assert_eq!(flow.drop_reason_desc, "INVALID_SOURCE_IP");
    assert_eq!(flow.is_reply, None);
    assert!(flow.egress_denied_by.is_empty());
    // A frame that is no IP packet at all has no addresses.
    let flow = flow_of(&Event {
        reason: DropReason::InvalidSourceMac as u8,
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        ..denied()
    });
    assert!(flow.ip.is_none() && flow.l4.is_none());
    assert!(flow.ethernet.is_some());
}

#[test]
fn icmp_is_told_in_words() {
    let flow = flow_of(&Event {
        protocol: 58,
        tcp_flags_or_icmp_type: 128,
        source: Address::from("fd10:244::5".parse::<IpAddr>().unwrap()),
        destination: Address::from("2001:db8::1".parse::<IpAddr>().unwrap()),
        flags: EVENT_IPV6,
        ..denied()
    });
    assert_eq!(flow.summary, "ICMPv6 EchoRequest");
    let value = serde_json::to_value(&flow).unwrap();
    assert_eq!(value["l4"], json!({"ICMPv6":{"type":128}}));
    assert_eq!(value["IP"]["ipVersion"], "IPv6");
}

proptest! {
    #[test]
    fn any_bytes_give_a_flow_that_prints(
        numbers in proptest::array::uniform12(any::<u32>()),
        bytes in proptest::array::uniform8(any::<u8>()),
        time in any::<u64>(),
        capture_length in any::<u32>(),
        capture in proptest::collection::vec(any::<u8>(), CAPTURE_LENGTH),
    ) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = numbers;
        let event = Event {
            time,
            source: Address { words: [a, b, c, d] },
            destination: Address { words: [e, f, g, h] },
            source_port: i as u16,
            destination_port: (i >> 16) as u16,
            source_identity: j,
            destination_identity: k,
            endpoint: l,
            ifindex: a,
            egress_cookie: b,
            ingress_cookie: c,
            packet_length: d,
            kind: bytes[0] % 8,
            reason: bytes[1],
            direction: bytes[2],
            flags: bytes[3],
            observation: bytes[4],
            protocol: bytes[5],
            tcp_flags_or_icmp_type: bytes[6],
            icmp_code: bytes[7],
            capture_length,
            generation: e,
            capture: capture.try_into().unwrap(),
        };
        let flow = flow_of(&event);
        let text = serde_json::to_string(&flow).unwrap();
        prop_assert!(text.len() < 4_096);
        prop_assert_eq!(serde_json::from_str::<Flow>(&text).unwrap(), flow.clone());
        for form in [crate::print::Form::Compact, crate::print::Form::Dict, crate::print::Form::Table] {
            let style = crate::print::Style { form, ..Default::default() };
            style.write(&Response { node_name: String::new(), time: flow.time, line: Line::Flow(Box::new(flow.clone())) });
        }
    }
}
