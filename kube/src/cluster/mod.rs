//! What manifests say of a cluster, as the inventory that questions about policy are answered from.

mod change;
mod check;
mod facts;
mod workloads;

pub use change::{Change, ChangeError};
pub use check::{Found, Report, check};

use crate::{
    manifest::Manifest,
    pod,
    policy::{self, CidrGroup, Problem, Severity},
    schema::Strictness,
};
use heddle_policy::Policy;
use heddle_verify::Inventory;
use serde_json::Value;

/// Why manifests are no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A kind of policy that nothing enforces yet.
    #[error("{object} is not enforced yet")]
    UnsupportedKind {
        /// Its kind and name.
        object: String,
    },
    /// A policy or CIDR group with errors.
    #[error("{file}, document {document}, {object}, {}: {}{}", .first.field, .first.message, more_errors(*.more))]
    Refused {
        /// The file that it stands in.
        file: String,
        /// Which document of the file, from 1.
        document: usize,
        /// Its kind and name.
        object: String,
        /// Its first error.
        first: Box<Problem>,
        /// How many more there are.
        more: usize,
    },
    /// A workload whose number of replicas is no number, or too large.
    #[error("{object}: replicas must be 0 to {}", workloads::MOST_REPLICAS)]
    InvalidReplicas {
        /// Its kind and name.
        object: String,
    },
}

fn more_errors(more: usize) -> String {
    match more {
        0 => String::new(),
        1 => " (and one more error: see `heddle policy check`)".to_owned(),
        more => format!(" (and {more} more errors: see `heddle policy check`)"),
    }
}

impl ObjectError {
    /// A stable code: `area/what`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedKind { .. } => "policy/unsupported-kind",
            Self::Refused { first, .. } => first.code,
            Self::InvalidReplicas { .. } => "manifest/invalid-replicas",
        }
    }

    /// What to try.
    pub fn help(&self) -> &str {
        match self {
            Self::UnsupportedKind { .. } => {
                "leave it out, or write it as a ClusterNetworkPolicy or CiliumNetworkPolicy"
            }
            Self::Refused { first, .. } => &first.help,
            Self::InvalidReplicas { .. } => "write a number",
        }
    }

    /// The object that it is about.
    pub fn object(&self) -> &str {
        match self {
            Self::UnsupportedKind { object }
            | Self::Refused { object, .. }
            | Self::InvalidReplicas { object } => object,
        }
    }

    /// The object's field that is wrong; empty when it is the whole.
    pub fn field(&self) -> &str {
        match self {
            Self::UnsupportedKind { .. } => "",
            Self::Refused { first, .. } => &first.field,
            Self::InvalidReplicas { .. } => "spec.replicas",
        }
    }
}

/// Kinds whose objects have no namespace.
const WITHOUT_NAMESPACE: [&str; 5] = [
    "Namespace",
    "Node",
    "CiliumClusterwideNetworkPolicy",
    "CiliumCIDRGroup",
    "ClusterNetworkPolicy",
];

/// The manifest's kind; empty when it has none.
pub fn kind(manifest: &Manifest) -> &str {
    manifest
        .value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The object's kind and name.
pub fn object(manifest: &Manifest) -> String {
    let kind = kind(manifest);
    let name = pod::name(&manifest.value);
    if WITHOUT_NAMESPACE.contains(&kind) {
        format!("{kind} {}", name.name)
    } else {
        format!("{kind} {name}")
    }
}

fn of_kind<'a>(
    manifests: &'a [Manifest],
    wanted: &'static str,
) -> impl Iterator<Item = &'a Manifest> {
    manifests
        .iter()
        .filter(move |manifest| kind(manifest) == wanted)
}

/// Reads everything; an object with an error is refused, and with it all.
pub fn read(manifests: &[Manifest], strictness: Strictness) -> Result<Inventory, ObjectError> {
    let forms = check::forms(manifests, strictness);
    for (manifest, problems) in manifests.iter().zip(forms) {
        let is_error = |problem: &Problem| problem.severity == Severity::Error;
        if problems.iter().any(is_error) {
            return Err(refuse(manifest, problems));
        }
    }
    let policies = policies(manifests)?;
    let groups = groups(manifests)?;
    inventory(manifests, policies, groups)
}

/// Reads everything but the policies and groups, which are already read.
pub fn inventory(
    manifests: &[Manifest],
    policies: Vec<Policy>,
    groups: Vec<CidrGroup>,
) -> Result<Inventory, ObjectError> {
    let mut found = Inventory {
        policies,
        pods: workloads::pods(manifests)?,
        ..Inventory::default()
    };
    facts::add(&mut found, manifests, groups);
    Ok(found)
}

/// The policies; one with an error refuses them all.
fn policies(manifests: &[Manifest]) -> Result<Vec<Policy>, ObjectError> {
    let mut found = Vec::new();
    for manifest in manifests {
        if policy::policy_id(&manifest.value).is_none() {
            if kind(manifest).contains("NetworkPolicy") {
                return Err(ObjectError::UnsupportedKind {
                    object: object(manifest),
                });
            }
            continue;
        }
        let parsed = policy::parse(&manifest.value);
        match parsed.policy {
            Some(policy) => found.push(policy),
            None => return Err(refuse(manifest, parsed.problems)),
        }
    }
    Ok(found)
}

fn groups(manifests: &[Manifest]) -> Result<Vec<CidrGroup>, ObjectError> {
    of_kind(manifests, "CiliumCIDRGroup")
        .map(|manifest| {
            policy::parse_cidr_group(&manifest.value).map_err(|problems| refuse(manifest, problems))
        })
        .collect()
}

/// The first error of an object that is refused, with how many there are.
fn refuse(manifest: &Manifest, problems: Vec<Problem>) -> ObjectError {
    let mut errors = problems
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error);
    let first = errors.next().unwrap_or_else(|| Problem {
        severity: Severity::Error,
        code: "policy/refused",
        field: String::new(),
        message: "it is refused".to_owned(),
        help: String::new(),
    });
    ObjectError::Refused {
        file: manifest.file.clone(),
        document: manifest.document,
        object: object(manifest),
        first: Box::new(first),
        more: errors.count(),
    }
}
