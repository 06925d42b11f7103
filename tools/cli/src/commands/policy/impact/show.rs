//! The report, for people, programs and merge requests.

use crate::{
    failure::Failure,
    output::{self, say},
};
use heddle_policy::{Because, Decision, DirectionDecision, EntryVerdict};
use heddle_verify::{
    Family, Probe,
    impact::{Change, Outcome, Sides},
    word,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{self, BufWriter, Write},
};

/// Names of pods that are printed before the rest is counted.
const MOST_NAMES: usize = 5;

pub(super) struct Report<'a> {
    pub(super) sides: &'a Sides,
    pub(super) probes: &'a [Probe],
    pub(super) outcome: Outcome,
}

/// What changes in a line have in common: sources, destinations, which way, and both reasons.
type Alike<'a> = (&'a [String], &'a [String], bool, String, String);

/// A line of the report.
struct Row<'a> {
    change: &'a Change,
    probes: Vec<String>,
    before: String,
    after: String,
}

impl Report<'_> {
    fn counts(&self) -> (usize, usize) {
        let count = |opens| {
            let changes = self.outcome.changes.iter();
            changes
                .filter(|change| change.opens() == opens)
                .map(Change::count)
                .sum()
        };
        (count(true), count(false))
    }

    /// What the comparison leaves out.
    fn notes(&self) -> Vec<String> {
        let mut notes = self.sides.notes.clone();
        for (names, what) in [
            (&self.outcome.added, "only the change has"),
            (&self.outcome.removed, "the change takes away"),
        ] {
            if !names.is_empty() {
                notes.push(format!(
                    "pods that {what} have nothing to be compared with: {}",
                    some(names)
                ));
            }
        }
        notes
    }

    fn summary(&self) -> String {
        let (opened, closed) = self.counts();
        let compared = self.outcome.compared;
        if opened + closed == 0 {
            return format!("no verdict changes; {compared} compared");
        }
        format!(
            "{} of {compared} verdicts change: {opened} from deny to allow, {closed} from allow to deny",
            opened + closed
        )
    }

    fn what(&self, change: &Change) -> String {
        let probe = &self.probes[change.probe].given;
        match change.family {
            None => probe.clone(),
            Some(Family::V4) => format!("{probe} over IPv4"),
            Some(Family::V6) => format!("{probe} over IPv6"),
        }
    }

    /// Changes that differ in the probe alone, together.
    fn rows(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = Vec::new();
        let mut places: BTreeMap<Alike<'_>, usize> = BTreeMap::new();
        for change in &self.outcome.changes {
            let (before, after) = (reason(&change.before), reason(&change.after));
            let key = (
                change.from.as_slice(),
                change.to.as_slice(),
                change.opens(),
                before.clone(),
                after.clone(),
            );
            let place = *places.entry(key).or_insert(rows.len());
            if place == rows.len() {
                rows.push(Row {
                    change,
                    probes: Vec::new(),
                    before,
                    after,
                });
            }
            rows[place].probes.push(self.what(change));
        }
        rows
    }

    pub(super) fn table(&self) -> Result<(), Failure> {
        for row in self.rows() {
            let change = row.change;
            let Some((from, to)) = change.pairs().next() else {
                continue;
            };
            let more = match change.count() - 1 {
                0 => String::new(),
                1 => " (and 1 pair alike)".to_owned(),
                more => format!(" (and {more} pairs alike)"),
            };
            say(&format!(
                "{} -> {}: {from} -> {to} {}{more}",
                word(change.before.verdict),
                word(change.after.verdict),
                row.probes.join(", ")
            ))?;
            say(&format!("  before: {}", row.before))?;
            say(&format!("  after:  {}", row.after))?;
        }
        for note in self.notes() {
            say(&format!("note: {note}"))?;
        }
        say(&self.summary())
    }

    pub(super) fn markdown(&self) -> Result<(), Failure> {
        say("### Policy impact\n")?;
        say(&format!("{}.\n", self.summary()))?;
        if !self.outcome.changes.is_empty() {
            say("| Change | From | To | Probes | Before | After |")?;
            say("|---|---|---|---|---|---|")?;
        }
        for row in self.rows() {
            let change = row.change;
            let to: Vec<String> = if change.from == change.to {
                vec!["each other".into()]
            } else {
                change.to.clone()
            };
            let arrow = format!(
                "{} → **{}**",
                word(change.before.verdict),
                word(change.after.verdict)
            );
            let cells = [
                arrow,
                escaped(&some(&change.from)),
                escaped(&some(&to)),
                escaped(&row.probes.join(", ")),
                escaped(&row.before),
                escaped(&row.after),
            ];
            say(&format!("| {} |", cells.join(" | ")))?;
        }
        for note in self.notes() {
            say(&format!("\n> {}", escaped(&note)))?;
        }
        Ok(())
    }

    /// One entry for each pair, so that nobody has to know kinds of pods; written as it is made, because
    /// thousands of pods have millions of pairs.
    pub(super) fn json(&self) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        output::written(self.write_json(&mut out).and_then(|()| out.flush()))
    }

    /// The same, a change on each line.
    pub(super) fn yaml(&self) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        output::written(self.write_yaml(&mut out).and_then(|()| out.flush()))
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let head = self.head().to_string();
        write!(out, "{},\"changes\":[", head.trim_end_matches('}'))?;
        let mut comma = "\n";
        self.each_change(|change| {
            write!(out, "{comma}{change}")?;
            comma = ",\n";
            Ok(())
        })?;
        writeln!(out, "\n]}}")
    }

    /// Every line's value is JSON, of which YAML is a superset.
    fn write_yaml(&self, out: &mut impl Write) -> io::Result<()> {
        for (key, value) in self.head().as_object().into_iter().flatten() {
            writeln!(out, "{key}: {value}")?;
        }
        if self.outcome.changes.is_empty() {
            return writeln!(out, "changes: []");
        }
        writeln!(out, "changes:")?;
        self.each_change(|change| writeln!(out, "- {change}"))
    }

    fn head(&self) -> Value {
        let (opened, closed) = self.counts();
        let probes: Vec<&str> = self
            .probes
            .iter()
            .map(|probe| probe.given.as_str())
            .collect();
        json!({
            "probes": probes,
            "compared": self.outcome.compared,
            "opened": opened,
            "closed": closed,
            "added": self.outcome.added,
            "removed": self.outcome.removed,
            "notes": self.notes(),
        })
    }

    fn each_change(&self, mut write: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        for change in &self.outcome.changes {
            let mut tail = json!({
                "probe": self.probes[change.probe].given,
                "before": side(&change.before),
                "after": side(&change.after),
            });
            if let (Some(family), Some(fields)) = (change.family, tail.as_object_mut()) {
                let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
                fields.insert("family".into(), json!(family));
            }
            let tail = tail.to_string();
            for (from, to) in change.pairs() {
                let (from, to) = (serde_json::to_string(from)?, serde_json::to_string(to)?);
                write(&format!("{{\"from\":{from},\"to\":{to},{}", &tail[1..]))?;
            }
        }
        Ok(())
    }
}

fn side(decision: &Decision) -> Value {
    json!({
        "verdict": decision.verdict,
        "reason": reason(decision),
        "egress": decision.egress,
        "ingress": decision.ingress,
    })
}

/// What cannot stand in a cell of a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn some(names: &[String]) -> String {
    let (first, rest) = names.split_at(names.len().min(MOST_NAMES));
    let listed = first.join(", ");
    match rest.len() {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// A decision's reasons in a line: of a deny the ends that deny, of an allow both.
fn reason(decision: &Decision) -> String {
    let ends = [("egress", &decision.egress), ("ingress", &decision.ingress)];
    let told: Vec<String> = ends
        .into_iter()
        .filter(|(_, end)| {
            end.verdict == decision.verdict || decision.verdict == EntryVerdict::Allow
        })
        .map(|(name, end)| format!("{name} {}", because(end)))
        .collect();
    told.join("; ")
}

fn because(end: &DirectionDecision) -> String {
    match end.because {
        Because::Rule => format!("allowed by {}", list(&end.rules)),
        Because::ExplicitDeny => format!("denied by {}", list(&end.rules)),
        Because::DefaultDeny => {
            format!("allowed by no rule, isolated by {}", list(&end.isolated_by))
        }
        Because::NotEnforced => "not enforced".to_owned(),
        Because::Reserved => "always allowed".to_owned(),
    }
}

fn list(items: &[impl Display]) -> String {
    let names: Vec<String> = items.iter().map(ToString::to_string).collect();
    some(&names)
}
