//! CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy at L3 and L4.

use super::*;
use heddle_policy::{CidrGroupRef, ServiceRef};

#[test]
fn selectors_are_rewritten() {
    let peer = |selector: Value| {
        let spec = accept(&cnp(
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
    let spec = accept(&cnp(json!({"endpointSelector": {}, "ingress": [
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
fn wrong_cilium_policies_are_refused_with_the_field() {
    let ingress = |rule: Value| cnp(json!({"endpointSelector": {}, "ingress": [rule]}));
    let port = |port: Value| ingress(json!({"toPorts": [{"ports": [port]}]}));
    let many: Vec<Value> = (1..=41)
        .map(|port| json!({"port": port.to_string()}))
        .collect();
    for (object, code, field) in [
        (
            cnp(json!({"ingress": [{}]})),
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
            "policy/unsupported-yet",
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
            cnp(
                json!({"endpointSelector": {"matchLabels": {"cidr:10.0.0.0/8": ""}}, "ingress": [{}]}),
            ),
            "policy/invalid-selector",
            "spec.endpointSelector",
        ),
    ] {
        refused_with(&object, code, field);
    }
}

#[test]
fn specs_keep_their_positions() {
    let mut object = cnp(json!({"endpointSelector": {}, "ingress": [{}]}));
    let spec = object["spec"].take();
    object["specs"] = json!([spec.clone(), spec]);
    object.as_object_mut().unwrap().remove("spec");
    let policies = parse_policy(&object).unwrap();
    let positions: Vec<_> = policies[0].specs.iter().map(|spec| spec.position).collect();
    assert_eq!(positions, [Some(0), Some(1)]);
    object.as_object_mut().unwrap().remove("specs");
    refused_with(&object, "policy/missing-field", "spec");
}

fn egress(rule: Value) -> Value {
    cnp(json!({"endpointSelector": {}, "egress": [rule]}))
}

fn peer_of(object: &Value) -> Peer {
    terms(&accept(object))[0].clone()
}

#[test]
fn selectors_on_reserved_labels_and_cidrs() {
    let peer = |labels: Value| peer_of(&egress(json!({"toEndpoints": [{"matchLabels": labels}]})));
    assert_eq!(
        peer(json!({"reserved:host": ""})).to_string(),
        "pods with reserved:host= of any namespace"
    );
    let block = |labels| match peer(labels) {
        Peer::Cidr(CidrBlock {
            block,
            in_cluster: false,
            ..
        }) => block.to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(block(json!({"cidr:10.0.0.0/8": ""})), "10.0.0.0/8");
    assert_eq!(block(json!({"cidr:192.0.2.1": ""})), "192.0.2.1/32");
    assert_eq!(block(json!({"cidr:0--0/0": ""})), "::/0");
    assert_eq!(
        block(json!({"cidr:2001-db8--0/32": "", "reserved:world": ""})),
        "2001:db8::/32"
    );
    assert_eq!(
        block(json!({"cidr:10.0.0.0/8": "", "cidr:10.1.0.0/16": ""})),
        "10.1.0.0/16"
    );
    let refuse = |labels: Value, code: &str, field: &str| {
        refused_with(
            &egress(json!({"toEndpoints": [{"matchLabels": labels}]})),
            code,
            &format!("spec.egress[0].toEndpoints[0]{field}"),
        );
    };
    refuse(
        json!({"cidr:10.0.0.0/8": "", "app": "web"}),
        "policy/invalid-selector",
        "",
    );
    refuse(
        json!({"cidr:10.0.0.0/8": "", "cidr:11.0.0.0/8": ""}),
        "policy/invalid-selector",
        "",
    );
    refuse(
        json!({"cidr:10.0.0.0/99": ""}),
        "policy/invalid-cidr",
        ".matchLabels[\"cidr:10.0.0.0/99\"]",
    );
    refuse(
        json!({"reserved:wrold": ""}),
        "policy/invalid-selector",
        ".matchLabels[\"reserved:wrold\"]",
    );
    for source in ["cidrgroup", "fqdn", "container"] {
        let key = format!("{source}:x");
        refuse(
            json!({ (key.clone()): "" }),
            "policy/unknown-label-source",
            &format!(".matchLabels[{key:?}]"),
        );
    }
}

#[test]
fn a_cluster_label_and_expressions_are_kept() {
    let object = egress(json!({"toEndpoints": [{
        "matchLabels": {"k8s:io.cilium.k8s.policy.cluster": "east", "io.kubernetes.pod.namespace": "b"},
        "matchExpressions": [
            {"key": "any:app", "operator": "NotIn", "values": ["x", "a"]},
            {"key": "io.cilium.k8s.namespace.labels.team", "operator": "Exists"}],
    }]}));
    assert_eq!(
        peer_of(&object).to_string(),
        "pods with app not in (a,x), io.cilium.k8s.policy.cluster=east of namespaces with team exists, name=b"
    );
}

#[test]
fn every_entity_is_known() {
    for entity in [
        "all",
        "world",
        "cluster",
        "host",
        "init",
        "ingress",
        "unmanaged",
        "remote-node",
        "health",
        "none",
        "kube-apiserver",
    ] {
        let peer = peer_of(&egress(json!({"toEntities": [entity]})));
        assert_eq!(peer.to_string(), format!("entity {entity}"));
    }
    let peer = peer_of(&egress(json!({"toEntities": ["world-ipv6"]})));
    assert_eq!(peer.to_string(), "addresses in ::/0 outside the cluster");
}

#[test]
fn cidr_groups_are_named_or_selected() {
    let set = |set: Value| peer_of(&egress(json!({"toCIDRSet": [set]})));
    let Peer::CidrGroup { by, except } =
        set(json!({"cidrGroupRef": "g", "except": ["10.1.0.0/16"]}))
    else {
        panic!("group")
    };
    assert_eq!(by, CidrGroupRef::Name("g".into()));
    assert_eq!(except, ["10.1.0.0/16".parse().unwrap()]);
    let Peer::CidrGroup {
        by: CidrGroupRef::Labels(selector),
        ..
    } = set(json!({"cidrGroupSelector": {"matchLabels": {"kind": "office"}}}))
    else {
        panic!("labels")
    };
    assert!(selector.matches(|key| (key == "kind").then_some("office")));
    refused_with(
        &egress(json!({"toCIDRSet": [{"cidrGroupRef": "G_1"}]})),
        "policy/invalid-name",
        "spec.egress[0].toCIDRSet[0].cidrGroupRef",
    );
}

#[test]
fn cidr_groups_are_read() {
    let group = |version: &str, cidrs: Value| {
        parse_cidr_group(&json!({
            "apiVersion": version, "kind": "CiliumCIDRGroup",
            "metadata": {"name": "g", "labels": {"kind": "office"}},
            "spec": {"externalCIDRs": cidrs},
        }))
    };
    for version in ["cilium.io/v2", "cilium.io/v2alpha1"] {
        let found = group(version, json!(["192.0.2.0/24", "10.0.0.0/8", "10.0.0.0/8"])).unwrap();
        assert_eq!((found.name.as_str(), found.cidrs.len()), ("g", 2));
        assert_eq!(found.labels["kind"], "office");
    }
    let problems = group("cilium.io/v2", json!(["192.0.2.0/24", "x", 3])).unwrap_err();
    let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["spec.externalCIDRs[1]", "spec.externalCIDRs[2]"]);
    // As many as the largest published lists have.
    let many: Vec<String> = (0..50_000)
        .map(|n| format!("{}.{}.{}.0/24", n >> 16, (n >> 8) & 255, n & 255))
        .collect();
    assert_eq!(
        group("cilium.io/v2", json!(many)).unwrap().cidrs.len(),
        50_000
    );
    let many: Vec<String> = (0..100_001).map(|_| "1.1.1.1/32".into()).collect();
    assert_eq!(
        group("cilium.io/v2", json!(many)).unwrap_err()[0].code,
        "policy/too-many-cidrs"
    );
}

#[test]
fn services_are_named_or_selected() {
    let service = |service: Value| peer_of(&egress(json!({"toServices": [service]})));
    let named = |namespace: &str| {
        let name = heddle_model::NamespacedName::new(namespace, "db");
        Peer::Services(ServiceRef::Name(name))
    };
    assert_eq!(
        service(json!({"k8sService": {"serviceName": "db", "namespace": "data"}})),
        named("data")
    );
    // A policy has a namespace of its own to look in.
    assert_eq!(
        service(json!({"k8sService": {"serviceName": "db"}})),
        named("shop")
    );
    let Peer::Services(ServiceRef::Labels {
        selector,
        namespace,
    }) = service(json!({"k8sServiceSelector":
        {"selector": {"matchLabels": {"k8s:tier": "db"}}, "namespace": "data"}}))
    else {
        panic!("labels")
    };
    assert!(selector.matches(|key| (key == "tier").then_some("db")));
    assert_eq!(namespace.as_deref(), Some("data"));
    let path = "spec.egress[0].toServices[0]";
    refused_with(
        &egress(json!({"toServices": [{}]})),
        "policy/invalid-service",
        path,
    );
    refused_with(
        &egress(json!({"toServices": [{"k8sServiceSelector": {}}]})),
        "policy/missing-field",
        &format!("{path}.k8sServiceSelector.selector"),
    );
    refused_with(
        &ccnp(json!({"endpointSelector": {}, "egress": [
            {"toServices": [{"k8sService": {"serviceName": "db"}}]}]})),
        "policy/missing-field",
        &format!("{path}.k8sService.namespace"),
    );
}

#[test]
fn requires_are_refused_with_the_rewrite() {
    let object = cnp(json!({"endpointSelector": {}, "ingress": [{
        "fromRequires": [{"matchLabels": {"env": "prod"}}],
        "fromEndpoints": [{"matchLabels": {"app": "web"}}, {"matchLabels": {"app": "api"}}],
    }]}));
    let problems = parse_policy(&object).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].code, problems[0].field.as_str()),
        ("policy/removed-field", "spec.ingress[0].fromRequires")
    );
    let rewrite = problems[0].help.split_once("fromEndpoints: ").unwrap().1;
    let peers: Value = serde_json::from_str(rewrite).unwrap();
    assert_eq!(
        peers,
        json!([{"matchLabels": {"app": "web", "env": "prod"}}, {"matchLabels": {"app": "api", "env": "prod"}}])
    );
    // The rewrite is accepted in place of both fields.
    accept(&cnp(
        json!({"endpointSelector": {}, "ingress": [{"fromEndpoints": peers}]}),
    ));
    // Without peers it is about everybody with these labels.
    let object = egress(json!({"toRequires": [{"matchLabels": {"env": "prod"}}]}));
    let help = parse_policy(&object).unwrap_err().remove(0).help;
    assert!(
        help.ends_with(r#"toEndpoints: [{"matchLabels":{"env":"prod"}}]"#),
        "{help}"
    );
    // Labels that contradict each other have no rewrite.
    let object = egress(json!({
        "toRequires": [{"matchLabels": {"env": "prod"}}], "toEndpoints": [{"matchLabels": {"env": "dev"}}]}));
    let help = parse_policy(&object).unwrap_err().remove(0).help;
    assert!(!help.contains('{'), "{help}");
}

#[test]
fn what_people_are_told_has_a_form() {
    accept(&cnp(json!({
        "endpointSelector": {}, "ingress": [{}], "description": "x", "log": {"value": "web in"},
        "labels": [{"key": "a", "value": "b", "source": "k8s"}, "k8s:a=b"],
    })));
    for (field, value, code, path) in [
        (
            "log",
            json!({"value": "x".repeat(33)}),
            "policy/invalid-log",
            "spec.log.value",
        ),
        (
            "log",
            json!({"value": "a\nb"}),
            "policy/invalid-log",
            "spec.log.value",
        ),
        (
            "description",
            json!(1),
            "policy/wrong-type",
            "spec.description",
        ),
        (
            "labels",
            json!([{"value": "b"}]),
            "policy/missing-field",
            "spec.labels[0].key",
        ),
        (
            "enableDefaultDeny",
            json!({"ingress": "no"}),
            "policy/wrong-type",
            "spec.enableDefaultDeny.ingress",
        ),
    ] {
        let mut object = cnp(json!({"endpointSelector": {}, "ingress": [{}]}));
        object["spec"][field] = value;
        refused_with(&object, code, path);
    }
}

#[test]
fn a_policy_of_a_namespace_stays_in_it() {
    let object = cnp(json!({
        "endpointSelector": {"matchLabels": {"app": "web", "k8s:io.kubernetes.pod.namespace": "other"}},
        "ingress": [{}],
    }));
    assert_eq!(
        warnings(&object),
        [(
            "policy/foreign-namespace",
            "spec.endpointSelector".to_owned()
        )]
    );
    // As in Cilium the own namespace takes the other's place: the policy does not fall open.
    assert_eq!(
        accept(&object).subject.to_string(),
        "pods with app=web of namespaces with name=shop"
    );
}

#[test]
fn a_host_policy_is_about_nodes_and_nobody_else() {
    let spec = accept(&ccnp(
        json!({"nodeSelector": {"matchLabels": {"role": "edge"}}, "ingress": [{"fromNodes": [{}, {"matchLabels": {"role": "db"}}]}]}),
    ));
    assert!(spec.subject.selects_nodes() && spec.isolates.ingress);
    assert_eq!(spec.subject.to_string(), "nodes with role=edge");
    let node = LabelSet::of_node([("role", "edge"), ("io.kubernetes.pod.namespace", "shop")]);
    assert!(spec.subject.matches(&node) && node.namespace().is_none());
    assert!(!spec.subject.matches(&LabelSet::of_node([("role", "db")])));
    assert!(!spec.subject.matches(&LabelSet::reserved("host")));
    let peers: Vec<String> = terms(&spec).iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["all nodes", "nodes with role=db"]);
}

#[test]
fn subjects_that_are_no_pods() {
    for (object, code, field) in [
        (
            cnp(json!({"nodeSelector": {}, "ingress": [{}]})),
            "policy/combined-subjects",
            "spec.nodeSelector",
        ),
        (
            ccnp(json!({"nodeSelector": {}, "endpointSelector": {}, "ingress": [{}]})),
            "policy/combined-subjects",
            "spec.nodeSelector",
        ),
        (
            ccnp(json!({"nodeSelector": {"matchLabels": {"a b": "c"}}, "ingress": [{}]})),
            "policy/invalid-selector",
            "spec.nodeSelector.matchLabels[\"a b\"]",
        ),
        (
            ccnp(
                json!({"endpointSelector": {"matchLabels": {"reserved:host": ""}}, "ingress": [{}]}),
            ),
            "policy/unsupported-yet",
            "spec.endpointSelector",
        ),
    ] {
        refused_with(&object, code, field);
    }
    accept(&ccnp(
        json!({"endpointSelector": {"matchLabels": {"reserved:init": ""}}, "ingress": [{}]}),
    ));
}

#[test]
fn denies_have_peers_and_ports_alone() {
    for (section, rule, field) in [
        (
            "ingressDeny",
            json!({"authentication": {"mode": "required"}}),
            "authentication",
        ),
        (
            "egressDeny",
            json!({"toFQDNs": [{"matchName": "a.io"}]}),
            "toFQDNs",
        ),
        (
            "egressDeny",
            json!({"toPorts": [{"ports": [], "rules": {}}]}),
            "toPorts[0].rules",
        ),
        (
            "ingressDeny",
            json!({"toPorts": [{"serverNames": ["a"]}]}),
            "toPorts[0].serverNames",
        ),
    ] {
        let object = cnp(json!({"endpointSelector": {}, section: [rule]}));
        refused_with(
            &object,
            "policy/unknown-field",
            &format!("spec.{section}[0].{field}"),
        );
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_fields() {
    let object = cnp(json!({
        "endpointSelector": {"matchLabels": {"a b": "x", "ok": "no good!"}},
        "egress": [
            {"toEntities": ["wrold", "host"], "toPorts": [{"ports": [{"port": "99999"}, {"port": "http", "endPort": 3}]}]},
            {"toFQDNs": [{"matchName": "a b"}]}],
        "ingress": [{"fromCIDR": ["10.0.0.0/33"], "icmps": [{"fields": [{"type": 300}, {"family": "IPv5", "type": 1}]}]}],
        "ingres": [],
    }));
    let found: Vec<String> = refuse(&object)
        .into_iter()
        .map(|(code, field)| format!("{field} {}", code.trim_start_matches("policy/")))
        .collect();
    assert_eq!(
        found,
        [
            "spec.endpointSelector.matchLabels[\"a b\"] invalid-selector",
            "spec.endpointSelector.matchLabels[\"ok\"] invalid-selector",
            "spec.ingress[0].icmps[0].fields[0].type invalid-icmp",
            "spec.ingress[0].icmps[0].fields[1].family invalid-icmp",
            "spec.ingress[0].fromCIDR[0] invalid-cidr",
            "spec.egress[0].toPorts[0].ports[0].port invalid-port",
            "spec.egress[0].toPorts[0].ports[1].endPort invalid-end-port",
            "spec.egress[0].toEntities[0] unknown-entity",
            "spec.egress[1].toFQDNs unsupported-yet",
            "spec.egress[1].toFQDNs[0].matchName invalid-name-match",
            "spec.ingres unknown-field",
        ]
    );
}

/// A deny that nobody can tell the port of is not open, and does not take the rest of the policy with it.
#[test]
fn s6_a_deny_of_a_named_port_towards_addresses_denies_its_protocol() {
    let object = cnp(
        json!({"endpointSelector": {}, "egress": [{"toEntities": ["all"]}], "egressDeny": [
        {"toCIDR": ["203.0.113.0/24"], "toPorts": [{"ports": [
            {"port": "http", "protocol": "TCP"}, {"port": "53", "protocol": "UDP"}]}]}]}),
    );
    let parsed = parse(&object);
    let said: Vec<_> = parsed
        .problems
        .iter()
        .map(|it| (it.code, it.severity, it.field.as_str()))
        .collect();
    assert_eq!(
        said,
        [(
            "policy/named-port-with-cidr",
            Severity::Warning,
            "spec.egressDeny[0]"
        )]
    );
    let rules = &parsed.policy.expect("the rest is in force").specs[0].rules;
    let deny = rules
        .iter()
        .find(|rule| rule.section == heddle_policy::Section::EgressDeny);
    assert_eq!(
        deny.unwrap().ports,
        Ports::Only(vec![
            PortTerm::Transport(Transport::Tcp, PortMatch::All),
            PortTerm::Transport(Transport::Udp, PortMatch::Range(53, 53)),
        ])
    );
}
