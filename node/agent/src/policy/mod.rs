//! What the store says of policies and of what they refer to, as the engine enforces it: within the limits of each
//! namespace, and with the last accepted version of what is refused.

mod budget;
mod groups;
mod kept;
mod objects;
mod rules;
mod services;

use crate::config::AgentConfig;
use budget::Key;
use groups::CidrGroups;
use heddle_kube::policy::Problem;
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use heddle_policy::CidrAssignment;
use kept::Write;
use services::Services;
use std::collections::BTreeSet;

pub(crate) use kept::{KeptWriter, write_kept};
pub(crate) use objects::{PolicyKey, PolicyTable};
pub(crate) use rules::Rules;

/// Policies, and what they refer to.
pub(crate) struct Policies {
    pub(crate) rules: Rules,
    pub(crate) objects: PolicyTable,
    groups: CidrGroups,
    services: Services,
    /// Something was said of them since [`Self::take_heard`].
    heard: bool,
}

impl Policies {
    /// Without any object; the numbers of addresses are those that the kernel holds.
    pub(crate) fn new(config: &AgentConfig, cidrs: &[CidrAssignment]) -> Self {
        Self {
            rules: Rules::new(config, cidrs),
            objects: PolicyTable::new(config),
            groups: CidrGroups::new(&config.state_dir),
            services: Services::default(),
            heard: false,
        }
    }

    /// A policy object as the store has it. True when it says otherwise than before whether it may cut what nodes
    /// live by.
    pub(crate) fn set(&mut self, object: &Object) -> bool {
        self.heard = true;
        let set = self.objects.set(object, &mut self.rules);
        self.budget_changed(set.budget);
        set.lock_out
    }

    pub(crate) fn remove(&mut self, kind: Kind, name: &NamespacedName) {
        self.heard = true;
        let changed = self.objects.remove(kind, name, &mut self.rules);
        self.budget_changed(changed);
    }

    pub(crate) fn set_group(&mut self, object: &Object) {
        self.heard = true;
        let changed = self.groups.set(object, &mut self.rules);
        self.budget_changed(changed);
    }

    pub(crate) fn remove_group(&mut self, name: &str) {
        self.heard = true;
        let changed = self.groups.remove(name, &mut self.rules);
        self.budget_changed(changed);
    }

    /// A Service or an EndpointSlice as the store has it; `None` when it is gone.
    pub(crate) fn set_service(
        &mut self,
        kind: Kind,
        name: &NamespacedName,
        object: Option<&Object>,
    ) {
        self.heard = true;
        match kind {
            Kind::EndpointSlice => self.services.set_slice(name, object, &mut self.rules),
            _ => self.services.set(name, object, &mut self.rules),
        }
    }

    /// The addresses of these objects fit now, or do not any more.
    fn budget_changed(&mut self, changed: BTreeSet<Key>) {
        for key in changed {
            match key.0 {
                Kind::CiliumCIDRGroup => {
                    self.groups.budget_changed(&key.1.name, &mut self.rules);
                }
                _ => self.objects.budget_changed(&key, &mut self.rules),
            }
        }
    }

    /// Whether something was said of policies, or of what they refer to, since this was asked last.
    pub(crate) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// What is to be kept over a restart and is not on the disk yet.
    pub(crate) fn kept_due(&self) -> Vec<Write> {
        self.objects
            .kept
            .due()
            .chain(self.groups.kept.due())
            .collect()
    }

    /// These are on the disk.
    pub(crate) fn kept_written(&mut self, writes: &[Write]) {
        for write in writes {
            self.objects.kept.written(write);
            self.groups.kept.written(write);
        }
    }

    /// Everything that is to be kept over a restart is on the disk.
    #[cfg(test)]
    pub(crate) fn is_kept(&self) -> bool {
        self.objects.kept.is_written() && self.groups.kept.is_written()
    }

    /// Refused objects, each with its first error.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, &Problem)> {
        self.objects.refused().chain(self.groups.refused())
    }

    /// Number of objects whose addresses do not fit.
    pub(crate) fn beyond_budget_count(&self) -> usize {
        self.rules.budget.refused().count()
    }

    /// Objects whose addresses do not fit, with what that means.
    pub(crate) fn beyond_budget(&self) -> Vec<String> {
        let refused = self.rules.budget.refused();
        let said = refused.map(|(kind, name)| match kind {
            Kind::CiliumCIDRGroup => format!(
                "{kind} {} lists more addresses than fit beside those of other cluster-wide objects (maxPolicyCidrs): what it listed before still counts",
                name.name
            ),
            _ => format!("{kind} {name}: {}", heddle_kube::policy::TOO_MANY_CIDRS),
        });
        said.collect()
    }
}
