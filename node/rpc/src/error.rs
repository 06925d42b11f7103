//! A refusal, as every socket gives it.

use serde::{Deserialize, Serialize};

/// A refusal; the same fields as every error of the contract.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ApiError {
    /// Stable code: `area/what`.
    #[serde(default)]
    pub code: String,
    /// What failed, on what, and why.
    #[serde(default)]
    pub message: String,
    /// The object it failed on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field that is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
}

impl ApiError {
    /// An error with a code and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// With the object it failed on.
    #[must_use]
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.object = object.into();
        self
    }

    /// With the field that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// With what to try.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

/// Codes of [`ApiError`] that more than one place knows.
pub mod error_codes {
    /// The question cannot be read.
    pub const BAD_REQUEST: &str = "api/bad-request";
    /// The answer cannot be written.
    pub const BAD_ANSWER: &str = "api/bad-answer";
    /// Nobody answers this method here.
    pub const UNKNOWN_METHOD: &str = "api/unknown-method";
    /// The agent is starting, or has lost something it needs for new pods.
    pub const NOT_READY: &str = "cni/not-ready";
    /// Something that clears up by itself.
    pub const TRY_AGAIN: &str = "cni/try-again";
    /// The node works, but traffic of existing pods may be limited.
    pub const LIMITED: &str = "cni/limited";
    /// The pod's network namespace is not there.
    pub const NO_NAMESPACE: &str = "cni/no-namespace";
    /// The request itself is wrong.
    pub const INVALID: &str = "cni/invalid-request";
    /// CHECK found a difference.
    pub const CHECK_FAILED: &str = "cni/check-failed";
    /// No free address on the node.
    pub const POOL_EXHAUSTED: &str = "ipam/pool-exhausted";
}
