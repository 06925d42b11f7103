//! Errors as the CNI specification has them.

use crate::version::Version;
use serde_json::json;
use std::fmt;

/// Error codes (CNI specification 1.1.0, "Error"; from 100 on they are the plugin's own).
pub mod codes {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// The container is unknown or gone: the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The configuration is not JSON.
    pub const DECODE: u32 = 6;
    /// The configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// Something will clear up; try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: no new containers can be attached.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: no new containers, and existing ones may have limited connectivity.
    pub const LIMITED: u32 = 51;
    /// The agent failed; the message says what at.
    pub const AGENT: u32 = 100;
    /// The node has no free address.
    pub const NO_ADDRESS: u32 = 101;
    /// CHECK found the attachment different from what it should be.
    pub const CHECK_FAILED: u32 = 102;
}

/// An error that the runtime reads on stdout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CniError {
    /// One of [`codes`].
    pub code: u32,
    /// What failed, on what, and why.
    pub message: String,
    /// What to try; may be empty.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// With details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// As the specification prints it; `version` is the configuration's, or the newest.
    pub fn to_json(&self, version: Option<Version>) -> String {
        let mut value = json!({
            "cniVersion": version.unwrap_or(Version::LATEST).name(),
            "code": self.code,
            "msg": self.message,
        });
        if !self.details.is_empty() {
            value["details"] = self.details.clone().into();
        }
        format!("{value}\n")
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}
