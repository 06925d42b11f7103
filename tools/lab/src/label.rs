//! `heddle lab label`: changes an object's labels.

use crate::LabError;
use crate::get;
use crate::paths::Lab;
use heddle_kube::store::{Kind, Object, Store, StoreError};
use serde_json::{Value, json};

/// A label to set or to remove.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// `key=value`.
    Set(String, String),
    /// `key-`.
    Remove(String),
}

/// Reads `key=value` or `key-`.
pub fn parse(text: &str) -> Result<Edit, LabError> {
    let edit = match text.split_once('=') {
        Some((key, value)) => Edit::Set(key.to_owned(), value.to_owned()),
        None => match text.strip_suffix('-') {
            Some(key) => Edit::Remove(key.to_owned()),
            None => {
                return Err(LabError::Usage(format!(
                    "{text:?} is neither key=value nor key- (which removes)"
                )));
            }
        },
    };
    let (key, value) = match &edit {
        Edit::Set(key, value) => (key, value.as_str()),
        Edit::Remove(key) => (key, ""),
    };
    if !is_key(key) || !is_value(value) {
        return Err(LabError::Usage(format!(
            "{text:?} is no label (letters, digits, -, _ and .)"
        )));
    }
    Ok(edit)
}

/// True for a label's key: a name, and before it perhaps a domain and a slash.
pub(crate) fn is_key(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    !name.is_empty() && is_value(name)
}

/// True for a label's value, which may be empty.
pub(crate) fn is_value(text: &str) -> bool {
    let fits = text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    text.is_empty() || fits
}

/// Changes labels; the object as it is then, and whether it changed.
pub async fn edit(
    lab: &Lab,
    store: &dyn Store,
    kind: Kind,
    namespace: &str,
    name: &str,
    edits: &[Edit],
) -> Result<(Object, bool), LabError> {
    loop {
        let object = get::one(lab, store, kind, namespace, name).await?;
        let mut value = object.value.clone();
        if !value["metadata"]["labels"].is_object() {
            value["metadata"]["labels"] = json!({});
        }
        if let Some(labels) = value["metadata"]["labels"].as_object_mut() {
            for edit in edits {
                match edit {
                    Edit::Set(key, value) => labels.insert(key.clone(), Value::from(value.clone())),
                    Edit::Remove(key) => labels.remove(key),
                };
            }
        }
        if value == object.value {
            return Ok((object, false));
        }
        match store.update(kind, value).await {
            Ok(updated) => return Ok((updated, true)),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_read() {
        assert_eq!(parse("a=b").unwrap(), Edit::Set("a".into(), "b".into()));
        assert_eq!(
            parse("x.io/a=").unwrap(),
            Edit::Set("x.io/a".into(), String::new())
        );
        assert_eq!(parse("a-").unwrap(), Edit::Remove("a".into()));
        for wrong in ["a", "=b", "a=b c", "-", "a=-"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
