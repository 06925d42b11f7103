//! Who owns which fields of an object's status: server-side apply as Kubernetes has it, always forced.
//!
//! A manager applies all that it has to say. What it said before and does not say any more goes, unless another
//! manager says it too. Objects are merged field by field; `conditions` is merged by each condition's `type`;
//! every other list is replaced as one value.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The one list that is merged by a key of its items, and the key.
const KEYED_LIST: (&str, &str) = ("conditions", "type");

/// Fields as a tree: `f:NAME` for a field and `k:{"type":"NAME"}` for a condition, as in `fieldsV1`. A branch
/// without branches is a whole value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Fields(BTreeMap<String, Fields>);

impl Fields {
    fn of(value: &Value, name: &str) -> Self {
        match value {
            Value::Object(fields) => Self(
                fields
                    .iter()
                    .map(|(name, value)| (format!("f:{name}"), Self::of(value, name)))
                    .collect(),
            ),
            Value::Array(items) => match keyed(name, items) {
                Some(items) => Self(
                    items
                        .into_iter()
                        .map(|(key, item)| (condition_key(key), Self::of(item, "")))
                        .collect(),
                ),
                None => Self::default(),
            },
            _ => Self::default(),
        }
    }

    fn is_leaf(&self) -> bool {
        self.0.is_empty()
    }
}

fn condition_key(key: &str) -> String {
    format!("k:{}", serde_json::json!({ KEYED_LIST.1: key }))
}

/// The items of a list that is merged by key, with their keys; none for another list.
fn keyed<'a>(name: &str, items: &'a [Value]) -> Option<Vec<(&'a str, &'a Value)>> {
    if name != KEYED_LIST.0 {
        return None;
    }
    items
        .iter()
        .map(|item| Some((item[KEYED_LIST.1].as_str()?, item)))
        .collect()
}

/// The managers of one object's status and what each owns.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Owners(BTreeMap<String, Fields>);

impl Owners {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes `status` what it is once `manager` says `applied` and nothing else.
    pub(crate) fn apply(&mut self, status: &mut Value, manager: &str, applied: &Value) {
        let fields = Fields::of(applied, "");
        let before = self
            .0
            .insert(manager.to_owned(), fields.clone())
            .unwrap_or_default();
        let others: Vec<&Fields> = self.0.values().collect();
        remove(status, &before, &others);
        for (other, owned) in &mut self.0 {
            if other != manager {
                give_up(owned, &fields, status, applied);
            }
        }
        set(status, applied, "");
        self.0.retain(|_, owned| !owned.is_leaf());
    }
}

/// What is at a step of a tree of fields.
fn at<'a>(value: &'a Value, step: &str) -> Option<&'a Value> {
    match step.strip_prefix("f:") {
        Some(field) => value.get(field),
        None => value
            .as_array()?
            .iter()
            .find(|item| is_condition(item, step)),
    }
}

fn is_condition(item: &Value, step: &str) -> bool {
    item[KEYED_LIST.1]
        .as_str()
        .is_some_and(|key| condition_key(key) == step)
}

/// Takes away what was owned and nobody of `owners` owns now. What is beside it, and was never applied by
/// anybody, stays.
fn remove(value: &mut Value, gone: &Fields, owners: &[&Fields]) {
    for (step, below) in &gone.0 {
        let owned: Vec<&Fields> = owners
            .iter()
            .filter_map(|owner| owner.0.get(step))
            .collect();
        if below.is_leaf() && !owned.is_empty() {
            continue;
        }
        match (step.strip_prefix("f:"), &mut *value) {
            (Some(field), Value::Object(fields)) => {
                if let Some(child) = fields.get_mut(field) {
                    remove(child, below, &owned);
                    if owned.is_empty() && (below.is_leaf() || is_hollow(child)) {
                        fields.remove(field);
                    }
                }
            }
            (None, Value::Array(items)) => {
                if let Some(at) = items.iter().position(|item| is_condition(item, step)) {
                    remove(&mut items[at], below, &owned);
                    if owned.is_empty() && (below.is_leaf() || is_hollow(&items[at])) {
                        items.remove(at);
                    }
                }
            }
            _ => {}
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Puts what was applied over what there is.
fn set(value: &mut Value, applied: &Value, name: &str) {
    match applied {
        Value::Object(fields) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            if let Value::Object(present) = value {
                for (name, applied) in fields {
                    set(
                        present.entry(name.clone()).or_insert(Value::Null),
                        applied,
                        name,
                    );
                }
            }
        }
        Value::Array(items) if keyed(name, items).is_some() => {
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            let Value::Array(present) = value else { return };
            for (key, item) in keyed(name, items).into_iter().flatten() {
                match present
                    .iter_mut()
                    .find(|one| one[KEYED_LIST.1].as_str() == Some(key))
                {
                    Some(one) => set(one, item, ""),
                    None => present.push(item.clone()),
                }
            }
        }
        other => *value = other.clone(),
    }
}

/// Takes out of `owned` what `applied` is about to change: a value is owned by those who say the same.
fn give_up(owned: &mut Fields, taken: &Fields, present: &Value, applied: &Value) {
    owned.0.retain(|step, below| {
        let (Some(taken), Some(applied)) = (taken.0.get(step), at(applied, step)) else {
            return true;
        };
        let present = at(present, step).unwrap_or(&Value::Null);
        if below.is_leaf() || taken.is_leaf() {
            return present == applied || applied.as_object().is_some_and(Map::is_empty);
        }
        give_up(below, taken, present, applied);
        !below.is_leaf()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_of_two_managers_stand_side_by_side() {
        let (mut owners, mut status) = (Owners::default(), Value::Null);
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        owners.apply(
            &mut status,
            "a",
            &json!({"conditions": [condition("A", "True")], "x": {"one": 1}}),
        );
        owners.apply(
            &mut status,
            "b",
            &json!({"conditions": [condition("B", "False")], "x": {"two": 2}}),
        );
        assert_eq!(
            status,
            json!({"conditions": [condition("A", "True"), condition("B", "False")], "x": {"one": 1, "two": 2}})
        );
        owners.apply(
            &mut status,
            "a",
            &json!({"conditions": [condition("C", "True")]}),
        );
        assert_eq!(
            status,
            json!({"conditions": [condition("B", "False"), condition("C", "True")], "x": {"two": 2}})
        );
        owners.apply(&mut status, "b", &json!({}));
        assert_eq!(status, json!({"conditions": [condition("C", "True")]}));
        owners.apply(&mut status, "a", &json!({}));
        assert_eq!(status, json!({}));
        assert!(owners.is_empty());
    }

    #[test]
    fn what_is_taken_by_force_is_not_removed_by_its_former_owner() {
        let (mut owners, mut status) = (Owners::default(), Value::Null);
        owners.apply(&mut status, "a", &json!({"x": 1, "y": 1}));
        owners.apply(&mut status, "b", &json!({"x": 2}));
        owners.apply(&mut status, "a", &json!({}));
        assert_eq!(status, json!({"x": 2}));
    }

    #[test]
    fn what_two_managers_say_alike_stays_until_both_are_silent() {
        let (mut owners, mut status) = (Owners::default(), Value::Null);
        owners.apply(&mut status, "a", &json!({"x": 1}));
        owners.apply(&mut status, "b", &json!({"x": 1}));
        owners.apply(&mut status, "b", &json!({}));
        assert_eq!(status, json!({"x": 1}));
        owners.apply(&mut status, "a", &json!({}));
        assert_eq!(status, json!({}));
    }

    #[test]
    fn what_nobody_applied_stays() {
        let mut owners = Owners::default();
        let mut status = json!({"x": {"kept": 1}, "phase": "Running"});
        owners.apply(&mut status, "a", &json!({"x": {"mine": 2}}));
        owners.apply(&mut status, "a", &json!({}));
        assert_eq!(status, json!({"x": {"kept": 1}, "phase": "Running"}));
    }

    #[test]
    fn other_lists_are_replaced_whole() {
        let (mut owners, mut status) = (Owners::default(), Value::Null);
        owners.apply(
            &mut status,
            "a",
            &json!({"list": [1, 2], "conditions": [{"type": "A", "old": 1}]}),
        );
        owners.apply(
            &mut status,
            "a",
            &json!({"list": [3], "conditions": [{"type": "A"}]}),
        );
        assert_eq!(status, json!({"list": [3], "conditions": [{"type": "A"}]}));
    }
}
