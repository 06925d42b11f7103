//! L7 and DNS names: the grammar is checked in full, and then the rule is refused by name.

use super::*;

fn allow(section: &str, rule: Value) -> Value {
    cnp(json!({"endpointSelector": {}, section: [rule]}))
}

fn with_rules(rules: Value) -> Value {
    allow(
        "egress",
        json!({"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": rules}]}),
    )
}

fn dns(rules: Value) -> Value {
    allow(
        "egress",
        json!({"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": rules}}]}),
    )
}

/// The one error, that the fields are not enforced yet.
fn unsupported(object: &Value, field: &str) {
    assert_eq!(
        refuse(object),
        [("policy/unsupported-yet", field.to_owned())]
    );
}

#[test]
fn what_is_right_is_refused_once_per_rule_by_name() {
    let path = "spec.egress[0].toPorts[0].rules";
    for rules in [
        json!({"http": [{"method": "GET", "path": "/api/v[0-9]+/.*", "host": "(www\\.)?a\\.io"}]}),
        json!({"http": [{"headers": ["X-Token secret", "X-Only"], "headerMatches": [
            {"name": "x-a", "value": "1", "mismatch": "REPLACE", "secret": {"namespace": "n", "name": "s"}}]}]}),
        json!({"http": []}),
        json!({"kafka": [{"role": "Produce", "topic": "a.b-c_1"}, {"apiKey": "fetch", "apiVersion": "1", "clientID": "x"}]}),
        json!({"l7proto": "r2d2", "l7": [{"cmd": "READ"}]}),
    ] {
        unsupported(&with_rules(rules), path);
    }
    unsupported(
        &dns(json!([{"matchPattern": "*"}, {"matchName": "a.io"}])),
        path,
    );
    for (section, rule, field) in [
        (
            "egress",
            json!({"toFQDNs": [{"matchName": "a.io"}, {"matchPattern": "**.a.io"}]}),
            "toFQDNs",
        ),
        (
            "egress",
            json!({"toGroups": [{"aws": {"region": "x", "securityGroupsIds": ["sg-1"]}}]}),
            "toGroups",
        ),
        (
            "ingress",
            json!({"fromGroups": [{"aws": {"labels": {"a": "b"}}}]}),
            "fromGroups",
        ),
        (
            "ingress",
            json!({"authentication": {"mode": "required"}}),
            "authentication.mode",
        ),
        (
            "egress",
            json!({"authentication": {"mode": "test-always-fail"}}),
            "authentication.mode",
        ),
        (
            "egress",
            json!({"toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}], "serverNames": ["*.a.io"]}]}),
            "toPorts[0].serverNames",
        ),
        (
            "ingress",
            json!({"toPorts": [{"terminatingTLS": {"secret": {"name": "s"}, "certificate": "c"}}]}),
            "toPorts[0].terminatingTLS",
        ),
        (
            "egress",
            json!({"toPorts": [{"originatingTLS": {"secret": {"namespace": "n", "name": "s"}, "trustedCA": "ca"}}]}),
            "toPorts[0].originatingTLS",
        ),
        (
            "egress",
            json!({"toPorts": [{"listener": {"envoyConfig": {"kind": "CiliumEnvoyConfig", "name": "e"}, "name": "l", "priority": 100}}]}),
            "toPorts[0].listener",
        ),
    ] {
        unsupported(&allow(section, rule), &format!("spec.{section}[0].{field}"));
    }
}

#[test]
fn advice_to_leave_out_l7_rules_says_that_it_widens_access() {
    let object = with_rules(json!({"http": [{"method": "GET"}]}));
    let problems = parse_policy(&object).unwrap_err();
    assert!(
        problems[0].help.contains("widens access"),
        "{}",
        problems[0].help
    );
}

#[test]
fn a_rule_with_many_such_fields_gets_one_error_that_names_them() {
    let entry = json!({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{}]}});
    let object = allow(
        "egress",
        json!({"toFQDNs": [{"matchName": "a.io"}], "toPorts": [entry, entry]}),
    );
    let problems = parse_policy(&object).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].message,
        "`toFQDNs`, `toPorts[0].rules`, `toPorts[1].rules` are not enforced yet, so the policy is refused"
    );
}

#[test]
fn nothing_of_a_refused_policy_is_kept() {
    let object = cnp(json!({"endpointSelector": {}, "egress": [
        {"toEntities": ["world"]}, {"toFQDNs": [{"matchName": "a.io"}]}]}));
    assert_eq!(parse(&object).policy, None);
}

#[test]
fn fields_that_change_nothing_are_accepted() {
    for rule in [
        json!({"authentication": {"mode": "disabled"}, "toEntities": ["world"]}),
        json!({"toPorts": [{"ports": [{"port": "80"}], "rules": {}}]}),
        json!({"toPorts": [{"ports": [{"port": "80"}], "rules": null}]}),
    ] {
        accept(&allow("egress", rule));
    }
}

#[test]
fn wrong_l7_rules_are_refused_with_the_field() {
    let rules = "spec.egress[0].toPorts[0].rules";
    let http = |rule: Value| with_rules(json!({"http": [rule]}));
    let kafka = |rule: Value| with_rules(json!({"kafka": [rule]}));
    let port = |port: Value, rules: Value| {
        allow(
            "egress",
            json!({"toPorts": [{"ports": [port], "rules": rules}]}),
        )
    };
    let long = "a".repeat(256);
    for (object, code, field) in [
        (
            http(json!({"path": "/a("})),
            "policy/invalid-regex",
            "http[0].path",
        ),
        (
            http(json!({"method": "GET|["})),
            "policy/invalid-regex",
            "http[0].method",
        ),
        (
            http(json!({"host": "(?=x)"})),
            "policy/invalid-regex",
            "http[0].host",
        ),
        (
            http(json!({"path": "((a{1000}){1000}){1000}"})),
            "policy/invalid-regex",
            "http[0].path",
        ),
        (
            http(json!({"path": "a".repeat(5000)})),
            "policy/invalid-regex",
            "http[0].path",
        ),
        (
            http(json!({"path": "(".repeat(2000)})),
            "policy/invalid-regex",
            "http[0].path",
        ),
        (
            http(json!({"headers": ["bad name: x\n"]})),
            "policy/invalid-header",
            "http[0].headers[0]",
        ),
        (
            http(json!({"headers": [""]})),
            "policy/invalid-header",
            "http[0].headers[0]",
        ),
        (
            http(json!({"headerMatches": [{}]})),
            "policy/missing-field",
            "http[0].headerMatches[0].name",
        ),
        (
            http(json!({"headerMatches": [{"name": "a", "mismatch": "log"}]})),
            "policy/invalid-header",
            "http[0].headerMatches[0].mismatch",
        ),
        (
            http(json!({"headerMatches": [{"name": "a", "secret": {}}]})),
            "policy/missing-field",
            "http[0].headerMatches[0].secret.name",
        ),
        (
            http(json!({"pfad": "x"})),
            "policy/unknown-field",
            "http[0].pfad",
        ),
        (
            kafka(json!({"role": "produce", "apiKey": "fetch"})),
            "policy/invalid-kafka",
            "kafka[0].role",
        ),
        (
            kafka(json!({"role": "eat"})),
            "policy/invalid-kafka",
            "kafka[0].role",
        ),
        (
            kafka(json!({"apiKey": "eat"})),
            "policy/invalid-kafka",
            "kafka[0].apiKey",
        ),
        (
            kafka(json!({"apiVersion": "40000"})),
            "policy/invalid-kafka",
            "kafka[0].apiVersion",
        ),
        (
            kafka(json!({"topic": "a b"})),
            "policy/invalid-kafka",
            "kafka[0].topic",
        ),
        (
            kafka(json!({"topic": long})),
            "policy/invalid-kafka",
            "kafka[0].topic",
        ),
        (
            with_rules(json!({"l7": [{"a": "b"}]})),
            "policy/invalid-l7-rules",
            "",
        ),
        (
            with_rules(json!({"l7proto": "x", "l7": [{"a": 1}]})),
            "policy/wrong-type",
            "l7[0][\"a\"]",
        ),
        (
            with_rules(json!({"http": [], "kafka": []})),
            "policy/invalid-l7-rules",
            "",
        ),
        (
            port(
                json!({"port": "80", "protocol": "UDP"}),
                json!({"http": [{}]}),
            ),
            "policy/invalid-l7-rules",
            "",
        ),
        (
            port(json!({"port": "80"}), json!({"http": [{}]})),
            "policy/invalid-l7-rules",
            "",
        ),
        (
            port(
                json!({"port": "0", "protocol": "TCP"}),
                json!({"http": [{}]}),
            ),
            "policy/invalid-l7-rules",
            "",
        ),
        (
            port(json!({"port": "53", "endPort": 60}), json!({"dns": []})),
            "policy/invalid-l7-rules",
            "",
        ),
        (dns(json!([{}])), "policy/invalid-name-match", "dns[0]"),
        (
            dns(json!([{"matchName": "a", "matchPattern": "b"}])),
            "policy/invalid-name-match",
            "dns[0]",
        ),
        (
            dns(json!([{"matchName": long}])),
            "policy/invalid-name-match",
            "dns[0].matchName",
        ),
    ] {
        let path = format!("{rules}.{field}");
        refused_with(&object, code, path.trim_end_matches('.'));
    }
    let object = allow(
        "egress",
        json!({"toPorts": [{"rules": {"dns": [{"matchPattern": "*"}]}}]}),
    );
    refused_with(&object, "policy/invalid-l7-rules", rules);
    let object = allow(
        "ingress",
        json!({"toPorts": [{"ports": [{"port": "53"}], "rules": {"dns": [{"matchPattern": "*"}]}}]}),
    );
    refused_with(
        &object,
        "policy/invalid-l7-rules",
        "spec.ingress[0].toPorts[0].rules",
    );
}

#[test]
fn wrong_fields_beside_ports_are_refused() {
    let beside = |section: &str, field: &str, value: Value| {
        let entry = json!({"ports": [{"port": "80", "protocol": "TCP"}], field: value});
        allow(section, json!({"toPorts": [entry]}))
    };
    for (section, name, value, code, field) in [
        (
            "egress",
            "terminatingTLS",
            json!({}),
            "policy/missing-field",
            "terminatingTLS.secret",
        ),
        (
            "egress",
            "originatingTLS",
            json!({"secret": {}}),
            "policy/missing-field",
            "originatingTLS.secret.name",
        ),
        (
            "egress",
            "serverNames",
            json!([]),
            "policy/invalid-server-names",
            "serverNames",
        ),
        (
            "egress",
            "serverNames",
            json!(["a", "a"]),
            "policy/invalid-server-names",
            "serverNames[1]",
        ),
        (
            "egress",
            "serverNames",
            json!([""]),
            "policy/invalid-name-match",
            "serverNames[0]",
        ),
        (
            "ingress",
            "listener",
            json!({"envoyConfig": {"name": "e"}, "name": "l"}),
            "policy/invalid-listener",
            "listener",
        ),
        (
            "egress",
            "listener",
            json!({"envoyConfig": {"name": "e"}, "name": "l", "priority": 0}),
            "policy/invalid-listener",
            "listener.priority",
        ),
        (
            "egress",
            "listener",
            json!({"name": "l"}),
            "policy/missing-field",
            "listener.envoyConfig",
        ),
        (
            "egress",
            "listener",
            json!({"envoyConfig": {"kind": "X", "name": "e"}, "name": "l"}),
            "policy/invalid-listener",
            "listener.envoyConfig.kind",
        ),
    ] {
        let path = format!("spec.{section}[0].toPorts[0].{field}");
        refused_with(&beside(section, name, value), code, &path);
    }
    let entry = json!({"ports": [{"port": "80", "protocol": "TCP"}], "serverNames": ["a.io"], "rules": {"http": [{}]}});
    refused_with(
        &allow("egress", json!({"toPorts": [entry]})),
        "policy/invalid-server-names",
        "spec.egress[0].toPorts[0].serverNames",
    );
    refused_with(
        &allow("egress", json!({"authentication": {"mode": "always"}})),
        "policy/invalid-authentication",
        "spec.egress[0].authentication.mode",
    );
}
