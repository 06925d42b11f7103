//! `heddle policy check`: every problem, with file, document, field and fix.

use super::{Files, FromDump, Output, manifests_of};
use crate::{
    failure::{FINDINGS, Failure},
    output::say,
};
use clap::Args;
use heddle_kube::{
    cluster,
    manifest::{self, Manifest},
    policy::Severity,
};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    dump: FromDump,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Serialize)]
struct Finding {
    severity: Severity,
    code: String,
    file: String,
    document: usize,
    object: String,
    field: String,
    message: String,
    help: String,
}

#[derive(Serialize)]
struct Report {
    problems: Vec<Finding>,
    errors: usize,
    warnings: usize,
    policies: usize,
}

impl Finding {
    fn of(manifests: &[Manifest], found: cluster::Found) -> Self {
        let manifest = found.manifest.map(|at| &manifests[at]);
        let problem = found.problem;
        Self {
            severity: problem.severity,
            code: problem.code.to_owned(),
            file: manifest.map_or_else(String::new, |it| it.file.clone()),
            document: manifest.map_or(0, |it| it.document),
            object: found.object,
            field: problem.field,
            message: problem.message,
            help: problem.help,
        }
    }
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut problems = Vec::new();
        let mut manifests = Vec::new();
        if let Some(path) = &self.dump.path {
            manifests = manifests_of(path)?;
        }
        for path in &self.files.paths {
            match manifest::read(std::slice::from_ref(path)) {
                Ok(found) => manifests.extend(found),
                Err(error) => problems.push(unread(path, &error)),
            }
        }
        let found = cluster::check(&manifests, self.files.strictness());
        let policies = found.policies;
        let findings = found.found.into_iter();
        problems.extend(findings.map(|found| Finding::of(&manifests, found)));
        // What refuses a policy goes first, in the order of the files; then what is only worth a look.
        problems.sort_by_key(|problem| problem.severity);
        let count = |severity| problems.iter().filter(|p| p.severity == severity).count();
        let report = Report {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            policies,
            problems,
        };
        if !self.output.print(&report)? {
            print(&report)?;
        }
        Ok(ExitCode::from(if report.errors > 0 { FINDINGS } else { 0 }))
    }
}

fn unread(path: &std::path::Path, error: &manifest::ManifestError) -> Finding {
    let (file, document) = match error {
        manifest::ManifestError::Syntax { file, document, .. }
        | manifest::ManifestError::NotAnObject { file, document } => (file.clone(), *document),
        _ => (path.display().to_string(), 0),
    };
    // The file and document have places of their own.
    let message = match error {
        manifest::ManifestError::Syntax { line, reason, .. } => match line {
            Some(line) => format!("line {line}: {reason}"),
            None => reason.clone(),
        },
        manifest::ManifestError::NotAnObject { .. } => {
            "not an object with apiVersion and kind".to_owned()
        }
        manifest::ManifestError::NoObject { .. } => "it is empty: it holds no object".to_owned(),
        manifest::ManifestError::Unreadable { source, .. } => {
            format!("it cannot be read: {source}")
        }
        other => other.to_string(),
    };
    Finding {
        severity: Severity::Error,
        code: error.code().to_owned(),
        file,
        document,
        object: String::new(),
        field: String::new(),
        message,
        help: error.help().to_owned(),
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    for finding in &report.problems {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let document = match finding.document {
            0 => String::new(),
            number => format!("document {number}"),
        };
        let place: Vec<&str> = [&finding.file, &document, &finding.object, &finding.field]
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        let place = place.join(", ");
        say(&format!(
            "{severity}[{}]: {place}: {}\n  help: {}",
            finding.code, finding.message, finding.help
        ))?;
    }
    say(&format!(
        "{}, {}, {}",
        counted(report.policies, "policy", "policies"),
        counted(report.errors, "error", "errors"),
        counted(report.warnings, "warning", "warnings"),
    ))
}

/// `1 policy`, `2 policies`.
fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
