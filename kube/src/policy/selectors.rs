//! Label selectors, with the keys rewritten to those of identities (reference 1.4).

use super::fields::{Field, Problems, closest};
use heddle_model::{LabelFilter, LabelSet, Operator, Requirement, Selector};

/// Whose labels a selector is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// A pod's, as Kubernetes writes keys.
    Pod,
    /// A namespace's.
    Namespace,
    /// An endpoint's, as Cilium writes keys: `any:`, `k8s:` and `reserved:` may stand before them.
    Endpoint,
    /// An object's own labels, not an identity's.
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
    if let Some(map) = field.get("matchLabels") {
        match map.value.as_object() {
            None => map.wrong_type("an object", problems),
            Some(object) => {
                for (key, value) in object {
                    let at = Field {
                        value,
                        path: format!("{}[{key:?}]", map.path),
                    };
                    let value = at.text(problems).unwrap_or_default();
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
    for expression in field.list("matchExpressions", problems).unwrap_or_default() {
        found.extend(read_expression(&expression, labels, problems));
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
        Some(key) => key.text(problems)?,
        None => {
            problems.error(
                "policy/missing-field",
                expression.path_of("key"),
                "the expression has no key",
                "write key: LABEL",
            );
            return None;
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
                format!("{other:?} is not an operator"),
                match closest(other, &known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("operators: {}", known.join(", ")),
                },
            );
            return None;
        }
    };
    let mut values = Vec::new();
    for value in expression.list("values", problems).unwrap_or_default() {
        let text = value.text(problems).unwrap_or_default();
        check_value(&value, text, problems);
        values.push(text.to_owned());
    }
    values.sort();
    values.dedup();
    requirement(&expression.path, key, operator, values, labels, problems)
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
    let plain = match (labels, key.split_once(':')) {
        (Labels::Endpoint, Some(("any" | "k8s", rest))) => rest,
        (Labels::Endpoint, Some(("reserved", name))) => {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
                problems.error(
                    "policy/invalid-selector",
                    path,
                    format!("{key:?} names no reserved label"),
                    "reserved labels look like reserved:host",
                );
                return None;
            }
            return Some(key.to_owned());
        }
        (Labels::Endpoint, Some((source, _))) => {
            problems.error(
                "policy/unsupported-field",
                path,
                format!("labels of source {source:?} are not known here, so the policy is refused"),
                "use labels of source k8s, any or reserved",
            );
            return None;
        }
        _ => key,
    };
    if !is_qualified_name(plain) {
        problems.error(
            "policy/invalid-selector",
            path,
            format!("{plain:?} is not a label key"),
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

fn check_value(field: &Field<'_>, value: &str, problems: &mut Problems) {
    if !is_label_value(value) {
        problems.error(
            "policy/invalid-selector",
            field.path.clone(),
            format!("{value:?} is not a label value"),
            "a value has at most 63 letters, digits, `-`, `_` and `.`, and starts and ends with a letter or digit",
        );
    }
}

fn is_qualified_name(key: &str) -> bool {
    // Cilium's derived keys nest a whole key behind their own prefix.
    let key = key.strip_prefix(LabelSet::NAMESPACE_LABELS).unwrap_or(key);
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix.is_none_or(|prefix| {
        !prefix.is_empty()
            && prefix.len() <= 253
            && prefix.split('.').all(|part| {
                !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
                    && part
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            })
    });
    prefix_fits && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
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
