//! Label selectors, with the keys rewritten to those of identities (reference 1.4).

use super::{
    fields::{Field, closest, is_subdomain, shortened},
    limits::{MOST_REQUIREMENTS, MOST_VALUES},
    problems::{Problems, quoted},
};
use heddle_model::{Identity, LabelFilter, LabelSet, Operator, Requirement, Selector};
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// Before the key of a label that a CIDR's identity bears.
const CIDR: &str = "cidr:";
/// Before the key of a reserved label.
const RESERVED: &str = "reserved:";

/// Whose labels a selector is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// A pod's, as Kubernetes writes keys.
    Pod,
    /// A namespace's.
    Namespace,
    /// An endpoint's, as Cilium writes keys: `any:`, `k8s:`, `reserved:` and `cidr:` may stand before them.
    Endpoint,
    /// An object's own labels, not an identity's; `any:` and `k8s:` may stand before its keys.
    Object,
}

/// Reads `matchLabels` and `matchExpressions` into requirements on identity labels.
pub(super) fn requirements(
    field: &Field<'_>,
    labels: Labels,
    problems: &mut Problems,
) -> Vec<Requirement> {
    let mut found = Vec::new();
    if !field.object(&["matchLabels", "matchExpressions"], &[], problems) {
        return found;
    }
    let expressions = field.list("matchExpressions", problems).unwrap_or_default();
    let pairs = field.get("matchLabels");
    let pairs_count = pairs
        .as_ref()
        .and_then(|pairs| pairs.value.as_object())
        .map_or(0, serde_json::Map::len);
    if pairs_count + expressions.len() > MOST_REQUIREMENTS {
        problems.error(
            "policy/too-many-labels",
            field.path.clone(),
            format!(
                "the selector has {} requirements, the max is {MOST_REQUIREMENTS}",
                pairs_count + expressions.len()
            ),
            "select by fewer labels, or by one label that stands for them",
        );
        return found;
    }
    if let Some(map) = pairs {
        match map.value.as_object() {
            None => map.wrong_type("an object", problems),
            Some(object) => {
                for (key, value) in object {
                    let at = Field {
                        value,
                        path: format!("{}[{:?}]", map.path, shortened(key)),
                    };
                    let value = match value {
                        // A label whose value was left out in YAML.
                        Value::Null => Some(""),
                        _ => at.text(problems),
                    };
                    let Some(value) = value else { continue };
                    check_value(&at, value, problems);
                    found.extend(requirement(
                        &at.path,
                        key,
                        Operator::In,
                        vec![value.to_owned()],
                        labels,
                        problems,
                    ));
                }
            }
        }
    }
    for expression in &expressions {
        found.extend(read_expression(expression, labels, problems));
    }
    found
}

fn read_expression(
    expression: &Field<'_>,
    labels: Labels,
    problems: &mut Problems,
) -> Option<Requirement> {
    if !expression.object(&["key", "operator", "values"], &[], problems) {
        return None;
    }
    let key = match expression.get("key") {
        Some(key) => key.text(problems),
        None => {
            expression.missing("key", "write key: LABEL", problems);
            None
        }
    };
    let operator_path = expression.path_of("operator");
    let operator = match expression.get("operator") {
        Some(operator) => operator.text(problems)?,
        None => "",
    };
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            let known = ["In", "NotIn", "Exists", "DoesNotExist"];
            problems.error(
                "policy/invalid-selector",
                operator_path,
                format!("{} is not an operator", quoted(other)),
                match closest(other, &known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("operators: {}", known.join(", ")),
                },
            );
            return None;
        }
    };
    let mut values = Vec::new();
    let listed = expression.list("values", problems).unwrap_or_default();
    if listed.len() > MOST_VALUES {
        problems.error(
            "policy/too-many-labels",
            expression.path_of("values"),
            format!(
                "there are {} values, the max is {MOST_VALUES}",
                listed.len()
            ),
            "select by one label that stands for them",
        );
        return None;
    }
    for value in listed {
        let text = value.text(problems).unwrap_or_default();
        check_value(&value, text, problems);
        values.push(text.to_owned());
    }
    values.sort();
    values.dedup();
    requirement(&expression.path, key?, operator, values, labels, problems)
}

fn requirement(
    path: &str,
    key: &str,
    operator: Operator,
    values: Vec<String>,
    labels: Labels,
    problems: &mut Problems,
) -> Option<Requirement> {
    let wrong = match (operator, values.is_empty()) {
        (Operator::In | Operator::NotIn, true) => Some("needs at least one value"),
        (Operator::Exists | Operator::DoesNotExist, false) => Some("takes no values"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        problems.error(
            "policy/invalid-selector",
            format!("{path}.values"),
            format!("operator {operator:?} {wrong}"),
            "In and NotIn need `values`; Exists and DoesNotExist have none",
        );
        return None;
    }
    let key = identity_key(path, key, labels, problems)?;
    Some(Requirement {
        key,
        operator,
        values,
    })
}

/// The key as identities have it.
fn identity_key(path: &str, key: &str, labels: Labels, problems: &mut Problems) -> Option<String> {
    let sources = matches!(labels, Labels::Endpoint | Labels::Object);
    let plain = match key.split_once(':') {
        Some(("any" | "k8s", rest)) if sources => rest,
        Some(("reserved", name)) if labels == Labels::Endpoint => {
            return reserved_key(path, name, problems);
        }
        Some(("cidr", prefix)) if labels == Labels::Endpoint => {
            return cidr_key(path, prefix, problems);
        }
        Some((source, _)) if sources => {
            problems.error(
                "policy/unknown-label-source",
                path,
                format!("there are no labels of source {} here", quoted(source)),
                match source {
                    "cidrgroup" => "write the group as cidrGroupRef or cidrGroupSelector",
                    _ => "use labels of source k8s, any, reserved or cidr",
                },
            );
            return None;
        }
        _ => key,
    };
    if !is_qualified_name(plain) {
        problems.error(
            "policy/invalid-selector",
            path,
            format!("{} is not a label key", quoted(plain)),
            "a key is [prefix/]name: letters, digits, `-`, `_` and `.`, at most 63 for the name",
        );
        return None;
    }
    let own_key = plain
        .strip_prefix(LabelSet::NAMESPACE_LABELS)
        .unwrap_or(plain);
    if labels != Labels::Object && !LabelFilter::default().keeps(own_key) {
        // Such labels differ from pod to pod and stay out of identities: a selector on one would match
        // nobody, and a policy that isolates nobody is open.
        problems.error(
            "policy/label-not-in-identity",
            path,
            format!("label {plain:?} changes with every pod and takes no part in identities"),
            "select by a label that all pods of the workload share",
        );
        return None;
    }
    Some(match labels {
        Labels::Namespace => format!("{}{plain}", LabelSet::NAMESPACE_LABELS),
        _ => plain.to_owned(),
    })
}

/// `reserved:NAME` for the reserved labels that there are (reference 1.3, 1.7).
fn reserved_key(path: &str, name: &str, problems: &mut Problems) -> Option<String> {
    if Identity::from_reserved_name(name).is_none() {
        let known: Vec<&str> = Identity::RESERVED.iter().map(|(_, name)| *name).collect();
        problems.error(
            "policy/invalid-selector",
            path,
            format!("{} names no reserved label", quoted(name)),
            match closest(name, &known) {
                Some(near) => format!("did you mean `reserved:{near}`?"),
                None => format!("reserved labels: {}", known.join(", ")),
            },
        );
        return None;
    }
    Some(format!("{RESERVED}{name}"))
}

/// `cidr:PREFIX`; in Cilium's labels `-` stands for `:`, and a `0` before and after a leading or final one.
fn cidr_key(path: &str, written: &str, problems: &mut Problems) -> Option<String> {
    let prefix = prefix_of(written);
    if prefix.is_none() {
        problems.error(
            "policy/invalid-cidr",
            path,
            format!("{} is not a CIDR", quoted(written)),
            "write cidr:ADDRESS/LENGTH, for example cidr:10.0.0.0/8 or cidr:fd00--0/8",
        );
    }
    Some(format!("{CIDR}{}", prefix?.trunc()))
}

fn prefix_of(written: &str) -> Option<IpNet> {
    let text = written.replace('-', ":");
    text.parse::<IpNet>()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The prefix that a requirement asks for, when it asks for one.
pub(super) fn required_cidr(requirement: &Requirement) -> Option<IpNet> {
    requirement.key.strip_prefix(CIDR)?.parse().ok()
}

/// True for a requirement that a label without a value is there.
pub(super) fn is_present(requirement: &Requirement) -> bool {
    match requirement.operator {
        Operator::Exists => true,
        Operator::In => requirement.values.iter().any(String::is_empty),
        Operator::NotIn | Operator::DoesNotExist => false,
    }
}

/// True for a requirement on a reserved label.
pub(super) fn is_reserved(requirement: &Requirement) -> bool {
    requirement.key.starts_with(RESERVED)
}

fn check_value(field: &Field<'_>, value: &str, problems: &mut Problems) {
    if !is_label_value(value) {
        problems.error(
            "policy/invalid-selector",
            field.path.clone(),
            format!("{} is not a label value", quoted(value)),
            "a value has at most 63 letters, digits, `-`, `_` and `.`, and starts and ends with a letter or digit",
        );
    }
}

/// True for a label's key: `[prefix/]name`.
pub(crate) fn is_qualified_name(key: &str) -> bool {
    // Cilium's derived keys nest a whole key behind their own prefix.
    let key = key.strip_prefix(LabelSet::NAMESPACE_LABELS).unwrap_or(key);
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix.is_none_or(is_subdomain);
    prefix_fits && !name.is_empty() && is_label_value(name)
}

/// True for a label's value, which may be empty.
pub(crate) fn is_label_value(value: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    value.len() <= 63
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && edge(value.chars().next())
        && edge(value.chars().last())
}

/// A requirement on the namespace's name.
pub(super) fn in_namespace(namespace: &str) -> Requirement {
    Requirement {
        key: LabelSet::NAMESPACE.to_owned(),
        operator: Operator::In,
        values: vec![namespace.to_owned()],
    }
}

/// A requirement that there is a namespace: any pod.
pub(super) fn in_any_namespace() -> Requirement {
    Requirement {
        key: LabelSet::NAMESPACE.to_owned(),
        operator: Operator::Exists,
        values: Vec::new(),
    }
}

/// The selector with these requirements, which have been checked.
pub(super) fn selector(
    field: &Field<'_>,
    requirements: Vec<Requirement>,
    problems: &mut Problems,
) -> Option<Selector> {
    match Selector::new(Default::default(), requirements) {
        Ok(selector) => Some(selector),
        Err(error) => {
            problems.error(
                "policy/invalid-selector",
                field.path.clone(),
                error.to_string(),
                "check key, operator and values",
            );
            None
        }
    }
}

/// Nodes by their own labels.
pub(super) fn nodes(field: &Field<'_>, problems: &mut Problems) -> Option<Selector> {
    let found = requirements(field, Labels::Object, problems);
    selector(field, found, problems)
}
