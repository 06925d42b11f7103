//! The version of one object: compared for equality, and nothing else.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which state of an object this is (`metadata.resourceVersion`).
///
/// Two versions of one object are equal or not; which is newer, and how versions of different objects or kinds
/// relate, they do not say. What needs an order takes it from what has one: `metadata.generation` of one object,
/// `metadata.creationTimestamp` and uid of several, the order in which a watch says things.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Box<str>);

impl Version {
    /// The version that a store wrote as `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// As the store wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
