//! Kubernetes label selectors over any label source.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

mod text;

pub use text::SelectorTextError;

/// How a requirement compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// One condition of a selector.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values for `In` and `NotIn`; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Requirement {
    /// Writes it with its key called `key`: `app=web`, `app in (a,b)`, `app not in (a)`, `app exists`, `no app`.
    pub fn describe(&self, key: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, operator: &str| {
            write!(f, "{key} {operator} (")?;
            for (at, value) in self.values.iter().enumerate() {
                f.write_str(if at == 0 { "" } else { "," })?;
                f.write_str(value)?;
            }
            f.write_str(")")
        };
        match (self.operator, self.values.as_slice()) {
            (Operator::In, [one]) => write!(f, "{key}={one}"),
            (Operator::In, _) => list(f, "in"),
            (Operator::NotIn, _) => list(f, "not in"),
            (Operator::Exists, _) => write!(f, "{key} exists"),
            (Operator::DoesNotExist, _) => write!(f, "no {key}"),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(&self.key, f)
    }
}

/// A conjunction of requirements; the empty selector selects everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// A selector that Kubernetes would refuse.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectorError {
    /// `In` or `NotIn` without values.
    #[error("key {key:?}: operator {operator:?} needs at least one value")]
    MissingValues {
        /// The requirement's key.
        key: String,
        /// Its operator.
        operator: Operator,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("key {key:?}: operator {operator:?} takes no values")]
    UnexpectedValues {
        /// The requirement's key.
        key: String,
        /// Its operator.
        operator: Operator,
    },
    /// A requirement without a key.
    #[error("a requirement has an empty key")]
    EmptyKey,
}

impl Selector {
    /// Selects everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector from `matchLabels` and `matchExpressions`.
    pub fn new(
        match_labels: BTreeMap<String, String>,
        match_expressions: Vec<Requirement>,
    ) -> Result<Self, SelectorError> {
        let mut requirements = Vec::with_capacity(match_labels.len() + match_expressions.len());
        for (key, value) in match_labels {
            requirements.push(Requirement {
                key,
                operator: Operator::In,
                values: vec![value],
            });
        }
        requirements.extend(match_expressions);
        for requirement in &requirements {
            let Requirement {
                key,
                operator,
                values,
            } = requirement;
            if key.is_empty() {
                return Err(SelectorError::EmptyKey);
            }
            match (operator, values.is_empty()) {
                (Operator::In | Operator::NotIn, true) => {
                    return Err(SelectorError::MissingValues {
                        key: key.clone(),
                        operator: *operator,
                    });
                }
                (Operator::Exists | Operator::DoesNotExist, false) => {
                    return Err(SelectorError::UnexpectedValues {
                        key: key.clone(),
                        operator: *operator,
                    });
                }
                _ => {}
            }
        }
        requirements.sort();
        Ok(Self { requirements })
    }

    /// The selector that also asks for a key, with any value.
    #[must_use]
    pub fn and_exists(&self, key: impl Into<String>) -> Self {
        let mut requirements = self.requirements.clone();
        requirements.push(Requirement {
            key: key.into(),
            operator: Operator::Exists,
            values: Vec::new(),
        });
        requirements.sort();
        Self { requirements }
    }

    /// The requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True when it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The first requirement that fails for labels looked up by `get`.
    pub fn first_failure<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> Option<&Requirement> {
        self.requirements.iter().find(|requirement| {
            let value = get(&requirement.key);
            let has = |value: &str| requirement.values.iter().any(|wanted| wanted == value);
            !match requirement.operator {
                Operator::In => value.is_some_and(has),
                Operator::NotIn => !value.is_some_and(has),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }

    /// True when every requirement holds for labels looked up by `get`.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.first_failure(get).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement {
            key: key.into(),
            operator,
            values: values.iter().map(|v| (*v).into()).collect(),
        }
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        use Operator::{DoesNotExist, Exists, In, NotIn};
        let labels = BTreeMap::from([("app", "web")]);
        let cases = [
            (requirement("app", In, &["web", "api"]), true),
            (requirement("app", In, &["api"]), false),
            (requirement("tier", In, &["a"]), false),
            (requirement("app", NotIn, &["web"]), false),
            (requirement("app", NotIn, &["api"]), true),
            (requirement("tier", NotIn, &["a"]), true),
            (requirement("app", Exists, &[]), true),
            (requirement("tier", Exists, &[]), false),
            (requirement("app", DoesNotExist, &[]), false),
            (requirement("tier", DoesNotExist, &[]), true),
        ];
        for (requirement, expected) in cases {
            let selector = Selector::new(BTreeMap::new(), vec![requirement.clone()]).unwrap();
            assert_eq!(
                selector.matches(|k| labels.get(k).copied()),
                expected,
                "{requirement:?}"
            );
        }
        assert!(Selector::everything().matches(|_| None));
    }

    #[test]
    fn malformed_requirements_are_refused() {
        use Operator::{Exists, In};
        for bad in [
            requirement("app", In, &[]),
            requirement("app", Exists, &["x"]),
            requirement("", Exists, &[]),
        ] {
            assert!(Selector::new(BTreeMap::new(), vec![bad]).is_err());
        }
    }
}
