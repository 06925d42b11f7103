//! The reference's rows that are the reader's to keep, each a test by its row's name.

use super::*;
use heddle_policy::{Action, Tier};

fn ingress(rule: Value) -> PolicySpec {
    accept(&cnp(json!({"endpointSelector": {}, "ingress": [rule]})))
}

fn nobody(spec: &PolicySpec) -> bool {
    spec.rules[0].peers == Peers::Terms(vec![])
}

const BOTH: Isolation = Isolation {
    ingress: true,
    egress: true,
};
const INGRESS: Isolation = Isolation {
    ingress: true,
    egress: false,
};
const EGRESS: Isolation = Isolation {
    ingress: false,
    egress: true,
};

#[test]
fn d6_an_entry_isolates_its_direction_only() {
    let spec = accept(&cnp(
        json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]}),
    ));
    assert_eq!(spec.isolates, INGRESS);
    let spec = accept(&cnp(
        json!({"endpointSelector": {}, "egress": [{"toEndpoints": [{}]}]}),
    ));
    assert_eq!(spec.isolates, EGRESS);
}

#[test]
fn d7_d8_default_deny_is_switched_off_per_direction() {
    let spec = accept(&cnp(json!({
        "endpointSelector": {}, "ingress": [{}], "egress": [{}], "enableDefaultDeny": {"egress": false},
    })));
    assert_eq!(spec.isolates, INGRESS);
}

#[test]
fn d9_default_deny_needs_a_rule() {
    let object = cnp(json!({
        "endpointSelector": {}, "egress": [{}],
        "enableDefaultDeny": {"ingress": true, "egress": false},
    }));
    assert_eq!(accept(&object).isolates, Isolation::default());
    assert_eq!(
        warnings(&object),
        [(
            "policy/default-deny-without-rules",
            "spec.enableDefaultDeny.ingress".to_owned()
        )]
    );
}

#[test]
fn d12_denies_alone_isolate() {
    let spec = accept(&cnp(
        json!({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["world"]}]}),
    ));
    assert_eq!(spec.isolates, INGRESS);
    assert_eq!(spec.rules[0].action, Action::Deny);
}

#[test]
fn e1_nothing_but_an_empty_list_is_refused() {
    refused_with(
        &cnp(json!({"endpointSelector": {}, "ingress": []})),
        "policy/no-rules",
        "spec",
    );
}

#[test]
fn e2_an_empty_list_beside_another_says_nothing() {
    let spec = accept(&cnp(
        json!({"endpointSelector": {}, "ingress": [], "egress": [{}]}),
    ));
    assert_eq!(spec.isolates, EGRESS);
}

#[test]
fn e3_an_empty_rule_isolates_and_selects_nothing() {
    let spec = ingress(json!({}));
    assert!(spec.isolates.ingress && nobody(&spec));
    assert_eq!(spec.rules[0].ports, Ports::All);
}

#[test]
fn e3b_an_empty_deny_isolates_and_denies_nothing() {
    let spec = accept(&cnp(json!({"endpointSelector": {}, "ingressDeny": [{}]})));
    assert!(spec.isolates.ingress && nobody(&spec));
}

#[test]
fn e4_empty_peer_lists_select_nothing_with_ports_too() {
    for field in [
        "fromEndpoints",
        "fromNodes",
        "fromEntities",
        "fromCIDR",
        "fromCIDRSet",
    ] {
        let spec = ingress(json!({field: [], "toPorts": [{"ports": [{"port": "80"}]}]}));
        assert!(spec.isolates.ingress && nobody(&spec), "{field}");
    }
}

#[test]
fn e5_e8_an_empty_selector_is_every_pod_of_the_namespace() {
    for rule in [
        json!({"fromEndpoints": [{}]}),
        json!({"fromEndpoints": [{}], "toPorts": []}),
    ] {
        let spec = ingress(rule);
        assert_eq!(
            terms(&spec)[0].to_string(),
            "all pods of namespaces with name=shop"
        );
        assert_eq!(spec.rules[0].ports, Ports::All);
    }
}

#[test]
fn e6_an_empty_selector_of_a_clusterwide_policy_is_every_pod() {
    let spec = accept(&ccnp(
        json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]}),
    ));
    assert_eq!(terms(&spec)[0].to_string(), "all pods of any namespace");
}

#[test]
fn e7_ports_without_peers_are_for_anybody() {
    let spec = ingress(json!({"toPorts": [{"ports": [{"port": "80"}]}]}));
    assert_eq!(spec.rules[0].peers, Peers::Any);
}

#[test]
fn e9_empty_ports_are_no_ports() {
    let spec = ingress(json!({"toPorts": [{"ports": []}]}));
    assert_eq!(spec.rules[0].ports, Ports::Only(vec![]));
}

#[test]
fn e10_empty_names_and_groups_select_nothing() {
    let ports = json!([{"ports": [{"port": "80"}]}]);
    for field in ["toFQDNs", "toGroups", "toServices", "toNodes"] {
        let spec = accept(&cnp(
            json!({"endpointSelector": {}, "egress": [{field: [], "toPorts": ports}]}),
        ));
        assert!(spec.isolates.egress && nobody(&spec), "{field}");
    }
    assert!(nobody(&ingress(
        json!({"fromGroups": [], "toPorts": ports})
    )));
}

#[test]
fn e11_an_empty_subject_is_every_pod() {
    let rules = json!({"endpointSelector": {}, "ingress": [{}]});
    assert_eq!(
        accept(&cnp(rules.clone())).subject.to_string(),
        "all pods of namespaces with name=shop"
    );
    assert_eq!(
        accept(&ccnp(rules)).subject.to_string(),
        "all pods of any namespace"
    );
}

#[test]
fn e12_a_service_is_a_peer_of_its_own_with_ports_too() {
    let spec = accept(&cnp(json!({"endpointSelector": {}, "egress": [
        {"toServices": [{"k8sService": {"serviceName": "gone", "namespace": "x"}}],
         "toPorts": [{"ports": [{"port": "80"}]}]}]})));
    assert!(matches!(terms(&spec), [Peer::Services(_)]));
}

#[test]
fn e12b_a_group_is_a_peer_of_its_own() {
    let spec = accept(&cnp(json!({"endpointSelector": {}, "egress": [
        {"toCIDRSet": [{"cidrGroupRef": "missing"}]}]})));
    assert!(matches!(terms(&spec), [Peer::CidrGroup { .. }]));
    assert!(spec.isolates.egress);
}

#[test]
fn e13_the_entity_all_is_kept() {
    let spec = ingress(json!({"fromEntities": ["all"]}));
    assert_eq!(terms(&spec)[0].to_string(), "entity all");
}

fn port(port: Value) -> PortTerm {
    let spec = ingress(json!({"toPorts": [{"ports": [port]}]}));
    match &spec.rules[0].ports {
        Ports::Only(terms) => terms[0].clone(),
        Ports::All => panic!("ports"),
    }
}

#[test]
fn p1_any_and_missing_protocols_are_three() {
    for given in [
        json!({"port": "80"}),
        json!({"port": "80", "protocol": "ANY"}),
    ] {
        assert_eq!(
            port(given),
            PortTerm::Transport(Transport::Any, PortMatch::Range(80, 80))
        );
    }
    assert_eq!(Transport::Any.protocols().len(), 3);
}

#[test]
fn p2_no_ports_are_every_protocol() {
    assert_eq!(
        ingress(json!({"fromEntities": ["all"]})).rules[0].ports,
        Ports::All
    );
}

#[test]
fn p3_port_0_is_any_port_of_the_protocol() {
    for given in [
        json!({"port": "0", "protocol": "UDP"}),
        json!({"port": "", "protocol": "UDP"}),
        json!({"protocol": "UDP"}),
    ] {
        assert_eq!(
            port(given),
            PortTerm::Transport(Transport::Udp, PortMatch::All)
        );
    }
}

#[test]
fn p4_a_range_has_both_its_ends() {
    let range = port(json!({"port": "1", "endPort": 65534, "protocol": "TCP"}));
    assert_eq!(
        range,
        PortTerm::Transport(Transport::Tcp, PortMatch::Range(1, 65534))
    );
    // endPort 0 is as good as missing.
    let one = port(json!({"port": "80", "endPort": 0, "protocol": "TCP"}));
    assert_eq!(
        one,
        PortTerm::Transport(Transport::Tcp, PortMatch::Range(80, 80))
    );
}

#[test]
fn p5_p6_names_are_kept_in_small_letters() {
    let name = port(json!({"port": "HTTP-Alt", "protocol": "TCP"}));
    assert_eq!(
        name,
        PortTerm::Transport(Transport::Tcp, PortMatch::Name("http-alt".into()))
    );
}

#[test]
fn p7_icmp_types_have_numbers_and_names_in_both_families() {
    use heddle_policy::IcmpFamily::{V4, V6};
    let spec = ingress(json!({"icmps": [
        {"fields": [{"type": 8}, {"type": "8"}, {"type": "EchoRequest"}, {"family": "IPv4", "type": "TimeExceeded"}]},
        {"fields": [{"family": "IPv6", "type": 128}, {"family": "IPv6", "type": "PacketTooBig"}]}]}));
    let Ports::Only(found) = &spec.rules[0].ports else {
        panic!("types")
    };
    let wanted = [(V4, 8), (V4, 8), (V4, 8), (V4, 11), (V6, 128), (V6, 2)];
    assert_eq!(
        *found,
        wanted.map(|(family, kind)| PortTerm::Icmp(family, kind))
    );
}

#[test]
fn p8_rules_stay_apart() {
    let spec = accept(&cnp(json!({"endpointSelector": {}, "ingress": [
        {"fromEntities": ["world"]}, {"toPorts": [{"ports": [{"port": "80"}]}]}]})));
    assert_eq!(spec.rules.len(), 2);
    assert_eq!((spec.rules[0].index, spec.rules[1].index), (0, 1));
}

#[test]
fn k8s_tier_and_isolation() {
    // "one allow entry, Tier Normal, DefaultDeny=true"
    let policy = parse_policy(&network_policy(json!({"podSelector": {}, "ingress": [{}]})))
        .unwrap()
        .remove(0);
    assert_eq!((policy.tier, policy.priority), (Tier::Normal, 0));
    assert_eq!(policy.specs[0].isolates, INGRESS);
    assert_eq!(policy.specs[0].rules[0].action, Action::Allow);
}

#[test]
fn k8s_from_empty_or_missing_is_anybody() {
    for rule in [
        json!({}),
        json!({"from": []}),
        json!({"from": null, "ports": []}),
    ] {
        let spec = accept(&network_policy(
            json!({"podSelector": {}, "ingress": [rule]}),
        ));
        assert_eq!(spec.rules[0].peers, Peers::Any);
        assert_eq!(spec.rules[0].ports, Ports::All);
    }
}

#[test]
fn k8s_ports_default_to_tcp_and_to_every_port() {
    let spec = accept(&network_policy(
        json!({"podSelector": {}, "ingress": [{"ports": [
        {}, {"protocol": "UDP"}, {"port": 80, "endPort": 90}]}]}),
    ));
    assert_eq!(
        spec.rules[0].ports,
        Ports::Only(vec![
            PortTerm::Transport(Transport::Tcp, PortMatch::All),
            PortTerm::Transport(Transport::Udp, PortMatch::All),
            PortTerm::Transport(Transport::Tcp, PortMatch::Range(80, 90)),
        ])
    );
}

#[test]
fn k8s_selectors_are_placed() {
    let spec = accept(&network_policy(
        json!({"podSelector": {}, "ingress": [{"from": [
        {"podSelector": {"matchLabels": {"app": "x"}}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "In", "values": ["b", "a"]}]},
         "podSelector": {}}]}]}),
    ));
    let printed: Vec<String> = terms(&spec).iter().map(ToString::to_string).collect();
    assert_eq!(
        printed,
        [
            "pods with app=x of namespaces with name=shop",
            "all pods of any namespace",
            "all pods of namespaces with team in (a,b)",
        ]
    );
}

#[test]
fn k8s_ip_block_is_of_pods_and_nodes_too() {
    let spec = accept(&network_policy(
        json!({"podSelector": {}, "egress": [{"to": [
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}),
    ));
    let Peer::Cidr(block) = &terms(&spec)[0] else {
        panic!("block")
    };
    assert!(block.in_cluster);
    assert_eq!(block.except.len(), 1);
}

#[test]
fn k8s_default_deny_by_types() {
    for (spec, wanted) in [
        (json!({"podSelector": {}}), INGRESS),
        (
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
            INGRESS,
        ),
        (
            json!({"podSelector": {}, "policyTypes": ["Egress"]}),
            EGRESS,
        ),
        (
            json!({"podSelector": {}, "policyTypes": ["Egress", "Ingress"]}),
            BOTH,
        ),
        (json!({"podSelector": {}, "egress": [{}]}), BOTH),
    ] {
        assert_eq!(
            accept(&network_policy(spec.clone())).isolates,
            wanted,
            "{spec}"
        );
    }
}

#[test]
fn k8s_deviation_policy_types_are_honoured() {
    let object =
        network_policy(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}));
    let spec = accept(&object);
    assert_eq!((spec.isolates, spec.rules.len()), (EGRESS, 0));
    assert_eq!(
        warnings(&object),
        [("policy/section-without-type", "spec.ingress".to_owned())]
    );
}

#[test]
fn t_unknown_peers_of_a_cluster_policy_are_refused() {
    // The specification wants an accept of an unknown peer skipped and a deny of it to be a deny of all.
    for action in ["Accept", "Deny", "Pass"] {
        let object = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "p"},
            "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
                     "egress": [{"action": action, "to": [{"galaxies": {}}]}]},
        });
        assert_eq!(
            refuse(&object),
            [(
                "policy/unknown-field",
                "spec.egress[0].to[0].galaxies".to_owned()
            )]
        );
    }
}
