//! What `why` says first, what it says once, and whose connections it shows.

use super::*;
use heddle_kube::{cluster, manifest, schema::Strictness};
use heddle_verify::Placement;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: shop, labels: {app: front}}
spec: {containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: database, namespace: shop, labels: {app: database}}
spec: {containers: [{name: c}]}
---
";

fn isolating(rules: &str) -> String {
    format!(
        "{PODS}apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: database}}}}, policyTypes: [Ingress], ingress: [{rules}]}}\n"
    )
}

fn built(text: &str) -> Cluster {
    let manifests = manifest::parse("f.yaml", text).unwrap();
    let inventory = cluster::read(&manifests, Strictness::Strict).unwrap();
    Cluster::build(inventory, &Placement::default()).unwrap()
}

fn reply(answer: Value) -> Reply {
    Reply::of(answer, None)
}

/// Both families' answers, with the destination's datapath as told.
fn families(text: &str, told: impl Fn(Family) -> Value) -> (Vec<InFamily>, Named, Named) {
    let cluster = built(text);
    let from = Named::parse(&cluster, "shop/front").unwrap();
    let to = Named::parse(&cluster, "shop/database").unwrap();
    let traffic = Traffic {
        protocol: 6,
        port: 5432,
    };
    let found = [Family::V4, Family::V6].map(|family| {
        let answer = decide_pair(&cluster, &from, &to, traffic, family);
        let ends = why::ends(&cluster, 1, &from, &to, &answer.decision(), family);
        InFamily {
            family,
            traffic,
            answer,
            ends: ends
                .into_iter()
                .map(|asked| (asked.end, reply(told(family))))
                .collect(),
            differences: Vec::new(),
            path: Vec::new(),
        }
    });
    (found.into(), from, to)
}

fn standing(family: Family) -> Value {
    let (prefix, source) = match family {
        Family::V4 => ("10.244.0.2/32", "10.244.0.2:9"),
        Family::V6 => ("fd10::2/128", "[fd10::2]:9"),
    };
    json!({
        "endpoint": 7, "identity": 301, "hasPolicy": true, "verdict": "deny", "row": null,
        "peer": {"identity": 300, "prefix": prefix},
        "connections": [{"source": source, "destination": "x", "state": "new", "packets": [1, 2], "remainingSeconds": 9}],
    })
}

#[test]
fn u6_the_first_line_is_the_verdict_with_its_cause_and_what_to_change() {
    for (rules, start, end) in [
        (
            "",
            "DENY: ingress of shop/database: no rule allows TCP/5432 from shop/front (isolated by NetworkPolicy shop/db)",
            "; allow TCP/5432 from shop/front in NetworkPolicy shop/db",
        ),
        (
            "{ports: [{port: 80}]}",
            "DENY: ingress of shop/database: no rule allows TCP/5432 from shop/front",
            "; NetworkPolicy shop/db ingress[0] comes nearest: its port is TCP/80, and this is TCP/5432",
        ),
        (
            "{}",
            "ALLOW: egress of shop/front is not restricted by any policy, ingress of shop/database is allowed by",
            "NetworkPolicy shop/db ingress[0]",
        ),
    ] {
        let (found, from, to) = families(&isolating(rules), standing);
        let lines = show::summaries(&found, &from, &to);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(start), "{lines:?}");
        assert!(lines[0].ends_with(end), "{lines:?}");
    }
}

#[test]
fn u6_the_family_that_is_denied_comes_first() {
    let block = "{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}";
    let (found, from, to) = families(&isolating(block), standing);
    let lines = show::summaries(&found, &from, &to);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("DENY: ") && lines[0].ends_with(" (over IPv6)"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("ALLOW: ") && lines[1].ends_with(" (over IPv4)"),
        "{lines:?}"
    );
}

#[test]
fn u6_families_that_differ_in_addresses_alone_are_one_block() {
    let (found, from, to) = families(&isolating(""), standing);
    let blocks = show::alike(&found, &from, &to);
    assert_eq!(blocks.len(), 1, "{blocks:#?}");
    let once = |words: &str| {
        let lines = blocks[0].iter();
        lines.filter(|line| line.contains(words)).count()
    };
    assert_eq!(once("isolated by NetworkPolicy shop/db"), 1, "{blocks:#?}");
    assert_eq!(once("ingress of shop/database: deny"), 1, "{blocks:#?}");
    // What has addresses in it stands for each.
    assert_eq!(
        (once("10.244.0.2/32"), once("fd10::2/128")),
        (2, 2),
        "{blocks:#?}"
    );
    let (found, from, to) = families(&isolating(""), |family| {
        let mut told = standing(family);
        told["verdict"] = json!(if family == Family::V4 {
            "allow"
        } else {
            "deny"
        });
        told
    });
    assert_eq!(show::alike(&found, &from, &to).len(), 2);
}

#[test]
fn u6_connections_of_others_are_left_out() {
    let cluster = built(PODS);
    let from = Named::parse(&cluster, "shop/front").unwrap();
    let world = Named::parse(&cluster, "world").unwrap();
    let own = from.peer.address(&cluster, Family::V4).unwrap();
    let connection =
        |source: String, destination: &str| json!({"source": source, "destination": destination});
    let mut told = reply(json!({"connections": [
        connection(format!("{own}:40000"), "203.0.113.9:443"),
        connection(format!("{own}:40000"), "10.244.0.77:443"),
        connection("10.244.0.78:40000".to_owned(), "203.0.113.9:443"),
    ]}));
    told.keep_connections_of(&cluster, &from, &world, Family::V4);
    let kept = told.answer["connections"].as_array().unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["destination"], "203.0.113.9:443");
}

#[test]
fn u6_colours_stand_on_terminals_alone() {
    let line = "DENY: a; b";
    assert_eq!(Paint { on: false }.line(line), line);
    assert!(
        Paint { on: true }
            .line(line)
            .starts_with("\x1b[1;31mDENY\x1b[0m:")
    );
    assert_eq!(Paint { on: true }.line("  help: x"), "  help: x");
}

#[test]
fn a_node_that_cannot_be_asked_is_told_before_what_the_policies_say() {
    let (mut found, ..) = families(&isolating(""), standing);
    for it in &mut found {
        for (_, reply) in &mut it.ends {
            reply.told = Reported::Nothing;
            reply.problem = Some("it does not answer".to_owned());
        }
    }
    let lines = show::unasked(&found);
    assert!(
        lines[0].starts_with("UNKNOWN: what node-1 does: it does not answer"),
        "{lines:?}"
    );
}

fn check(status: packet_path::Status, families: &[Family]) -> Check {
    let found = !matches!(
        status,
        packet_path::Status::Pass | packet_path::Status::NotDone
    );
    Check {
        subject: packet_path::Subject::Route,
        status,
        code: found.then_some(packet_path::Code::NoRoute),
        node: "node-1".to_owned(),
        families: families.to_vec(),
        stops: status == packet_path::Status::Fail,
        seen: "the node's route is missing".to_owned(),
        help: found.then(|| "add it".to_owned()),
    }
}

#[test]
fn u7_what_is_wrong_with_the_path_is_told_after_the_verdict_and_what_passed_is_counted() {
    use packet_path::Status::{Fail, NotDone, Pass, Warn};
    let both = [Family::V4, Family::V6];
    for (status, families, verdict, expected) in [
        (
            Fail,
            &both[..],
            EntryVerdict::Allow,
            "BUT: node-1: the node's route is missing [path/no-route]",
        ),
        (
            Fail,
            &both[1..],
            EntryVerdict::Allow,
            "BUT: node-1: the node's route is missing (over IPv6) [path/no-route]",
        ),
        (
            Fail,
            &both[..],
            EntryVerdict::Deny,
            "ALSO: node-1: the node's route is missing [path/no-route]",
        ),
        (
            Warn,
            &both[..1],
            EntryVerdict::Allow,
            "NOTE: node-1: the node's route is missing (over IPv4) [path/no-route]",
        ),
        (
            NotDone,
            &both[..],
            EntryVerdict::Allow,
            "UNCHECKED: node-1: the node's route is missing",
        ),
    ] {
        let checks = [check(Pass, &both), check(status, families)];
        let lines = path::lines(&checks, verdict, 2);
        assert_eq!(lines[0], expected);
        let help: Vec<&str> = lines[1..].iter().map(String::as_str).collect();
        assert_eq!(help.is_empty(), status == NotDone, "{lines:?}");
        let summary = path::summary(&checks).unwrap();
        assert!(
            summary.starts_with("path: 1 checks passed on node-1; "),
            "{summary}"
        );
    }
    assert_eq!(
        path::lines(&[check(Pass, &both)], EntryVerdict::Allow, 2),
        [""; 0]
    );
    assert_eq!(path::summary(&[]), None);
    let value = path::value(&[check(Fail, &both)]);
    assert_eq!(value["verdict"], "broken");
    assert_eq!(
        (&value["checks"][0]["code"], &value["checks"][0]["status"]),
        (&json!("path/no-route"), &json!("fail"))
    );
}

#[test]
fn u7_a_connection_that_a_policy_dropped_is_not_one_that_the_path_lost() {
    let (mut found, from, to) = families(&isolating("{}"), |family| {
        let source = match family {
            Family::V4 => "10.244.0.2:40000",
            Family::V6 => "[fd10::2]:40000",
        };
        let mut told = standing(family);
        told["verdict"] = json!("allow");
        told["recentConnections"] = json!({
            "complete": true,
            "latest": [{"source": source, "destination": source, "packets": [3, 0], "answered": false, "idleSeconds": 2}],
        });
        told
    });
    let dropped = |verdict: &str, reason: &str| {
        let flow = json!({
            "flow": {
                "time": "2026-11-30T10:00:00Z", "verdict": verdict, "drop_reason_desc": reason,
                "IP": {"source": "10.244.0.2", "destination": "10.244.1.2", "ipVersion": "IPv4"},
                "l4": {"TCP": {"source_port": 40_000, "destination_port": 5432}},
            },
            "node_name": "node-1", "time": "2026-11-30T10:00:00Z",
        });
        let flow: Response = serde_json::from_value(flow).unwrap();
        BTreeMap::from([("node-1".to_owned(), vec![flow])])
    };
    for (flows, expected) in [
        (BTreeMap::new(), vec![Family::V4, Family::V6]),
        (dropped("DROPPED", "POLICY_DENIED"), vec![Family::V6]),
        (dropped("FORWARDED", ""), vec![Family::V4, Family::V6]),
    ] {
        let checks = path::all(&found, &from, &to, &flows);
        let families: Vec<Family> = checks.iter().flat_map(|it| it.families.clone()).collect();
        assert_eq!(families, expected, "{checks:?}");
    }
    for it in &mut found {
        it.answer.verdict = EntryVerdict::Deny;
    }
    assert_eq!(path::all(&found, &from, &to, &BTreeMap::new()), []);
}
