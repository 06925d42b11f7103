//! Policy objects, from JSON to the engine's normal form.
//!
//! A field that is not understood or not enforced yet is an error that names it: a policy is in force as it
//! is written, or not at all.

mod cidr_group;
mod cilium;
mod cluster;
pub(crate) mod fields;
mod isolation;
mod kubernetes;
mod limits;
mod names;
mod observed;
mod place;
mod ports;
pub(crate) mod problems;
pub(crate) mod selectors;

pub use cidr_group::{CidrGroup, parse_cidr_group};
pub use isolation::isolation_of;
pub use observed::ObservedPolicies;
pub use place::field as field_of_place;
pub use problems::{Problem, Severity};

use fields::Field;
use heddle_policy::{Policy, PolicyId, PolicyKind};
use problems::Problems;
use serde_json::Value;

/// The kinds of policy that are read.
const KINDS: [PolicyKind; 4] = [
    PolicyKind::NetworkPolicy,
    PolicyKind::CiliumNetworkPolicy,
    PolicyKind::CiliumClusterwideNetworkPolicy,
    PolicyKind::ClusterNetworkPolicy,
];

/// A policy object as far as it could be read, with everything that is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parsed {
    /// The policy, when there is no error.
    pub policy: Option<Policy>,
    /// Errors and warnings, in the order of the fields.
    pub problems: Vec<Problem>,
}

/// What is said of a policy whose addresses do not fit ([`heddle_policy::CidrBudget`]).
pub const TOO_MANY_CIDRS: &str = "the policies of its namespace name more addresses than fit, this one goes beyond: \
    it is in force without its addresses, so rules that allow addresses allow none, and rules that deny addresses \
    deny all outside the cluster; name fewer (maxCidrsPerNamespace), or list them in a CiliumCIDRGroup";

/// Reads a policy object; on errors, everything that is wrong with it.
pub fn parse_policy(object: &Value) -> Result<Vec<Policy>, Vec<Problem>> {
    let parsed = parse(object);
    match parsed.policy {
        Some(policy) => Ok(vec![policy]),
        None => Err(parsed.problems),
    }
}

/// The id of a policy object, whether or not the rest of it can be read; `None` for other objects.
pub fn policy_id(object: &Value) -> Option<PolicyId> {
    let kind = policy_kind(object)?;
    let name = crate::pod::name(object);
    let namespace = if kind.cluster_wide() {
        String::new()
    } else {
        name.namespace
    };
    Some(PolicyId::new(kind, namespace, name.name))
}

fn policy_kind(object: &Value) -> Option<PolicyKind> {
    let kind = object.get("kind").and_then(Value::as_str)?;
    KINDS.into_iter().find(|known| known.name() == kind)
}

/// Reads a policy object of any kind.
///
/// CIDR groups and services that it names are not looked up here: who decides knows which there are.
pub fn parse(object: &Value) -> Parsed {
    let mut problems = Problems::default();
    let policy = if limits::fits(object, &mut problems) {
        read(object, &mut problems)
    } else {
        None
    };
    let policy = policy.filter(|_| !problems.any_error());
    Parsed {
        policy,
        problems: problems.into_vec(),
    }
}

fn read(object: &Value, problems: &mut Problems) -> Option<Policy> {
    let root = Field::root(object);
    let Some(id) = policy_id(object) else {
        let kinds = KINDS.map(PolicyKind::name);
        problems.error(
            "policy/unknown-kind",
            "kind",
            "not a kind of policy",
            format!("kinds: {}", kinds.join(", ")),
        );
        return None;
    };
    let version = match id.kind {
        PolicyKind::NetworkPolicy => "networking.k8s.io/v1",
        PolicyKind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            "cilium.io/v2"
        }
    };
    fields::header(&root, &[version], problems);
    match id.kind {
        PolicyKind::NetworkPolicy => kubernetes::parse(&root, id, problems),
        PolicyKind::ClusterNetworkPolicy => cluster::parse(&root, id, problems),
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            cilium::parse(&root, id, problems)
        }
    }
}

/// A policy's name in a `NodePolicyReport`: `KIND/NAMESPACE/NAME`, the namespace empty where it has none.
pub fn report_key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind}/{namespace}/{name}")
}

#[cfg(test)]
mod tests;
