//! Label selectors of filters: the text form of Kubernetes selectors over printed labels.

use heddle_model::{Operator, Requirement, Selector, SelectorTextError};

/// A conjunction of conditions on printed labels (`k8s:app=web`, `reserved:host`), written as
/// [`Selector::parse`] reads it. A key may bear a source (`k8s:app`, `reserved:host`); without one, every source
/// counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelSelector(Selector);

impl LabelSelector {
    /// Reads a selector.
    ///
    /// # Errors
    /// When it is none, or has no condition.
    pub fn parse(text: &str) -> Result<Self, SelectorTextError> {
        let selector = Selector::parse(text)?;
        if selector.is_everything() {
            return Err(SelectorTextError {
                text: text.to_owned(),
                reason: "it has no condition",
            });
        }
        Ok(Self(selector))
    }

    /// True when every condition holds for these printed labels.
    pub fn matches(&self, labels: &[String]) -> bool {
        self.0.requirements().iter().all(|requirement| {
            let mut values = labels
                .iter()
                .filter_map(|label| value_of(requirement, label));
            let is_meant = |value| requirement.values.iter().any(|one| one == value);
            match requirement.operator {
                Operator::In => values.any(is_meant),
                Operator::NotIn => !values.any(is_meant),
                Operator::Exists => values.next().is_some(),
                Operator::DoesNotExist => values.next().is_none(),
            }
        })
    }
}

/// The value of a printed label, when it has the requirement's key and, if that bears one, its source.
fn value_of<'a>(requirement: &Requirement, label: &'a str) -> Option<&'a str> {
    let (source, rest) = label.split_once(':').unwrap_or(("", label));
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let fits = match requirement.key.split_once(':') {
        Some((wanted, wanted_key)) => source == wanted && key == wanted_key,
        None => key == requirement.key,
    };
    fits.then_some(value)
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
