//! What is wrong with an object by its form: fields and kinds that there are not, labels that cannot be.
//!
//! Policies are read by their own readers, below `metadata`. Of kinds that are not in the table nothing is known.

mod types;

use crate::policy::{
    Problem,
    fields::{closest, shortened},
    problems::{Problems, quoted},
    selectors::{is_label_value, is_qualified_name},
};
use serde_json::{Map, Value};

/// The label that every namespace has, with its name.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// How strictly an object is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Strictness {
    /// Fields and kinds that are not known are errors.
    #[default]
    Strict,
    /// They are warnings: the object may be of a newer version of the API.
    Lenient,
}

/// Everything that is wrong with an object by its form.
pub fn check(object: &Value, strictness: Strictness) -> Vec<Problem> {
    let mut reader = Reader {
        strictness,
        problems: Problems::default(),
    };
    reader.object(object);
    reader.problems.into_vec()
}

struct Reader {
    strictness: Strictness,
    problems: Problems,
}

impl Reader {
    fn object(&mut self, object: &Value) {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let Some(fields) = object.as_object() else {
            return;
        };
        let known = types::KINDS
            .iter()
            .find(|(of, name, _)| *name == kind && group(of) == group(version));
        let Some((_, _, own)) = known else {
            self.kind(version, kind);
            return;
        };
        if own.starts_with("spec:*") {
            // The rest is read by the policy's own reader.
            self.value(&object["metadata"], "metadata", "ObjectMeta");
        } else {
            // Any version of a group is taken for the one that is known.
            let all = format!("apiVersion kind metadata:ObjectMeta status:* {own}");
            self.fields(fields, "", &all);
        }
        self.labels(&object["metadata"]["labels"], "metadata.labels");
        if kind == "Namespace" {
            self.namespace_name(object);
        }
        let template = &object["spec"]["template"]["metadata"]["labels"];
        self.labels(template, "spec.template.metadata.labels");
    }

    /// A kind that is not known, but close to one.
    fn kind(&mut self, version: &str, kind: &str) {
        if let Some(near) = near_kind(version, kind) {
            self.unknown(
                "manifest/unknown-kind",
                "kind".to_owned(),
                format!("{} is no kind of {version}", quoted(kind)),
                format!("did you mean `{near}`?"),
            );
        }
    }

    fn unknown(&mut self, code: &'static str, field: String, message: String, help: String) {
        match self.strictness {
            Strictness::Strict => self.problems.error(code, field, message, help),
            Strictness::Lenient => self.problems.warning(code, field, message, help),
        }
    }

    fn fields(&mut self, object: &Map<String, Value>, path: &str, known: &str) {
        let names = || known.split_whitespace().map(name_and_type);
        for (name, value) in object {
            let at = if path.is_empty() {
                shortened(name)
            } else {
                format!("{path}.{}", shortened(name))
            };
            match names().find(|(known, _)| known == name) {
                Some((_, of)) => self.value(value, &at, of),
                None => {
                    let all: Vec<&str> = names().map(|(known, _)| known).collect();
                    let help = match closest(name, &all) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!(
                            "fields here: {}; --lenient passes what is newer",
                            all.join(", ")
                        ),
                    };
                    self.unknown(
                        "manifest/unknown-field",
                        at,
                        format!("{} is not a field of this object", quoted(name)),
                        help,
                    );
                }
            }
        }
    }

    fn value(&mut self, value: &Value, path: &str, of: &str) {
        match (value, of) {
            (Value::Null, _) | (_, "" | "*") => {}
            (Value::Object(_), "{}") => {}
            (Value::Array(items), of) if of.starts_with('[') => {
                let of = of.trim_matches(['[', ']']);
                for (at, item) in items.iter().enumerate() {
                    self.value(item, &format!("{path}[{at}]"), of);
                }
            }
            (Value::Object(object), of) if !of.starts_with('[') => {
                let known = types::TYPES.iter().find(|(name, _)| *name == of);
                if let Some((_, known)) = known {
                    self.fields(object, path, known);
                }
            }
            (_, of) => {
                let (wanted, help) = if of.starts_with('[') {
                    ("a list", "write it as a list: start the line with `- `")
                } else {
                    ("an object", "write its fields below it, indented")
                };
                self.problems.error(
                    "manifest/wrong-type",
                    path,
                    format!("this must be {wanted}"),
                    help,
                );
            }
        }
    }

    fn labels(&mut self, labels: &Value, path: &str) {
        for (key, value) in labels.as_object().into_iter().flatten() {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let at = if key.chars().all(plain) && !key.is_empty() {
                format!("{path}.{}", shortened(key))
            } else {
                format!("{path}[{}]", quoted(key))
            };
            if !is_qualified_name(key) {
                self.problems.error(
                    "manifest/invalid-label",
                    at.clone(),
                    format!("{} is not a label key", quoted(key)),
                    "a key is [prefix/]name: letters, digits, `-`, `_` and `.`, at most 63 for the name",
                );
            }
            match value {
                // A label whose value was left out in YAML.
                Value::Null => {}
                Value::String(text) if is_label_value(text) => {}
                Value::String(text) => self.problems.error(
                    "manifest/invalid-label",
                    at,
                    format!("{} is not a label value", quoted(text)),
                    "a value has at most 63 letters, digits, `-`, `_` and `.`, and starts and ends with a letter or digit",
                ),
                other => self.problems.error(
                    "manifest/invalid-label",
                    at,
                    format!("the value {other} is not a string"),
                    format!("write it in quotes: \"{other}\""),
                ),
            }
        }
    }

    /// The API server sets a namespace's name label, and policies select by it.
    fn namespace_name(&mut self, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let written = object["metadata"]["labels"].get(METADATA_NAME);
        if let Some(written) = written.filter(|written| **written != name) {
            self.problems.error(
                "manifest/invalid-label",
                format!("metadata.labels[{METADATA_NAME:?}]"),
                format!(
                    "this label is always the namespace's name, {name}, and here it is {written}"
                ),
                "leave it out",
            );
        }
    }
}

/// The kind of the table that a word is nearly, when it is none itself.
pub fn near_kind(version: &str, kind: &str) -> Option<&'static str> {
    let ours = types::KINDS.iter();
    let same_group = ours.filter(|(of, _, _)| version.is_empty() || group(of) == group(version));
    let names: Vec<&'static str> = same_group.map(|(_, name, _)| *name).collect();
    if types::OTHERS.contains(&kind) || names.contains(&kind) {
        return None;
    }
    // Of two short words two letters are half of it.
    closest(kind, &names).filter(|near| near.len() > 5 || near.eq_ignore_ascii_case(kind))
}

/// The group of an `apiVersion`; all versions of a group have the same kinds here.
fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

fn name_and_type(field: &str) -> (&str, &str) {
    field.split_once(':').unwrap_or((field, ""))
}

#[cfg(test)]
mod tests;
