//! Rows say what the rules that match say, in few rows.

use super::*;
use crate::{
    compiled::{PRECEDENCE_ALLOW, PRECEDENCE_DENY, PRECEDENCE_FALLBACK},
    order::normal_place,
};
use proptest::prelude::*;

fn matching(rule: u32, verdict: EntryVerdict, first: u16, last: u16) -> RuleMatch {
    RuleMatch {
        rule,
        place: normal_place(verdict),
        reach: Reach::Spans(vec![Span {
            protocol: protocol::TCP,
            first,
            last,
        }]),
    }
}

fn everything(rule: u32, verdict: EntryVerdict) -> RuleMatch {
    RuleMatch {
        rule,
        place: normal_place(verdict),
        reach: Reach::All,
    }
}

fn said(verdict: EntryVerdict, rules: Vec<u32>) -> Label {
    Label::Rules {
        verdict,
        precedence: match verdict {
            EntryVerdict::Allow => PRECEDENCE_ALLOW,
            EntryVerdict::Deny => PRECEDENCE_DENY,
        },
        rules,
    }
}

/// Rows of the tier Normal, where something isolates or nothing does.
fn rows_of(matches: &[RuleMatch], open: bool) -> Vec<Row> {
    let setting = Setting {
        frame: Frame {
            isolated: !open,
            strict: false,
            own_node: false,
        },
        weight: Weight::ByPlace {
            default: open.then_some(PRECEDENCE_FALLBACK),
        },
        levels: &Levels::default(),
    };
    rows(matches, setting)
}

fn lookup(rows: &[Row], protocol: u8, port: u16) -> Option<Label> {
    rows.iter()
        .filter(|row| {
            let bits = u32::from(row.port_prefix);
            let same = (u32::from(row.port) ^ u32::from(port)) >> (16 - bits) == 0;
            (row.protocol == protocol && same) || row.protocol == 0
        })
        .max_by_key(|row| (row.protocol != 0, row.port_prefix))
        .map(|row| row.label.clone())
}

#[test]
fn p4_a_wide_range_is_at_most_thirty_rows() {
    let found = rows_of(&[matching(0, EntryVerdict::Allow, 1, 65_534)], false);
    assert_eq!(found.len(), 30);
    assert_eq!(
        rows_of(&[matching(0, EntryVerdict::Allow, 0, 65_535)], false).len(),
        1
    );
}

#[test]
fn a_hole_in_an_allow_is_one_row_more() {
    let matches = [
        matching(0, EntryVerdict::Allow, 0, 65_535),
        matching(1, EntryVerdict::Deny, 80, 80),
    ];
    assert_eq!(rows_of(&matches, false).len(), 2);
    let matches = [
        everything(0, EntryVerdict::Allow),
        matching(1, EntryVerdict::Deny, 80, 80),
    ];
    assert_eq!(rows_of(&matches, false).len(), 2);
}

#[test]
fn a_deny_of_a_wide_range_stands_on_narrow_rows() {
    let matches = [
        matching(0, EntryVerdict::Deny, 0, 1023),
        matching(1, EntryVerdict::Allow, 80, 80),
    ];
    let found = rows_of(&matches, false);
    assert_eq!(
        lookup(&found, protocol::TCP, 80),
        Some(said(EntryVerdict::Deny, vec![0]))
    );
    assert_eq!(lookup(&found, protocol::TCP, 1024), None);
    assert_eq!(lookup(&found, protocol::UDP, 80), None);
}

proptest! {
    #[test]
    fn rows_say_what_the_says_say(
        spans in prop::collection::vec((any::<bool>(), 0u16..40, 0u16..40, prop::bool::weighted(0.15)), 0..6),
        scale in prop::sample::select(vec![1u16, 7, 1638]),
        fallback: bool,
    ) {
        let matches: Vec<RuleMatch> = spans
            .iter()
            .zip(0u32..)
            .map(|((deny, a, b, all), rule)| {
                let verdict = if *deny { EntryVerdict::Deny } else { EntryVerdict::Allow };
                if *all {
                    everything(rule, verdict)
                } else {
                    matching(rule, verdict, (*a).min(*b) * scale, (*a).max(*b) * scale)
                }
            })
            .collect();
        let found = rows_of(&matches, fallback);
        for protocol in [protocol::TCP, protocol::UDP] {
            for port in (0..=40u16).flat_map(|p| [p * scale, (p * scale).saturating_add(1)]) {
                let holding: Vec<&RuleMatch> = matches
                    .iter()
                    .filter(|one| match &one.reach {
                        Reach::All => true,
                        Reach::Spans(spans) => spans.iter().any(|span| {
                            span.protocol == protocol && span.first <= port && port <= span.last
                        }),
                    })
                    .collect();
                let of = |verdict| -> Vec<u32> {
                    holding.iter().filter(|one| one.place == normal_place(verdict)).map(|one| one.rule).collect()
                };
                let expected = match (of(EntryVerdict::Deny), of(EntryVerdict::Allow)) {
                    (denies, _) if !denies.is_empty() => Some(said(EntryVerdict::Deny, denies)),
                    (_, allows) if !allows.is_empty() => Some(said(EntryVerdict::Allow, allows)),
                    _ if fallback => Some(Label::Default {
                        because: Because::NotEnforced,
                        precedence: PRECEDENCE_FALLBACK,
                    }),
                    _ => None,
                };
                prop_assert_eq!(lookup(&found, protocol, port), expected, "{} {}", protocol, port);
            }
        }
    }
}
