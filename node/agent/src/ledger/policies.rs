//! Policy objects: accepted ones go to the engine, refused ones are refused loudly.

use super::Ledger;
use super::audit::may_lock_out;
use super::budget::made;
use crate::status::conditions::pending::{PendingConditions, PolicyKey, Verdict, first_error};
use heddle_cni::pending::{file_stem, make_private_directory, write_durably};
use heddle_kube::policy::{Problem, parse_policy};
use heddle_kube::store::{Kind, Object};
use heddle_model::{Identity, NamespacedName};
use heddle_policy::{Policy, PolicyId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What is said of a policy whose addresses do not fit.
pub(super) const TOO_MANY_CIDRS: &str = "the policies of its namespace name more addresses than fit, this one goes beyond: \
    it is in force without its addresses, so rules that allow addresses allow none, and rules that deny addresses \
    deny all outside the cluster; name fewer (maxCidrsPerNamespace), or list them in a CiliumCIDRGroup";

/// What is known of a policy object.
#[derive(Clone, Debug, Default)]
struct PolicyObject {
    /// Revision of the object as it was last seen.
    revision: u64,
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
    /// The version that its conditions are about.
    generation: Value,
    /// The conditions that it has.
    conditions: Vec<Value>,
}

/// Every policy object.
#[derive(Debug)]
pub(crate) struct PolicyTable {
    objects: BTreeMap<PolicyKey, PolicyObject>,
    /// Conditions that objects should have and have not.
    pub(crate) conditions: PendingConditions,
    /// Where the last accepted versions of refused objects are kept over restarts.
    kept: PathBuf,
}

impl PolicyTable {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            objects: BTreeMap::new(),
            conditions: PendingConditions::default(),
            kept: state_dir.join("policies"),
        }
    }

    fn kept_path(&self, kind: Kind, name: &NamespacedName) -> PathBuf {
        let stem = file_stem(
            &format!("{kind}.{}.{}", name.namespace, name.name),
            "accepted",
        );
        self.kept.join(format!("{stem}.json"))
    }

    /// Refused objects, each with its first error.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (String, &Problem)> {
        self.objects.iter().filter_map(|((kind, name), object)| {
            Some((format!("{kind} {name}"), first_error(&object.problems)?))
        })
    }

    /// Whether a policy may cut what nodes live by.
    pub(super) fn may_lock_out(&self, id: &PolicyId) -> bool {
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
}

impl Ledger {
    pub(super) fn set_policy_object(&mut self, object: &Object) {
        let key = (object.kind, object.name.clone());
        let content = content_of(&object.value);
        let mut known = self.policies.objects.remove(&key).unwrap_or_default();
        known.revision = object.revision;
        known.made = made(&object.value);
        known.generation = object.value["metadata"]["generation"].clone();
        let conditions = object.value["status"]["conditions"].as_array();
        known.conditions = conditions.cloned().unwrap_or_default();
        if std::mem::replace(&mut known.may_lock_out, may_lock_out(&object.value))
            != known.may_lock_out
        {
            self.host.reconsider();
            self.touched.insert(Identity::OWN_NODE);
        }
        match parse_policy(&object.value) {
            Ok(policies) => {
                if known.accepted.as_ref() != Some(&content) || !known.problems.is_empty() {
                    tracing::info!(kind = %object.kind, policy = %object.name, revision = object.revision, "policy accepted");
                    let _ = std::fs::remove_file(self.policies.kept_path(key.0, &key.1));
                }
                self.put_in_force(&key, &mut known, policies, content);
                known.problems.clear();
            }
            Err(problems) => self.refuse(&key, &mut known, problems),
        }
        self.heard.note_policy(object.revision);
        self.tell_condition(&key, &known);
        self.policies.objects.insert(key, known);
    }

    fn tell_condition(&mut self, key: &PolicyKey, known: &PolicyObject) {
        let verdict = if known.problems.is_empty() {
            if self.cidr_budget.admits(key) {
                Verdict::InForce
            } else {
                Verdict::TooManyCidrs(TOO_MANY_CIDRS)
            }
        } else {
            Verdict::Refused {
                problems: &known.problems,
                has_accepted: known.accepted.is_some(),
            }
        };
        self.policies
            .conditions
            .want(key, &verdict, &known.generation, &known.conditions);
    }

    fn put_in_force(
        &mut self,
        key: &PolicyKey,
        known: &mut PolicyObject,
        policies: Vec<Policy>,
        content: Value,
    ) {
        let cost = policies.iter().map(Policy::cidr_cost).sum();
        let namespace = &key.1.namespace;
        let mut changed = self
            .cidr_budget
            .set(key.clone(), namespace, &known.made, cost);
        let flipped = changed.remove(key);
        if flipped || known.accepted.as_ref() != Some(&content) {
            self.enforce(key, known, policies);
            known.accepted = Some(content);
        }
        self.budget_changed(changed);
    }

    /// Hands the policies of an object to the engine: without their addresses where these do not fit.
    fn enforce(&mut self, key: &PolicyKey, known: &mut PolicyObject, policies: Vec<Policy>) {
        let fits = self.cidr_budget.admits(key);
        if !fits {
            tracing::error!(kind = %key.0, policy = %key.1, "{TOO_MANY_CIDRS}");
        }
        let ids: BTreeSet<PolicyId> = policies.iter().map(|policy| policy.id.clone()).collect();
        for gone in known.ids.iter().filter(|id| !ids.contains(id)) {
            self.touched.extend(self.engine.remove_policy(gone));
        }
        for policy in policies {
            let policy = self.config.policy_cidr_match_mode.meant(policy);
            let policy = if fits {
                policy
            } else {
                policy.without_addresses()
            };
            self.touched.extend(self.engine.set_policy(policy));
        }
        known.ids = ids.into_iter().collect();
    }

    /// The addresses of a policy fit now, or do not any more.
    pub(super) fn policy_budget_changed(&mut self, key: &PolicyKey) {
        let Some(mut known) = self.policies.objects.remove(key) else {
            return;
        };
        // What was accepted once is read the same way again.
        if let Some(policies) = known
            .accepted
            .as_ref()
            .and_then(|accepted| parse_policy(accepted).ok())
        {
            self.enforce(key, &mut known, policies);
        }
        self.tell_condition(key, &known);
        self.policies.objects.insert(key.clone(), known);
    }

    /// The object's present content is not enforced; its last accepted version stays in force, also over
    /// a restart of the agent.
    fn refuse(&mut self, key: &PolicyKey, known: &mut PolicyObject, problems: Vec<Problem>) {
        let path = self.policies.kept_path(key.0, &key.1);
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
            let kept = make_private_directory(&self.policies.kept)
                .and_then(|()| write_durably(&path, accepted.to_string().as_bytes()));
            if let Err(error) = kept {
                tracing::error!(policy = %key.1, %error, "its last accepted version cannot be kept over a restart");
            }
            return;
        }
        let Ok(kept) = std::fs::read(&path) else {
            return;
        };
        let parsed = serde_json::from_slice::<Value>(&kept)
            .ok()
            .and_then(|value| Some((parse_policy(&value).ok()?, value)));
        match parsed {
            Some((policies, value)) => {
                self.put_in_force(key, known, policies, content_of(&value));
            }
            None => {
                tracing::error!(path = %path.display(), "the kept version of a refused policy cannot be read")
            }
        }
    }

    pub(super) fn remove_policy_object(
        &mut self,
        kind: Kind,
        name: &NamespacedName,
        revision: u64,
    ) {
        let key = (kind, name.clone());
        let _ = std::fs::remove_file(self.policies.kept_path(kind, name));
        self.policies.conditions.forget(&key);
        if let Some(known) = self.policies.objects.remove(&key) {
            for id in &known.ids {
                self.touched.extend(self.engine.remove_policy(id));
            }
        }
        let changed = self.cidr_budget.remove(&key);
        self.budget_changed(changed);
        self.heard.note_policy(revision);
    }
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
