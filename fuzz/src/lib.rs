//! What must hold of every policy object, however it was made.
#![forbid(unsafe_code)]

use heddle_kube::policy::{self, Problem, Severity};
use serde_json::Value;

/// Longest message, path or fix; none repeats the object.
const MOST_WORDS: usize = 4_096;
/// Problems that are listed of one object, and the line that counts the rest.
const MOST_PROBLEMS: usize = 101;

/// Reads an object as a policy and as a CIDR group; panics when what comes out is neither read nor refused
/// with words.
pub fn look_at(object: &Value) {
    let parsed = policy::parse(object);
    let refused = parsed
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    assert_eq!(parsed.policy.is_none(), refused, "{:#?}", parsed.problems);
    words(&parsed.problems);
    assert_eq!(policy::parse(object), parsed, "the same object is read the same");
    if let Err(problems) = policy::parse_cidr_group(object) {
        assert!(!problems.is_empty());
        words(&problems);
    }
}

fn words(problems: &[Problem]) {
    assert!(problems.len() <= MOST_PROBLEMS);
    for problem in problems {
        assert!(problem.code.starts_with("policy/"), "{problem:?}");
        assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{problem:?}");
        let longest = problem.message.len().max(problem.field.len()).max(problem.help.len());
        assert!(longest <= MOST_WORDS, "{longest} bytes: {}", problem.code);
    }
}
