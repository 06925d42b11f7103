//! Parsing: what is accepted means what it says; what is not is named, with its field and a fix.

use super::*;
use heddle_policy::{
    CidrBlock, Isolation, Peer, Peers, PolicySpec, PortMatch, PortTerm, Ports, Transport,
};
use serde_json::json;

fn kubernetes(spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    })
}

fn cilium(spec: Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    })
}

fn clusterwide(spec: Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
        "metadata": {"name": "p"}, "spec": spec,
    })
}

fn accept(object: &Value) -> PolicySpec {
    let mut policies = parse_policy(object).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(policies.len(), 1);
    policies.remove(0).specs.remove(0)
}

/// Code and field of each error.
fn refuse(object: &Value) -> Vec<(&'static str, String)> {
    let problems = parse_policy(object).expect_err("refused");
    assert!(problems.iter().all(|problem| !problem.help.is_empty()));
    problems
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| (problem.code, problem.field))
        .collect()
}

fn refused_with(object: &Value, code: &str, field: &str) {
    let errors = refuse(object);
    assert!(
        errors.iter().any(|(c, f)| *c == code && f == field),
        "wanted {code} at {field}, got {errors:#?}"
    );
}

#[test]
fn policy_types_default_and_are_honoured() {
    let isolates = |spec| accept(&kubernetes(spec)).isolates;
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
    let spec = accept(&kubernetes(
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
        let spec = accept(&kubernetes(json!({"podSelector": {}, "ingress": [rule]})));
        assert_eq!(spec.rules[0].peers, Peers::Any);
        assert_eq!(spec.rules[0].ports, Ports::All);
    }
}

#[test]
fn network_policy_peers_are_placed() {
    let spec = accept(&kubernetes(
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
    let spec = accept(&kubernetes(
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
    let ingress = |rule: Value| kubernetes(json!({"podSelector": {}, "ingress": [rule]}));
    let from = |peer: Value| ingress(json!({"from": [peer]}));
    let port = |port: Value| ingress(json!({"ports": [{"port": 1}, port]}));
    for (object, code, field) in [
        (
            kubernetes(json!({"podSelector": {}, "ingres": []})),
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
            kubernetes(json!({"podSelector": {}, "policyTypes": ["ingress"]})),
            "policy/invalid-policy-type",
            "spec.policyTypes[0]",
        ),
        (
            kubernetes(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            ),
            "policy/invalid-selector",
            "spec.podSelector.matchExpressions[0].values",
        ),
        (
            kubernetes(
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            ),
            "policy/invalid-selector",
            "spec.podSelector.matchExpressions[0].operator",
        ),
        (
            kubernetes(json!({"podSelector": {"matchLabels": {"pod-template-hash": "x"}}})),
            "policy/label-not-in-identity",
            "spec.podSelector.matchLabels[\"pod-template-hash\"]",
        ),
        (
            kubernetes(json!({"podSelector": {"matchLabels": {"app": 1}}})),
            "policy/wrong-type",
            "spec.podSelector.matchLabels[\"app\"]",
        ),
    ] {
        refused_with(&object, code, field);
    }
    let mut object = kubernetes(json!({"podSelector": {}}));
    object["apiVersion"] = json!("extensions/v1beta1");
    refused_with(&object, "policy/unsupported-version", "apiVersion");
}

#[test]
fn a_typing_error_gets_a_suggestion() {
    let object = cilium(json!({"endpointSelector": {}, "ingress": [{"fromEntites": ["world"]}]}));
    let problems = parse_policy(&object).unwrap_err();
    assert_eq!(problems[0].help, "did you mean `fromEntities`?");
    let object = cilium(json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["wrold"]}]}));
    let problems = parse_policy(&object).unwrap_err();
    assert_eq!(problems[0].code, "policy/unknown-entity");
    assert_eq!(problems[0].help, "did you mean `world`?");
}

#[test]
fn e1_to_e9_empty_and_missing_in_cilium_policies() {
    refused_with(
        &cilium(json!({"endpointSelector": {}, "ingress": []})),
        "policy/no-rules",
        "spec",
    );
    // E2
    let spec = accept(&cilium(
        json!({"endpointSelector": {}, "ingress": [], "egress": [{}]}),
    ));
    assert_eq!(
        spec.isolates,
        Isolation {
            ingress: false,
            egress: true
        }
    );
    let nobody = Peers::Terms(vec![]);
    let peers = |rule: Value| {
        let spec = accept(&cilium(json!({"endpointSelector": {}, "ingress": [rule]})));
        assert!(spec.isolates.ingress);
        (spec.rules[0].peers.clone(), spec.rules[0].ports.clone())
    };
    // E3
    assert_eq!(peers(json!({})), (nobody.clone(), Ports::All));
    // E4
    for field in ["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"] {
        let (found, _) = peers(json!({field: [], "toPorts": [{"ports": [{"port": "80"}]}]}));
        assert_eq!(found, nobody, "{field}");
    }
    // E5, E8
    for rule in [
        json!({"fromEndpoints": [{}]}),
        json!({"fromEndpoints": [{}], "toPorts": []}),
    ] {
        let (found, ports) = peers(rule);
        let Peers::Terms(terms) = found else {
            panic!("terms")
        };
        assert_eq!(
            terms[0].to_string(),
            "all pods of namespaces with name=shop"
        );
        assert_eq!(ports, Ports::All);
    }
    // E6
    let spec = accept(&clusterwide(
        json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]}),
    ));
    let Peers::Terms(terms) = &spec.rules[0].peers else {
        panic!("terms")
    };
    assert_eq!(terms[0].to_string(), "all pods of any namespace");
    // E7, E9
    let (found, _) = peers(json!({"toPorts": [{"ports": [{"port": "80"}]}]}));
    assert_eq!(found, Peers::Any);
    let (_, ports) = peers(json!({"toPorts": [{"ports": []}]}));
    assert_eq!(ports, Ports::Only(vec![]));
}

#[test]
fn d9_default_deny_needs_a_rule() {
    let spec = accept(&cilium(json!({
        "endpointSelector": {}, "egress": [{}],
        "enableDefaultDeny": {"ingress": true, "egress": false},
    })));
    assert_eq!(spec.isolates, Isolation::default());
}

#[test]
fn selectors_are_rewritten() {
    let peer = |selector: Value| {
        let spec = accept(&cilium(
            json!({"endpointSelector": {}, "egress": [{"toEndpoints": [selector]}]}),
        ));
        match &spec.rules[0].peers {
            Peers::Terms(terms) => terms[0].to_string(),
            Peers::Any => panic!("terms"),
        }
    };
    for key in ["app", "k8s:app", "any:app"] {
        assert_eq!(
            peer(json!({"matchLabels": {key: "web"}})),
            "pods with app=web of namespaces with name=shop"
        );
    }
    assert_eq!(
        peer(json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system"}})),
        "all pods of namespaces with name=kube-system"
    );
    assert_eq!(
        peer(
            json!({"matchLabels": {"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": "x"}})
        ),
        "all pods of namespaces with kubernetes.io/metadata.name=x"
    );
}

#[test]
fn cilium_ports_and_icmp() {
    let spec = accept(&cilium(json!({"endpointSelector": {}, "ingress": [
        {"toPorts": [
            {"ports": [{"port": "80", "protocol": "TCP"}, {"port": "0"}, {"port": "DNS", "protocol": "UDP"}]},
            {"ports": [{"port": "1000", "endPort": 2000, "protocol": "ANY"}]}]},
        {"icmps": [{"fields": [{"type": 8}, {"family": "IPv6", "type": "EchoRequest"}]}]},
    ]})));
    assert_eq!(
        spec.rules[0].ports,
        Ports::Only(vec![
            PortTerm::Transport(Transport::Tcp, PortMatch::Range(80, 80)),
            PortTerm::Transport(Transport::Any, PortMatch::All),
            PortTerm::Transport(Transport::Udp, PortMatch::Name("dns".into())),
            PortTerm::Transport(Transport::Any, PortMatch::Range(1000, 2000)),
        ])
    );
    assert_eq!(
        spec.rules[1].ports,
        Ports::Only(vec![
            PortTerm::Icmp(heddle_policy::IcmpFamily::V4, 8),
            PortTerm::Icmp(heddle_policy::IcmpFamily::V6, 128),
        ])
    );
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    for field in ["fromRequires", "fromGroups", "fromNodes", "authentication"] {
        let object = cilium(json!({"endpointSelector": {}, "ingress": [{field: []}]}));
        refused_with(
            &object,
            "policy/unsupported-field",
            &format!("spec.ingress[0].{field}"),
        );
    }
    for field in [
        "toRequires",
        "toGroups",
        "toNodes",
        "toServices",
        "toFQDNs",
        "authentication",
    ] {
        let object = cilium(json!({"endpointSelector": {}, "egress": [{field: []}]}));
        refused_with(
            &object,
            "policy/unsupported-field",
            &format!("spec.egress[0].{field}"),
        );
    }
    for field in [
        "rules",
        "terminatingTLS",
        "originatingTLS",
        "serverNames",
        "listener",
    ] {
        let object = cilium(json!({"endpointSelector": {}, "ingress": [
            {"toPorts": [{"ports": [{"port": "80"}], field: {}}]}]}));
        let path = format!("spec.ingress[0].toPorts[0].{field}");
        refused_with(&object, "policy/unsupported-field", &path);
    }
    let object = cilium(json!({"nodeSelector": {}, "ingress": [{}]}));
    refused_with(&object, "policy/unsupported-field", "spec.nodeSelector");
    let object = cilium(
        json!({"endpointSelector": {"matchLabels": {"reserved:host": ""}}, "ingress": [{}]}),
    );
    refused_with(&object, "policy/unsupported-field", "spec.endpointSelector");
}

#[test]
fn wrong_cilium_policies_are_refused_with_the_field() {
    let ingress = |rule: Value| cilium(json!({"endpointSelector": {}, "ingress": [rule]}));
    let port = |port: Value| ingress(json!({"toPorts": [{"ports": [port]}]}));
    let many: Vec<Value> = (1..=41)
        .map(|port| json!({"port": port.to_string()}))
        .collect();
    for (object, code, field) in [
        (
            cilium(json!({"ingress": [{}]})),
            "policy/missing-field",
            "spec.endpointSelector",
        ),
        (
            ingress(json!({"fromEndpoints": [{}], "fromCIDR": ["10.0.0.0/8"]})),
            "policy/combined-peers",
            "spec.ingress[0]",
        ),
        (
            ingress(json!({"fromCIDR": ["10.0.0.0/40"]})),
            "policy/invalid-cidr",
            "spec.ingress[0].fromCIDR[0]",
        ),
        (
            ingress(json!({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["12.0.0.0/16"]}]})),
            "policy/except-outside-cidr",
            "spec.ingress[0].fromCIDRSet[0].except[0]",
        ),
        (
            ingress(json!({"fromCIDRSet": [{}]})),
            "policy/invalid-cidr-set",
            "spec.ingress[0].fromCIDRSet[0]",
        ),
        (
            ingress(json!({"fromCIDRSet": [{"cidrGroupRef": "g"}]})),
            "policy/unsupported-field",
            "spec.ingress[0].fromCIDRSet[0].cidrGroupRef",
        ),
        (
            port(json!({"port": 80})),
            "policy/wrong-type",
            "spec.ingress[0].toPorts[0].ports[0].port",
        ),
        (
            port(json!({"port": "70000"})),
            "policy/invalid-port",
            "spec.ingress[0].toPorts[0].ports[0].port",
        ),
        (
            port(json!({"port": "http", "endPort": 90})),
            "policy/invalid-end-port",
            "spec.ingress[0].toPorts[0].ports[0].endPort",
        ),
        (
            port(json!({"port": "80", "protocol": "ICMP"})),
            "policy/invalid-protocol",
            "spec.ingress[0].toPorts[0].ports[0].protocol",
        ),
        (
            port(json!({"protocol": "GRE"})),
            "policy/unsupported-field",
            "spec.ingress[0].toPorts[0].ports[0].protocol",
        ),
        (
            ingress(json!({"toPorts": [{"ports": many}]})),
            "policy/too-many-ports",
            "spec.ingress[0].toPorts[0].ports",
        ),
        (
            ingress(json!({"toPorts": [{"ports": []}], "icmps": [{"fields": []}]})),
            "policy/combined-ports",
            "spec.ingress[0].icmps",
        ),
        (
            ingress(json!({"icmps": [{"fields": [{"type": "Ecco"}]}]})),
            "policy/invalid-icmp",
            "spec.ingress[0].icmps[0].fields[0].type",
        ),
        (
            cilium(json!({"endpointSelector": {}, "egressDeny": [
                {"toCIDR": ["10.0.0.0/8"], "toPorts": [{"ports": [{"port": "http"}]}]}]})),
            "policy/named-port-with-cidr",
            "spec.egressDeny[0]",
        ),
        (
            cilium(
                json!({"endpointSelector": {"matchLabels": {"cidr:10.0.0.0/8": ""}}, "ingress": [{}]}),
            ),
            "policy/unsupported-field",
            "spec.endpointSelector.matchLabels[\"cidr:10.0.0.0/8\"]",
        ),
    ] {
        refused_with(&object, code, field);
    }
}

#[test]
fn specs_keep_their_positions() {
    let mut object = cilium(json!({"endpointSelector": {}, "ingress": [{}]}));
    let spec = object["spec"].take();
    object["specs"] = json!([spec.clone(), spec]);
    object.as_object_mut().unwrap().remove("spec");
    let policies = parse_policy(&object).unwrap();
    let positions: Vec<_> = policies[0].specs.iter().map(|spec| spec.position).collect();
    assert_eq!(positions, [Some(0), Some(1)]);
    object.as_object_mut().unwrap().remove("specs");
    refused_with(&object, "policy/missing-field", "spec");
}

#[test]
fn cidr_groups_are_resolved() {
    let group = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
        "metadata": {"name": "g", "labels": {"kind": "office"}},
        "spec": {"externalCIDRs": ["10.0.0.0/8", "192.0.2.0/24"]},
    });
    let (name, group) = parse_cidr_group(&group).unwrap();
    let groups = CidrGroups::from([(name, group)]);
    for (set, expected) in [
        (json!({"cidrGroupRef": "g", "except": ["10.1.0.0/16"]}), 2),
        (
            json!({"cidrGroupSelector": {"matchLabels": {"kind": "office"}}, "except": ["192.0.0.0/16"]}),
            1,
        ),
        // E12b
        (json!({"cidrGroupRef": "missing"}), 0),
    ] {
        let object = cilium(json!({"endpointSelector": {}, "egress": [{"toCIDRSet": [set]}]}));
        let parsed = parse(&object, Some(&groups));
        let policy = parsed.policy.unwrap();
        let Peers::Terms(terms) = &policy.specs[0].rules[0].peers else {
            panic!("terms")
        };
        assert_eq!(terms.len(), expected, "{terms:?}");
        assert!(policy.specs[0].isolates.egress);
    }
}

#[test]
fn no_object_makes_the_parser_panic() {
    for object in [
        json!(null),
        json!([]),
        json!({"kind": "NetworkPolicy"}),
        json!({"kind": "CiliumNetworkPolicy", "spec": []}),
        json!({"kind": "CiliumNetworkPolicy", "metadata": [], "spec": {"ingress": {}, "egress": [[]]}}),
        kubernetes(
            json!({"podSelector": [], "policyTypes": {}, "ingress": [null, 3, {"from": {}}]}),
        ),
    ] {
        assert!(parse_policy(&object).is_err(), "{object}");
    }
}
