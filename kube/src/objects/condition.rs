//! A condition of an object's status.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whether a condition holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can say.
    Unknown,
}

/// One of `status.conditions`, as `metav1.Condition` has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about; one condition of each type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one word.
    #[serde(default)]
    pub reason: String,
    /// Why, as a sentence.
    #[serde(default)]
    pub message: String,
    /// When the status changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    /// Which generation of the object it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
}

impl Condition {
    /// The same condition as an object has it from before keeps the time at which its status changed; another
    /// status changed at `now` (RFC 3339).
    #[must_use]
    pub fn since(mut self, before: Option<&Self>, now: impl FnOnce() -> String) -> Self {
        self.last_transition_time = before
            .filter(|before| before.status == self.status)
            .and_then(|before| before.last_transition_time.clone())
            .or_else(|| Some(now()));
        self
    }
}

/// The condition of a type in an object's status; none where there is none, or none that can be read.
pub fn condition_in(object: &Value, kind: &str) -> Option<Condition> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|one| one["type"] == kind)?;
    Condition::deserialize(found).ok()
}
