//! ClusterNetworkPolicy v1alpha2.

use super::*;
use heddle_policy::{Action, Policy, Section, Tier};

fn object(spec: Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"}, "spec": spec,
    })
}

fn with_rules(section: &str, rules: Value) -> Value {
    object(json!({"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, section: rules}))
}

fn egress(rule: Value) -> Value {
    with_rules("egress", json!([rule]))
}

fn accepted(object: &Value) -> Policy {
    let policies = parse_policy(object).unwrap_or_else(|problems| panic!("{problems:#?}"));
    policies.into_iter().next().unwrap()
}

#[test]
fn t_tiers_priorities_and_actions_are_read() {
    let policy = accepted(&object(json!({
        "tier": "Baseline", "priority": 1000,
        "subject": {"pods": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "web"}}}},
        "ingress": [
            {"name": "from monitoring", "action": "Accept", "from": [{"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
            {"action": "Pass", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}}]},
            {"action": "Deny", "from": [{"namespaces": {}}]}],
        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}]}],
    })));
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 1000));
    let spec = &policy.specs[0];
    assert_eq!(spec.isolates, Isolation::default());
    assert_eq!(
        spec.subject.to_string(),
        "pods with app=web of namespaces with team=a"
    );
    let rules: Vec<_> = spec
        .rules
        .iter()
        .map(|rule| (rule.section, rule.index, rule.action, rule.name.as_deref()))
        .collect();
    assert_eq!(
        rules,
        [
            (Section::Ingress, 0, Action::Allow, Some("from monitoring")),
            (Section::Ingress, 1, Action::Pass, None),
            (Section::Ingress, 2, Action::Deny, None),
            (Section::Egress, 0, Action::Deny, None),
        ]
    );
    // Networks are addresses of pods and nodes, too.
    let Peers::Terms(terms) = &spec.rules[3].peers else {
        panic!("terms")
    };
    assert!(terms.iter().all(|term| matches!(
        term,
        Peer::Cidr(CidrBlock {
            in_cluster: true,
            ..
        })
    )));
    assert_eq!(terms.len(), 2);
}

#[test]
fn t_both_forms_of_ports_are_read() {
    let wanted = Ports::Only(vec![
        PortTerm::Transport(Transport::Tcp, PortMatch::Range(80, 80)),
        PortTerm::Transport(Transport::Udp, PortMatch::Range(1000, 2000)),
        PortTerm::Transport(Transport::Any, PortMatch::Name("http".into())),
    ]);
    for (form, ports) in [
        (
            "protocols",
            json!([
                {"tcp": {"destinationPort": {"number": 80}}},
                {"udp": {"destinationPort": {"range": {"start": 1000, "end": 2000}}}},
                {"destinationNamedPort": "http"}]),
        ),
        (
            "ports",
            json!([
                {"portNumber": {"port": 80}},
                {"portRange": {"protocol": "UDP", "start": 1000, "end": 2000}},
                {"namedPort": "http"}]),
        ),
    ] {
        let rule = json!({"action": "Accept", "to": [{"namespaces": {}}], form: ports});
        assert_eq!(
            accepted(&egress(rule)).specs[0].rules[0].ports,
            wanted,
            "{form}"
        );
    }
}

#[test]
fn wrong_cluster_policies_are_refused_with_the_field() {
    let to = |peer: Value| egress(json!({"action": "Deny", "to": [peer]}));
    let protocol = |protocol: Value| {
        egress(json!({"action": "Deny", "to": [{"namespaces": {}}], "protocols": [protocol]}))
    };
    let many_rules: Vec<Value> = (0..26)
        .map(|_| json!({"action": "Deny", "to": [{"namespaces": {}}]}))
        .collect();
    let many_networks: Vec<String> = (0..26).map(|n| format!("10.{n}.0.0/16")).collect();
    let spec = |change: fn(&mut Value)| {
        let mut object = egress(json!({"action": "Deny", "to": [{"namespaces": {}}]}));
        change(&mut object["spec"]);
        object
    };
    for (object, code, field) in [
        (
            spec(|s| s["tier"] = json!("admin")),
            "policy/invalid-tier",
            "spec.tier",
        ),
        (
            spec(|s| s["tier"] = json!(null)),
            "policy/missing-field",
            "spec.tier",
        ),
        (
            spec(|s| s["priority"] = json!(1001)),
            "policy/invalid-priority",
            "spec.priority",
        ),
        (
            spec(|s| s["priority"] = json!(-1)),
            "policy/invalid-priority",
            "spec.priority",
        ),
        (
            spec(|s| s["priority"] = json!(null)),
            "policy/missing-field",
            "spec.priority",
        ),
        (
            spec(|s| s["subject"] = json!({})),
            "policy/empty-peer",
            "spec.subject",
        ),
        (
            spec(|s| s["subject"] = json!(null)),
            "policy/missing-field",
            "spec.subject",
        ),
        (
            spec(|s| s["subject"] = json!({"pods": {"podSelector": {}}})),
            "policy/missing-field",
            "spec.subject.pods.namespaceSelector",
        ),
        (
            with_rules("egress", json!(many_rules)),
            "policy/too-many-items",
            "spec.egress",
        ),
        (
            to(json!({"networks": many_networks})),
            "policy/too-many-items",
            "spec.egress[0].to[0].networks",
        ),
        (
            to(json!({"networks": []})),
            "policy/missing-field",
            "spec.egress[0].to[0].networks",
        ),
        (
            to(json!({"networks": ["10.0.0.1"]})),
            "policy/invalid-cidr",
            "spec.egress[0].to[0].networks[0]",
        ),
        (
            egress(json!({"action": "Deny", "to": []})),
            "policy/missing-field",
            "spec.egress[0].to",
        ),
        (
            egress(json!({"action": "Deny"})),
            "policy/missing-field",
            "spec.egress[0].to",
        ),
        (
            egress(json!({"to": [{"namespaces": {}}]})),
            "policy/missing-field",
            "spec.egress[0].action",
        ),
        (
            egress(json!({"action": "Allow", "to": [{"namespaces": {}}]})),
            "policy/invalid-action",
            "spec.egress[0].action",
        ),
        (
            egress(json!({"name": "x".repeat(101), "action": "Deny", "to": [{"namespaces": {}}]})),
            "policy/invalid-name",
            "spec.egress[0].name",
        ),
        (
            protocol(json!({"tcp": {}})),
            "policy/missing-field",
            "spec.egress[0].protocols[0].tcp.destinationPort",
        ),
        (
            protocol(json!({"tcp": {"destinationPort": {"number": 0}}})),
            "policy/invalid-port",
            "spec.egress[0].protocols[0].tcp.destinationPort.number",
        ),
        (
            protocol(json!({"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}})),
            "policy/invalid-end-port",
            "spec.egress[0].protocols[0].tcp.destinationPort.range.end",
        ),
        (
            protocol(json!({"icmp": {}})),
            "policy/unknown-field",
            "spec.egress[0].protocols[0].icmp",
        ),
        (
            egress(
                json!({"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}], "protocols": [{"destinationNamedPort": "http"}]}),
            ),
            "policy/named-port-with-cidr",
            "spec.egress[0]",
        ),
        (
            to(json!({"domainNames": ["*"]})),
            "policy/invalid-name-match",
            "spec.egress[0].to[0].domainNames[0]",
        ),
        (
            to(json!({"domainNames": ["a.io"]})),
            "policy/invalid-action",
            "spec.egress[0].action",
        ),
    ] {
        refused_with(&object, code, field);
    }
}

#[test]
fn t_domain_names_are_refused_by_name() {
    let object = egress(json!({"action": "Accept", "to": [{"domainNames": ["*.example.com"]}]}));
    let path = "spec.egress[0].to[0].domainNames".to_owned();
    assert_eq!(refuse(&object), [("policy/unsupported-yet", path)]);
}

#[test]
fn t_nodes_are_peers_by_their_labels() {
    let nodes = json!({"nodes": {"matchLabels": {"role": "db"}}});
    let policy = egress(json!({"action": "Deny", "to": [nodes, {"nodes": {}}]}));
    let spec = accept(&policy);
    let Peers::Terms(terms) = &spec.rules[0].peers else {
        panic!("{spec:?}");
    };
    let peers: Vec<String> = terms.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["nodes with role=db", "all nodes"]);
}
