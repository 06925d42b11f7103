//! `heddle policy check` warns of traps, with place and fix, and of nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test ends where it cannot go on.

mod policy_support;

use policy_support::{SHOP, cluster_policy, cnp, folder, heddle, json, network_policy};

/// The warnings about these policies beside the shop: code and field.
fn warnings(policies: &[String]) -> Vec<(String, String)> {
    let text = policies.concat();
    let folder = folder(&[("shop.yaml", SHOP), ("policies.yaml", &text)]);
    let output = heddle(folder.path(), &["check", "-f", ".", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let problems = report["problems"].as_array().unwrap();
    let word =
        |problem: &serde_json::Value, field: &str| problem[field].as_str().unwrap().to_owned();
    for problem in problems {
        assert_eq!(problem["severity"], "warning");
        assert_eq!(problem["file"], "./policies.yaml");
        assert!(problem["document"].as_u64().unwrap() > 0);
        assert!(!word(problem, "help").is_empty());
    }
    problems
        .iter()
        .map(|p| (word(p, "code"), word(p, "field")))
        .collect()
}

fn warned(policies: &[String], wanted: &[(&str, &str)]) {
    let wanted: Vec<(String, String)> = wanted
        .iter()
        .map(|(code, field)| (format!("policy/{code}"), (*field).to_owned()))
        .collect();
    assert_eq!(warnings(policies), wanted, "{}", policies.concat());
}

#[test]
fn a_policy_that_selects_nothing() {
    let at = |app: &str| {
        network_policy(
            "p",
            &format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}"),
        )
    };
    warned(&[at("wbe")], &[("selects-nothing", "spec.podSelector")]);
    warned(&[at("web")], &[]);
    warned(
        &[cnp(
            "p",
            "{endpointSelector: {matchLabels: {app: wbe}}, ingress: [{}]}",
        )],
        &[("selects-nothing", "spec.endpointSelector")],
    );
    warned(
        &[cluster_policy(
            "p",
            "{tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {team: z}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}",
        )],
        &[("selects-nothing", "spec.subject")],
    );
    // Of a namespace that the manifests do not speak of nothing can be said.
    let elsewhere = at("wbe").replace("namespace: shop", "namespace: other");
    warned(&[elsewhere], &[]);
}

#[test]
fn a_peer_that_matches_no_pod() {
    let from = |peer: &str| {
        network_policy(
            "p",
            &format!("{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{}}}}, {peer}]}}]}}"),
        )
    };
    let field = "spec.ingress[0].from[1]";
    warned(
        &[from("{podSelector: {matchLabels: {app: clint}}}")],
        &[("peer-selects-nothing", field)],
    );
    warned(&[from("{podSelector: {matchLabels: {app: client}}}")], &[]);
    warned(
        &[from("{namespaceSelector: {matchLabels: {name: ops}}}")],
        &[("peer-selects-nothing", field)],
    );
    warned(
        &[from("{namespaceSelector: {matchLabels: {team: b}}}")],
        &[],
    );
    warned(
        &[from(
            "{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: web}}}",
        )],
        &[("peer-selects-nothing", field)],
    );
    // A namespace that is named and not among the manifests may well exist.
    warned(
        &[from(
            "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}",
        )],
        &[],
    );
    warned(
        &[cnp(
            "p",
            "{endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: {k8s:io.kubernetes.pod.namespace: ops, app: web}}]}]}",
        )],
        &[("peer-selects-nothing", "spec.egress[0].toEndpoints[0]")],
    );
    warned(
        &[cnp(
            "p",
            "{endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 192.0.2.0/24}, {cidrGroupRef: gone}]}, {toServices: [{k8sService: {serviceName: web}}, {k8sService: {serviceName: gone}}]}]}",
        )],
        &[
            ("missing-cidr-group", "spec.egress[0].toCIDRSet[1]"),
            ("missing-service", "spec.egress[1].toServices[1]"),
        ],
    );
}

#[test]
fn a_port_that_no_pod_declares() {
    let ports = |ports: &str| {
        network_policy(
            "p",
            &format!(
                "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{ports: [{ports}]}}]}}"
            ),
        )
    };
    // The Service's port, where the pod's is meant.
    warned(
        &[ports("{port: 8080}, {port: 80}")],
        &[("port-not-served", "spec.ingress[0].ports[1]")],
    );
    warned(
        &[ports("{port: 8000, endPort: 9000}, {port: http}, {}")],
        &[],
    );
    warned(
        &[ports("{protocol: UDP, port: 8080}")],
        &[("port-not-served", "spec.ingress[0].ports[0]")],
    );
    warned(
        &[ports("{port: htpp}")],
        &[("port-not-declared", "spec.ingress[0].ports[0]")],
    );
    // A pod that declares no port may listen on any.
    let to = |app: &str, port: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{}}, egress: [{{toEndpoints: [{{matchLabels: {{app: {app}}}}}], toPorts: [{{ports: [{{port: \"53\", protocol: UDP}}]}}, {{ports: [{{port: {port}, protocol: TCP}}]}}]}}]}}"
            ),
        )
    };
    warned(&[to("client", "\"80\"")], &[]);
    warned(
        &[to("client", "http")],
        &[("port-not-declared", "spec.egress[0].toPorts[1].ports[0]")],
    );
    warned(
        &[to("web", "\"8080\"")],
        &[("port-not-served", "spec.egress[0].toPorts[0].ports[0]")],
    );
}

#[test]
fn an_allow_in_the_shadow_of_a_deny() {
    let policy = |deny: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{matchLabels: {{app: web}}}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: client}}}}], toPorts: [{{ports: [{{port: \"8080\", protocol: TCP}}]}}]}}], ingressDeny: [{deny}]}}"
            ),
        )
    };
    let shadowed = [("allow-shadowed", "spec.ingress[0]")];
    warned(&[policy("{fromEndpoints: [{}]}")], &shadowed);
    warned(&[policy("{fromEntities: [cluster]}")], &shadowed);
    warned(
        &[policy(
            "{fromEndpoints: [{}], toPorts: [{ports: [{port: \"8000\", endPort: 9000}]}]}",
        )],
        &shadowed,
    );
    warned(&[policy("{fromEntities: [world]}")], &[]);
    warned(
        &[policy(
            "{fromEndpoints: [{}], toPorts: [{ports: [{port: \"8080\", protocol: UDP}]}]}",
        )],
        &[("port-not-served", "spec.ingressDeny[0].toPorts[0].ports[0]")],
    );
    // Across policies and kinds.
    let allow = network_policy(
        "a",
        "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}",
    );
    let deny = cnp(
        "d",
        "{endpointSelector: {}, ingressDeny: [{fromEndpoints: [{}]}]}",
    );
    warned(&[allow, deny], &shadowed);
    // In the tiers the order decides.
    warned(
        &[cluster_policy(
            "p",
            "{tier: Baseline, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}, {action: Accept, from: [{namespaces: {matchLabels: {team: a}}}]}]}",
        )],
        &[("rule-shadowed", "spec.ingress[1]")],
    );
}

#[test]
fn egress_that_forgets_dns() {
    let egress = |name: &str, app: &str, rules: &str| {
        network_policy(
            name,
            &format!(
                "{{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Egress], egress: [{rules}]}}"
            ),
        )
    };
    let to_web = "{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}";
    let dns = "{ports: [{protocol: UDP, port: 53}]}";
    warned(
        &[egress("p", "client", to_web)],
        &[("egress-forgets-dns", "spec.egress")],
    );
    warned(&[egress("p", "client", &format!("{to_web}, {dns}"))], &[]);
    // Another policy may allow it.
    warned(
        &[egress("p", "client", to_web), egress("dns", "client", dns)],
        &[],
    );
    warned(
        &[egress("p", "client", to_web), egress("dns", "web", dns)],
        &[("egress-forgets-dns", "spec.egress")],
    );
    // Nothing at all is meant so, and addresses need no names.
    warned(&[egress("p", "client", "")], &[]);
    warned(
        &[egress(
            "p",
            "client",
            "{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}",
        )],
        &[],
    );
}

#[test]
fn addresses_that_policy_does_not_see() {
    let block = |cidr: &str| {
        network_policy(
            "p",
            &format!(
                "{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {cidr}}}}}]}}]}}"
            ),
        )
    };
    warned(
        &[block("10.96.0.7/32")],
        &[("service-address", "spec.egress[0].to[0]")],
    );
    warned(&[block("10.0.0.0/8")], &[]);
    let cidr = |cidr: &str| {
        cnp(
            "p",
            &format!("{{endpointSelector: {{}}, ingress: [{{fromCIDR: [192.0.2.0/24, {cidr}]}}]}}"),
        )
    };
    warned(
        &[cidr("10.244.0.0/24")],
        &[("cidr-for-pods", "spec.ingress[0].fromCIDR[1]")],
    );
    warned(&[cidr("10.0.0.0/8")], &[]);
}

#[test]
fn empty_lists() {
    warned(
        &[network_policy(
            "p",
            "{podSelector: {}, ingress: [{from: [], ports: []}]}",
        )],
        &[
            ("empty-list", "spec.ingress[0].from"),
            ("empty-list", "spec.ingress[0].ports"),
        ],
    );
    warned(
        &[cnp(
            "p",
            "{endpointSelector: {}, ingress: [{fromEndpoints: []}, {fromEndpoints: [{}], toPorts: [{ports: []}]}], ingressDeny: [{}]}",
        )],
        &[
            ("empty-list", "spec.ingress[0].fromEndpoints"),
            ("empty-list", "spec.ingress[1].toPorts[0].ports"),
            ("empty-deny", "spec.ingressDeny[0]"),
        ],
    );
    // What people write to deny everything, or to allow it.
    warned(
        &[
            cnp("a", "{endpointSelector: {}, ingress: [{}], egress: [{}]}"),
            network_policy("b", "{podSelector: {}, ingress: [{}]}"),
            network_policy("c", "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
        ],
        &[],
    );
}

#[test]
fn priorities_that_nobody_decided() {
    let policy = |name: &str, priority: u32, team: &str, action: &str| {
        cluster_policy(
            name,
            &format!(
                "{{tier: Admin, priority: {priority}, subject: {{namespaces: {{matchLabels: {{team: {team}}}}}}}, ingress: [{{action: {action}, from: [{{namespaces: {{}}}}]}}]}}"
            ),
        )
    };
    let duplicate = [("duplicate-priority", "spec.priority")];
    warned(
        &[policy("p", 1, "a", "Accept"), policy("q", 1, "a", "Deny")],
        &duplicate,
    );
    warned(
        &[policy("p", 1, "a", "Accept"), policy("q", 2, "a", "Deny")],
        &[],
    );
    warned(
        &[policy("p", 1, "a", "Accept"), policy("q", 1, "b", "Deny")],
        &[],
    );
}

#[test]
fn policies_alone_are_not_warned_of() {
    let text = [
        network_policy("a", "{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: http}]}]}"),
        cnp("b", "{endpointSelector: {matchLabels: {app: a}}, egress: [{toServices: [{k8sService: {serviceName: s}}]}, {toPorts: [{ports: [{port: \"53\"}]}]}]}"),
    ]
    .concat();
    let folder = folder(&[("policies.yaml", &text)]);
    let output = heddle(folder.path(), &["check", "-f", ".", "-o", "json"]);
    let report = json(&output);
    assert_eq!(report["problems"], serde_json::json!([]), "{report}");
}
