//! Whose addresses are enforced: see [`heddle_policy::CidrBudget`].

use super::Ledger;
use crate::config::AgentConfig;
use heddle_kube::store::Kind;
use heddle_model::NamespacedName;
use heddle_policy::{CidrBudget, CidrLimits};
use serde_json::Value;
use std::collections::BTreeSet;

/// What has addresses: policies and groups.
pub(super) type Budget = CidrBudget<(Kind, NamespacedName)>;

/// A budget with the configured limits. Pods and nodes have half of the ipcache for themselves.
pub(super) fn of(config: &AgentConfig) -> Budget {
    let half = config.max_ipcache_entries / 2;
    CidrBudget::new(CidrLimits {
        total: config.max_policy_cidrs.min(half) as usize,
        per_namespace: config.max_cidrs_per_namespace as usize,
    })
}

/// When an object was made, as a text that sorts by age.
pub(super) fn made(value: &Value) -> String {
    let metadata = &value["metadata"];
    let field = |name: &str| metadata[name].as_str().unwrap_or_default();
    format!("{} {}", field("creationTimestamp"), field("uid"))
}

impl Ledger {
    /// The addresses of these objects fit now, or do not any more.
    pub(super) fn budget_changed(&mut self, changed: BTreeSet<(Kind, NamespacedName)>) {
        for key in changed {
            match key.0 {
                Kind::CiliumCIDRGroup => self.group_budget_changed(&key.1.name),
                _ => self.policy_budget_changed(&key),
            }
        }
    }

    /// Objects whose addresses do not fit, with what that means.
    pub(crate) fn beyond_budget(&self) -> Vec<String> {
        let refused = self.cidr_budget.refused();
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
