//! What is wrong with an object: collected on the way, bounded, told in the order of the fields.

use serde::Serialize;
use std::{cmp::Ordering, fmt};

/// Problems listed of one object at most; the rest is counted.
const MOST_PROBLEMS: usize = 100;
/// Characters of a value that a message repeats at most.
const MOST_QUOTED: usize = 80;

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy holds, but may not mean what its writer thinks.
    Warning,
}

/// One thing that is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code: `policy/unknown-entity`.
    pub code: &'static str,
    /// The field, as a path: `spec.ingress[0].ports[1].port`.
    pub field: String,
    /// What is wrong and why.
    pub message: String,
    /// What to try.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The problems found so far.
#[derive(Default)]
pub(crate) struct Problems {
    found: Vec<Problem>,
    /// How many more there were.
    unlisted: usize,
    any_error: bool,
}

impl Problems {
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.any_error = true;
        self.add(Severity::Error, code, field, message, help);
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, code, field, message, help);
    }

    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.found.len() >= MOST_PROBLEMS {
            self.unlisted += 1;
            return;
        }
        self.found.push(Problem {
            severity,
            code,
            field: field.into(),
            message: message.into(),
            help: help.into(),
        });
    }

    pub(super) const fn any_error(&self) -> bool {
        self.any_error
    }

    /// All of them in the order of the fields.
    pub(crate) fn into_vec(self) -> Vec<Problem> {
        let mut found = self.found;
        found.sort_by(|a, b| by_field(&a.field, &b.field));
        if self.unlisted > 0 {
            found.push(Problem {
                severity: if self.any_error {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                code: "policy/too-many-problems",
                field: String::new(),
                message: format!("{} more problems are not listed", self.unlisted),
                help: "correct the ones above, then look again".into(),
            });
        }
        found
    }
}

/// A value as a message repeats it: in quotes, and not longer than a line.
pub(crate) fn quoted(text: &str) -> String {
    if text.chars().nth(MOST_QUOTED).is_none() {
        return format!("{text:?}");
    }
    let beginning: String = text.chars().take(MOST_QUOTED).collect();
    format!("{beginning:?}... ({} bytes)", text.len())
}

/// Fields in the order in which the APIs list them; a field that is not here comes after those that are.
const ORDER: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "spec",
    "specs",
    "tier",
    "priority",
    "subject",
    "action",
    "endpointSelector",
    "nodeSelector",
    "podSelector",
    "namespaceSelector",
    "policyTypes",
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "from",
    "to",
    "fromEndpoints",
    "toEndpoints",
    "fromRequires",
    "toRequires",
    "toPorts",
    "ports",
    "protocols",
    "icmps",
];

/// One step of a path.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step<'a> {
    Index(usize),
    Field(usize, &'a str),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inside) = rest.strip_prefix('[') {
            // A quoted key may hold any character, a bracket too; the path ends a step with `]`.
            let end = match inside.strip_prefix('"') {
                Some(key) => key.find("\"]").map(|end| end + 2),
                None => inside.find(']'),
            }
            .unwrap_or(inside.len());
            let (step, after) = inside.split_at(end);
            found.push(match step.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Field(ORDER.len(), step),
            });
            rest = after.strip_prefix(']').unwrap_or(after);
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (step, after) = rest.split_at(end);
        let rank = ORDER.iter().position(|known| *known == step);
        found.push(Step::Field(rank.unwrap_or(ORDER.len()), step));
        rest = after;
        if end == 0 {
            break;
        }
    }
    found
}

fn by_field(a: &str, b: &str) -> Ordering {
    steps(a).cmp(&steps(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_in_the_order_of_the_fields() {
        let mut problems = Problems::default();
        for field in [
            "spec.egress[0].toPorts[0]",
            "spec.ingress[10]",
            "spec.ingress[2].toPorts[0].ports[1]",
            "spec.ingress[2].fromEndpoints[0].matchLabels[\"a.b]/c\"]",
            "spec.ingress[2]",
            "spec.description",
            "spec.endpointSelector",
            "metadata.name",
        ] {
            problems.error("policy/wrong-type", field, "", "");
        }
        let fields: Vec<String> = problems.into_vec().into_iter().map(|p| p.field).collect();
        assert_eq!(
            fields,
            [
                "metadata.name",
                "spec.endpointSelector",
                "spec.ingress[2]",
                "spec.ingress[2].fromEndpoints[0].matchLabels[\"a.b]/c\"]",
                "spec.ingress[2].toPorts[0].ports[1]",
                "spec.ingress[10]",
                "spec.egress[0].toPorts[0]",
                "spec.description",
            ]
        );
    }

    #[test]
    fn a_flood_of_problems_is_counted() {
        let mut problems = Problems::default();
        for number in 0..100_000 {
            problems.warning("policy/wrong-type", format!("spec[{number}]"), "", "");
        }
        assert!(!problems.any_error());
        problems.error("policy/wrong-type", "spec", "", "");
        assert!(problems.any_error());
        let listed = problems.into_vec();
        assert_eq!(listed.len(), MOST_PROBLEMS + 1);
        let last = &listed[MOST_PROBLEMS];
        assert_eq!(
            (last.code, last.severity),
            ("policy/too-many-problems", Severity::Error)
        );
        assert!(last.message.starts_with("99901 more"), "{}", last.message);
    }
}
