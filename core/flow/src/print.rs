//! Flows for people: Hubble's compact line, dict and table; and one JSON object per line.

use crate::record::{Direction, Endpoint, Flow, Line, Policy, Response, Verdict};
use crate::record::{event_kind, observation_words};
use heddle_abi::DropReason;
use heddle_model::Identity;
use std::fmt::Write as _;
use std::net::IpAddr;

/// How flows are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Form {
    /// One line each, made for reading.
    #[default]
    Compact,
    /// A block of `KEY: value` lines each.
    Dict,
    /// One Hubble `GetFlowsResponse` JSON object per line.
    Jsonpb,
    /// Columns.
    Table,
}

/// Options of the printed forms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Style {
    /// The form.
    pub form: Form,
    /// Colours (terminals only).
    pub color: bool,
    /// Also the name of the reporting node.
    pub node: bool,
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Widths of the table's columns but the last.
const WIDTHS: [usize; 6] = [19, 10, 44, 44, 34, 9];

impl Style {
    /// What stands before the first flow: the table's header.
    pub fn header(&self) -> Option<String> {
        (self.form == Form::Table).then(|| {
            self.row([
                "TIMESTAMP",
                "NODE",
                "SOURCE",
                "DESTINATION",
                "TYPE",
                "VERDICT",
                "SUMMARY",
            ])
        })
    }

    /// A response as text, without a newline at its end.
    pub fn write(&self, response: &Response) -> String {
        if self.form == Form::Jsonpb {
            // The record holds nothing that JSON cannot express: strings, numbers and lists of them.
            return serde_json::to_string(response).unwrap_or_default();
        }
        match &response.line {
            Line::Flow(flow) => match self.form {
                Form::Dict => self.dict(flow),
                Form::Table => self.table(flow),
                Form::Compact | Form::Jsonpb => self.compact(flow),
            },
            Line::LostEvents(lost) => self.paint(
                YELLOW,
                &format!(
                    "{}{}: EVENTS LOST: {} {}",
                    response.time.stamp(),
                    bracketed(&response.node_name),
                    lost.source.name(),
                    lost.num_events_lost
                ),
            ),
            Line::NodeStatus(status) => {
                let state = serde_json::to_value(status.state_change).unwrap_or_default();
                self.paint(
                    YELLOW,
                    &format!(
                        "{}: {} {}: {}",
                        response.time.stamp(),
                        state.as_str().unwrap_or_default(),
                        status.node_names.join(", "),
                        status.message
                    ),
                )
            }
        }
    }

    fn compact(&self, flow: &Flow) -> String {
        let (mut source, mut destination) = ends(flow);
        let arrow = match flow.is_reply {
            None => "<>",
            Some(false) => "->",
            Some(true) => {
                // The connection's initiator stands first, also on replies.
                std::mem::swap(&mut source, &mut destination);
                "<-"
            }
        };
        let mut line = flow.time.stamp();
        if self.node {
            line.push_str(&bracketed(&flow.node_name));
        }
        let _ = write!(
            line,
            ": {} {} {arrow} {} {} {} {}",
            self.paint(CYAN, &source.0),
            source.1,
            self.paint(CYAN, &destination.0),
            destination.1,
            kind(flow),
            self.verdict(flow),
        );
        if !flow.summary.is_empty() {
            let _ = write!(line, " ({})", flow.summary);
        }
        let because = because(flow);
        if !because.is_empty() {
            let _ = write!(line, " {because}");
        }
        line
    }

    fn dict(&self, flow: &Flow) -> String {
        let (source, destination) = ends(flow);
        let mut lines = Vec::new();
        let mut put = |key: &str, value: String| {
            if !value.is_empty() {
                lines.push(format!("{key:>11}: {value}"));
            }
        };
        put("TIMESTAMP", flow.time.stamp());
        put("NODE", flow.node_name.clone());
        put("SOURCE", format!("{} {}", source.0, source.1));
        put(
            "DESTINATION",
            format!("{} {}", destination.0, destination.1),
        );
        put("TYPE", kind(flow));
        put("VERDICT", self.verdict(flow));
        put("SUMMARY", flow.summary.clone());
        put("BECAUSE", because(flow));
        lines.push("------------".to_owned());
        lines.join("\n")
    }

    fn table(&self, flow: &Flow) -> String {
        let (source, destination) = ends(flow);
        let because = because(flow);
        let summary = if because.is_empty() {
            flow.summary.clone()
        } else {
            format!("{}; {because}", flow.summary)
        };
        self.row([
            &flow.time.stamp(),
            &flow.node_name,
            &format!("{} {}", source.0, source.1),
            &format!("{} {}", destination.0, destination.1),
            &kind(flow),
            verdict_word(flow),
            &summary,
        ])
    }

    fn row(&self, cells: [&str; 7]) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            if index == 1 && !self.node {
                continue;
            }
            match WIDTHS.get(index) {
                Some(width) => {
                    let _ = write!(line, "{cell:<width$}  ");
                }
                None => line.push_str(cell),
            }
        }
        line.trim_end().to_owned()
    }

    fn verdict(&self, flow: &Flow) -> String {
        let color = match flow.verdict {
            Verdict::Forwarded | Verdict::Redirected => GREEN,
            Verdict::Dropped | Verdict::Error => RED,
            _ => YELLOW,
        };
        self.paint(color, verdict_word(flow))
    }

    fn paint(&self, color: &str, text: &str) -> String {
        if self.color {
            format!("{color}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }
}

fn bracketed(node: &str) -> String {
    if node.is_empty() {
        String::new()
    } else {
        format!(" [{node}]")
    }
}

/// Name and identity of both ends.
fn ends(flow: &Flow) -> ((String, String), (String, String)) {
    let ports = flow.ports();
    let ip = flow.ip.as_ref();
    (
        (
            name(
                &flow.source,
                ip.map(|ip| ip.source.as_str()),
                ports.map(|ports| ports.0),
            ),
            identity(flow.source.identity),
        ),
        (
            name(
                &flow.destination,
                ip.map(|ip| ip.destination.as_str()),
                ports.map(|ports| ports.1),
            ),
            identity(flow.destination.identity),
        ),
    )
}

fn name(end: &Endpoint, address: Option<&str>, port: Option<u32>) -> String {
    let host = if end.pod_name.is_empty() {
        match (address, port) {
            (None, _) => "?".to_owned(),
            (Some(text), Some(_)) if matches!(text.parse(), Ok(IpAddr::V6(_))) => {
                format!("[{text}]")
            }
            (Some(text), _) => text.to_owned(),
        }
    } else {
        format!("{}/{}", end.namespace, end.pod_name)
    };
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn identity(number: u32) -> String {
    match (number, Identity(number).reserved_name()) {
        (0, _) => "(unknown)".to_owned(),
        (_, Some(name)) => format!("({name})"),
        _ => format!("(ID:{number})"),
    }
}

/// The event in words: `to-endpoint`, `policy-verdict:L3-L4 EGRESS`, `Policy denied`.
fn kind(flow: &Flow) -> String {
    match flow.event_type.kind {
        event_kind::DROP => u8::try_from(flow.drop_reason)
            .ok()
            .and_then(DropReason::from_number)
            .map_or_else(
                || format!("drop reason {}", flow.drop_reason),
                |reason| reason.description().to_owned(),
            ),
        event_kind::TRACE => u8::try_from(flow.event_type.sub_type)
            .map(observation_words)
            .unwrap_or_default()
            .to_owned(),
        event_kind::POLICY_VERDICT => format!(
            "policy-verdict:{} {}",
            match_words(flow.policy_match_type),
            flow.traffic_direction.name()
        ),
        other => format!("event {other}"),
    }
}

/// Cilium's words for policy match types (reference 3.7).
const fn match_words(number: u32) -> &'static str {
    match number {
        0 => "none",
        1 => "L3-Only",
        2 => "L3-L4",
        3 => "L4-Only",
        4 => "all",
        5 => "L3-Proto",
        6 => "Proto-Only",
        _ => "unknown",
    }
}

fn verdict_word(flow: &Flow) -> &'static str {
    if flow.event_type.kind == event_kind::POLICY_VERDICT {
        match flow.verdict {
            Verdict::Forwarded | Verdict::Redirected => return "ALLOWED",
            Verdict::Dropped | Verdict::Error => return "DENIED",
            Verdict::Audit => return "AUDITED",
            _ => {}
        }
    }
    flow.verdict.name()
}

/// The policies behind a verdict, in words.
fn because(flow: &Flow) -> String {
    let denied = if flow.drop_reason == u32::from(DropReason::PolicyDenied as u8) {
        "isolated by"
    } else {
        "denied by"
    };
    let mut parts = Vec::new();
    for (direction, word, policies) in [
        (Direction::Egress, denied, &flow.egress_denied_by),
        (Direction::Ingress, denied, &flow.ingress_denied_by),
    ] {
        if !policies.is_empty() {
            parts.push(format!(
                "{} {word} {}",
                direction.name().to_ascii_lowercase(),
                names(policies)
            ));
        }
    }
    let nearest = flow
        .extensions
        .iter()
        .flat_map(|it| &it.value.nearest)
        .next();
    if let Some(nearest) = nearest {
        parts.push(format!(
            "nearest {}: {} wants {}, got {}",
            nearest.rule, nearest.failed, nearest.wanted, nearest.got
        ));
    }
    // Reports of established connections would repeat it every few seconds.
    if flow.event_type.kind == event_kind::POLICY_VERDICT {
        for (direction, policies) in [
            (Direction::Egress, &flow.egress_allowed_by),
            (Direction::Ingress, &flow.ingress_allowed_by),
        ] {
            if !policies.is_empty() {
                parts.push(format!(
                    "{} allowed by {}",
                    direction.name().to_ascii_lowercase(),
                    names(policies)
                ));
            }
        }
    }
    parts.join("; ")
}

fn names(policies: &[Policy]) -> String {
    policies
        .iter()
        .map(Policy::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
