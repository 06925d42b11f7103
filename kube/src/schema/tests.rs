//! Slips in manifests, and manifests that have none.

use super::*;
use crate::{manifest, policy::Severity};
use std::path::Path;

fn problems(yaml: &str) -> Vec<(String, String, String)> {
    let found = manifest::parse("f.yaml", yaml).unwrap();
    let found = found
        .iter()
        .flat_map(|it| check(&it.value, Strictness::Strict));
    found
        .map(|it| (it.code.to_owned(), it.field, it.help))
        .collect()
}

#[test]
fn a_slip_in_any_known_kind_is_an_error_that_knows_the_field() {
    let pod = |rest: &str| format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, {rest}}}");
    for (yaml, field, near) in [
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: p, lables: {a: b}}}".to_owned(),
            "metadata.lables",
            "labels",
        ),
        (
            pod("spec: {containers: [{name: c, prots: []}]}"),
            "spec.containers[0].prots",
            "ports",
        ),
        (
            pod("spec: {containers: [{name: c, readinesProbe: {}}]}"),
            "spec.containers[0].readinesProbe",
            "readinessProbe",
        ),
        (
            pod("spec: {initContainers: [{ports: [{contanerPort: 1}]}]}"),
            "spec.initContainers[0].ports[0].contanerPort",
            "containerPort",
        ),
        (pod("spce: {}"), "spce", "spec"),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {metadata: {lables: {}}}}}"
                .to_owned(),
            "spec.template.metadata.lables",
            "labels",
        ),
        (
            "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLables: {}}}}".to_owned(),
            "spec.selector.matchLables",
            "matchLabels",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{prot: 80}]}}".to_owned(),
            "spec.ports[0].prot",
            "port",
        ),
        (
            "{apiVersion: v1, kind: Namespace, metdata: {name: n}}".to_owned(),
            "metdata",
            "metadata",
        ),
        (
            "{apiVersion: v1, kind: Node, metadata: {name: n}, spec: {podCIDRS: []}}".to_owned(),
            "spec.podCIDRS",
            "podCIDRs",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e}, endpoints: [{adresses: []}]}"
                .to_owned(),
            "endpoints[0].adresses",
            "addresses",
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namspace: x}, spec: {}}"
                .to_owned(),
            "metadata.namspace",
            "namespace",
        ),
    ] {
        assert_eq!(
            problems(&yaml),
            [(
                "manifest/unknown-field".to_owned(),
                field.to_owned(),
                format!("did you mean `{near}`?")
            )],
            "{yaml}"
        );
    }
}

#[test]
fn a_kind_that_is_nearly_one_is_an_error_and_other_kinds_are_not() {
    for (version, kind, near) in [
        (
            "networking.k8s.io/v1",
            "NetworkPolcy",
            Some("NetworkPolicy"),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicys",
            Some("NetworkPolicy"),
        ),
        (
            "cilium.io/v2",
            "CiliumNetworkPolicie",
            Some("CiliumNetworkPolicy"),
        ),
        ("v1", "pod", Some("Pod")),
        ("v1", "Sevice", Some("Service")),
        ("apps/v1", "Deploymnet", Some("Deployment")),
        ("rbac.authorization.k8s.io/v1", "Role", None),
        ("networking.k8s.io/v1", "Ingress", None),
        ("v1", "Secret", None),
        ("example.com/v1", "Services", None),
        ("example.com/v1", "Pod", None),
        ("batch/v1", "Jab", None),
    ] {
        let yaml = format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}}}");
        let wanted: Vec<_> = near
            .map(|near| {
                (
                    "manifest/unknown-kind".to_owned(),
                    "kind".to_owned(),
                    format!("did you mean `{near}`?"),
                )
            })
            .into_iter()
            .collect();
        assert_eq!(problems(&yaml), wanted, "{yaml}");
    }
}

#[test]
fn lenient_makes_unknown_fields_and_kinds_warnings_and_nothing_else() {
    let yaml =
        "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {x/y/z: a}}, spec: {newField: 1}}";
    let found = manifest::parse("f.yaml", yaml).unwrap();
    let found = check(&found[0].value, Strictness::Lenient);
    let said: Vec<_> = found.iter().map(|it| (it.code, it.severity)).collect();
    assert_eq!(
        said,
        [
            ("manifest/invalid-label", Severity::Error),
            ("manifest/unknown-field", Severity::Warning)
        ]
    );
}

#[test]
fn labels_that_cannot_be_are_errors() {
    for labels in [
        "{x/y/z: a}",
        "{\"\": a}",
        "{a: b/c}",
        "{a: 1}",
        "{-a: b}",
        "{kubernetes.io/metadata.name: evil}",
    ] {
        let yaml =
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n, labels: {labels}}}}}");
        let found = problems(&yaml);
        assert!(
            matches!(found.as_slice(), [(code, _, _)] if code == "manifest/invalid-label"),
            "{yaml}: {found:?}"
        );
    }
    for labels in [
        "{a: b, example.com/c: D_1.x, e: \"\"}",
        "{kubernetes.io/metadata.name: n}",
    ] {
        let yaml =
            format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n, labels: {labels}}}}}");
        assert_eq!(problems(&yaml), [], "{yaml}");
    }
    // Of a pod, the label is a label as any.
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {kubernetes.io/metadata.name: x}}}";
    assert_eq!(problems(pod), []);
}

#[test]
fn every_type_that_a_field_has_is_in_the_table() {
    let kinds = types::KINDS.iter().map(|(_, _, fields)| *fields);
    for fields in kinds.chain(types::TYPES.iter().map(|(_, fields)| *fields)) {
        for (name, of) in fields.split_whitespace().map(name_and_type) {
            let of = of.trim_matches(['[', ']']);
            let known = ["", "*", "{}"].contains(&of) || types::TYPES.iter().any(|(t, _)| *t == of);
            assert!(known, "{name}:{of}");
        }
    }
}

/// Manifests as clusters have them: nothing of it is a slip.
#[test]
fn real_manifests_pass() {
    assert_eq!(problems(include_str!("realistic.yaml")), []);
}

#[test]
fn our_own_examples_pass() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let found = manifest::read(&[root]).unwrap();
    assert!(found.len() > 10);
    for manifest in found {
        assert_eq!(
            check(&manifest.value, Strictness::Strict),
            [],
            "{}",
            manifest.file
        );
    }
}
