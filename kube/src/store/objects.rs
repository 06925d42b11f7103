//! What a write does to an object: validation, metadata, and the change that follows. Pure but for its arguments.

use super::managed::Owners;
use super::scope::last_state;
use super::{Kind, Object, StoreError, Version};
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
    ApplyStatus {
        kind: Kind,
        name: NamespacedName,
        manager: String,
        status: Value,
    },
    Delete {
        kind: Kind,
        name: NamespacedName,
        version: Option<Version>,
    },
}

/// An object as the store keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) object: Arc<Object>,
    /// Who owns what of its status.
    pub(crate) owners: Arc<Owners>,
}

/// One committed change: the object as it is now, or as it was when it was deleted.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) stored: Stored,
    pub(crate) deleted: bool,
    /// Revision of the store that this change makes.
    pub(crate) revision: u64,
}

impl Change {
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.stored.object
    }
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

/// The version of an object that was written at a revision of this store.
pub(crate) fn version_at(revision: u64) -> Version {
    Version::new(revision.to_string())
}

/// The revision at which this store wrote a version.
pub(crate) fn revision_of(version: &Version) -> Option<u64> {
    version.as_str().parse().ok()
}

/// Works out what `write` does when the objects are those that `lookup` finds; the change gets `revision`.
pub(crate) fn plan(
    write: Write,
    lookup: impl Fn(Kind, &NamespacedName) -> Option<Stored>,
    revision: u64,
    surroundings: &Surroundings,
) -> Result<Outcome, StoreError> {
    let found = |kind: Kind, name: &NamespacedName| {
        lookup(kind, name).ok_or_else(|| StoreError::NotFound {
            kind,
            name: name.clone(),
        })
    };
    match write {
        Write::Create { kind, value } => {
            let (name, mut value) = validated(kind, value)?;
            if lookup(kind, &name).is_some() {
                return Err(StoreError::AlreadyExists { kind, name });
            }
            if kind.has_status_subresource()
                && let Value::Object(fields) = &mut value
            {
                fields.remove("status");
            }
            let metadata = metadata_of(&mut value);
            metadata.remove("managedFields");
            metadata.insert("uid".into(), uid(surroundings.entropy).into());
            metadata.insert("generation".into(), 1.into());
            metadata.insert("creationTimestamp".into(), rfc3339(surroundings.now).into());
            changed(kind, name, value, Arc::default(), revision)
        }
        Write::Update { kind, value } => {
            let (name, value) = validated(kind, value)?;
            let stored = found(kind, &name)?;
            update(kind, name, value, &stored, revision)
        }
        Write::ApplyStatus {
            kind,
            name,
            manager,
            status,
        } => {
            let stored = found(kind, &name)?;
            if !status.is_object() {
                return Err(invalid(kind, &name, "status", "must be an object"));
            }
            let mut value = stored.object.value.clone();
            let mut owners = Owners::clone(&stored.owners);
            if let Value::Object(fields) = &mut value {
                let present = fields.entry("status").or_insert(Value::Null);
                owners.apply(present, &manager, &status);
            }
            if value == stored.object.value && owners == *stored.owners {
                return Ok(Outcome::Unchanged(stored.object));
            }
            changed(kind, name, value, Arc::new(owners), revision)
        }
        Write::Delete {
            kind,
            name,
            version: precondition,
        } => {
            let stored = found(kind, &name)?;
            if precondition.is_some_and(|have| have != stored.object.version) {
                return Err(StoreError::Conflict { kind, name });
            }
            let object = last_state(&stored.object, &version_at(revision));
            Ok(Outcome::Changed(Change {
                stored: Stored {
                    object: Arc::new(object),
                    owners: stored.owners,
                },
                deleted: true,
                revision,
            }))
        }
    }
}

/// An update keeps what the store owns: a status that is a subresource, uid, creation time; generation counts
/// changes of what people write.
fn update(
    kind: Kind,
    name: NamespacedName,
    mut value: Value,
    stored: &Stored,
    revision: u64,
) -> Result<Outcome, StoreError> {
    let present = &stored.object.value;
    let has = |field: &str| text_at(&value, field).filter(|text| !text.is_empty());
    let other_version =
        has("resourceVersion").is_some_and(|have| have != stored.object.version.as_str());
    let other_uid = has("uid").is_some_and(|uid| Some(uid) != text_at(present, "uid"));
    if other_version || other_uid {
        return Err(StoreError::Conflict { kind, name });
    }
    if kind.has_status_subresource()
        && let Value::Object(fields) = &mut value
    {
        match present.get("status") {
            Some(status) => fields.insert("status".into(), status.clone()),
            None => fields.remove("status"),
        };
    }
    let kept = &present["metadata"];
    let metadata = metadata_of(&mut value);
    metadata.remove("managedFields");
    for key in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
        match kept.get(key) {
            Some(value) => metadata.insert(key.into(), value.clone()),
            None => metadata.remove(key),
        };
    }
    if value == *present {
        return Ok(Outcome::Unchanged(Arc::clone(&stored.object)));
    }
    if content(&value) != content(present) {
        let generation = kept["generation"].as_u64().unwrap_or(0) + 1;
        metadata_of(&mut value).insert("generation".into(), generation.into());
    }
    changed(kind, name, value, Arc::clone(&stored.owners), revision)
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
    owners: Arc<Owners>,
    revision: u64,
) -> Result<Outcome, StoreError> {
    let version = version_at(revision);
    metadata_of(&mut value).insert("resourceVersion".into(), version.as_str().into());
    let size = value.to_string().len();
    if size > MAX_OBJECT_BYTES {
        return Err(invalid(
            kind,
            &name,
            "(the whole object)",
            format!("has {size} bytes, at most {MAX_OBJECT_BYTES} can be kept"),
        ));
    }
    let object = Object {
        kind,
        name,
        version,
        value,
    };
    Ok(Outcome::Changed(Change {
        stored: Stored {
            object: Arc::new(object),
            owners,
        },
        deleted: false,
        revision,
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
