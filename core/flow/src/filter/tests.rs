//! One row per condition.

use super::*;
use crate::decode::tests::{denied, flow_of};
use heddle_abi::{EVENT_TRACE, EVENT_VERDICT, Event};
use proptest::prelude::*;
use serde_json::json;

fn matches(filter: serde_json::Value, flow: &Flow) -> bool {
    let filter: Filter = serde_json::from_value(filter).unwrap();
    Matcher::new(&filter).unwrap().matches(flow)
}

#[test]
fn every_field_means_what_hubble_means() {
    // shop/web-1 10.244.0.5:40000 (20001, k8s:app=web) -> shop/db-0 10.244.1.9:5432 (20002), drop 133
    let flow = flow_of(&denied());
    for (field, values, expected) in [
        ("source_ip", json!(["10.244.0.5"]), true),
        ("source_ip", json!(["10.244.0.0/24"]), true),
        ("source_ip", json!(["10.244.1.9"]), false),
        ("source_ip", json!(["fd00::/8"]), false),
        ("source_ip", json!(["192.0.2.1", "10.244.0.5"]), true),
        ("destination_ip", json!(["10.244.1.0/24"]), true),
        ("source_pod", json!(["shop/web-1"]), true),
        ("source_pod", json!(["shop/web"]), true),
        ("source_pod", json!(["shop/"]), true),
        ("source_pod", json!(["*/web"]), true),
        ("source_pod", json!(["other/"]), false),
        ("source_pod", json!(["web"]), false),
        ("source_pod", json!(["shop/db"]), false),
        ("destination_pod", json!(["shop/db"]), true),
        ("verdict", json!(["dropped"]), true),
        ("verdict", json!(["FORWARDED"]), false),
        ("event_type", json!(["drop"]), true),
        ("event_type", json!(["policy-verdict"]), true),
        ("event_type", json!(["trace"]), false),
        ("event_type", json!(["l7", "sock"]), false),
        ("event_type", json!(["drop:133"]), true),
        ("event_type", json!(["drop:132"]), false),
        ("source_label", json!(["app=web"]), true),
        ("source_label", json!(["app in (db)"]), false),
        ("destination_label", json!(["k8s:app=db"]), true),
        ("protocol", json!(["tcp"]), true),
        ("protocol", json!(["UDP", "icmp"]), false),
        ("source_port", json!(["40000"]), true),
        ("destination_port", json!(["5432"]), true),
        ("destination_port", json!(["40000"]), false),
        ("source_identity", json!(["20001"]), true),
        ("source_identity", json!(["world"]), false),
        ("destination_identity", json!(["20002", "host"]), true),
        ("node_name", json!(["node-1"]), true),
        ("node_name", json!(["default/node-1"]), true),
        ("node_name", json!(["node-*"]), true),
        ("node_name", json!(["*e-1"]), true),
        ("node_name", json!(["n*d*1"]), true),
        ("node_name", json!(["node-2"]), false),
        ("node_name", json!(["node"]), false),
        ("traffic_direction", json!(["egress"]), true),
        ("traffic_direction", json!(["INGRESS"]), false),
        ("drop_reason_desc", json!(["POLICY_DENIED"]), true),
        ("drop_reason_desc", json!(["policy_deny"]), false),
        ("reply", json!([false]), true),
        ("reply", json!([true]), false),
    ] {
        let clause = json!({ field: values });
        assert_eq!(
            matches(json!({ "whitelist": [clause] }), &flow),
            expected,
            "show {clause}"
        );
        assert_eq!(
            matches(json!({ "blacklist": [clause] }), &flow),
            !expected,
            "hide {clause}"
        );
    }
}

#[test]
fn fields_are_anded_and_clauses_are_ored() {
    let flow = flow_of(&denied());
    let web = json!({"source_pod":["shop/web"]});
    let web_udp = json!({"source_pod":["shop/web"],"protocol":["udp"]});
    let db = json!({"destination_pod":["shop/db"]});
    assert!(matches(json!({}), &flow));
    assert!(matches(json!({"whitelist":[web]}), &flow));
    assert!(!matches(json!({"whitelist":[web_udp]}), &flow));
    assert!(matches(json!({"whitelist":[web_udp, db]}), &flow));
    assert!(!matches(json!({"whitelist":[web],"blacklist":[db]}), &flow));
}

#[test]
fn types_and_points() {
    let trace = flow_of(&Event {
        kind: EVENT_TRACE,
        observation: 10,
        ..denied()
    });
    let verdict = flow_of(&Event {
        kind: EVENT_VERDICT,
        ..denied()
    });
    let of = |kind: &str| json!({"whitelist":[{"event_type":[kind]}]});
    assert!(matches(of("trace"), &trace));
    assert!(matches(of("trace:from-network"), &trace));
    assert!(!matches(of("trace:to-endpoint"), &trace));
    assert!(!matches(of("drop"), &trace));
    assert!(matches(of("policy-verdict"), &verdict));
    assert!(!matches(of("drop"), &verdict));
}

#[test]
fn world_stands_for_both_families() {
    let flow = flow_of(&Event {
        destination_identity: 9,
        ..denied()
    });
    let of = |identity: &str| json!({"whitelist":[{"destination_identity":[identity]}]});
    assert!(matches(of("world"), &flow));
    assert!(matches(of("world-ipv4"), &flow));
    assert!(!matches(of("world-ipv6"), &flow));
}

#[test]
fn values_that_mean_nothing_are_refused() {
    for (field, value) in [
        ("source_ip", "10.0.0"),
        ("verdict", "maybe"),
        ("event_type", "noise"),
        ("event_type", "trace:somewhere"),
        ("source_label", "=x"),
        ("protocol", "quic"),
        ("source_port", "65536"),
        ("source_identity", "nobody"),
        ("traffic_direction", "up"),
        ("drop_reason_desc", "BAD_LUCK"),
    ] {
        let filter: Filter =
            serde_json::from_value(json!({"whitelist":[{field:[value]}]})).unwrap();
        let error = Matcher::new(&filter).unwrap_err();
        assert_eq!((error.field, error.value.as_str()), (field, value));
    }
    assert!(serde_json::from_value::<Filter>(json!({"whitelist":[{"colour":["red"]}]})).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_a_filter_panic(value in ".{0,40}") {
        let flow = flow_of(&denied());
        for field in ["source_ip", "source_pod", "verdict", "event_type", "source_label", "protocol",
                      "source_port", "source_identity", "node_name", "drop_reason_desc"] {
            let filter: Filter =
                serde_json::from_value(json!({"whitelist":[{field:[value.clone()]}]})).unwrap();
            if let Ok(matcher) = Matcher::new(&filter) {
                matcher.matches(&flow);
            }
        }
    }
}
