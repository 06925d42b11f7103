//! Label selectors of filters: the text form of Kubernetes selectors over printed labels.

/// A conjunction of conditions on printed labels (`k8s:app=web`, `reserved:host`).
///
/// Grammar: `key=value`, `key==value`, `key!=value`, `key in (a, b)`, `key notin (a, b)`, `key`, `!key`,
/// joined by commas. A key may bear a source (`k8s:app`, `reserved:host`); without one, every source
/// counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelSelector {
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Condition {
    source: Option<String>,
    key: String,
    test: Test,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// The text is not a label selector.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a label selector: {reason}")]
pub struct SelectorError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl LabelSelector {
    /// Reads a selector.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let fail = |reason| SelectorError {
            text: text.to_owned(),
            reason,
        };
        let mut conditions = Vec::new();
        for part in split(text).map_err(fail)? {
            conditions.push(condition(part.trim()).map_err(fail)?);
        }
        Ok(Self { conditions })
    }

    /// True when every condition holds for these printed labels.
    pub fn matches(&self, labels: &[String]) -> bool {
        self.conditions.iter().all(|condition| {
            let mut values = labels.iter().filter_map(|label| condition.value_in(label));
            match &condition.test {
                Test::Exists => values.next().is_some(),
                Test::Absent => values.next().is_none(),
                Test::In(wanted) => values.any(|value| wanted.iter().any(|one| one == value)),
                Test::NotIn(wanted) => !values.any(|value| wanted.iter().any(|one| one == value)),
            }
        })
    }
}

impl Condition {
    /// The value of a printed label, when it has this condition's key.
    fn value_in<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (source, rest) = label.split_once(':').unwrap_or(("", label));
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        let source_fits = self.source.as_ref().is_none_or(|wanted| wanted == source);
        (source_fits && key == self.key).then_some(value)
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

fn condition(part: &str) -> Result<Condition, &'static str> {
    let (key, test) = if let Some(key) = part.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, list)) = part.split_once(" notin ") {
        (key, Test::NotIn(values(list)?))
    } else if let Some((key, list)) = part.split_once(" in ") {
        (key, Test::In(values(list)?))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Test::In(vec![value.trim().to_owned()]))
    } else {
        (part, Test::Exists)
    };
    let key = key.trim();
    let (source, key) = match key.split_once(':') {
        Some((source, key)) => (Some(source.to_owned()), key),
        None => (None, key),
    };
    if key.is_empty() {
        return Err("a condition has no key");
    }
    if key.contains(|character: char| character.is_whitespace() || "()=!".contains(character)) {
        return Err("a key holds a space or one of ( ) = !");
    }
    Ok(Condition {
        source,
        key: key.to_owned(),
        test,
    })
}

fn values(list: &str) -> Result<Vec<String>, &'static str> {
    let inner = list
        .trim()
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .ok_or("values of in and notin stand in parentheses")?;
    let values: Vec<String> = inner.split(',').map(|one| one.trim().to_owned()).collect();
    if values.iter().all(String::is_empty) {
        return Err("in and notin need at least one value");
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_mean_what_kubectl_means() {
        let labels: Vec<String> = [
            "k8s:app=web",
            "k8s:tier=front",
            "reserved:host",
            "k8s:bare=",
        ]
        .map(str::to_owned)
        .to_vec();
        for (text, expected) in [
            ("app=web", true),
            ("app==web", true),
            ("k8s:app=web", true),
            ("reserved:app=web", false),
            ("app=api", false),
            ("app!=api", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (api, web)", true),
            ("app in (api)", false),
            ("app notin (api,db)", true),
            ("app notin (web)", false),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("reserved:host", true),
            ("host", true),
            ("bare=", true),
            ("app=web,tier=front", true),
            ("app in (web,api),tier=back", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for text in [
            "",
            ",",
            "=x",
            "app in web",
            "app in ()",
            "app in (a",
            "a b",
            "app)",
            "!",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,60}", label in ".{0,20}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                selector.matches(&[label]);
            }
        }
    }
}
