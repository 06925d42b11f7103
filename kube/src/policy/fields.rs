//! Walking a JSON object with the path in hand, and collecting problems on the way.

use super::{Problem, Severity};
use serde_json::Value;

/// The problems found so far.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn error(
        &mut self,
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, code, field, message, help);
    }

    pub(super) fn warning(
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
        self.0.push(Problem {
            severity,
            code,
            field: field.into(),
            message: message.into(),
            help: help.into(),
        });
    }

    pub(super) fn any_error(&self) -> bool {
        self.0
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    pub(super) fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    pub(super) path: String,
}

impl<'a> Field<'a> {
    pub(super) const fn root(value: &'a Value) -> Self {
        Self {
            value,
            path: String::new(),
        }
    }

    /// The path of a field in this object, present or not.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field of this object; `null` is as good as missing, as in Kubernetes.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let value = self.value.get(name)?;
        (!value.is_null()).then(|| Field {
            value,
            path: self.path_of(name),
        })
    }

    /// Checks that this is an object of these fields. Fields of `unsupported` are known but not enforced.
    pub(super) fn object(
        &self,
        known: &[&str],
        unsupported: &[(&str, &str)],
        problems: &mut Problems,
    ) -> bool {
        let Some(object) = self.value.as_object() else {
            self.wrong_type("an object", problems);
            return false;
        };
        for (name, value) in object {
            if known.contains(&name.as_str()) {
                continue;
            }
            let path = self.path_of(name);
            if let Some((_, help)) = unsupported.iter().find(|(field, _)| field == name) {
                if !value.is_null() {
                    problems.error(
                        "policy/unsupported-field",
                        path,
                        format!("`{name}` is not enforced yet, so the policy is refused"),
                        *help,
                    );
                }
                continue;
            }
            let candidates: Vec<&str> = known
                .iter()
                .copied()
                .chain(unsupported.iter().map(|(field, _)| *field))
                .collect();
            let help = match closest(name, &candidates) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("fields here: {}", candidates.join(", ")),
            };
            problems.error(
                "policy/unknown-field",
                path,
                format!("`{name}` is not a field of this object"),
                help,
            );
        }
        true
    }

    /// The elements of a list.
    pub(super) fn items(&self, problems: &mut Problems) -> Vec<Field<'a>> {
        let Some(list) = self.value.as_array() else {
            self.wrong_type("a list", problems);
            return Vec::new();
        };
        list.iter()
            .enumerate()
            .map(|(index, value)| Field {
                value,
                path: format!("{}[{index}]", self.path),
            })
            .collect()
    }

    /// The elements of a list field; missing is `None`.
    pub(super) fn list(&self, name: &str, problems: &mut Problems) -> Option<Vec<Field<'a>>> {
        self.get(name).map(|field| field.items(problems))
    }

    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string", problems);
        }
        text
    }

    pub(super) fn integer(&self, problems: &mut Problems) -> Option<i64> {
        let number = self.value.as_i64();
        if number.is_none() {
            self.wrong_type("a number", problems);
        }
        number
    }

    pub(super) fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.wrong_type("true or false", problems);
        }
        boolean
    }

    pub(super) fn wrong_type(&self, wanted: &str, problems: &mut Problems) {
        let got = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        let help = match (self.value, wanted) {
            (Value::Number(number), "a string") => format!("write it in quotes: \"{number}\""),
            (Value::String(text), "a number") => format!("write it without quotes: {text}"),
            (Value::String(_), "a list") => "write it as a list: start the line with `- `".into(),
            _ => format!("write {wanted} here"),
        };
        problems.error(
            "policy/wrong-type",
            self.path.clone(),
            format!("this must be {wanted}, but it is {got}"),
            help,
        );
    }
}

/// Checks what every object has: version and name.
pub(super) fn header(root: &Field<'_>, version: &str, problems: &mut Problems) {
    let given = root.value.get("apiVersion").and_then(Value::as_str);
    // CiliumCIDRGroup was born as v2alpha1 and has the same shape there.
    let alpha = given == Some("cilium.io/v2alpha1")
        && root.value.get("kind").and_then(Value::as_str) == Some("CiliumCIDRGroup");
    if given != Some(version) && !alpha {
        problems.error(
            "policy/unsupported-version",
            "apiVersion",
            format!("apiVersion is {:?}", given.unwrap_or_default()),
            format!("write apiVersion: {version}"),
        );
    }
    let name = root
        .value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if name.is_empty() {
        problems.error(
            "policy/missing-field",
            "metadata.name",
            "the object has no name",
            "give it one under metadata.name",
        );
    }
}

/// The candidate that is at most two typing errors away, if any.
pub(super) fn closest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| {
            (
                distance(&text.to_lowercase(), &candidate.to_lowercase()),
                *candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance; inputs are field names, so their product is small. Long text is just far.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(from != *to))
                .min(above + 1)
                .min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
