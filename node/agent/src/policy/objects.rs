//! Policy objects: accepted ones go to the engine, refused ones are refused loudly.

use super::Rules;
use super::budget::Key;
use super::kept::Kept;
use crate::audit::may_lock_out;
use crate::config::{AgentConfig, CidrMatchMode, UnenforceablePolicies};
use crate::endpoint::table::EndpointTable;
use heddle_kube::objects::{Metadata, OpenEndpoints};
use heddle_kube::policy::{
    ObservedPolicies, Problem, Severity, TOO_MANY_CIDRS, isolation_of, parse_policy,
};
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use heddle_policy::{Policy, PolicyId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Which policy object.
pub(crate) type PolicyKey = (Kind, NamespacedName);

/// Open endpoints named beside a refused policy at most.
const MOST_OPEN: usize = 8;
/// Refused policies whose open endpoints are looked for at most.
const MOST_LOOKED_AT: usize = 256;

/// What is known of a policy object.
#[derive(Clone, Debug, Default)]
struct PolicyObject {
    /// The content that is in force; `None` when no version was ever accepted.
    accepted: Option<Value>,
    /// The policies that are in force for it.
    ids: Vec<PolicyId>,
    /// Why its present content is refused; empty when it is accepted.
    problems: Vec<Problem>,
    /// Whether it may cut what nodes live by.
    may_lock_out: bool,
    /// When it was made: among the policies of a namespace older ones are served first.
    made: String,
    /// Whom it would isolate, while it is refused and no version of it is in force.
    isolation: Option<Policy>,
}

/// Every policy object.
#[derive(Debug)]
pub(crate) struct PolicyTable {
    objects: BTreeMap<PolicyKey, PolicyObject>,
    /// Which objects are known, each in its generation.
    observed: ObservedPolicies,
    /// The last accepted versions of refused objects.
    pub(super) kept: Kept,
    cidr_match_mode: CidrMatchMode,
    unenforceable: UnenforceablePolicies,
}

/// What a policy object that was set changes beside its own policies.
pub(super) struct Set {
    /// Other objects whose addresses fit now, or do not any more.
    pub(super) budget: BTreeSet<Key>,
    /// It says otherwise than before whether it may cut what nodes live by.
    pub(super) lock_out: bool,
}

impl PolicyTable {
    pub(super) fn new(config: &AgentConfig) -> Self {
        Self {
            objects: BTreeMap::new(),
            observed: ObservedPolicies::default(),
            kept: Kept::new(config.state_dir.join("policies")),
            cidr_match_mode: config.policy_cidr_match_mode,
            unenforceable: config.unenforceable_policies,
        }
    }

    /// Refused objects, each with its first error.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, &Problem)> {
        self.objects.iter().filter_map(|((kind, name), object)| {
            Some((format!("{kind} {name}"), first_error(&object.problems)?))
        })
    }

    /// What is known of every object, as others can compare it.
    pub(crate) const fn observed(&self) -> &ObservedPolicies {
        &self.observed
    }

    /// Refused objects: whether an earlier version stays in force, and whether whom it selects is isolated.
    pub(crate) fn refused_objects(&self) -> impl Iterator<Item = (&PolicyKey, bool, bool)> {
        let refused = self.objects.iter();
        let refused = refused.filter(|(_, known)| !known.problems.is_empty());
        refused.map(|(key, known)| {
            let isolates = known.isolation.is_some() && !known.ids.is_empty();
            (key, known.accepted.is_some(), isolates)
        })
    }

    /// Whether a policy may cut what nodes live by.
    pub(crate) fn may_lock_out(&self, id: &PolicyId) -> bool {
        self.objects
            .values()
            .any(|object| object.may_lock_out && object.ids.contains(id))
    }

    /// Number of objects that are in force.
    pub(crate) fn in_force(&self) -> usize {
        self.objects
            .values()
            .filter(|object| object.accepted.is_some())
            .count()
    }

    /// An object as the store has it.
    pub(super) fn set(&mut self, object: &Object, rules: &mut Rules) -> Set {
        let key = (object.kind, object.name.clone());
        let content = content_of(&object.value);
        let known = self.objects.get(&key);
        let accepted = known.and_then(|known| known.accepted.as_ref());
        // Another object of the same name, whose predecessor's end was not heard.
        let mut changed = if accepted.is_some_and(|it| !is_same_object(it, &object.value)) {
            self.remove(object.kind, &object.name, rules)
        } else {
            BTreeSet::new()
        };
        let mut known = self.objects.remove(&key).unwrap_or_default();
        known.made = Metadata::of(&object.value).age();
        self.observed.set(object.kind, &object.name, &object.value);
        known.isolation = None;
        let before = std::mem::replace(&mut known.may_lock_out, may_lock_out(&object.value));
        let lock_out = before != known.may_lock_out;
        let budget = match parse_policy(&object.value) {
            Ok(policies) => {
                if known.accepted.as_ref() != Some(&content) || !known.problems.is_empty() {
                    tracing::info!(kind = %object.kind, policy = %object.name, version = %object.version, "policy accepted");
                    self.kept.forget(&kept_name(&key));
                }
                known.problems.clear();
                self.put_in_force(&key, &mut known, policies, content, rules)
            }
            Err(problems) => self.refuse(&key, &mut known, problems, object, rules),
        };
        self.objects.insert(key, known);
        changed.extend(budget);
        Set {
            budget: changed,
            lock_out,
        }
    }

    /// The other objects whose addresses fit now, or do not any more.
    fn put_in_force(
        &self,
        key: &PolicyKey,
        known: &mut PolicyObject,
        policies: Vec<Policy>,
        content: Value,
        rules: &mut Rules,
    ) -> BTreeSet<Key> {
        let cost = policies.iter().map(Policy::cidr_cost).sum();
        let mut changed = rules
            .budget
            .set(key.clone(), &key.1.namespace, &known.made, cost);
        let flipped = changed.remove(key);
        if flipped || known.accepted.as_ref() != Some(&content) {
            self.enforce(key, known, policies, rules);
            known.accepted = Some(content);
        }
        changed
    }

    /// Hands the policies of an object to the engine: without their addresses where these do not fit.
    fn enforce(
        &self,
        key: &PolicyKey,
        known: &mut PolicyObject,
        policies: Vec<Policy>,
        rules: &mut Rules,
    ) {
        let fits = rules.budget.admits(key);
        if !fits {
            tracing::error!(kind = %key.0, policy = %key.1, "{TOO_MANY_CIDRS}");
        }
        let ids: BTreeSet<PolicyId> = policies.iter().map(|policy| policy.id.clone()).collect();
        for gone in known.ids.iter().filter(|id| !ids.contains(id)) {
            rules.change(|engine| engine.remove_policy(gone));
        }
        for policy in policies {
            let policy = self.cidr_match_mode.meant(policy);
            let policy = if fits {
                policy
            } else {
                policy.without_addresses()
            };
            rules.change(|engine| engine.set_policy(policy));
        }
        known.ids = ids.into_iter().collect();
    }

    /// The addresses of a policy fit now, or do not any more.
    pub(super) fn budget_changed(&mut self, key: &Key, rules: &mut Rules) {
        let Some(mut known) = self.objects.remove(key) else {
            return;
        };
        // What was accepted once is read the same way again.
        if let Some(policies) = known
            .accepted
            .as_ref()
            .and_then(|accepted| parse_policy(accepted).ok())
        {
            self.enforce(key, &mut known, policies, rules);
        }
        self.objects.insert(key.clone(), known);
    }

    /// The object's present content is not enforced; its last accepted version stays in force, also over
    /// a restart of the agent.
    fn refuse(
        &mut self,
        key: &PolicyKey,
        known: &mut PolicyObject,
        problems: Vec<Problem>,
        object: &Object,
        rules: &mut Rules,
    ) -> BTreeSet<Key> {
        if known.problems != problems
            && let Some(problem) = first_error(&problems)
        {
            let consequence = if known.accepted.is_some() {
                "its last accepted version stays in force"
            } else {
                "no version of it is in force"
            };
            tracing::error!(
                kind = %key.0, policy = %key.1, code = %problem.code, field = %problem.field,
                "policy refused, {consequence}: {}", problem.message
            );
        }
        known.problems = problems;
        if let Some(accepted) = &known.accepted {
            let content = accepted.to_string().into_bytes();
            self.kept.keep(&kept_name(key), content);
            return BTreeSet::new();
        }
        let Some(kept) = self.kept.read(&kept_name(key)) else {
            self.isolate(known, isolation_of(&object.value), rules);
            return BTreeSet::new();
        };
        let value = serde_json::from_slice::<Value>(&kept).unwrap_or_default();
        if value.is_object() && !is_same_object(&value, &object.value) {
            // Of an object that went while no agent ran.
            self.kept.forget(&kept_name(key));
        } else if let Ok(policies) = parse_policy(&value) {
            return self.put_in_force(key, known, policies, content_of(&value), rules);
        } else {
            tracing::error!(path = %self.kept.path(&kept_name(key)).display(), "the kept version of a refused policy cannot be read");
        }
        self.isolate(known, isolation_of(&object.value), rules);
        BTreeSet::new()
    }

    /// No version of a refused policy is in force: whom it selects is open, or isolated where that is the setting.
    fn isolate(&self, known: &mut PolicyObject, isolation: Option<Policy>, rules: &mut Rules) {
        known.isolation = isolation;
        if self.unenforceable == UnenforceablePolicies::Ignore {
            return;
        }
        for gone in known.ids.drain(..) {
            if known.isolation.as_ref().is_none_or(|new| new.id != gone) {
                rules.change(|engine| engine.remove_policy(&gone));
            }
        }
        if let Some(isolation) = known.isolation.clone() {
            known.ids.push(isolation.id.clone());
            rules.change(|engine| engine.set_policy(isolation));
        }
    }

    /// The endpoints that are open because a policy is refused, by policy.
    pub(crate) fn open_endpoints<'a>(
        &'a self,
        endpoints: &'a EndpointTable,
    ) -> impl Iterator<Item = (&'a PolicyKey, OpenEndpoints)> {
        let refused = self.objects.iter();
        let refused = refused.filter_map(|(key, known)| Some((key, known.isolation.as_ref()?)));
        // However many there are, to look at them costs what some do.
        refused
            .take(MOST_LOOKED_AT)
            .filter_map(move |(key, isolation)| {
                let namespace = &key.1.namespace;
                let mut open = OpenEndpoints::default();
                let endpoints = endpoints.values().filter(|endpoint| {
                    namespace.is_empty() || endpoint.record.pod.namespace == *namespace
                });
                for endpoint in endpoints {
                    let Some(policy) = &endpoint.policy else {
                        continue;
                    };
                    let is_open = isolation.specs.iter().any(|spec| {
                        (spec.isolates.ingress && !policy.ingress_enforced
                            || spec.isolates.egress && !policy.egress_enforced)
                            && spec.subject.matches(&endpoint.labels)
                    });
                    if is_open {
                        open.count += 1;
                        if open.pods.len() < MOST_OPEN {
                            open.pods.push(endpoint.record.pod.to_string());
                        }
                    }
                }
                (open.count > 0).then_some((key, open))
            })
    }

    /// The objects whose addresses fit now that this one is gone.
    pub(super) fn remove(
        &mut self,
        kind: Kind,
        name: &NamespacedName,
        rules: &mut Rules,
    ) -> BTreeSet<Key> {
        let key = (kind, name.clone());
        self.kept.forget(&kept_name(&key));
        self.observed.remove(kind, name);
        if let Some(known) = self.objects.remove(&key) {
            for id in &known.ids {
                rules.change(|engine| engine.remove_policy(id));
            }
        }
        rules.budget.remove(&key)
    }
}

/// What a policy object is kept by.
fn kept_name((kind, name): &PolicyKey) -> String {
    format!("{kind}.{}.{}", name.namespace, name.name)
}

/// Whether these are versions of one object, and not of two that had one name.
fn is_same_object(one: &Value, other: &Value) -> bool {
    one["metadata"]["uid"] == other["metadata"]["uid"]
}

/// The first of these that is an error.
fn first_error(problems: &[Problem]) -> Option<&Problem> {
    problems
        .iter()
        .find(|problem| problem.severity == Severity::Error)
        .or_else(|| problems.first())
}

/// What people wrote: the object without what the store adds, so that a write to its status is no change.
fn content_of(value: &Value) -> Value {
    let mut content = value.clone();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "uid"));
        }
    }
    content
}
