//! Whose policies are on audit: what they deny is told, and passes.

use super::{Ledger, LocalEndpoint};
use crate::config::PolicyAudit;
use serde_json::Value;

/// Annotation of a Pod or a Node whose policy is to be on audit, with the value `true`.
const AUDIT: &str = "heddle.dev/policy-audit";
/// Annotation of a host policy that may cut what its nodes live by, with the value `true`.
const ALLOW_LOCK_OUT: &str = "heddle.dev/allow-lock-out";

impl Ledger {
    /// Whether the node's own policy is on audit.
    pub(super) fn audits_node(&self) -> bool {
        self.config.policy_audit != PolicyAudit::None
            || self.own_node().is_some_and(|node| node.on_audit)
    }

    /// Whether an endpoint's policy is on audit.
    pub(crate) fn audits(&self, endpoint: &LocalEndpoint) -> bool {
        let pod = self.pods.get(&endpoint.record.pod);
        self.config.policy_audit == PolicyAudit::All
            || pod.is_some_and(|pod| is_on_audit(&pod.value))
    }
}

/// Whether a Pod or a Node is annotated to have its policy on audit.
pub(super) fn is_on_audit(object: &Value) -> bool {
    is_annotated(object, AUDIT)
}

/// Whether a policy is annotated to cut what nodes live by.
pub(super) fn may_lock_out(object: &Value) -> bool {
    is_annotated(object, ALLOW_LOCK_OUT)
}

fn is_annotated(object: &Value, key: &str) -> bool {
    object["metadata"]["annotations"][key].as_str() == Some("true")
}
