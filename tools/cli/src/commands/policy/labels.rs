//! Label selectors as kubectl's `-l` has them.

use super::{Failure, usage};
use heddle_model::{Operator, Requirement, Selector};
use std::collections::BTreeMap;

/// Reads `app=web,tier!=db,env in (a,b),x notin (c),y,!z`.
pub(super) fn parse(text: &str) -> Result<Selector, Failure> {
    let mut requirements = Vec::new();
    for part in split(text) {
        let part = part.trim();
        if !part.is_empty() {
            requirements.push(requirement(part).ok_or_else(|| refuse(text))?);
        }
    }
    Selector::new(BTreeMap::new(), requirements).map_err(|_| refuse(text))
}

fn refuse(text: &str) -> Failure {
    usage(
        "usage/label-selector",
        format!("{text:?} is not a label selector"),
        "write for example app=web,tier!=db,env in (a,b),!canary",
    )
}

/// Parts between commas that do not stand in brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    let make = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        let fits =
            !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || "()!=,".contains(c));
        fits.then(|| Requirement {
            key: key.to_owned(),
            operator,
            values,
        })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = part.strip_prefix('!') {
        return make(key, Operator::DoesNotExist, vec![]);
    }
    if let Some((head, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let values = list
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => make(key, Operator::In, values),
            (Some(key), Some("notin"), None) => make(key, Operator::NotIn, values),
            _ => None,
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return make(key, Operator::NotIn, one(value));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return make(key, Operator::In, one(value));
    }
    make(part, Operator::Exists, vec![])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_selectors_are_understood() {
        let labels = BTreeMap::from([("app", "web"), ("env", "a")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,env in (a, b)", true),
            ("app!=web", false),
            ("env notin (a)", false),
            ("app,!tier", true),
            ("tier", false),
        ] {
            let selector = parse(text).ok().unwrap();
            assert_eq!(
                selector.matches(|key| labels.get(key).copied()),
                expected,
                "{text}"
            );
        }
        for bad in ["=x", "a in b", "a b", "env in ()x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
