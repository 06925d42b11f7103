//! Whose addresses are enforced: see [`heddle_policy::CidrBudget`].

use crate::config::AgentConfig;
use heddle_kube::store::Kind;
use heddle_model::NamespacedName;
use heddle_policy::{CidrBudget, CidrLimits};

/// What has addresses: policies and groups.
pub(super) type Key = (Kind, NamespacedName);
/// The addresses of policies and groups.
pub(super) type Budget = CidrBudget<Key>;

/// A budget with the configured limits. Pods and nodes have half of the ipcache for themselves.
pub(super) fn of(config: &AgentConfig) -> Budget {
    let half = config.max_ipcache_entries / 2;
    CidrBudget::new(CidrLimits {
        total: config.max_policy_cidrs.min(half) as usize,
        per_namespace: config.max_cidrs_per_namespace as usize,
    })
}
