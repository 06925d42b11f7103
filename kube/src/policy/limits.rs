//! How large an object may be: what is beyond is refused before anything is built from it.

use super::problems::Problems;
use serde_json::Value;

/// Bytes of one object at most, of what people write: what an API server takes in one request. What the store and
/// clients add to it does not count, so that a file and the object that it becomes are refused alike.
pub(super) const MOST_BYTES: usize = 3 << 20;
/// Annotation in which clients keep what was applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Levels of one object at most; the deepest field of any policy kind stands 16 levels deep.
const MOST_DEPTH: usize = 32;
/// Port terms of one rule at most: an endpoint's policy map has no more rows (reference 3.2), so a rule with
/// more of them could not be enforced.
pub(super) const MOST_PORT_TERMS: usize = 16_384;
/// Requirements of one selector at most.
pub(super) const MOST_REQUIREMENTS: usize = 1_000;
/// Values of one requirement at most.
pub(super) const MOST_VALUES: usize = 4_096;

/// Checks the size and depth of an object without recursion.
pub(super) fn fits(object: &Value, problems: &mut Problems) -> bool {
    let mut waiting = vec![(object, 1)];
    let mut bytes = 0usize;
    while let Some((value, depth)) = waiting.pop() {
        let is_added = |key: &str| match depth {
            1 => key == "status",
            2 => key == "managedFields",
            3 => key == LAST_APPLIED,
            _ => false,
        };
        if depth > MOST_DEPTH {
            problems.error(
                "policy/too-deep",
                "",
                format!("the object nests more than {MOST_DEPTH} levels deep"),
                "no field of a policy is that deep: check the indentation",
            );
            return false;
        }
        // Brackets, commas and quotes count too, so that a list of nothing has a size.
        bytes += 2;
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                let written = fields.iter().filter(|(key, _)| !is_added(key));
                for (key, field) in written {
                    bytes += key.len() + 3;
                    waiting.push((field, depth + 1));
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        if bytes > MOST_BYTES {
            problems.error(
                "policy/too-large",
                "",
                format!("the object has more than {MOST_BYTES} bytes"),
                "write it as several policies; each may have its own rules for the same pods",
            );
            return false;
        }
    }
    true
}
