//! What each policy's status says: whether it is valid, on how many nodes and endpoints it is in force.
//!
//! Agents report what they have in force ([`Kind::NodePolicyReport`]); the operator sums it up and is the only
//! writer of a policy's status, so that a change costs a write for each policy and not for each node.

use crate::cluster::Facts;
use crate::policies::PolicyFacts;
use heddle_kube::objects::{Condition, ConditionStatus, NodePolicyReport};
use heddle_kube::policy::{TOO_MANY_CIDRS, report_key};
use heddle_kube::store::{Event, Kind, Store, StoreError};
use heddle_kube::timestamp::rfc3339;
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Policies written at one look at most; the rest waits for the next.
const MOST_WRITES: usize = 512;
/// Nodes, or pods, named in one message at most.
const MOST_NAMED: usize = 8;

/// A policy's status that is not as it should be.
#[derive(Debug)]
pub(crate) struct Write {
    kind: Kind,
    name: NamespacedName,
    status: Value,
}

/// Whether an event changes what is in force, or what is known of it.
pub(crate) fn concerns(event: &Event) -> bool {
    match event {
        Event::Applied(object) | Event::Deleted(object) => {
            object.kind.is_policy()
                || matches!(
                    object.kind,
                    Kind::Node | Kind::NodePolicyReport | Kind::CiliumCIDRGroup
                )
        }
        Event::Synced { .. } => false,
        Event::Restarted => true,
    }
}

/// What a node has said.
struct Heard<'a> {
    node: &'a str,
    report: &'a NodePolicyReport,
    /// Up to which change it has heard of each kind.
    changes: HashMap<Kind, u64>,
}

/// The statuses to write, and whether these are all.
pub(crate) fn writes(facts: &Facts) -> (Vec<Write>, bool) {
    let heard: Vec<Heard> = facts
        .reports
        .iter()
        .filter(|(node, _)| facts.nodes.contains_key(*node))
        .map(|(node, report)| Heard {
            node,
            report: &report.status,
            changes: facts.policies.heard(&report.status.observed),
        })
        .collect();
    let mut endpoints: HashMap<&str, u64> = HashMap::new();
    for (policy, count) in heard.iter().flat_map(|one| &one.report.endpoints) {
        *endpoints.entry(policy).or_default() += count;
    }
    let mut found = Vec::new();
    for (key, policy) in facts.policies.iter() {
        let name = report_key(key.0.name(), &key.1.namespace, &key.1.name);
        let summary = Summary::of(facts, &heard, &name, policy);
        let fits = facts.policies.fits(key);
        let enforcement = json!({
            "nodes": summary.nodes,
            "ofNodes": facts.nodes.len(),
            "endpoints": endpoints.get(name.as_str()).copied().unwrap_or(0),
            "revision": policy.revision,
            "observedGeneration": policy.generation,
            "lockOuts": summary.lock_outs,
        });
        let now = || rfc3339(crate::now());
        let valid = valid(policy, fits, &heard, &summary, &name).since(policy.valid.as_ref(), now);
        let enforced = enforced(policy, fits, &summary, facts.nodes.len());
        let enforced = enforced.since(policy.enforced.as_ref(), now);
        if enforcement != policy.enforcement
            || policy.valid.as_ref() != Some(&valid)
            || policy.enforced.as_ref() != Some(&enforced)
        {
            if found.len() == MOST_WRITES {
                return (found, false);
            }
            found.push(Write {
                kind: key.0,
                name: key.1.clone(),
                status: json!({"enforcement": enforcement, "conditions": [valid, enforced]}),
            });
        }
    }
    (found, true)
}

/// What nodes say of one policy.
struct Summary<'a> {
    /// Nodes that have its present generation in force.
    nodes: usize,
    /// Nodes of which it is not known.
    unheard: Vec<&'a str>,
    /// Nodes that hold it back, with the traffic that it would cut.
    lock_outs: Vec<Value>,
    /// Why it is not in force on nodes that have heard of it.
    reasons: Vec<String>,
}

impl<'a> Summary<'a> {
    fn of(facts: &'a Facts, heard: &[Heard<'a>], name: &str, policy: &PolicyFacts) -> Self {
        let mut summary = Self {
            nodes: 0,
            unheard: Vec::new(),
            lock_outs: Vec::new(),
            reasons: Vec::new(),
        };
        let mut reports = heard.iter().peekable();
        for node in facts.nodes.keys() {
            let one = reports.next_if(|one| one.node == node);
            let kind = name.split('/').next().and_then(Kind::from_name);
            let up_to_date = one.is_some_and(|one| {
                let change = kind.and_then(|kind| one.changes.get(&kind).copied());
                policy.is_heard_by(change)
            });
            if let Some(one) = one
                && let Some(traffic) = one.report.lock_outs.get(name)
            {
                if summary.lock_outs.len() < MOST_NAMED {
                    summary
                        .lock_outs
                        .push(json!({ "node": node, "traffic": traffic }));
                }
                summary.reasons.push(format!(
                    "{node} holds it back: it would cut {}",
                    traffic.join(", ")
                ));
            } else if let Some(one) = one.filter(|_| up_to_date) {
                match one.report.not_in_force.get(name) {
                    Some(reason) => summary.reasons.push(format!("{node}: {reason}")),
                    None if policy.errors.is_empty() => summary.nodes += 1,
                    None => {}
                }
            } else {
                summary.unheard.push(node);
            }
        }
        summary
    }
}

impl Summary<'_> {
    fn not_heard_from(&self) -> Option<String> {
        let nodes = named(&self.unheard, self.unheard.len());
        (!self.unheard.is_empty()).then(|| format!("not heard from: {nodes}"))
    }
}

fn condition(
    kind: &str,
    status: ConditionStatus,
    reason: impl Into<String>,
    message: String,
    policy: &PolicyFacts,
) -> Condition {
    Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message,
        last_transition_time: None,
        observed_generation: policy.generation.as_u64(),
    }
}

/// Whether what is written can be enforced.
fn valid(
    policy: &PolicyFacts,
    fits: bool,
    heard: &[Heard<'_>],
    summary: &Summary<'_>,
    name: &str,
) -> Condition {
    let (status, reason, message) = match policy.errors.first() {
        None if !fits => (
            ConditionStatus::False,
            "PolicyTooManyCidrs".to_owned(),
            format!("[policy/too-many-cidrs] {TOO_MANY_CIDRS}"),
        ),
        None => (
            ConditionStatus::True,
            "Accepted".to_owned(),
            "the policy is accepted".to_owned(),
        ),
        Some(first) => {
            let problems = policy.errors.iter();
            let mut parts: Vec<String> = problems
                .map(|problem| format!("[{}] {}: {}", problem.code, problem.field, problem.message))
                .collect();
            let is_kept = heard
                .iter()
                .any(|one| one.report.kept.iter().any(|kept| kept == name));
            let isolates = heard
                .iter()
                .any(|one| one.report.isolated.iter().any(|isolated| isolated == name));
            let consequence = if is_kept {
                "the last accepted version stays in force"
            } else if isolates {
                "the policy is not in force, and the pods that it selects are isolated (unenforceablePolicies)"
            } else {
                "the policy is not in force"
            };
            parts.push(consequence.to_owned());
            parts.extend(open_pods(heard, name));
            // Their pods may be open, too.
            parts.extend(summary.not_heard_from());
            (
                ConditionStatus::False,
                camel_case(first.code),
                parts.join("; "),
            )
        }
    };
    condition("Valid", status, reason, message, policy)
}

/// Which pods are open because a policy is refused.
fn open_pods(heard: &[Heard<'_>], name: &str) -> Option<String> {
    let open: Vec<_> = heard
        .iter()
        .filter_map(|one| one.report.open.get(name))
        .collect();
    let count: u64 = open.iter().map(|open| open.count).sum();
    if count == 0 {
        return None;
    }
    let mut pods: Vec<&str> = open
        .iter()
        .flat_map(|open| &open.pods)
        .map(String::as_str)
        .collect();
    pods.sort_unstable();
    Some(format!(
        "{count} {} open because of it: {}",
        if count == 1 { "pod is" } else { "pods are" },
        named(&pods, usize::try_from(count).unwrap_or(usize::MAX))
    ))
}

/// Whether it is in force everywhere, as far as nodes have said.
fn enforced(policy: &PolicyFacts, fits: bool, summary: &Summary<'_>, of_nodes: usize) -> Condition {
    let counts = format!("enforced on {} of {of_nodes} nodes", summary.nodes);
    let with = |mut parts: Vec<String>| {
        parts.insert(0, counts.clone());
        parts.extend(summary.not_heard_from());
        parts.join("; ")
    };
    let (status, reason, message) = if !policy.errors.is_empty() {
        let why = "it is refused, see the condition Valid".to_owned();
        (ConditionStatus::False, "Refused", with(vec![why]))
    } else if !fits {
        let why = "without its addresses, which do not fit, see the condition Valid".to_owned();
        (
            ConditionStatus::False,
            "PolicyTooManyCidrs",
            with(vec![why]),
        )
    } else if !summary.reasons.is_empty() {
        let more = summary.reasons.len().saturating_sub(MOST_NAMED);
        let mut parts: Vec<String> = summary.reasons.iter().take(MOST_NAMED).cloned().collect();
        if more > 0 {
            parts.push(format!("and {more} more"));
        }
        let reason = if summary.lock_outs.is_empty() {
            "DoesNotFit"
        } else {
            "LockOut"
        };
        (ConditionStatus::False, reason, with(parts))
    } else if !summary.unheard.is_empty() || of_nodes == 0 {
        (ConditionStatus::Unknown, "NotHeardFrom", with(Vec::new()))
    } else {
        (ConditionStatus::True, "Enforced", counts)
    };
    condition("Enforced", status, reason, message, policy)
}

/// The first names of so many.
fn named(names: &[&str], of: usize) -> String {
    let shown = &names[..names.len().min(MOST_NAMED)];
    let more = of.saturating_sub(shown.len());
    if more > 0 {
        format!("{} and {more} more", shown.join(", "))
    } else {
        shown.join(", ")
    }
}

/// Writes them; false when some could not be.
pub(crate) async fn execute(store: Arc<dyn Store>, writes: Vec<Write>) -> bool {
    for write in writes {
        let applied = store.apply_status(write.kind, &write.name, crate::MANAGER, write.status);
        match applied.await {
            Ok(_) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => {
                tracing::warn!(kind = %write.kind, policy = %write.name, %error, "its status is not written yet");
                return false;
            }
        }
    }
    true
}

/// `policy/unknown-entity` as a condition's reason: `PolicyUnknownEntity`.
fn camel_case(code: &str) -> String {
    code.split(|c: char| !c.is_ascii_alphanumeric())
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
        })
        .collect()
}
