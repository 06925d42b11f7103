//! An answer in a line: what decides, and what to change if it is not as it should be.

use crate::Answer;
use heddle_policy::{Because, DirectionDecision, EntryVerdict, Nearest, Term, protocol};
use serde::Serialize;
use std::fmt::Display;

/// Names that are listed before the rest is counted.
const MOST_NAMES: usize = 3;

/// A decision in a line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// What decides.
    pub cause: String,
    /// What to change; none where it passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Summary {
    /// Of an answer about these two, as they were named.
    pub fn of(answer: &Answer, from: &str, to: &str) -> Self {
        let port = answer.port.or(answer.icmp_type).unwrap_or_default();
        let number = answer.protocol.and_then(protocol::number);
        let what = protocol::describe(number.unwrap_or_default(), port);
        let ends = [
            (format!("egress of {from}"), "to", to, &answer.egress),
            (format!("ingress of {to}"), "from", from, &answer.ingress),
        ];
        if answer.verdict == EntryVerdict::Allow {
            let told: Vec<String> = ends
                .iter()
                .map(|(end, _, _, part)| format!("{end} {}", allowed(part)))
                .collect();
            return Self {
                cause: told.join(", "),
                fix: None,
            };
        }
        let denying = ends
            .iter()
            .filter(|(_, _, _, part)| part.verdict == EntryVerdict::Deny);
        let (mut causes, mut fixes) = (Vec::new(), Vec::new());
        for (end, way, other, part) in denying {
            let (cause, fix) = denied(end, &format!("{what} {way} {other}"), part);
            causes.push(cause);
            fixes.push(fix);
        }
        Self {
            cause: causes.join(", and "),
            fix: Some(fixes.join(", and ")),
        }
    }
}

fn allowed(part: &DirectionDecision) -> String {
    match part.because {
        Because::Rule => format!("is allowed by {}", listed(&part.rules)),
        Because::Reserved => "is always allowed".to_owned(),
        _ => "is not restricted by any policy".to_owned(),
    }
}

fn denied(end: &str, what: &str, part: &DirectionDecision) -> (String, String) {
    if part.because == Because::ExplicitDeny {
        let rules = listed(&part.rules);
        return (
            format!("{end} is denied by {rules}"),
            format!("narrow or remove {rules}"),
        );
    }
    let isolated = match part.isolated_by.as_slice() {
        [] => String::new(),
        policies => format!(" (isolated by {})", listed(policies)),
    };
    let cause = format!("{end}: no rule allows {what}{isolated}");
    let fix = match part.nearest.first() {
        Some(near) => widened(near),
        None => {
            let place = match part.isolated_by.first() {
                Some(policy) => policy.to_string(),
                None => "a policy".to_owned(),
            };
            format!("allow {what} in {place}")
        }
    };
    (cause, fix)
}

fn widened(near: &Nearest) -> String {
    let term = match near.failed {
        Term::Peer => "peer",
        Term::Port | Term::Protocol => "port",
        Term::Icmp => "ICMP type",
    };
    format!(
        "{} comes nearest: its {term} is {}, and this is {}",
        near.rule, near.wanted, near.got
    )
}

fn listed(items: &[impl Display]) -> String {
    let (first, rest) = items.split_at(items.len().min(MOST_NAMES));
    let names: Vec<String> = first.iter().map(ToString::to_string).collect();
    match rest.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}
