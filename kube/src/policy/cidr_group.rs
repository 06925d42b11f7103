//! `cilium.io/v2` CiliumCIDRGroup.

use super::{
    fields::{self, Field},
    limits,
    ports::cidr,
    problems::{Problem, Problems},
};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeMap;

/// CIDRs of one group at most: twice what the largest published lists have.
const MOST_CIDRS: usize = 100_000;

/// A CiliumCIDRGroup.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CidrGroup {
    /// Its name.
    pub name: String,
    /// Its labels, for `cidrGroupSelector`.
    pub labels: BTreeMap<String, String>,
    /// Its CIDRs, sorted, each once.
    pub cidrs: Vec<IpNet>,
}

/// Reads a CiliumCIDRGroup; on errors, everything that is wrong with it.
pub fn parse_cidr_group(object: &Value) -> Result<CidrGroup, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut group = CidrGroup::default();
    if limits::fits(object, &mut problems) {
        let root = Field::root(object);
        // The group was born as v2alpha1 and has the same shape there.
        let versions = ["cilium.io/v2", "cilium.io/v2alpha1"];
        fields::header(&root, &versions, &mut problems);
        group = read(&root, object, &mut problems);
    }
    if problems.any_error() {
        return Err(problems.into_vec());
    }
    Ok(group)
}

fn read(root: &Field<'_>, object: &Value, problems: &mut Problems) -> CidrGroup {
    root.object(
        &["apiVersion", "kind", "metadata", "spec", "status"],
        &[],
        problems,
    );
    let mut group = CidrGroup {
        name: crate::pod::name(object).name,
        labels: crate::pod::labels(object)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        cidrs: Vec::new(),
    };
    let Some(spec) = root.get("spec") else {
        root.missing("spec", "write spec.externalCIDRs", problems);
        return group;
    };
    if !spec.object(&["externalCIDRs"], &[], problems) {
        return group;
    }
    let listed = spec.list("externalCIDRs", problems).unwrap_or_default();
    if listed.len() > MOST_CIDRS {
        problems.error(
            "policy/too-many-cidrs",
            spec.path_of("externalCIDRs"),
            format!(
                "the group has {} CIDRs, the max is {MOST_CIDRS}",
                listed.len()
            ),
            "join neighbours into shorter prefixes, or write several groups with one label",
        );
        return group;
    }
    group.cidrs.extend(
        listed
            .iter()
            .filter_map(|field| cidr(field, true, problems)),
    );
    group.cidrs.sort();
    group.cidrs.dedup();
    group
}
