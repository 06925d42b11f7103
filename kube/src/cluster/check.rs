//! Every problem of manifests: what is wrong with an object, and the traps of policies that are right by their form.

use super::{ObjectError, inventory, kind, object};
use crate::{
    manifest::Manifest,
    policy::{self, CidrGroup, Problem, Severity},
    schema::{self, Strictness},
};
use heddle_policy::Policy;
use heddle_verify::{Cluster, Placement, VerifyError, lint};
use serde_json::Value;
use std::collections::BTreeMap;

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

/// What is wrong, and with which object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Position of the manifest; `None` for what several say together.
    pub manifest: Option<usize>,
    /// The object's kind and name; empty when it is about none.
    pub object: String,
    /// What is wrong.
    pub problem: Problem,
}

/// Everything that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// In the order of the manifests; errors and warnings.
    pub found: Vec<Found>,
    /// Policies among the manifests, accepted or not.
    pub policies: usize,
}

/// Looks at every object, and at what they mean together.
pub fn check(manifests: &[Manifest], strictness: Strictness) -> Report {
    // By manifest, so that what is found at the end still stands with its object.
    let mut found: Vec<Vec<Problem>> = forms(manifests, strictness);
    let mut read = Read::default();
    for (at, manifest) in manifests.iter().enumerate() {
        look_at(manifest, at, &mut read, &mut found[at]);
    }
    let mut together = Vec::new();
    match build(manifests, &read) {
        Ok(cluster) => {
            for (at, problem) in traps(manifests, &read, &cluster) {
                found[at].push(problem);
            }
        }
        Err(one) => together.push(*one),
    }
    let by_manifest = found.into_iter().enumerate().flat_map(|(at, problems)| {
        problems.into_iter().map(move |problem| Found {
            manifest: Some(at),
            object: object(&manifests[at]),
            problem,
        })
    });
    together.extend(by_manifest);
    Report {
        found: together,
        policies: read.count,
    }
}

/// What is wrong with each manifest by its form, and which stand twice in a file.
pub(super) fn forms(manifests: &[Manifest], strictness: Strictness) -> Vec<Vec<Problem>> {
    let mut seen: BTreeMap<String, &Manifest> = BTreeMap::new();
    let mut found = Vec::with_capacity(manifests.len());
    for manifest in manifests {
        let mut problems = schema::check(&manifest.value, strictness);
        if has_name(manifest)
            && let Some(first) = seen.insert(object(manifest), manifest)
        {
            problems.push(twice(first, manifest));
        }
        found.push(problems);
    }
    found
}

fn has_name(manifest: &Manifest) -> bool {
    let name = manifest.value.pointer("/metadata/name");
    name.and_then(Value::as_str)
        .is_some_and(|name| !name.is_empty())
}

fn twice(first: &Manifest, manifest: &Manifest) -> Problem {
    if first.file == manifest.file {
        return note(
            Severity::Error,
            "manifest/duplicate",
            "metadata.name",
            format!(
                "the object stands in document {} of this file, too",
                first.document
            ),
            "remove one, or rename it",
        );
    }
    note(
        Severity::Warning,
        "manifest/duplicate",
        "metadata.name",
        format!(
            "the object stands in {}, document {}, too; this one, the last, counts",
            first.file, first.document
        ),
        "remove one, or rename it",
    )
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

fn build(manifests: &[Manifest], read: &Read) -> Result<Cluster, Box<Found>> {
    let wrong = |object: &str, code, field: &str, message: String, help: &str| {
        Box::new(Found {
            manifest: None,
            object: object.to_owned(),
            problem: note(Severity::Error, code, field, message, help),
        })
    };
    let of_object = |error: ObjectError| {
        let message = error.to_string();
        wrong(
            error.object(),
            error.code(),
            error.field(),
            message,
            error.help(),
        )
    };
    let of_cluster = |error: VerifyError| {
        let (message, help) = (error.to_string(), error.help());
        wrong(&error.object(), error.code(), error.field(), message, &help)
    };
    let found = inventory(manifests, read.policies.clone(), read.groups.clone());
    Cluster::build(found.map_err(of_object)?, &Placement::default()).map_err(of_cluster)
}

/// The traps of the policies, each with the position of its manifest.
fn traps<'a>(
    manifests: &'a [Manifest],
    read: &'a Read,
    cluster: &Cluster,
) -> impl Iterator<Item = (usize, Problem)> + 'a {
    let warnings = lint::lint(&read.policies, cluster).into_iter();
    warnings.filter_map(|warning| {
        let (at, policy) = (read.written[warning.policy], &read.policies[warning.policy]);
        let field = policy::field_of_place(&manifests[at].value, policy, warning.place)?;
        let problem = Problem {
            severity: Severity::Warning,
            code: warning.code,
            field,
            message: warning.message,
            help: warning.help,
        };
        Some((at, problem))
    })
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
    let kind = kind(manifest);
    let is_policy = policy::policy_id(&manifest.value).is_some();
    let known = is_policy || kind == "CiliumCIDRGroup" || QUIET.contains(&kind);
    let slip = found.iter().any(|it| it.code == "manifest/unknown-kind");
    if is_policy {
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
    } else if kind.contains("NetworkPolicy") && !slip {
        found.push(note(
            Severity::Error,
            "policy/unsupported-kind",
            "kind",
            format!("{kind} is not enforced yet, so it is refused"),
            "use NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy or ClusterNetworkPolicy",
        ));
    } else if !known && !slip {
        found.push(note(
            Severity::Warning,
            "manifest/ignored-kind",
            "kind",
            format!("{kind} says nothing about policy and is not looked at"),
            "check the kind's spelling, or leave the object out",
        ));
    } else if known && !has_name(manifest) {
        found.push(note(
            Severity::Error,
            "manifest/missing-name",
            "metadata.name",
            "the object has no name".to_owned(),
            "give it one under metadata.name",
        ));
    }
}
