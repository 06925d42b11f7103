//! Where the parts of a policy stand in its object, as field paths.

use heddle_policy::{Policy, PolicyKind, PolicySpec, Rule, Section};
use heddle_verify::lint::Place;
use serde_json::Value;

/// The field that a place of a policy was written in; `None` for a part that has none of its own.
pub fn field(object: &Value, policy: &Policy, place: Place) -> Option<String> {
    let kind = policy.id.kind;
    let part = |at: usize| policy.specs.get(at);
    let line = |at: usize, of: usize| Some((part(at)?.position, part(at)?.rules.get(of)?));
    Some(match place {
        Place::Priority => "spec.priority".to_owned(),
        Place::Egress { spec: at } => format!("{}.egress", spec(part(at)?.position)),
        Place::Subject { spec: at } => subject(kind, part(at)?),
        Place::Rule { spec: at, rule: of } => {
            let (position, of) = line(at, of)?;
            rule(position, of)
        }
        Place::Peer {
            spec: at,
            rule: of,
            term,
        } => {
            let (position, of) = line(at, of)?;
            peers(kind, object, position, of).into_iter().nth(term)?
        }
        Place::Port {
            spec: at,
            rule: of,
            term,
        } => {
            let (position, of) = line(at, of)?;
            ports(kind, object, position, of).into_iter().nth(term)?
        }
    })
}

/// The part of the object that a position in `specs` stands for.
fn spec(position: Option<u32>) -> String {
    match position {
        Some(position) => format!("specs[{position}]"),
        None => "spec".to_owned(),
    }
}

/// The field that says whom a part is about.
fn subject(kind: PolicyKind, spec: &PolicySpec) -> String {
    let field = match kind {
        _ if spec.subject.selects_nodes() => "nodeSelector",
        PolicyKind::NetworkPolicy => "podSelector",
        PolicyKind::ClusterNetworkPolicy => "subject",
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            "endpointSelector"
        }
    };
    format!("{}.{field}", self::spec(spec.position))
}

/// A rule.
fn rule(position: Option<u32>, rule: &Rule) -> String {
    format!("{}.{}[{}]", spec(position), rule.section.name(), rule.index)
}

fn written<'a>(object: &'a Value, position: Option<u32>, rule: &Rule) -> Option<&'a Value> {
    let part = match position {
        Some(position) => object.get("specs")?.get(usize::try_from(position).ok()?)?,
        None => object.get("spec")?,
    };
    part.get(rule.section.name())?
        .get(usize::try_from(rule.index).ok()?)
}

/// One path per peer term of a rule, in the order of the terms.
fn peers(kind: PolicyKind, object: &Value, position: Option<u32>, of: &Rule) -> Vec<String> {
    let base = rule(position, of);
    let Some(written) = written(object, position, of) else {
        return Vec::new();
    };
    let ingress = matches!(of.section, Section::Ingress | Section::IngressDeny);
    let lists: &[&str] = match (kind, ingress) {
        (PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy, true) => &["from"],
        (PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy, false) => &["to"],
        (_, true) => &[
            "fromEndpoints",
            "fromEntities",
            "fromCIDR",
            "fromCIDRSet",
            "fromNodes",
        ],
        (_, false) => &[
            "toEndpoints",
            "toEntities",
            "toCIDR",
            "toCIDRSet",
            "toNodes",
            "toServices",
        ],
    };
    let mut found = Vec::new();
    for list in lists {
        for (at, item) in items(written, list).iter().enumerate() {
            let path = format!("{base}.{list}[{at}]");
            // A peer of networks is one term for each of them.
            match item.get("networks").and_then(Value::as_array) {
                Some(networks) => {
                    found.extend((0..networks.len()).map(|n| format!("{path}.networks[{n}]")));
                }
                None => found.push(path),
            }
        }
    }
    found
}

/// One path per port term of a rule, in the order of the terms.
fn ports(kind: PolicyKind, object: &Value, position: Option<u32>, of: &Rule) -> Vec<String> {
    let base = rule(position, of);
    let Some(written) = written(object, position, of) else {
        return Vec::new();
    };
    let lists: &[(&str, Option<&str>)] = match kind {
        PolicyKind::NetworkPolicy => &[("ports", None)],
        PolicyKind::ClusterNetworkPolicy => &[("protocols", None), ("ports", None)],
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            &[("toPorts", Some("ports")), ("icmps", Some("fields"))]
        }
    };
    let mut found = Vec::new();
    for (list, inner) in lists {
        for (at, item) in items(written, list).iter().enumerate() {
            let path = format!("{base}.{list}[{at}]");
            match inner {
                Some(inner) => {
                    let count = items(item, inner).len();
                    found.extend((0..count).map(|n| format!("{path}.{inner}[{n}]")));
                }
                None => found.push(path),
            }
        }
    }
    found
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}
