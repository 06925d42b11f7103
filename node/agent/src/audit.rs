//! Whose policies are on audit: what they deny is told, and passes.

use crate::config::{AgentConfig, PolicyAudit};
use crate::endpoint::pods::Pods;
use crate::endpoint::table::{EndpointTable, LocalEndpoint};
use crate::policy::Rules;
use serde_json::Value;

/// Annotation of a Pod or a Node whose policy is to be on audit, with the value `true`.
const AUDIT: &str = "heddle.dev/policy-audit";
/// Annotation of a Namespace whose pods may be on audit, with the value `true`.
const ALLOW_AUDIT: &str = "heddle.dev/allow-policy-audit";
/// Annotation of a host policy that may cut what its nodes live by, with the value `true`.
const ALLOW_LOCK_OUT: &str = "heddle.dev/allow-lock-out";

/// Pods that a warning names.
const NAMED: usize = 5;

/// Who is on audit by configuration and by annotation.
#[derive(Clone, Copy)]
pub(crate) struct Audit<'a> {
    pub(crate) config: &'a AgentConfig,
    pub(crate) pods: &'a Pods,
}

impl Audit<'_> {
    /// Whether an endpoint's policy is on audit. A Pod's annotation alone is not enough: who may write Pods
    /// may not be one who may weaken policies.
    pub(crate) fn audits(self, endpoint: &LocalEndpoint, rules: &Rules) -> bool {
        self.config.policy_audit == PolicyAudit::All
            || (self.asks(endpoint) && self.refusal(endpoint, rules).is_none())
    }

    fn asks(self, endpoint: &LocalEndpoint) -> bool {
        let pod = self.pods.get(&endpoint.record.pod);
        pod.is_some_and(|pod| is_on_audit(&pod.value))
    }

    /// Why the annotation of an endpoint's Pod has no effect.
    fn refusal(self, endpoint: &LocalEndpoint, rules: &Rules) -> Option<String> {
        if !self.config.allow_pod_audit {
            return Some("the agent's setting allowPodAudit is off".to_owned());
        }
        let namespace = &endpoint.record.pod.namespace;
        if !self.pods.allows_audit(namespace) {
            return Some(format!(
                "Namespace {namespace} is not annotated {ALLOW_AUDIT}: \"true\""
            ));
        }
        // Audit is one bit for all of an endpoint's policies.
        let about = rules.policies_about(endpoint.identity);
        let above = about.iter().find(|id| id.kind.cluster_wide())?;
        Some(format!("the cluster-wide policy {above} is about it"))
    }

    /// What an operator should know of Pods whose annotation has no effect.
    pub(crate) fn notice(self, endpoints: &EndpointTable, rules: &Rules) -> Option<String> {
        if self.config.policy_audit == PolicyAudit::All {
            return None;
        }
        let mut refused = endpoints.values().filter_map(|endpoint| {
            let reason = self
                .asks(endpoint)
                .then(|| self.refusal(endpoint, rules))??;
            Some(format!("{}: {reason}", endpoint.record.pod))
        });
        let first: Vec<String> = refused.by_ref().take(NAMED).collect();
        let more = match refused.count() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (!first.is_empty()).then(|| {
            format!(
                "annotation {AUDIT} without effect, the policy is enforced: {}{more}",
                first.join("; ")
            )
        })
    }
}

/// Whether a Pod or a Node is annotated to have its policy on audit.
pub(crate) fn is_on_audit(object: &Value) -> bool {
    is_annotated(object, AUDIT)
}

/// Whether a Namespace is annotated to let its pods be on audit.
pub(crate) fn allows_audit(namespace: &Value) -> bool {
    is_annotated(namespace, ALLOW_AUDIT)
}

/// Whether a policy is annotated to cut what nodes live by.
pub(crate) fn may_lock_out(object: &Value) -> bool {
    is_annotated(object, ALLOW_LOCK_OUT)
}

fn is_annotated(object: &Value, key: &str) -> bool {
    object["metadata"]["annotations"][key].as_str() == Some("true")
}
