//! Objects that nobody writes: refused soon, with words, without a crash.

use super::*;
use crate::manifest;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// No object takes longer, on a busy machine neither: what has no bound takes hours.
const SOON: Duration = Duration::from_secs(60);

/// Refused with this code, soon, and without repeating the object.
fn refused_soon(object: &Value, code: &str) {
    let begin = Instant::now();
    let problems = parse_policy(object).expect_err("refused");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    assert!(
        problems.iter().any(|problem| problem.code == code),
        "wanted {code}, got {:#?}",
        &problems[..problems.len().min(3)]
    );
    let told: usize = problems
        .iter()
        .map(|p| p.message.len() + p.field.len() + p.help.len())
        .sum();
    assert!(told < 100_000, "{told} bytes of messages");
}

fn ports(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| json!({"port": (n % 65535 + 1).to_string()}))
        .collect()
}

#[test]
fn a_hundred_thousand_ports() {
    let rule =
        |entries: Value| cnp(json!({"endpointSelector": {}, "ingress": [{"toPorts": entries}]}));
    refused_soon(
        &rule(json!([{"ports": ports(100_000)}])),
        "policy/too-many-ports",
    );
    let entries: Vec<Value> = ports(100_000)
        .chunks(40)
        .map(|ports| json!({"ports": ports}))
        .collect();
    refused_soon(&rule(json!(entries)), "policy/too-many-ports");
    let list: Vec<Value> = (0..100_000)
        .map(|n| json!({"port": n % 65535 + 1}))
        .collect();
    let object = network_policy(json!({"podSelector": {}, "ingress": [{"ports": list}]}));
    refused_soon(&object, "policy/too-many-ports");
    // As many as a map has rows are read.
    let entries: Vec<Value> = ports(16_000)
        .chunks(40)
        .map(|ports| json!({"ports": ports}))
        .collect();
    accept(&rule(json!(entries)));
}

#[test]
fn label_bombs() {
    let labels: serde_json::Map<String, Value> =
        (0..50_000).map(|n| (format!("l{n}"), json!("x"))).collect();
    refused_soon(
        &cnp(json!({"endpointSelector": {"matchLabels": labels}, "ingress": [{}]})),
        "policy/too-many-labels",
    );
    let values: Vec<String> = (0..100_000).map(|n| format!("v{n}")).collect();
    let expression = json!({"key": "a", "operator": "In", "values": values});
    refused_soon(
        &network_policy(json!({"podSelector": {"matchExpressions": [expression]}})),
        "policy/too-many-labels",
    );
    let key = "k".repeat(1 << 20);
    refused_soon(
        &network_policy(json!({"podSelector": {"matchLabels": {key: "x"}}})),
        "policy/invalid-selector",
    );
}

#[test]
fn deep_and_large_objects() {
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({"matchLabels": deep});
    }
    refused_soon(
        &network_policy(json!({"podSelector": deep})),
        "policy/too-deep",
    );
    let text = "x".repeat(10 << 20);
    refused_soon(
        &cnp(json!({"endpointSelector": {}, "ingress": [{}], "description": text})),
        "policy/too-large",
    );
    let fields: serde_json::Map<String, Value> =
        (0..100_000).map(|n| (format!("f{n}"), json!(1))).collect();
    refused_soon(
        &network_policy(Value::Object(fields)),
        "policy/too-many-problems",
    );
}

#[test]
fn many_regular_expressions() {
    let rules: Vec<Value> = (0..50_000)
        .map(|_| json!({"path": "(([a-z]{1,90}){1,90}){1,90}"}))
        .collect();
    let entry = json!({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": rules}});
    refused_soon(
        &cnp(json!({"endpointSelector": {}, "egress": [{"toPorts": [entry]}]})),
        "policy/too-many-problems",
    );
    // Each small enough, and together too much work.
    let rules: Vec<Value> = (0..50_000)
        .map(|_| json!({"path": "([a-z]{1,30}){1,30}"}))
        .collect();
    let entry = json!({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": rules}});
    refused_soon(
        &cnp(json!({"endpointSelector": {}, "egress": [{"toPorts": [entry]}]})),
        "policy/too-many-expressions",
    );
}

#[test]
fn yaml_bombs_are_refused_where_they_are_read() {
    let mut laughs = String::from("kind: NetworkPolicy\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        laughs.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            below.trim_end_matches(", ")
        ));
    }
    let deep = format!("kind: NetworkPolicy\nspec: {}", "[".repeat(100_000));
    let indented: String = (0..5_000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    let merged: String = (0..20_000).map(|n| format!("k{n}: {{<<: *a}}\n")).collect();
    let merged = format!("kind: A\na: &a {{{}}}\n{merged}", "b: 1, ".repeat(500));
    for text in [laughs, deep, indented, merged] {
        let begin = Instant::now();
        let error = manifest::parse("bomb.yaml", &text).expect_err("refused");
        assert_eq!(error.code(), "manifest/syntax", "{error}");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert!(error.to_string().len() < 2_000);
    }
}

#[test]
fn files_of_ten_megabytes() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  podSelector: {}\n";
    let text = format!("{policy}note: {}\n", "x".repeat(10 << 20));
    let begin = Instant::now();
    let found = manifest::parse("long.yaml", &text).expect("it is YAML");
    refused_soon(&found[0].value, "policy/too-large");
    let items: String = (0..500_000)
        .map(|n| format!("    - port: {}\n", n % 65535 + 1))
        .collect();
    let text = format!("{policy}  ingress:\n  - ports:\n{items}");
    let found = manifest::parse("ports.yaml", &text).expect("it is YAML");
    refused_soon(&found[0].value, "policy/too-large");
    let text = format!("{policy}{}", "x: [\n".repeat(2 << 20));
    assert_eq!(
        manifest::parse("open.yaml", &text)
            .expect_err("refused")
            .code(),
        "manifest/syntax"
    );
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

/// A policy of each kind with many kinds of fields, to be spoiled.
fn seeds() -> Vec<Value> {
    vec![
        network_policy(json!({
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {}}], "ports": [{"port": 80, "endPort": 90}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": "http"}]}],
        })),
        cnp(json!({
            "endpointSelector": {"matchLabels": {"k8s:app": "a"}},
            "ingress": [{"fromEndpoints": [{"matchLabels": {"reserved:host": ""}}], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}],
                         "rules": {"http": [{"path": "/x.*", "headers": ["A b"]}]}}]},
                        {"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.2.0.0/16"]}, {"cidrGroupRef": "g"}]}],
            "egress": [{"toFQDNs": [{"matchPattern": "*.a.io"}]}, {"toServices": [{"k8sService": {"serviceName": "s"}}]},
                       {"toEntities": ["world"], "icmps": [{"fields": [{"type": "EchoRequest"}]}]}],
            "egressDeny": [{"toCIDR": ["192.0.2.0/24"]}], "enableDefaultDeny": {"egress": false},
        })),
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"pods": {"namespaceSelector": {}, "podSelector": {}}},
                "ingress": [{"name": "a", "action": "Pass", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 1}}}]}],
                "egress": [{"action": "Deny", "to": [{"networks": ["::/0"]}, {"nodes": {}}, {"domainNames": ["a.io"]}]}]},
        }),
    ]
}

/// How to spoil a value: which one, and what takes its place.
#[derive(Clone, Debug)]
enum Spoil {
    Put(Value),
    Remove,
    Rename(String),
    Repeat(usize),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let words = prop::sample::select(vec![
        "",
        "*",
        "0",
        "80",
        "-1",
        "http",
        "TCP",
        "10.0.0.0/8",
        "::/0",
        "cidr:::/0",
        "reserved:",
        "any:",
        "a=b",
        "(",
        "\u{0}",
        "🦀",
        "from",
        "to",
        "except",
        "matchLabels",
        "In",
        "Egress",
        "world",
        "namespaces",
        "endPort",
        "null",
    ])
    .prop_map(str::to_owned);
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[{}]])),
        Just(json!({"matchLabels": {"a": ["b"]}})),
    ];
    prop_oneof![
        4 => value.prop_map(Spoil::Put),
        1 => Just(Spoil::Remove),
        2 => words.prop_map(Spoil::Rename),
        1 => (1usize..60).prop_map(Spoil::Repeat),
    ]
}

/// Spoils the value that is `at`-th in a walk through the object.
fn apply(value: &mut Value, at: &mut usize, how: &Spoil) -> bool {
    let here = |at: &mut usize| {
        let found = *at == 0;
        *at = at.wrapping_sub(1);
        found
    };
    match value {
        Value::Object(fields) => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            for key in keys {
                if here(at) {
                    let old = fields.remove(&key).unwrap_or_default();
                    match how {
                        Spoil::Put(new) => drop(fields.insert(key, new.clone())),
                        Spoil::Remove => {}
                        Spoil::Rename(name) => drop(fields.insert(name.clone(), old)),
                        Spoil::Repeat(times) => {
                            fields.insert(key, Value::Array(vec![old; *times]));
                        }
                    }
                    return true;
                }
                if fields
                    .get_mut(&key)
                    .is_some_and(|field| apply(field, at, how))
                {
                    return true;
                }
            }
            false
        }
        Value::Array(items) => {
            for place in 0..items.len() {
                if here(at) {
                    match how {
                        Spoil::Put(new) => items[place] = new.clone(),
                        Spoil::Remove => drop(items.remove(place)),
                        Spoil::Rename(name) => items[place] = json!({ name: items[place] }),
                        Spoil::Repeat(times) => {
                            let item = items[place].clone();
                            items.extend(vec![item; *times]);
                        }
                    }
                    return true;
                }
                if apply(&mut items[place], at, how) {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Whatever is done to a policy: it is read or refused, with words, and the same each time.
    #[test]
    fn spoiled_policies_are_read_or_refused_with_words(
        seed in 0usize..3,
        spoils in prop::collection::vec((0usize..80, spoil()), 1..5),
    ) {
        let mut object = seeds().swap_remove(seed);
        for (mut at, how) in spoils {
            apply(&mut object, &mut at, &how);
        }
        let parsed = parse(&object);
        let error = parsed.problems.iter().any(|problem| problem.severity == Severity::Error);
        prop_assert_eq!(parsed.policy.is_none(), error, "{:#?}", parsed.problems);
        for problem in &parsed.problems {
            prop_assert!(problem.code.starts_with("policy/"));
            prop_assert!(!problem.message.is_empty() && !problem.help.is_empty());
            prop_assert!(problem.message.len() < 2_000);
        }
        prop_assert_eq!(&parsed, &parse(&object));
    }
}
