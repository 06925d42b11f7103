//! How a command fails: a code, what failed on what and why, and what to try.

use crate::output::{one_line, tell};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use heddle_kube::{
    cluster::{ChangeError, ObjectError},
    manifest::ManifestError,
};
use heddle_verify::{ErrorClass, VerifyError};
use serde::{Serialize, Serializer};
use std::ffi::OsString;
use std::process::ExitCode;

/// Exit code when an operation failed or a question was answered with findings.
pub const FINDINGS: u8 = 1;
/// Exit code for a wrong command line.
pub const USAGE: u8 = 2;
/// Exit code when there is not enough data to answer.
pub const NO_DATA: u8 = 3;
/// Exit code when what is wished and what the datapath does are not the same (`policy why`).
pub const DIFFERS: u8 = 4;

/// A command's failure, printed as `error[CODE]: MESSAGE` and `help: HELP` on stderr, or as JSON when
/// the command was asked for JSON (the contract's general manners).
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Stable code: `area/what`.
    pub code: String,
    /// What failed, on what, and why.
    pub message: String,
    /// The object it failed on.
    #[serde(serialize_with = "text_or_null")]
    pub object: String,
    /// The field that is wrong.
    #[serde(serialize_with = "text_or_null")]
    pub field: String,
    /// What to try.
    #[serde(serialize_with = "text_or_null")]
    pub help: String,
    /// Exit code.
    #[serde(skip)]
    pub exit: u8,
    /// Print as JSON.
    #[serde(skip)]
    pub json: bool,
}

/// Every key of an error is always there; what there is nothing to say about is null.
fn text_or_null<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    (!text.is_empty()).then_some(text).serialize(serializer)
}

/// The lines of a text in one.
fn joined(text: &str, between: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim().trim_start_matches("tip: "))
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(between)
}

/// True when a command line asks for JSON. Known before it is understood, so that a wrong command line
/// is told in JSON, too.
pub fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let mut value_is_next = false;
    for argument in arguments {
        let Some(argument) = argument.to_str() else {
            continue;
        };
        let value = if value_is_next {
            Some(argument)
        } else if argument == "--" {
            // What comes after belongs to the command that is run in a pod.
            return false;
        } else {
            argument
                .strip_prefix("--output=")
                .or_else(|| argument.strip_prefix("-o="))
                .or_else(|| argument.strip_prefix("-o"))
        };
        if value.is_some_and(|value| ["json", "jsonpb"].contains(&value)) {
            return true;
        }
        value_is_next = ["-o", "--output"].contains(&argument);
    }
    false
}

impl Failure {
    /// A command line that cannot be understood (exit code 2).
    pub fn usage(error: &clap::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::UnknownArgument => "usage/unknown-argument",
            ErrorKind::InvalidSubcommand => "usage/unknown-command",
            ErrorKind::MissingSubcommand => "usage/missing-command",
            ErrorKind::MissingRequiredArgument => "usage/missing-argument",
            ErrorKind::ArgumentConflict => "usage/conflict",
            ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
                "usage/bad-value"
            }
            _ => "usage/wrong-arguments",
        };
        let text = error.render().to_string();
        // The first paragraph says what is wrong, the others what to try.
        let (message, help) = text.split_once("\n\n").unwrap_or((text.trim(), ""));
        let field = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => argument.clone(),
            Some(ContextValue::Strings(arguments)) => arguments.join(" "),
            _ => String::new(),
        };
        let message = joined(message.trim_start_matches("error: "), " ");
        Self::new(code, message)
            .field(field)
            .help(joined(help, "; "))
            .exit(USAGE)
    }

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

    /// A failure of a command whose exit code 1 is an answer: what failed is not known, so it is never 1.
    #[must_use]
    pub const fn no_answer(self) -> Self {
        match self.exit {
            FINDINGS => self.exit(NO_DATA),
            _ => self,
        }
    }

    /// Printed as JSON when `json`.
    #[must_use]
    pub const fn json(mut self, json: bool) -> Self {
        self.json = json;
        self
    }

    /// In one line each, where its words are somebody else's: a line of theirs must not pass for one of ours.
    #[must_use]
    pub fn in_one_line(mut self) -> Self {
        let texts = [
            &mut self.code,
            &mut self.message,
            &mut self.object,
            &mut self.field,
            &mut self.help,
        ];
        for text in texts {
            *text = one_line(text);
        }
        self
    }

    /// Prints it on stderr and gives its exit code.
    pub fn report(self) -> ExitCode {
        if self.json {
            tell(&serde_json::json!({ "error": self }).to_string());
        } else {
            tell(&format!("error[{}]: {}", self.code, self.message));
            if !self.help.is_empty() {
                tell(&format!("help: {}", self.help));
            }
        }
        ExitCode::from(self.exit)
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Self::new(error.code(), error.to_string())
            .help(error.help())
            .exit(USAGE)
    }
}

impl From<ObjectError> for Failure {
    fn from(error: ObjectError) -> Self {
        Self::new(error.code(), error.to_string())
            .object(error.object())
            .field(error.field())
            .help(error.help())
            .exit(USAGE)
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        Self::new(error.code(), error.to_string())
            .object(error.object())
            .help(error.help())
            .exit(USAGE)
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let exit = match error.class() {
            ErrorClass::Question | ErrorClass::Objects => USAGE,
            ErrorClass::Unknown => NO_DATA,
        };
        Self::new(error.code(), error.to_string())
            .object(error.object())
            .field(error.field())
            .help(error.help())
            .exit(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_in_all_spellings_of_the_option_and_not_behind_dashes() {
        for (line, wanted) in [
            ("status -o json", true),
            ("status -ojson", true),
            ("status --output json", true),
            ("observe --output=jsonpb", true),
            ("status -o yaml", false),
            ("status json", false),
            ("lab exec pod -- curl -o json", false),
        ] {
            let arguments = line.split(' ').map(OsString::from);
            assert_eq!(wants_json(arguments), wanted, "{line}");
        }
    }

    #[test]
    fn every_key_of_an_error_is_there() {
        let text = serde_json::to_value(Failure::new("a/b", "what").help("try")).unwrap();
        let expected = serde_json::json!({
            "code": "a/b", "message": "what", "object": null, "field": null, "help": "try",
        });
        assert_eq!(text, expected);
    }
}
