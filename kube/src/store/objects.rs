//! What a write does to an object: validation, metadata, and the change that follows. Pure but for its arguments.

use super::{Kind, Object, StoreError};
use crate::timestamp::rfc3339;
use heddle_model::NamespacedName;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Bytes of JSON that one object may have.
pub(crate) const MAX_OBJECT_BYTES: usize = 4 << 20;

/// A request that changes the store.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Create {
        kind: Kind,
        value: Value,
    },
    Update {
        kind: Kind,
        value: Value,
    },
    PatchStatus {
        kind: Kind,
        name: NamespacedName,
        status: Value,
    },
    Delete {
        kind: Kind,
        name: NamespacedName,
        revision: Option<u64>,
    },
}

/// One committed change: the object as it is now, or as it was when it was deleted.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) object: Arc<Object>,
    pub(crate) deleted: bool,
}

/// What a write comes to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The object is as asked already.
    Unchanged(Arc<Object>),
    /// The object changes.
    Changed(Change),
}

/// What only the store's surroundings know.
pub(crate) struct Surroundings {
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// 16 random bytes for a new object's uid.
    pub(crate) entropy: [u8; 16],
}

/// Works out what `write` does when the objects are those that `lookup` finds; the change gets `revision`.
pub(crate) fn plan(
    write: Write,
    lookup: impl Fn(Kind, &NamespacedName) -> Option<Arc<Object>>,
    revision: u64,
    surroundings: &Surroundings,
) -> Result<Outcome, StoreError> {
    match write {
        Write::Create { kind, value } => {
            let (name, mut value) = validated(kind, value)?;
            if lookup(kind, &name).is_some() {
                return Err(StoreError::AlreadyExists { kind, name });
            }
            let metadata = metadata_of(&mut value);
            metadata.insert("uid".into(), uid(surroundings.entropy).into());
            metadata.insert("generation".into(), 1.into());
            metadata.insert("creationTimestamp".into(), rfc3339(surroundings.now).into());
            changed(kind, name, value, revision)
        }
        Write::Update { kind, value } => {
            let (name, value) = validated(kind, value)?;
            let Some(stored) = lookup(kind, &name) else {
                return Err(StoreError::NotFound { kind, name });
            };
            update(kind, name, value, &stored, revision)
        }
        Write::PatchStatus { kind, name, status } => {
            let Some(stored) = lookup(kind, &name) else {
                return Err(StoreError::NotFound { kind, name });
            };
            if !status.is_object() {
                return Err(invalid(kind, &name, "status", "must be an object"));
            }
            let mut value = stored.value.clone();
            if let Value::Object(fields) = &mut value {
                merge(fields.entry("status").or_insert(Value::Null), &status);
            }
            if value == stored.value {
                return Ok(Outcome::Unchanged(stored));
            }
            changed(kind, name, value, revision)
        }
        Write::Delete {
            kind,
            name,
            revision: precondition,
        } => {
            let Some(stored) = lookup(kind, &name) else {
                return Err(StoreError::NotFound { kind, name });
            };
            if let Some(have) = precondition
                && have != stored.revision
            {
                return Err(StoreError::Conflict {
                    kind,
                    name,
                    have,
                    stored: stored.revision,
                });
            }
            let mut value = stored.value.clone();
            metadata_of(&mut value).insert("resourceVersion".into(), revision.to_string().into());
            Ok(Outcome::Changed(Change {
                object: Arc::new(Object {
                    kind,
                    name,
                    revision,
                    value,
                }),
                deleted: true,
            }))
        }
    }
}

/// An update keeps what the store owns: status, uid, creation time; generation counts changes of what people write.
fn update(
    kind: Kind,
    name: NamespacedName,
    mut value: Value,
    stored: &Arc<Object>,
    revision: u64,
) -> Result<Outcome, StoreError> {
    let have = match text_at(&value, "resourceVersion") {
        None | Some("") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| {
            invalid(
                kind,
                &name,
                "metadata.resourceVersion",
                format!("{text:?} is not a revision of this store"),
            )
        })?),
    };
    let other_uid =
        text_at(&value, "uid").is_some_and(|uid| Some(uid) != text_at(&stored.value, "uid"));
    if other_uid || have.is_some_and(|have| have != stored.revision) {
        return Err(StoreError::Conflict {
            kind,
            name,
            have: have.unwrap_or(0),
            stored: stored.revision,
        });
    }
    if let Value::Object(fields) = &mut value {
        match stored.value.get("status") {
            Some(status) => fields.insert("status".into(), status.clone()),
            None => fields.remove("status"),
        };
    }
    let kept = &stored.value["metadata"];
    let metadata = metadata_of(&mut value);
    for key in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
        match kept.get(key) {
            Some(value) => metadata.insert(key.into(), value.clone()),
            None => metadata.remove(key),
        };
    }
    if value == stored.value {
        return Ok(Outcome::Unchanged(Arc::clone(stored)));
    }
    if content(&value) != content(&stored.value) {
        let generation = kept["generation"].as_u64().unwrap_or(0) + 1;
        metadata_of(&mut value).insert("generation".into(), generation.into());
    }
    changed(kind, name, value, revision)
}

/// The fields that people write: everything but metadata and status.
fn content(value: &Value) -> Vec<(&String, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "metadata" && *key != "status")
        .collect()
}

fn changed(
    kind: Kind,
    name: NamespacedName,
    mut value: Value,
    revision: u64,
) -> Result<Outcome, StoreError> {
    metadata_of(&mut value).insert("resourceVersion".into(), revision.to_string().into());
    let size = value.to_string().len();
    if size > MAX_OBJECT_BYTES {
        return Err(invalid(
            kind,
            &name,
            "(the whole object)",
            format!("has {size} bytes, at most {MAX_OBJECT_BYTES} can be kept"),
        ));
    }
    Ok(Outcome::Changed(Change {
        object: Arc::new(Object {
            kind,
            name,
            revision,
            value,
        }),
        deleted: false,
    }))
}

/// Checks what every object must have and reads its name.
fn validated(kind: Kind, value: Value) -> Result<(NamespacedName, Value), StoreError> {
    let name = NamespacedName::new(
        text_at(&value, "namespace").unwrap_or_default(),
        text_at(&value, "name").unwrap_or_default(),
    );
    let refuse = |field: &str, reason: String| {
        let name = if name.name.is_empty() {
            NamespacedName::new(name.namespace.clone(), "(unnamed)")
        } else {
            name.clone()
        };
        Err(invalid(kind, &name, field, reason))
    };
    let Some(fields) = value.as_object() else {
        return refuse("(the whole object)", "must be a JSON object".into());
    };
    for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.name())] {
        match fields.get(field) {
            Some(Value::String(given)) if given == wanted => {}
            Some(given) => return refuse(field, format!("is {given}, must be {wanted:?}")),
            None => return refuse(field, format!("is missing, must be {wanted:?}")),
        }
    }
    let Some(metadata) = fields.get("metadata").and_then(Value::as_object) else {
        return refuse("metadata", "must be an object with a name".into());
    };
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(given) = metadata.get(field)
            && !given.is_string()
        {
            return refuse(
                &format!("metadata.{field}"),
                format!("is {given}, must be a string"),
            );
        }
    }
    // Namespaces are names of DNS labels because services' names contain them.
    let longest = if kind == Kind::Namespace { 63 } else { 253 };
    if let Some(reason) = not_a_name(&name.name, longest, kind != Kind::Namespace) {
        return refuse("metadata.name", reason);
    }
    if kind.is_namespaced() {
        if let Some(reason) = not_a_name(&name.namespace, 63, false) {
            return refuse("metadata.namespace", reason);
        }
    } else if !name.namespace.is_empty() {
        return refuse(
            "metadata.namespace",
            format!(
                "is {:?}, but a {kind} lives in no namespace",
                name.namespace
            ),
        );
    }
    // It becomes part of paths and of names of interfaces.
    if kind == Kind::Pod
        && let Some(node) = value.pointer("/spec/nodeName")
        && !node.is_null()
    {
        match node.as_str() {
            Some("") => {}
            Some(node) => {
                if let Some(reason) = not_a_name(node, 253, true) {
                    return refuse("spec.nodeName", reason);
                }
            }
            None => return refuse("spec.nodeName", format!("is {node}, must be a string")),
        }
    }
    for field in ["labels", "annotations"] {
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                if let Some((key, value)) = entries.iter().find(|(_, value)| !value.is_string()) {
                    return refuse(
                        &format!("metadata.{field}.{key}"),
                        format!("is {value}, must be a string (quote it)"),
                    );
                }
            }
            Some(_) => return refuse(&format!("metadata.{field}"), "must be an object".into()),
        }
    }
    Ok((name, value))
}

/// Why a text is not a DNS-1123 name (a subdomain when `dots`), or nothing.
fn not_a_name(text: &str, longest: usize, dots: bool) -> Option<String> {
    if text.is_empty() {
        return Some("is missing".into());
    }
    if text.len() > longest {
        return Some(format!(
            "has {} characters, at most {longest} are allowed",
            text.len()
        ));
    }
    let is_label = |label: &str| {
        let edge = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    };
    let good = if dots {
        text.split('.').all(is_label)
    } else {
        is_label(text)
    };
    (!good).then(|| {
        format!(
            "{text:?} is not a DNS-1123 name: lower-case letters, digits and '-'{}, with a letter or digit at each end",
            if dots { " and '.'" } else { "" }
        )
    })
}

fn invalid(
    kind: Kind,
    name: &NamespacedName,
    field: &str,
    reason: impl Into<String>,
) -> StoreError {
    StoreError::Invalid {
        kind,
        name: name.clone(),
        field: field.into(),
        reason: reason.into(),
    }
}

fn text_at<'a>(value: &'a Value, metadata_field: &str) -> Option<&'a str> {
    value.get("metadata")?.get(metadata_field)?.as_str()
}

/// The object's metadata; an object without any gets some.
fn metadata_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let metadata = &mut value["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match metadata {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

/// JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(fields) = target {
        for (key, change) in patch {
            if change.is_null() {
                fields.remove(key);
            } else {
                merge(fields.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

/// Version 4 UUID (RFC 9562) of these random bytes.
fn uid(mut bytes: [u8; 16]) -> String {
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = u128::from_be_bytes(bytes);
    let text = format!("{digits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merge_patch_follows_rfc_7396() {
        // Appendix A of the RFC.
        for (original, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut target = original.clone();
            merge(&mut target, &patch);
            assert_eq!(target, result, "{original} with {patch}");
        }
    }

    #[test]
    fn a_pod_names_no_node_that_is_a_path() {
        let pod = |node: Value| {
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node},
                   "metadata": {"namespace": "a", "name": "p"}})
        };
        for bad in [
            json!("../node-1"),
            json!("a/b"),
            json!("Node"),
            json!(".."),
            json!(7),
        ] {
            let error = validated(Kind::Pod, pod(bad.clone())).unwrap_err();
            assert!(
                error.to_string().contains("spec.nodeName"),
                "{bad}: {error}"
            );
        }
        for good in [json!("node-1"), json!("n1.example"), json!(""), json!(null)] {
            validated(Kind::Pod, pod(good)).unwrap();
        }
    }

    #[test]
    fn uids_are_version_4() {
        assert_eq!(uid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
