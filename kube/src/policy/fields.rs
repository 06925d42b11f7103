//! Walking a JSON object with the path in hand.

use super::problems::{Problems, quoted};
pub(crate) use heddle_model::closest;
use serde_json::Value;

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

    /// Checks that this is an object of these fields. `elsewhere` are fields that people look for here and
    /// that have their place elsewhere, each with where.
    pub(super) fn object(
        &self,
        known: &[&str],
        elsewhere: &[(&str, &str)],
        problems: &mut Problems,
    ) -> bool {
        let Some(object) = self.value.as_object() else {
            self.wrong_type("an object", problems);
            return false;
        };
        for name in object.keys() {
            if known.contains(&name.as_str()) {
                continue;
            }
            let help = match elsewhere.iter().find(|(field, _)| field == name) {
                Some((_, help)) => (*help).to_owned(),
                None => match closest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("fields here: {}", known.join(", ")),
                },
            };
            problems.error(
                "policy/unknown-field",
                self.path_of(&shortened(name)),
                format!("{} is not a field of this object", quoted(name)),
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

    /// Checks a field that is one of a few words; missing is `None`.
    pub(super) fn one_of(
        &self,
        known: &[&'static str],
        code: &'static str,
        what: &str,
        problems: &mut Problems,
    ) -> Option<&'static str> {
        let text = self.text(problems)?;
        let found = known.iter().find(|word| **word == text).copied();
        if found.is_none() {
            problems.error(
                code,
                self.path.clone(),
                format!("{} is not {what}", quoted(text)),
                match closest(text, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("write one of: {}", known.join(", ")),
                },
            );
        }
        found
    }

    /// Says that a field of this object is missing.
    pub(super) fn missing(&self, name: &str, help: &str, problems: &mut Problems) {
        problems.error(
            "policy/missing-field",
            self.path_of(name),
            format!("`{name}` is missing"),
            help,
        );
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
            (Value::String(text), "a number") => {
                format!("write it without quotes: {}", shortened(text))
            }
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
pub(super) fn header(root: &Field<'_>, versions: &[&str], problems: &mut Problems) {
    let given = root.value.get("apiVersion").and_then(Value::as_str);
    if !given.is_some_and(|given| versions.contains(&given)) {
        problems.error(
            "policy/unsupported-version",
            "apiVersion",
            format!("apiVersion is {}", quoted(given.unwrap_or_default())),
            format!("write apiVersion: {}", versions[0]),
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
    } else if !is_subdomain(name) {
        problems.error(
            "policy/invalid-name",
            "metadata.name",
            format!("{} is not a name", quoted(name)),
            "a name has at most 253 small letters, digits, `-` and `.`, and starts and ends with a letter or digit",
        );
    }
}

/// A DNS subdomain as Kubernetes wants names (RFC 1123).
pub(crate) fn is_subdomain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
}

/// A name as a path or a fix repeats it: not longer than a line.
pub(crate) fn shortened(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}
