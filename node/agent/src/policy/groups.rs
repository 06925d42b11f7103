//! CIDR groups: of one that is refused or does not fit, what it listed before still counts.

use super::Rules;
use super::budget::Key;
use super::kept::Kept;
use heddle_kube::objects::Metadata;
use heddle_kube::policy::{CidrGroup, Problem, parse_cidr_group};
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Groups that are not in force as the store has them. What is in force the engine knows.
#[derive(Debug)]
pub(super) struct CidrGroups {
    /// Groups whose present content is refused.
    refused: BTreeMap<String, Problem>,
    /// Groups that list more than fits.
    too_large: BTreeMap<String, CidrGroup>,
    /// What these listed before.
    pub(super) kept: Kept,
}

/// A group in the budget of addresses.
fn group_key(name: &str) -> Key {
    (Kind::CiliumCIDRGroup, NamespacedName::new("", name))
}

impl CidrGroups {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            refused: BTreeMap::new(),
            too_large: BTreeMap::new(),
            kept: Kept::new(state_dir.join("groups")),
        }
    }

    /// Refused groups, each with its first error.
    pub(super) fn refused(&self) -> impl Iterator<Item = (String, &Problem)> {
        let named = |(name, problem)| (format!("CiliumCIDRGroup {name}"), problem);
        self.refused.iter().map(named)
    }

    /// A group as the store has it. The objects whose addresses fit now, or do not any more.
    pub(super) fn set(&mut self, object: &Object, rules: &mut Rules) -> BTreeSet<Key> {
        let name = &object.name.name;
        match parse_cidr_group(&object.value) {
            Ok(group) => {
                self.refused.remove(name);
                let key = group_key(name);
                let cost = group.cidrs.len();
                self.too_large.insert(name.clone(), group);
                let changed =
                    rules
                        .budget
                        .set(key.clone(), "", &Metadata::of(&object.value).age(), cost);
                self.budget_changed(name, rules);
                if !rules.budget.admits(&key) {
                    tracing::error!(group = %name, "CIDR group not taken in, what it listed before still counts: all groups and cluster-wide policies name more addresses than fit (maxPolicyCidrs)");
                }
                changed
            }
            Err(problems) => {
                if let Some(problem) = problems.into_iter().next() {
                    tracing::error!(
                        group = %name, code = %problem.code, field = %problem.field,
                        "CIDR group refused, what it listed before still counts: {}", problem.message
                    );
                    self.refused.insert(name.clone(), problem);
                }
                self.keep(name, rules);
                BTreeSet::new()
            }
        }
    }

    /// The objects whose addresses fit now that the group is gone.
    pub(super) fn remove(&mut self, name: &str, rules: &mut Rules) -> BTreeSet<Key> {
        self.refused.remove(name);
        self.too_large.remove(name);
        self.kept.forget(name);
        rules.change(|engine| engine.remove_cidr_group(name));
        rules.budget.remove(&group_key(name))
    }

    /// The addresses of a group fit now, or do not any more: then what is in force stays.
    pub(super) fn budget_changed(&mut self, name: &str, rules: &mut Rules) {
        if !rules.budget.admits(&group_key(name)) {
            return self.keep(name, rules);
        }
        if let Some(group) = self.too_large.remove(name) {
            rules.change(|engine| engine.set_cidr_group(name, group.labels, group.cidrs));
        }
        if !self.refused.contains_key(name) {
            self.kept.forget(name);
        }
    }

    /// What a group lists that is not taken in stays as it was, also over a restart of the agent.
    fn keep(&mut self, name: &str, rules: &mut Rules) {
        if let Some(group) = rules.engine().cidr_group(name) {
            match serde_json::to_vec(&group) {
                Ok(content) => self.kept.keep(name, content),
                Err(error) => {
                    tracing::error!(group = %name, %error, "what it listed before cannot be kept over a restart");
                }
            }
            return;
        }
        let kept = self.kept.read(name);
        if let Some((labels, cidrs)) = kept.and_then(|kept| serde_json::from_slice(&kept).ok()) {
            rules.change(|engine| engine.set_cidr_group(name, labels, cidrs));
        }
    }
}
