//! What every object has: `metadata`, as far as Heddle reads it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An object's `metadata`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Which object it is, of all that ever had its name.
    #[serde(deserialize_with = "super::or_default")]
    pub uid: String,
    /// When it was made (RFC 3339, to the second).
    #[serde(deserialize_with = "super::or_default")]
    pub creation_timestamp: String,
    /// Counts the changes of what people wrote.
    #[serde(deserialize_with = "super::or_default")]
    pub generation: Option<u64>,
    /// Its labels.
    #[serde(deserialize_with = "super::or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(deserialize_with = "super::or_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// The `metadata` of an object; an empty one where it cannot be read.
    pub fn of(object: &Value) -> Self {
        Self::deserialize(&object["metadata"]).unwrap_or_default()
    }

    /// Its age, as a text that sorts by it: of objects of one second by uid, so that everybody has one order.
    pub fn age(&self) -> String {
        format!("{} {}", self.creation_timestamp, self.uid)
    }

    /// Sets an annotation of an object, or takes it away.
    pub fn annotate(object: &mut Value, key: &str, value: Option<String>) {
        let annotations = &mut object["metadata"]["annotations"];
        match value {
            Some(value) => {
                if !annotations.is_object() {
                    *annotations = json!({});
                }
                annotations[key] = json!(value);
            }
            None => {
                if let Some(annotations) = annotations.as_object_mut() {
                    annotations.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_takes_nothing_else_with_it() {
        let metadata = Metadata::of(&json!({"metadata": {
            "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": null, "annotations": {"a": 1},
        }}));
        assert_eq!(metadata.age(), "2026-01-01T00:00:00Z u");
        assert!(metadata.labels.is_empty() && metadata.annotations.is_empty());
    }

    #[test]
    fn annotations_come_and_go() {
        let mut object = json!({"metadata": {"name": "n"}});
        Metadata::annotate(&mut object, "k", Some("v".into()));
        assert_eq!(object["metadata"]["annotations"], json!({"k": "v"}));
        Metadata::annotate(&mut object, "k", None);
        assert_eq!(object["metadata"]["annotations"], json!({}));
    }
}
