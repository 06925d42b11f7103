//! The conditions that policy objects should have and have not.

use heddle_kube::policy::{Problem, Severity};
use heddle_kube::store::Kind;
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Which policy object.
pub(crate) type PolicyKey = (Kind, NamespacedName);

/// What became of a policy object.
pub(crate) enum Verdict<'a> {
    /// It is enforced.
    InForce,
    /// It is enforced without its addresses, for this reason.
    TooManyCidrs(&'a str),
    /// Its present content is refused.
    Refused {
        problems: &'a [Problem],
        /// A version of it that was accepted before is enforced.
        has_accepted: bool,
    },
}

/// Conditions that objects should have and have not: for each object the whole list of its conditions.
#[derive(Debug, Default)]
pub(crate) struct PendingConditions(BTreeMap<PolicyKey, Value>);

impl PendingConditions {
    /// An object of this generation and with these conditions should have the one that its verdict says.
    pub(crate) fn want(
        &mut self,
        key: &PolicyKey,
        verdict: &Verdict<'_>,
        generation: &Value,
        present: &[Value],
    ) {
        match conditions(verdict, generation, present) {
            Some(wanted) => self.0.insert(key.clone(), wanted),
            None => self.0.remove(key),
        };
    }

    pub(crate) fn forget(&mut self, key: &PolicyKey) {
        self.0.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first one after `last`.
    pub(super) fn after(&self, last: Option<&PolicyKey>) -> Option<(PolicyKey, Value)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.0.range((from, Bound::Unbounded));
        rest.next()
            .map(|(key, wanted)| (key.clone(), wanted.clone()))
    }

    /// It was written; another one may be wanted by now.
    pub(super) fn wrote(&mut self, key: &PolicyKey, written: &Value) {
        if self.0.get(key) == Some(written) {
            self.0.remove(key);
        }
    }
}

/// The first error of a policy, or else its first warning.
pub(crate) fn first_error(problems: &[Problem]) -> Option<&Problem> {
    problems
        .iter()
        .find(|problem| problem.severity == Severity::Error)
        .or_else(|| problems.first())
}

/// The conditions that the object should have, if it has them not.
fn conditions(verdict: &Verdict<'_>, generation: &Value, present: &[Value]) -> Option<Value> {
    let (status, reason, message) = match verdict {
        Verdict::InForce => (
            "True",
            "Accepted".to_owned(),
            "the policy is enforced".to_owned(),
        ),
        Verdict::TooManyCidrs(reason) => (
            "False",
            "PolicyTooManyCidrs".to_owned(),
            format!("[policy/too-many-cidrs] {reason}"),
        ),
        Verdict::Refused {
            problems,
            has_accepted,
        } => {
            let mut parts: Vec<String> = problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .map(|problem| format!("[{}] {}: {}", problem.code, problem.field, problem.message))
                .collect();
            parts.push(
                if *has_accepted {
                    "the last accepted version stays in force"
                } else {
                    "the policy is not in force"
                }
                .to_owned(),
            );
            let code = first_error(problems).map_or("", |first| first.code);
            ("False", camel_case(code), parts.join("; "))
        }
    };
    let is_ours = |condition: &Value| condition["type"] == "Valid";
    if let Some(valid) = present.iter().find(|condition| is_ours(condition))
        && valid["status"] == status
        && valid["reason"] == reason.as_str()
        && valid["message"] == message.as_str()
        && (generation.is_null() || valid["observedGeneration"] == *generation)
    {
        return None;
    }
    let mut valid = json!({
        "type": "Valid", "status": status, "reason": reason, "message": message,
    });
    if !generation.is_null() {
        valid["observedGeneration"] = generation.clone();
    }
    let others = present.iter().filter(|one| !is_ours(one));
    Some(others.cloned().chain([valid]).collect())
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
