//! `heddle policy check`: every problem, with file, document, field and fix.

use super::{Files, Output, cluster, say};
use crate::failure::{FINDINGS, Failure};
use clap::Args;
use heddle_kube::{
    manifest::{self, Manifest},
    policy::{self, Problem, Severity},
};
use serde::Serialize;
use std::{collections::BTreeMap, process::ExitCode};

/// Kinds that say nothing about policy, but may stand beside it.
const QUIET: &[&str] = &[
    "Namespace",
    "Node",
    "Pod",
    "Deployment",
    "StatefulSet",
    "ReplicaSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Service",
    "EndpointSlice",
    "Endpoints",
    "ServiceAccount",
    "ConfigMap",
];

#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    files: Files,
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
    fn of(manifest: &Manifest, problem: Problem) -> Self {
        Self {
            severity: problem.severity,
            code: problem.code.to_owned(),
            file: manifest.file.clone(),
            document: manifest.document,
            object: object(manifest),
            field: problem.field,
            message: problem.message,
            help: problem.help,
        }
    }
}

/// The object's kind and name.
pub(super) fn object(manifest: &Manifest) -> String {
    let kind = cluster::kind(manifest);
    let name = heddle_kube::pod::name(&manifest.value);
    match kind {
        "Namespace"
        | "Node"
        | "CiliumClusterwideNetworkPolicy"
        | "ClusterNetworkPolicy"
        | "CiliumCIDRGroup" => {
            format!("{kind} {}", name.name)
        }
        _ => format!("{kind} {name}"),
    }
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut problems = Vec::new();
        let mut manifests = Vec::new();
        for path in &self.files.paths {
            match manifest::read(std::slice::from_ref(path)) {
                Ok(found) => manifests.extend(found),
                Err(error) => problems.push(unread(path, &error)),
            }
        }
        let policies = examine(&manifests, &mut problems);
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
    Finding {
        severity: Severity::Error,
        code: error.code().to_owned(),
        file,
        document,
        object: String::new(),
        field: String::new(),
        message: error.to_string(),
        help: error.help().to_owned(),
    }
}

/// Looks at every object; returns the number of policies among them.
fn examine(manifests: &[Manifest], problems: &mut Vec<Finding>) -> usize {
    let mut policies = 0;
    let mut seen: BTreeMap<String, &Manifest> = BTreeMap::new();
    for manifest in manifests {
        if cluster::kind(manifest) == "CiliumCIDRGroup"
            && let Err(found) = policy::parse_cidr_group(&manifest.value)
        {
            problems.extend(found.into_iter().map(|p| Finding::of(manifest, p)));
        }
    }
    for manifest in manifests {
        let kind = cluster::kind(manifest);
        let note = |severity, code: &'static str, field: &str, message: String, help: &str| {
            let problem = Problem {
                severity,
                code,
                field: field.to_owned(),
                message,
                help: help.to_owned(),
            };
            Finding::of(manifest, problem)
        };
        if policy::policy_id(&manifest.value).is_some() {
            policies += 1;
            let parsed = policy::parse(&manifest.value);
            problems.extend(
                parsed
                    .problems
                    .into_iter()
                    .map(|problem| Finding::of(manifest, problem)),
            );
        } else if kind.contains("NetworkPolicy") {
            problems.push(note(
                Severity::Error,
                "policy/unsupported-kind",
                "kind",
                format!("{kind} is not enforced yet, so it is refused"),
                "use NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy or ClusterNetworkPolicy",
            ));
        } else if !QUIET.contains(&kind) && kind != "CiliumCIDRGroup" {
            problems.push(note(
                Severity::Warning,
                "manifest/ignored-kind",
                "kind",
                format!("{kind} says nothing about policy and is not looked at"),
                "check the kind's spelling, or leave the object out",
            ));
        }
        let named = manifest
            .value
            .pointer("/metadata/name")
            .is_some_and(|name| name.as_str().is_some_and(|name| !name.is_empty()));
        if !named && policy::policy_id(&manifest.value).is_none() && QUIET.contains(&kind) {
            problems.push(note(
                Severity::Error,
                "manifest/missing-name",
                "metadata.name",
                "the object has no name".to_owned(),
                "give it one under metadata.name",
            ));
        }
        if named && let Some(first) = seen.insert(object(manifest), manifest) {
            problems.push(note(
                Severity::Warning,
                "manifest/duplicate",
                "metadata.name",
                format!(
                    "the object stands in {}, document {}, too; this one, the last, counts",
                    first.file, first.document
                ),
                "remove one, or rename it",
            ));
        }
    }
    policies
}

fn print(report: &Report) -> Result<(), Failure> {
    for finding in &report.problems {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut place = finding.file.clone();
        if finding.document > 0 {
            place.push_str(&format!(", document {}", finding.document));
        }
        for part in [&finding.object, &finding.field] {
            if !part.is_empty() {
                place.push_str(&format!(", {part}"));
            }
        }
        say(&format!(
            "{severity}[{}]: {place}: {}\n  help: {}",
            finding.code, finding.message, finding.help
        ))?;
    }
    say(&format!(
        "{} policies, {} errors, {} warnings",
        report.policies, report.errors, report.warnings
    ))
}
