//! Label selectors as kubectl's `-l` takes them.

use super::{Operator, Requirement, Selector};
use std::collections::BTreeMap;

/// The text is not a label selector.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a label selector: {reason}")]
pub struct SelectorTextError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Selector {
    /// Reads `app=web,tier!=db,env in (a, b),x notin (c),y,!z`; `==` is `=`. An empty text selects everything.
    ///
    /// # Errors
    /// When it is of another form. Whether keys and values can be those of labels is not looked at.
    pub fn parse(text: &str) -> Result<Self, SelectorTextError> {
        let fail = |reason| SelectorTextError {
            text: text.to_owned(),
            reason,
        };
        if text.trim().is_empty() {
            return Ok(Self::everything());
        }
        let requirements = split(text)
            .and_then(|parts| parts.into_iter().map(requirement).collect())
            .map_err(fail)?;
        Self::new(BTreeMap::new(), requirements).map_err(|_| fail("a requirement has no key"))
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Result<Vec<&str>, &'static str> {
    let mut parts = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (index, character) in text.char_indices() {
        match character {
            '(' if inside => return Err("a parenthesis inside parentheses"),
            '(' => inside = true,
            ')' if !inside => return Err("a closing parenthesis without an opening one"),
            ')' => inside = false,
            ',' if !inside => {
                parts.push(text.get(start..index).unwrap_or_default());
                start = index + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a parenthesis is not closed");
    }
    parts.push(text.get(start..).unwrap_or_default());
    Ok(parts)
}

fn requirement(part: &str) -> Result<Requirement, &'static str> {
    let part = part.trim();
    let (key, operator, values) = if let Some(key) = part.strip_prefix('!') {
        (key, Operator::DoesNotExist, Vec::new())
    } else if let Some((head, list)) = part.split_once('(') {
        let list = list
            .strip_suffix(')')
            .ok_or("something stands behind the parentheses")?;
        let (key, operator) = set_operator(head)?;
        (key, operator, values(list)?)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Operator::NotIn, vec![self::value(value)?])
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Operator::In, vec![self::value(value)?])
    } else {
        (part, Operator::Exists, Vec::new())
    };
    let key = key.trim();
    if key.is_empty() {
        return Err("a requirement has no key");
    }
    if key.contains(|character: char| character.is_whitespace() || "()=!".contains(character)) {
        return Err("a key holds a space or one of ( ) = !");
    }
    Ok(Requirement {
        key: key.to_owned(),
        operator,
        values,
    })
}

/// The key and the word before parentheses.
fn set_operator(head: &str) -> Result<(&str, Operator), &'static str> {
    let mut words = head.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => Ok((key, Operator::In)),
        (Some(key), Some("notin"), None) => Ok((key, Operator::NotIn)),
        _ => Err("before parentheses stand a key and in or notin"),
    }
}

fn values(list: &str) -> Result<Vec<String>, &'static str> {
    let values = list.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
    if values.iter().all(String::is_empty) {
        return Err("in and notin need at least one value");
    }
    Ok(values)
}

fn value(text: &str) -> Result<String, &'static str> {
    let value = text.trim();
    if value.contains(|character: char| character.is_whitespace() || "()=!".contains(character)) {
        return Err("a value holds a space or one of ( ) = !");
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_mean_what_kubectl_means() {
        let labels = BTreeMap::from([("app", "web"), ("env", "a"), ("bare", "")]);
        for (text, expected) in [
            ("", true),
            (" ", true),
            ("app=web", true),
            ("app == web", true),
            ("app=api", false),
            ("app!=web", false),
            ("app != api", true),
            ("missing!=x", true),
            ("app in (api, web)", true),
            ("app in(web)", true),
            ("app in (api)", false),
            ("app notin (api,db)", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("app", true),
            ("!app", false),
            ("! missing", true),
            ("bare=", true),
            ("app=web,env in (a, b)", true),
            ("app,!tier", true),
            ("app in (web,api),env=b", false),
        ] {
            let selector = Selector::parse(text).unwrap();
            let found = selector.matches(|key| labels.get(key).copied());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_says_why() {
        for (text, reason) in [
            (",", "no key"),
            ("app=web,", "no key"),
            ("=x", "no key"),
            ("!", "no key"),
            ("app in web", "a key holds a space"),
            ("a b", "a key holds a space"),
            ("a=b c", "a value holds a space"),
            ("a=b=c", "a value holds"),
            ("app in ()", "at least one value"),
            ("app in (a", "not closed"),
            ("app in ((a))", "inside parentheses"),
            ("app)", "without an opening one"),
            ("env in (a)x", "behind the parentheses"),
            ("env of (a)", "in or notin"),
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,60}") {
            let _ = Selector::parse(&text);
        }

        /// What is written by the rules is read as it was meant.
        #[test]
        fn what_is_written_is_read(
            requirements in prop::collection::vec(
                ("[a-z][a-z0-9./-]{0,5}", 0..4u8, prop::collection::vec("[a-z0-9]{1,3}", 1..3)),
                1..4,
            ),
        ) {
            let requirements: Vec<Requirement> = requirements
                .into_iter()
                .map(|(key, operator, values)| match operator {
                    0 => Requirement { key, operator: Operator::In, values },
                    1 => Requirement { key, operator: Operator::NotIn, values },
                    2 => Requirement { key, operator: Operator::Exists, values: vec![] },
                    _ => Requirement { key, operator: Operator::DoesNotExist, values: vec![] },
                })
                .collect();
            let written = |one: &Requirement| match one.operator {
                Operator::In => format!("{} in ({})", one.key, one.values.join(", ")),
                Operator::NotIn => format!("{} notin ({})", one.key, one.values.join(",")),
                Operator::Exists => one.key.clone(),
                Operator::DoesNotExist => format!("!{}", one.key),
            };
            let text: Vec<String> = requirements.iter().map(written).collect();
            let expected = Selector::new(BTreeMap::new(), requirements).unwrap();
            prop_assert_eq!(Selector::parse(&text.join(",")).unwrap(), expected);
        }
    }
}
