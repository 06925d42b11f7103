//! Policy objects, from JSON to the engine's normal form.
//!
//! A field that is not understood or not enforced yet is an error that names it: a policy is in force as it
//! is written, or not at all.

mod cilium;
mod fields;
mod kubernetes;
mod ports;
mod selectors;

use fields::{Field, Problems};
use heddle_policy::{Policy, PolicyId, PolicyKind};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy holds, but may not mean what its writer thinks.
    Warning,
}

/// One thing that is wrong with an object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code: `policy/unknown-entity`.
    pub code: &'static str,
    /// The field, as a path: `spec.ingress[0].ports[1].port`.
    pub field: String,
    /// What is wrong and why.
    pub message: String,
    /// What to try.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// A CiliumCIDRGroup.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CidrGroup {
    /// Its labels, for `cidrGroupSelector`.
    pub labels: BTreeMap<String, String>,
    /// Its CIDRs.
    pub cidrs: Vec<IpNet>,
}

/// The CIDR groups that policies may refer to, by name.
pub type CidrGroups = BTreeMap<String, CidrGroup>;

/// A policy object as far as it could be read, with everything that is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The policy, when there is no error.
    pub policy: Option<Policy>,
    /// Errors and warnings, in the order of the fields.
    pub problems: Vec<Problem>,
}

/// Reads a NetworkPolicy or CiliumNetworkPolicy; on errors, everything that is wrong with it.
pub fn parse_policy(object: &Value) -> Result<Vec<Policy>, Vec<Problem>> {
    let parsed = parse(object, None);
    match parsed.policy {
        Some(policy) => Ok(vec![policy]),
        None => Err(parsed.problems),
    }
}

/// The id of a policy object, whether or not the rest of it can be read; `None` for other objects.
pub fn policy_id(object: &Value) -> Option<PolicyId> {
    let kind = policy_kind(object)?;
    let name = crate::pod::name(object);
    let namespace = match kind {
        kind if kind.cluster_wide() => String::new(),
        _ => name.namespace,
    };
    Some(PolicyId::new(kind, namespace, name.name))
}

fn policy_kind(object: &Value) -> Option<PolicyKind> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    [
        PolicyKind::NetworkPolicy,
        PolicyKind::CiliumNetworkPolicy,
        PolicyKind::CiliumClusterwideNetworkPolicy,
    ]
    .into_iter()
    .find(|known| known.name() == kind)
}

/// Reads a policy object. Without `groups`, references to CIDR groups are refused.
pub fn parse(object: &Value, groups: Option<&CidrGroups>) -> Parsed {
    let mut problems = Problems::default();
    let root = Field::root(object);
    let policy = match (policy_kind(object), policy_id(object)) {
        (Some(kind), Some(id)) => {
            let version = match kind {
                PolicyKind::NetworkPolicy => "networking.k8s.io/v1",
                _ => "cilium.io/v2",
            };
            fields::header(&root, version, &mut problems);
            match kind {
                PolicyKind::NetworkPolicy => kubernetes::parse(&root, id, &mut problems),
                _ => cilium::parse(&root, id, groups, &mut problems),
            }
        }
        _ => {
            problems.error(
                "policy/unknown-kind",
                "kind",
                "not a kind of policy",
                "kinds: NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy",
            );
            None
        }
    };
    let policy = policy.filter(|_| !problems.any_error());
    Parsed {
        policy,
        problems: problems.into_vec(),
    }
}

/// Reads a CiliumCIDRGroup.
pub fn parse_cidr_group(object: &Value) -> Result<(String, CidrGroup), Vec<Problem>> {
    let mut problems = Problems::default();
    let root = Field::root(object);
    fields::header(&root, "cilium.io/v2", &mut problems);
    let group = cilium::cidr_group(&root, object, &mut problems);
    if problems.any_error() {
        return Err(problems.into_vec());
    }
    Ok((crate::pod::name(object).name, group))
}

#[cfg(test)]
mod tests;
