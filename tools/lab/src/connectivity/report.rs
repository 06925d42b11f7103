//! What a connectivity test found.

use super::plan::{Case, Outcome, Probe, Skipped};
use super::probe::Seen;
use heddle_model::Family;
use serde::Serialize;
use std::fmt::Write;

/// One probe, expected and seen.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// Who sent: `namespace/pod`, `host:NODE` or `world`.
    pub from: String,
    /// To whom.
    pub to: String,
    /// The source's address.
    pub from_address: String,
    /// The address that was asked.
    pub to_address: String,
    /// `TCP/8080`, `UDP/8080`, `ICMP/8`, `ICMPv6/128`.
    pub probe: String,
    /// The family.
    pub family: Family,
    /// What must become of it.
    pub expected: Outcome,
    /// What became of it.
    pub seen: Outcome,
    /// True when the two are the same.
    pub passed: bool,
    /// How long it took.
    pub milliseconds: u64,
    /// The system's words, where it gave any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The command that says why.
    pub why: String,
}

impl ProbeReport {
    /// A case with what was seen. `ends` are the addresses.
    pub fn new(
        namespace: &str,
        lab: &str,
        case: &Case,
        ends: (String, String),
        seen: Seen,
    ) -> Self {
        let (from_address, to_address) = ends;
        // The entity has no address to answer for; the test's host outside has.
        let asked = |end: &super::plan::End, address: &str| match end {
            super::plan::End::World => address.to_owned(),
            other => other.peer(namespace),
        };
        let mut why = format!(
            "heddle policy why --from {} --to {} {}",
            asked(&case.from, &from_address),
            asked(&case.to, &to_address),
            case.probe.why(case.family),
        );
        if lab != "default" {
            let _ = write!(why, " --lab {lab}");
        }
        Self {
            from: case.from.peer(namespace),
            to: case.to.peer(namespace),
            from_address,
            to_address,
            probe: case.probe.name(case.family),
            family: case.family,
            expected: case.expected,
            seen: seen.outcome,
            passed: case.expected == seen.outcome,
            milliseconds: u64::try_from(seen.took.as_millis()).unwrap_or(u64::MAX),
            detail: seen.detail,
            why,
        }
    }

    /// Expected and seen, in words.
    pub fn verdict(&self) -> String {
        let mut text = format!("expected {}, seen {}", self.expected, self.seen);
        if let Some(detail) = &self.detail {
            let _ = write!(text, " ({detail})");
        }
        text
    }
}

/// One scenario's probes.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Its probes.
    pub probes: Vec<ProbeReport>,
    /// What was left out, and why.
    pub skipped: Vec<Skipped>,
    /// Probes that were as expected.
    pub passed: usize,
    /// Probes that were not.
    pub failed: usize,
    /// How long it took, its policies included.
    pub milliseconds: u64,
}

impl ScenarioReport {
    /// Probes that differ from what was expected.
    pub fn differing(&self) -> impl Iterator<Item = &ProbeReport> {
        self.probes.iter().filter(|probe| !probe.passed)
    }
}

/// A whole test.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// The lab.
    pub lab: String,
    /// The namespace of its objects.
    pub namespace: String,
    /// Its scenarios, as far as they were run.
    pub scenarios: Vec<ScenarioReport>,
    /// Probes that were as expected.
    pub passed: usize,
    /// Probes that were not.
    pub failed: usize,
    /// Scenarios that were not run to their end.
    #[serde(rename = "notRun")]
    pub not_run: Vec<Skipped>,
    /// True when the namespace was left as it was.
    pub kept: bool,
    /// How long it took in all.
    pub milliseconds: u64,
}

impl Report {
    pub(super) fn add(&mut self, mut scenario: ScenarioReport) {
        scenario.failed = scenario.differing().count();
        scenario.passed = scenario.probes.len() - scenario.failed;
        self.passed += scenario.passed;
        self.failed += scenario.failed;
        self.scenarios.push(scenario);
    }

    /// The report as JUnit's XML, one suite per scenario and one case per probe.
    pub fn junit(&self) -> String {
        let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let tests = self.passed + self.failed + self.not_run.len();
        let _ = writeln!(
            text,
            "<testsuites name=\"connectivity\" tests=\"{tests}\" failures=\"{}\" errors=\"{}\" time=\"{}\">",
            self.failed,
            self.not_run.len(),
            seconds(self.milliseconds)
        );
        for scenario in &self.scenarios {
            let _ = writeln!(
                text,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{}\">",
                escape(&scenario.name),
                scenario.probes.len() + scenario.skipped.len(),
                scenario.failed,
                scenario.skipped.len(),
                seconds(scenario.milliseconds)
            );
            for probe in &scenario.probes {
                case(&mut text, &scenario.name, probe);
            }
            for skipped in &scenario.skipped {
                let _ = writeln!(
                    text,
                    "    <testcase classname=\"{}\" name=\"{}\"><skipped message=\"{}\"/></testcase>",
                    escape(&scenario.name),
                    escape(&skipped.what),
                    escape(&skipped.reason)
                );
            }
            text.push_str("  </testsuite>\n");
        }
        for missing in &self.not_run {
            let name = escape(&missing.what);
            let _ = writeln!(
                text,
                "  <testsuite name=\"{name}\" tests=\"1\" errors=\"1\"><testcase classname=\"{name}\" name=\"run\">\
                 <error message=\"{}\"/></testcase></testsuite>",
                escape(&missing.reason)
            );
        }
        text.push_str("</testsuites>\n");
        text
    }
}

fn case(text: &mut String, scenario: &str, probe: &ProbeReport) {
    let _ = write!(
        text,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\"",
        escape(scenario),
        escape(&format!(
            "{} to {} {} {}",
            probe.from, probe.to, probe.probe, probe.family
        )),
        seconds(probe.milliseconds)
    );
    if probe.passed {
        text.push_str("/>\n");
        return;
    }
    let _ = writeln!(
        text,
        "><failure message=\"{}\">{}</failure></testcase>",
        escape(&probe.verdict()),
        escape(&probe.why)
    );
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1_000, milliseconds % 1_000)
}

/// Text as XML has it, in content and in attributes; what XML 1.0 cannot hold at all becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\n' | '\r' | '\t' => {
                let _ = write!(escaped, "&#{};", u32::from(letter));
            }
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// What a probe needs beside its case: true for probes over a connection that stood before.
pub(super) const fn is_established(probe: Probe) -> bool {
    matches!(probe, Probe::Established(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectivity::plan::End;
    use std::time::Duration;

    fn probe(seen: Outcome, detail: Option<&str>) -> ProbeReport {
        let case = Case {
            from: End::World,
            to: End::Node("node-1".into()),
            probe: Probe::Tcp(80),
            family: Family::V6,
            expected: Outcome::Answered,
        };
        let seen = Seen {
            outcome: seen,
            took: Duration::from_millis(1_205),
            detail: detail.map(Into::into),
        };
        ProbeReport::new(
            "n",
            "second",
            &case,
            ("2001:db8::1".into(), "fd31::2".into()),
            seen,
        )
    }

    fn report() -> Report {
        let mut report = Report::default();
        report.add(ScenarioReport {
            name: "no-policy".into(),
            probes: vec![
                probe(Outcome::Answered, None),
                probe(Outcome::Unreachable, Some("no <route> & \"no\" way\u{7}")),
            ],
            skipped: vec![Skipped {
                what: "other node".into(),
                reason: "one node".into(),
            }],
            ..ScenarioReport::default()
        });
        report
    }

    #[test]
    fn probes_are_counted_and_say_what_to_run_next() {
        let report = report();
        assert_eq!((report.passed, report.failed), (1, 1));
        let differing: Vec<_> = report.scenarios[0].differing().collect();
        assert_eq!(
            differing[0].why,
            "heddle policy why --from 2001:db8::1 --to host:node-1 --port 80/TCP --lab second"
        );
        let json = serde_json::to_value(&report).unwrap();
        let probe = &json["scenarios"][0]["probes"][1];
        assert_eq!(probe["family"], "IPv6");
        assert_eq!(probe["expected"], "answered");
        assert_eq!(probe["seen"], "unreachable");
        assert_eq!(probe["passed"], false);
        assert_eq!(probe["milliseconds"], 1_205);
    }

    #[test]
    fn junit_is_escaped() {
        let text = report().junit();
        assert!(text.contains("failures=\"1\" skipped=\"1\""), "{text}");
        assert!(
            text.contains("(no &lt;route&gt; &amp; &quot;no&quot; way\u{fffd})"),
            "{text}"
        );
        assert!(text.contains("time=\"1.205\""), "{text}");
        assert!(text.contains("<skipped message=\"one node\"/>"), "{text}");
        // Every element that is opened is closed.
        for name in ["testsuites", "testsuite", "failure"] {
            assert_eq!(
                text.matches(&format!("<{name} ")).count(),
                text.matches(&format!("</{name}>")).count(),
                "{text}"
            );
        }
    }
}
