//! Golden lines.

use super::*;
use crate::Timestamp;
use crate::decode::tests::{denied, flow_of};
use crate::record::{LossSource, LostEvents, NodeState, NodeStatus};
use heddle_abi::{Address, DIRECTION_INGRESS, EVENT_REPLY, EVENT_TRACE, EVENT_VERDICT, Event};

fn compact(event: &Event) -> String {
    print(Form::Compact, event)
}

fn print(form: Form, event: &Event) -> String {
    let flow = flow_of(event);
    Style {
        form,
        ..Style::default()
    }
    .write(&Response {
        node_name: flow.node_name.clone(),
        time: flow.time,
        line: Line::Flow(Box::new(flow)),
    })
}

#[test]
fn compact_lines_look_like_hubbles() {
    let v6 = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
    for (event, expected) in [
        (
            denied(),
            "Nov 21 08:30:00.000: shop/web-1:40000 (ID:20001) -> shop/db-0:5432 (ID:20002) Policy denied DROPPED \
             (TCP Flags: SYN) egress isolated by NetworkPolicy shop/isolate-7-EGRESS",
        ),
        (
            Event {
                reason: 181,
                direction: DIRECTION_INGRESS,
                ingress_cookie: 9,
                ..denied()
            },
            "Nov 21 08:30:00.000: shop/web-1:40000 (ID:20001) -> shop/db-0:5432 (ID:20002) Policy denied by denylist \
             DROPPED (TCP Flags: SYN) ingress denied by NetworkPolicy shop/rule-9",
        ),
        (
            Event {
                kind: EVENT_VERDICT,
                egress_cookie: 3,
                ..denied()
            },
            "Nov 21 08:30:00.000: shop/web-1:40000 (ID:20001) -> shop/db-0:5432 (ID:20002) policy-verdict:L3-L4 EGRESS \
             ALLOWED (TCP Flags: SYN) egress allowed by NetworkPolicy shop/rule-3",
        ),
        (
            Event {
                kind: EVENT_VERDICT,
                ..denied()
            },
            "Nov 21 08:30:00.000: shop/web-1:40000 (ID:20001) -> shop/db-0:5432 (ID:20002) policy-verdict:all EGRESS \
             ALLOWED (TCP Flags: SYN)",
        ),
        (
            Event {
                kind: EVENT_TRACE,
                flags: EVENT_REPLY,
                observation: 0,
                tcp_flags_or_icmp_type: 0x12,
                ..denied()
            },
            "Nov 21 08:30:00.000: shop/db-0:5432 (ID:20002) <- shop/web-1:40000 (ID:20001) to-endpoint FORWARDED \
             (TCP Flags: SYN, ACK)",
        ),
        (
            Event {
                reason: 132,
                protocol: 17,
                source: v6("2001:db8::66"),
                source_identity: 10,
                ..denied()
            },
            "Nov 21 08:30:00.000: [2001:db8::66]:40000 (world-ipv6) <> shop/db-0:5432 (ID:20002) Invalid source ip \
             DROPPED (UDP)",
        ),
    ] {
        assert_eq!(compact(&event), expected);
    }
}

#[test]
fn dict_is_a_block() {
    assert_eq!(
        print(Form::Dict, &denied()),
        "  TIMESTAMP: Nov 21 08:30:00.000\n       NODE: node-1\n     SOURCE: shop/web-1:40000 (ID:20001)\n\
         DESTINATION: shop/db-0:5432 (ID:20002)\n       TYPE: Policy denied\n    VERDICT: DROPPED\n\
         \x20   SUMMARY: TCP Flags: SYN\n    BECAUSE: egress isolated by NetworkPolicy shop/isolate-7-EGRESS\n------------"
    );
}

#[test]
fn table_columns_stand_under_their_header() {
    let style = Style {
        form: Form::Table,
        node: true,
        color: false,
    };
    let header = style.header().unwrap();
    let row = print_with(style, &denied());
    for (title, cell) in [
        ("NODE", "node-1"),
        ("SOURCE", "shop/web-1:40000"),
        ("DESTINATION", "shop/db-0:5432"),
        ("TYPE", "Policy denied"),
        ("VERDICT", "DROPPED"),
        ("SUMMARY", "TCP Flags: SYN"),
    ] {
        assert_eq!(header.find(title), row.find(cell), "{header}\n{row}");
    }
}

fn print_with(style: Style, event: &Event) -> String {
    let flow = flow_of(event);
    style.write(&Response {
        node_name: flow.node_name.clone(),
        time: flow.time,
        line: Line::Flow(Box::new(flow)),
    })
}

#[test]
fn colours_only_when_asked() {
    assert!(!compact(&denied()).contains('\x1b'));
    let style = Style {
        color: true,
        ..Style::default()
    };
    assert!(print_with(style, &denied()).contains("\x1b[31mDROPPED\x1b[0m"));
}

#[test]
fn losses_and_absent_nodes_are_told() {
    let of = |line| {
        Style::default().write(&Response {
            line,
            node_name: "node-1".to_owned(),
            time: Timestamp(0),
        })
    };
    assert_eq!(
        of(Line::LostEvents(LostEvents {
            source: LossSource::HubbleRingBuffer,
            num_events_lost: 3,
        })),
        "Jan  1 00:00:00.000 [node-1]: EVENTS LOST: HUBBLE_RING_BUFFER 3"
    );
    assert_eq!(
        of(Line::NodeStatus(NodeStatus {
            state_change: NodeState::NodeUnavailable,
            node_names: vec!["node-2".to_owned()],
            message: "connection refused".to_owned(),
        })),
        "Jan  1 00:00:00.000: NODE_UNAVAILABLE node-2: connection refused"
    );
}
