//! A change of manifests: what is added, replaced and removed.

use super::{WITHOUT_NAMESPACE, kind, object};
use crate::{manifest::Manifest, pod};
use std::collections::BTreeMap;

/// A change: what is added or takes another's place, and what is taken away.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Manifests that are added, or take the place of those with their kind, namespace and name.
    pub add: Vec<Manifest>,
    /// Objects that are taken away: `KIND/NAMESPACE/NAME`, or `KIND/NAME` for those without a namespace.
    pub remove: Vec<String>,
}

/// A change that cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// What is to be taken away is not there.
    #[error("there is no {given:?} in the current manifests to remove")]
    UnknownObject {
        /// As it was given.
        given: String,
    },
    /// Not the name of an object.
    #[error("{given:?} does not name an object")]
    BadObject {
        /// As it was given.
        given: String,
    },
    /// The change holds an object twice.
    #[error("the change holds {object} twice: in {first} and in {second}")]
    Duplicate {
        /// Its kind and name.
        object: String,
        /// The file that it stands in first.
        first: String,
        /// The other.
        second: String,
    },
}

impl ChangeError {
    /// A stable code: `area/what`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownObject { .. } => "policy/unknown-object",
            Self::BadObject { .. } => "usage/object",
            Self::Duplicate { .. } => "manifest/duplicate",
        }
    }

    /// What to try.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::UnknownObject { .. } | Self::BadObject { .. } => {
                "write KIND/NAMESPACE/NAME, or KIND/NAME for an object without a namespace"
            }
            Self::Duplicate { .. } => "leave one of them out",
        }
    }

    /// The object that it is about; empty when it is about none.
    pub fn object(&self) -> &str {
        match self {
            Self::Duplicate { object, .. } => object,
            _ => "",
        }
    }
}

/// Kind, namespace (empty for objects without one) and name.
type Key = (String, String, String);

fn key(manifest: &Manifest) -> Key {
    let kind = kind(manifest);
    let name = pod::name(&manifest.value);
    let namespace = if WITHOUT_NAMESPACE.contains(&kind) {
        String::new()
    } else {
        name.namespace
    };
    (kind.to_owned(), namespace, name.name)
}

impl Change {
    /// The manifests after the change.
    pub fn apply(self, current: &[Manifest]) -> Result<Vec<Manifest>, ChangeError> {
        let mut after: Vec<Option<Manifest>> = current.iter().cloned().map(Some).collect();
        let mut places: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (at, manifest) in current.iter().enumerate() {
            places.entry(key(manifest)).or_default().push(at);
        }
        for given in self.remove {
            let wanted = parse(&given)?;
            let Some(found) = places.remove(&wanted) else {
                return Err(ChangeError::UnknownObject { given });
            };
            for at in found {
                after[at] = None;
            }
        }
        let mut new: BTreeMap<Key, String> = BTreeMap::new();
        for manifest in self.add {
            let name = key(&manifest);
            if let Some(first) = new.insert(name.clone(), manifest.file.clone()) {
                return Err(ChangeError::Duplicate {
                    object: object(&manifest),
                    first,
                    second: manifest.file,
                });
            }
            for at in places.remove(&name).unwrap_or_default() {
                after[at] = None;
            }
            after.push(Some(manifest));
        }
        Ok(after.into_iter().flatten().collect())
    }
}

/// Reads `KIND/NAMESPACE/NAME` or `KIND/NAME`.
fn parse(given: &str) -> Result<Key, ChangeError> {
    let parts: Vec<&str> = given.split('/').collect();
    match parts.as_slice() {
        [kind, namespace, name] => Ok(((*kind).into(), (*namespace).into(), (*name).into())),
        [kind, name] if WITHOUT_NAMESPACE.contains(kind) => {
            Ok(((*kind).into(), String::new(), (*name).into()))
        }
        [kind, name] => Ok(((*kind).into(), "default".into(), (*name).into())),
        _ => Err(ChangeError::BadObject {
            given: given.to_owned(),
        }),
    }
}
