//! The policies as the operator knows them: what is wrong with each, whether its addresses fit, what its status
//! says, and in which order they were heard of.

use heddle_kube::objects::{Condition, Metadata, condition_in};
use heddle_kube::policy::{ObservedPolicies, Problem, Severity, parse_cidr_group, parse_policy};
use heddle_kube::store::Kind;
use heddle_model::NamespacedName;
use heddle_policy::{CidrBudget, CidrLimits, Policy};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Earlier states of a kind that a node's report may still be about.
const MOST_STATES: usize = 4_096;

/// Which policy object.
pub(crate) type PolicyKey = (Kind, NamespacedName);

/// A policy of any kind, and what its status says.
#[derive(Clone, Debug)]
pub(crate) struct PolicyFacts {
    /// How far the watch was when it had said the present generation.
    pub(crate) revision: u64,
    pub(crate) generation: Value,
    /// What is wrong with it; it is in force in no version of this generation when there is anything.
    pub(crate) errors: Vec<Problem>,
    /// Which change this generation was, as a count of those heard of.
    heard: u64,
    uid: Value,
    pub(crate) enforcement: Value,
    pub(crate) valid: Option<Condition>,
    pub(crate) enforced: Option<Condition>,
}

/// Every policy.
pub(crate) struct Policies {
    known: BTreeMap<PolicyKey, PolicyFacts>,
    budget: CidrBudget<PolicyKey>,
    observed: ObservedPolicies,
    /// The states that each kind went through, with the change that led to each.
    states: BTreeMap<Kind, VecDeque<(String, u64)>>,
    changes: u64,
    /// Policies whose present generation was said, but not yet how far the watch was then.
    fresh: BTreeSet<PolicyKey>,
}

impl Policies {
    /// None. `limits` is what their addresses may cost.
    pub(crate) fn new(limits: CidrLimits) -> Self {
        let mut policies = Self {
            known: BTreeMap::new(),
            budget: CidrBudget::new(limits),
            observed: ObservedPolicies::default(),
            states: BTreeMap::new(),
            changes: 0,
            fresh: BTreeSet::new(),
        };
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_policy()) {
            policies.remember(kind);
        }
        policies
    }

    /// All of them, in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PolicyKey, &PolicyFacts)> {
        self.known.iter()
    }

    /// Whether a policy's addresses are enforced.
    pub(crate) fn fits(&self, key: &PolicyKey) -> bool {
        self.budget.admits(key)
    }

    /// Up to which change somebody has heard whose digests are these, by kind.
    pub(crate) fn heard(&self, digests: &BTreeMap<Kind, String>) -> HashMap<Kind, u64> {
        let known = digests.iter().filter_map(|(kind, digest)| {
            let states = self.states.get(kind)?.iter().rev();
            let mut same = states.filter(|(state, _)| state == digest);
            Some((*kind, same.next()?.1))
        });
        known.collect()
    }

    fn remember(&mut self, kind: Kind) {
        let states = self.states.entry(kind).or_default();
        if states.len() == MOST_STATES {
            states.pop_front();
        }
        states.push_back((self.observed.digest(kind), self.changes));
    }

    /// Takes in a policy as it is now.
    pub(crate) fn set(&mut self, kind: Kind, name: NamespacedName, value: &Value) {
        let changed = self.observed.set(kind, &name, value);
        let key = (kind, name);
        let metadata = &value["metadata"];
        let before = self
            .known
            .remove(&key)
            .filter(|before| !changed && before.uid == metadata["uid"]);
        let mut facts = match before {
            Some(before) => before,
            None => {
                self.changes += 1;
                self.remember(kind);
                self.fresh.insert(key.clone());
                PolicyFacts {
                    revision: 0,
                    generation: metadata["generation"].clone(),
                    errors: self.read(&key, value),
                    heard: self.changes,
                    uid: metadata["uid"].clone(),
                    enforcement: Value::Null,
                    valid: None,
                    enforced: None,
                }
            }
        };
        facts.enforcement = value["status"]["enforcement"].clone();
        facts.valid = condition_in(value, "Valid");
        facts.enforced = condition_in(value, "Enforced");
        if facts.revision == 0 && facts.enforcement["observedGeneration"] == facts.generation {
            // Another operator has said it before.
            facts.revision = facts.enforcement["revision"].as_u64().unwrap_or(0);
        }
        self.known.insert(key, facts);
    }

    /// What is wrong with a policy; what its addresses cost is entered, unless it is refused: then its last
    /// accepted version is in force.
    fn read(&mut self, key: &PolicyKey, value: &Value) -> Vec<Problem> {
        match parse_policy(value) {
            Ok(policies) => {
                let cost = policies.iter().map(Policy::cidr_cost).sum();
                self.budget.set(
                    key.clone(),
                    &key.1.namespace,
                    &Metadata::of(value).age(),
                    cost,
                );
                Vec::new()
            }
            Err(mut problems) => {
                problems.retain(|problem| problem.severity == Severity::Error);
                problems
            }
        }
    }

    /// Takes in a CIDR group: it shares the budget with cluster-wide policies.
    pub(crate) fn set_group(&mut self, name: NamespacedName, value: &Value) {
        if let Ok(group) = parse_cidr_group(value) {
            let key = (Kind::CiliumCIDRGroup, name);
            self.budget
                .set(key, "", &Metadata::of(value).age(), group.cidrs.len());
        }
    }

    /// A policy or a group is gone.
    pub(crate) fn remove(&mut self, kind: Kind, name: NamespacedName) {
        let key = (kind, name);
        self.budget.remove(&key);
        if self.known.remove(&key).is_some() {
            self.observed.remove(kind, &key.1);
            self.fresh.remove(&key);
            self.changes += 1;
            self.remember(kind);
        }
    }

    /// Everything has been said up to here.
    pub(crate) fn synced(&mut self, revision: u64) {
        for key in std::mem::take(&mut self.fresh) {
            if let Some(facts) = self.known.get_mut(&key)
                && facts.revision == 0
            {
                facts.revision = revision;
            }
        }
    }
}

impl PolicyFacts {
    /// True when somebody who has heard so much of its kind has heard of its present generation.
    pub(crate) fn is_heard_by(&self, change: Option<u64>) -> bool {
        change.is_some_and(|change| change >= self.heard)
    }
}
