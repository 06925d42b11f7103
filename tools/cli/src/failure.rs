//! How a command fails: a code, what failed on what and why, and what to try.

use serde::Serialize;
use std::process::ExitCode;

/// Exit code when an operation failed or a question was answered with findings.
pub const FINDINGS: u8 = 1;
/// Exit code for a wrong command line.
pub const USAGE: u8 = 2;
/// Exit code when there is not enough data to answer.
pub const NO_DATA: u8 = 3;

/// A command's failure, printed as `error[CODE]: MESSAGE` and `help: HELP` on stderr, or as JSON when
/// the command was asked for JSON (the contract's general manners).
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Stable code: `area/what`.
    pub code: String,
    /// What failed, on what, and why.
    pub message: String,
    /// The object it failed on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What to try.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Exit code.
    #[serde(skip)]
    pub exit: u8,
    /// Print as JSON.
    #[serde(skip)]
    pub json: bool,
}

impl Failure {
    /// A failed operation (exit code 1).
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            object: String::new(),
            field: String::new(),
            help: String::new(),
            exit: FINDINGS,
            json: false,
        }
    }

    /// With what to try.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
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

    /// With another exit code.
    #[must_use]
    pub const fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Printed as JSON when `json`.
    #[must_use]
    pub const fn json(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// Prints it on stderr and gives its exit code.
    pub fn report(self) -> ExitCode {
        if self.json {
            eprintln!("{}", serde_json::json!({ "error": self }));
        } else {
            eprintln!("error[{}]: {}", self.code, self.message);
            if !self.help.is_empty() {
                eprintln!("help: {}", self.help);
            }
        }
        ExitCode::from(self.exit)
    }
}
