//! NetworkPolicy: what its specification says, and what is wrong with what is not it.

use super::*;

#[test]
fn policy_types_default_and_are_honoured() {
    let isolates = |spec| accept(&network_policy(spec)).isolates;
    let both = Isolation {
        ingress: true,
        egress: true,
    };
    let ingress = Isolation {
        ingress: true,
        egress: false,
    };
    let egress = Isolation {
        ingress: false,
        egress: true,
    };
    assert_eq!(isolates(json!({"podSelector": {}})), ingress);
    assert_eq!(isolates(json!({"podSelector": {}, "egress": []})), ingress);
    assert_eq!(isolates(json!({"podSelector": {}, "egress": [{}]})), both);
    assert_eq!(
        isolates(json!({"podSelector": {}, "policyTypes": []})),
        ingress
    );
    assert_eq!(
        isolates(json!({"podSelector": {}, "policyTypes": ["Egress"]})),
        egress
    );
    // Ingress rules without the type have no effect, whatever others do with them.
    let spec = accept(&network_policy(
        json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}),
    ));
    assert_eq!((spec.isolates, spec.rules.len()), (egress, 0));
}

#[test]
fn empty_and_missing_lists_of_a_network_policy_are_everybody_and_everything() {
    for rule in [
        json!({}),
        json!({"from": [], "ports": []}),
        json!({"from": null}),
    ] {
        let spec = accept(&network_policy(
            json!({"podSelector": {}, "ingress": [rule]}),
        ));
        assert_eq!(spec.rules[0].peers, Peers::Any);
        assert_eq!(spec.rules[0].ports, Ports::All);
    }
}

#[test]
fn network_policy_peers_are_placed() {
    let spec = accept(&network_policy(
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [
            {"podSelector": {}},
            {"namespaceSelector": {}},
            {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "x"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ]}]}),
    ));
    let Peers::Terms(terms) = &spec.rules[0].peers else {
        panic!("terms")
    };
    let printed: Vec<String> = terms.iter().map(ToString::to_string).collect();
    assert_eq!(
        printed,
        [
            "all pods of namespaces with name=shop",
            "all pods of any namespace",
            "pods with app=x of namespaces with team=a",
            "addresses in 10.0.0.0/8 except 10.1.0.0/16",
        ]
    );
    assert!(matches!(
        &terms[3],
        Peer::Cidr(CidrBlock {
            in_cluster: true,
            ..
        })
    ));
    assert_eq!(
        spec.subject.to_string(),
        "pods with app=web of namespaces with name=shop"
    );
}

#[test]
fn network_policy_ports() {
    let spec = accept(&network_policy(
        json!({"podSelector": {}, "ingress": [{"ports": [
            {"port": 80}, {"protocol": "UDP"}, {"protocol": "SCTP", "port": 1, "endPort": 5}, {"port": "http"},
        ]}]}),
    ));
    assert_eq!(
        spec.rules[0].ports,
        Ports::Only(vec![
            PortTerm::Transport(Transport::Tcp, PortMatch::Range(80, 80)),
            PortTerm::Transport(Transport::Udp, PortMatch::All),
            PortTerm::Transport(Transport::Sctp, PortMatch::Range(1, 5)),
            PortTerm::Transport(Transport::Tcp, PortMatch::Name("http".into())),
        ])
    );
}

#[test]
fn wrong_network_policies_are_refused_with_the_field() {
    let ingress = |rule: Value| network_policy(json!({"podSelector": {}, "ingress": [rule]}));
    let from = |peer: Value| ingress(json!({"from": [peer]}));
    let port = |port: Value| ingress(json!({"ports": [{"port": 1}, port]}));
    for (object, code, field) in [
        (
            network_policy(json!({"podSelector": {}, "ingres": []})),
            "policy/unknown-field",
            "spec.ingres",
        ),
        (
            ingress(json!({"to": []})),
            "policy/unknown-field",
            "spec.ingress[0].to",
        ),
        (
            from(json!({})),
            "policy/empty-peer",
            "spec.ingress[0].from[0]",
        ),
        (
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            "policy/combined-peers",
            "spec.ingress[0].from[0]",
        ),
        (
            from(json!({"ipBlock": {"cidr": "10.0.0.0/33"}})),
            "policy/invalid-cidr",
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            from(json!({"ipBlock": {"cidr": "10.0.0.1"}})),
            "policy/invalid-cidr",
            "spec.ingress[0].from[0].ipBlock.cidr",
        ),
        (
            from(
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "11.0.0.0/16"]}}),
            ),
            "policy/except-outside-cidr",
            "spec.ingress[0].from[0].ipBlock.except[1]",
        ),
        (
            from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
            "policy/except-outside-cidr",
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            port(json!({"port": 0})),
            "policy/invalid-port",
            "spec.ingress[0].ports[1].port",
        ),
        (
            port(json!({"port": 65536})),
            "policy/invalid-port",
            "spec.ingress[0].ports[1].port",
        ),
        (
            port(json!({"port": "80"})),
            "policy/invalid-port",
            "spec.ingress[0].ports[1].port",
        ),
        (
            port(json!({"port": "not_a_name"})),
            "policy/invalid-port",
            "spec.ingress[0].ports[1].port",
        ),
        (
            port(json!({"port": 80, "endPort": 79})),
            "policy/invalid-end-port",
            "spec.ingress[0].ports[1].endPort",
        ),
        (
            port(json!({"port": "http", "endPort": 80})),
            "policy/invalid-end-port",
            "spec.ingress[0].ports[1].endPort",
        ),
        (
            port(json!({"endPort": 80})),
            "policy/invalid-end-port",
            "spec.ingress[0].ports[1].endPort",
        ),
        (
            port(json!({"protocol": "tcp"})),
            "policy/invalid-protocol",
            "spec.ingress[0].ports[1].protocol",
        ),
        (
            network_policy(json!({"podSelector": {}, "policyTypes": ["ingress"]})),
            "policy/invalid-policy-type",
            "spec.policyTypes[0]",
        ),
        (
            network_policy(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            ),
            "policy/invalid-selector",
            "spec.podSelector.matchExpressions[0].values",
        ),
        (
            network_policy(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            ),
            "policy/invalid-selector",
            "spec.podSelector.matchExpressions[0].operator",
        ),
        (
            network_policy(json!({"podSelector": {"matchLabels": {"pod-template-hash": "x"}}})),
            "policy/label-not-in-identity",
            "spec.podSelector.matchLabels[\"pod-template-hash\"]",
        ),
        (
            network_policy(json!({"podSelector": {"matchLabels": {"app": 1}}})),
            "policy/wrong-type",
            "spec.podSelector.matchLabels[\"app\"]",
        ),
    ] {
        refused_with(&object, code, field);
    }
    let mut object = network_policy(json!({"podSelector": {}}));
    object["apiVersion"] = json!("extensions/v1beta1");
    refused_with(&object, "policy/unsupported-version", "apiVersion");
}
