//! Policies as the kernel has them.

use heddle_datapath::RealisedPolicy;
use heddle_model::Identity;
use heddle_policy::{CompiledPolicy, Direction, EntryVerdict};

/// A policy read back from the kernel. A direction is not enforced where the row for everybody stands.
pub(crate) fn as_compiled(policy: RealisedPolicy) -> Option<CompiledPolicy> {
    let audit = policy.audit;
    let entries = policy.entries?;
    let is_open = |direction: Direction| {
        entries.iter().any(|entry| {
            entry.key.direction == direction
                && entry.key.identity == Identity::UNKNOWN
                && entry.key.protocol == 0
                && entry.cookie == 0
                && entry.verdict == EntryVerdict::Allow
        })
    };
    Some(CompiledPolicy {
        ingress_enforced: !is_open(Direction::Ingress),
        egress_enforced: !is_open(Direction::Egress),
        entries,
        aliases: policy.aliases,
        audit,
    })
}
