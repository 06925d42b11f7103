//! Parsing: what is accepted means what it says; what is not is named, with its field and a fix.

mod cilium;
mod cluster;
mod hostile;
mod kubernetes;
mod l7;
mod rows;

use super::*;
use heddle_model::LabelSet;
use heddle_policy::{
    CidrBlock, Isolation, Peer, Peers, PolicySpec, PortMatch, PortTerm, Ports, Transport,
};
use serde_json::json;

fn network_policy(spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    })
}

fn cnp(spec: Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
    })
}

fn ccnp(spec: Value) -> Value {
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

/// The terms of the first rule.
fn terms(spec: &PolicySpec) -> &[Peer] {
    match &spec.rules[0].peers {
        Peers::Terms(terms) => terms,
        Peers::Any => panic!("terms"),
    }
}

/// Warnings of an object that is accepted: code and field.
fn warnings(object: &Value) -> Vec<(&'static str, String)> {
    let parsed = parse(object);
    assert!(parsed.policy.is_some(), "{:#?}", parsed.problems);
    let problems = parsed.problems.into_iter();
    problems
        .map(|problem| (problem.code, problem.field))
        .collect()
}

#[test]
fn a_typing_error_gets_a_suggestion() {
    let object = cnp(json!({"endpointSelector": {}, "ingress": [{"fromEntites": ["world"]}]}));
    let problems = parse_policy(&object).unwrap_err();
    assert_eq!(problems[0].help, "did you mean `fromEntities`?");
    let object = cnp(json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["wrold"]}]}));
    let problems = parse_policy(&object).unwrap_err();
    assert_eq!(problems[0].code, "policy/unknown-entity");
    assert_eq!(problems[0].help, "did you mean `world`?");
}

#[test]
fn no_object_makes_the_parser_panic() {
    for object in [
        json!(null),
        json!([]),
        json!({"kind": "NetworkPolicy"}),
        json!({"kind": "CiliumNetworkPolicy", "spec": []}),
        json!({"kind": "CiliumNetworkPolicy", "metadata": [], "spec": {"ingress": {}, "egress": [[]]}}),
        network_policy(
            json!({"podSelector": [], "policyTypes": {}, "ingress": [null, 3, {"from": {}}]}),
        ),
    ] {
        assert!(parse_policy(&object).is_err(), "{object}");
    }
}
