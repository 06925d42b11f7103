//! `heddle policy check`: every problem, with file, document, field and fix.

use super::{Files, Output, say};
use crate::failure::{FINDINGS, Failure};
use clap::Args;
use heddle_kube::{
    cluster::{self, object},
    manifest::{self, Manifest},
    policy::{self, CidrGroup, Problem, Severity},
};
use heddle_policy::Policy;
use heddle_verify::{Cluster, Placement, lint};
use serde::Serialize;
use serde_json::Value;
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
    // By manifest, so that what is found at the end still stands with its object.
    let mut found: Vec<Vec<Problem>> = vec![Vec::new(); manifests.len()];
    let mut read = Read::default();
    let mut seen: BTreeMap<String, &Manifest> = BTreeMap::new();
    for (at, manifest) in manifests.iter().enumerate() {
        look_at(manifest, at, &mut read, &mut found[at]);
        let name = manifest
            .value
            .pointer("/metadata/name")
            .and_then(Value::as_str);
        if name.is_some_and(|name| !name.is_empty())
            && let Some(first) = seen.insert(object(manifest), manifest)
        {
            found[at].push(note(
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
    let inventory = cluster::inventory(manifests, read.policies.clone(), read.groups);
    let cluster = inventory
        .map_err(Failure::from)
        .and_then(|found| Ok(Cluster::build(found, &Placement::default())?));
    match cluster {
        Ok(cluster) => {
            for warning in lint::lint(&read.policies, &cluster) {
                let (at, policy) = (read.written[warning.policy], &read.policies[warning.policy]);
                let place = policy::field_of_place(&manifests[at].value, policy, warning.place);
                found[at].extend(place.map(|field| Problem {
                    severity: Severity::Warning,
                    code: warning.code,
                    field,
                    message: warning.message,
                    help: warning.help,
                }));
            }
        }
        Err(failure) => problems.push(Finding {
            severity: Severity::Error,
            code: failure.code,
            file: String::new(),
            document: 0,
            object: failure.object,
            field: failure.field,
            message: failure.message,
            help: failure.help,
        }),
    }
    for (manifest, found) in manifests.iter().zip(found) {
        problems.extend(
            found
                .into_iter()
                .map(|problem| Finding::of(manifest, problem)),
        );
    }
    read.count
}

/// What was read on the way.
#[derive(Default)]
struct Read {
    policies: Vec<Policy>,
    /// Position of each policy's manifest.
    written: Vec<usize>,
    groups: Vec<CidrGroup>,
    /// Policies, accepted or not.
    count: usize,
}

fn note(
    severity: Severity,
    code: &'static str,
    field: &str,
    message: String,
    help: &str,
) -> Problem {
    Problem {
        severity,
        code,
        field: field.to_owned(),
        message,
        help: help.to_owned(),
    }
}

fn look_at(manifest: &Manifest, at: usize, read: &mut Read, found: &mut Vec<Problem>) {
    let kind = cluster::kind(manifest);
    if policy::policy_id(&manifest.value).is_some() {
        read.count += 1;
        let parsed = policy::parse(&manifest.value);
        found.extend(parsed.problems);
        if let Some(policy) = parsed.policy {
            read.policies.push(policy);
            read.written.push(at);
        }
        return;
    }
    if kind == "CiliumCIDRGroup" {
        match policy::parse_cidr_group(&manifest.value) {
            Ok(group) => read.groups.push(group),
            Err(problems) => found.extend(problems),
        }
    } else if kind.contains("NetworkPolicy") {
        found.push(note(
            Severity::Error,
            "policy/unsupported-kind",
            "kind",
            format!("{kind} is not enforced yet, so it is refused"),
            "use NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy or ClusterNetworkPolicy",
        ));
    } else if !QUIET.contains(&kind) {
        found.push(note(
            Severity::Warning,
            "manifest/ignored-kind",
            "kind",
            format!("{kind} says nothing about policy and is not looked at"),
            "check the kind's spelling, or leave the object out",
        ));
    } else if manifest
        .value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        found.push(note(
            Severity::Error,
            "manifest/missing-name",
            "metadata.name",
            "the object has no name".to_owned(),
            "give it one under metadata.name",
        ));
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
        "{} policies, {} errors, {} warnings",
        report.policies, report.errors, report.warnings
    ))
}
