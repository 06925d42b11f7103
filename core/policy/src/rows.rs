//! From what rules say about ports to the fewest prefix rows that say the same.

use crate::{EntryVerdict, PortMatch, PortTerm, Ports, Transport, protocol};
use std::collections::{BTreeMap, BTreeSet};

/// Ports of one protocol, both ends included; for ICMP, message types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// What a rule is about once names are resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Everything.
    All,
    /// These ports.
    Spans(Vec<Span>),
}

/// Which of a rule's port terms count for a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Terms {
    /// All.
    Every,
    /// Only the named ones: the rest stands on the row for anybody.
    Named,
}

impl Reach {
    /// Resolves a rule's ports with the names that the receiving end gives its ports.
    pub(crate) fn of(ports: &Ports, names: Option<&str>, which: Terms) -> Self {
        let terms = match ports {
            Ports::All if which == Terms::Every => return Self::All,
            Ports::All => return Self::Spans(Vec::new()),
            Ports::Only(terms) => terms,
        };
        let mut spans = Vec::new();
        for term in terms {
            match term {
                PortTerm::Transport(transport, PortMatch::Name(name)) => {
                    spans.extend(named_spans(*transport, name, names));
                }
                _ if which == Terms::Named => {}
                PortTerm::Transport(transport, PortMatch::All) => {
                    spans.extend(transport.protocols().iter().map(|protocol| Span {
                        protocol: *protocol,
                        first: 0,
                        last: u16::MAX,
                    }));
                }
                PortTerm::Transport(transport, PortMatch::Range(first, last)) => {
                    spans.extend(transport.protocols().iter().map(|protocol| Span {
                        protocol: *protocol,
                        first: *first,
                        last: *last,
                    }));
                }
                PortTerm::Icmp(family, kind) => spans.push(Span {
                    protocol: family.protocol(),
                    first: u16::from(*kind),
                    last: u16::from(*kind),
                }),
            }
        }
        Self::Spans(spans)
    }
}

fn named_spans<'a>(
    transport: Transport,
    name: &'a str,
    names: Option<&'a str>,
) -> impl Iterator<Item = Span> + 'a {
    protocol::named_ports(names.unwrap_or_default())
        .filter(move |(known, protocol, _)| {
            *known == name && transport.protocols().contains(protocol)
        })
        .map(|(_, protocol, port)| Span {
            protocol,
            first: port,
            last: port,
        })
}

/// What a row says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Label {
    /// What these rules say, by their numbers, sorted.
    Rules(EntryVerdict, Vec<usize>),
    /// What holds where no rule matches.
    Fallback,
}

/// One row: protocol, port prefix, and what it says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) port_prefix: u8,
    pub(crate) label: Label,
}

/// One rule's say on a peer.
pub(crate) struct Say {
    pub(crate) rule: usize,
    pub(crate) verdict: EntryVerdict,
    pub(crate) reach: Reach,
}

/// The rows of one key: a lookup by longest prefix finds for each protocol and port exactly what the
/// says add up to (a deny beats every allow), or `fallback`, or nothing.
pub(crate) fn rows(says: &[Say], fallback: bool) -> Vec<Row> {
    let mut labels = Labels::default();
    let everywhere = labels.add(says.iter().filter(|say| say.reach == Reach::All), fallback);
    let mut found = Vec::new();
    if let Some(label) = everywhere {
        found.push((0, 0, 0, label));
    }
    let protocols: BTreeSet<u8> = says
        .iter()
        .flat_map(|say| match &say.reach {
            Reach::All => [].as_slice(),
            Reach::Spans(spans) => spans,
        })
        .map(|span| span.protocol)
        .collect();
    for protocol in protocols {
        let segments = segments(says, protocol, fallback, &mut labels);
        let block = Block::build(0, 0, &segments);
        block.emit(0, 0, everywhere, &mut |port, port_prefix, label| {
            found.push((protocol, port, port_prefix, label));
        });
    }
    found
        .into_iter()
        .map(|(protocol, port, port_prefix, label)| Row {
            protocol,
            port,
            port_prefix,
            label: labels.get(label),
        })
        .collect()
}

/// Labels by number, so that they compare quickly.
#[derive(Default)]
struct Labels {
    numbers: BTreeMap<Label, u32>,
    list: Vec<Label>,
}

impl Labels {
    /// The label of what some rules add up to.
    fn add<'a>(&mut self, says: impl Iterator<Item = &'a Say>, fallback: bool) -> Option<u32> {
        let (mut allows, mut denies) = (Vec::new(), Vec::new());
        for say in says {
            match say.verdict {
                EntryVerdict::Allow => allows.push(say.rule),
                EntryVerdict::Deny => denies.push(say.rule),
            }
        }
        let label = if !denies.is_empty() {
            Label::Rules(EntryVerdict::Deny, denies)
        } else if !allows.is_empty() {
            Label::Rules(EntryVerdict::Allow, allows)
        } else if fallback {
            Label::Fallback
        } else {
            return None;
        };
        let label = match label {
            Label::Rules(verdict, mut rules) => {
                rules.sort_unstable();
                rules.dedup();
                Label::Rules(verdict, rules)
            }
            Label::Fallback => Label::Fallback,
        };
        if let Some(number) = self.numbers.get(&label) {
            return Some(*number);
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(label.clone());
        self.numbers.insert(label, number);
        Some(number)
    }

    fn get(&self, number: u32) -> Label {
        self.list
            .get(number as usize)
            .cloned()
            .unwrap_or(Label::Fallback)
    }
}

/// A stretch of ports on which the same holds.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u16,
    last: u16,
    label: Option<u32>,
}

/// The whole port space of a protocol in stretches, neighbours different.
fn segments(says: &[Say], protocol: u8, fallback: bool, labels: &mut Labels) -> Vec<Segment> {
    let spans_of = |say: &Say| -> Vec<Span> {
        match &say.reach {
            Reach::All => vec![Span {
                protocol,
                first: 0,
                last: u16::MAX,
            }],
            Reach::Spans(spans) => spans
                .iter()
                .filter(|span| span.protocol == protocol)
                .copied()
                .collect(),
        }
    };
    let spans: Vec<(&Say, Vec<Span>)> = says.iter().map(|say| (say, spans_of(say))).collect();
    let mut starts = BTreeSet::from([0u16]);
    for span in spans.iter().flat_map(|(_, spans)| spans) {
        starts.insert(span.first);
        starts.extend(span.last.checked_add(1));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let mut segments: Vec<Segment> = Vec::with_capacity(starts.len());
    for (at, first) in starts.iter().enumerate() {
        let last = starts.get(at + 1).map_or(u16::MAX, |next| next - 1);
        let label = labels.add(
            spans
                .iter()
                .filter(|(_, spans)| {
                    spans
                        .iter()
                        .any(|span| span.first <= *first && last <= span.last)
                })
                .map(|(say, _)| *say),
            fallback,
        );
        match segments.last_mut() {
            Some(before) if before.label == label => before.last = last,
            _ => segments.push(Segment {
                first: *first,
                last,
                label,
            }),
        }
    }
    segments
}

/// A block of ports of a power of two, with the labels that its row might bear.
///
/// This is optimal routing table construction (Draves and others, 1999), with one twist: where nothing
/// holds, no row may stand above.
enum Block {
    Leaf(Option<u32>),
    Inner {
        halves: Box<[Block; 2]>,
        /// Labels that cost the fewest rows below; empty when some port inside has no label.
        candidates: Vec<u32>,
    },
}

impl Block {
    fn build(first: u32, prefix: u8, segments: &[Segment]) -> Self {
        let last = first + ((1u32 << (16 - prefix)) - 1);
        let begin = segments.partition_point(|segment| u32::from(segment.last) < first);
        let end = segments.partition_point(|segment| u32::from(segment.first) <= last);
        let inside = segments.get(begin..end).unwrap_or_default();
        if let [only] = inside {
            return Self::Leaf(only.label);
        }
        if prefix == 16 {
            return Self::Leaf(None);
        }
        let middle = first + (1u32 << (15 - prefix));
        let halves = [
            Self::build(first, prefix + 1, inside),
            Self::build(middle, prefix + 1, inside),
        ];
        let [low, high] = [halves[0].candidates(), halves[1].candidates()];
        let candidates = if low.is_empty() || high.is_empty() {
            Vec::new()
        } else {
            let both: Vec<u32> = low.iter().filter(|l| high.contains(l)).copied().collect();
            if both.is_empty() {
                let mut either: Vec<u32> = low.iter().chain(&high).copied().collect();
                either.sort_unstable();
                either.dedup();
                either
            } else {
                both
            }
        };
        Self::Inner {
            halves: Box::new(halves),
            candidates,
        }
    }

    fn candidates(&self) -> Vec<u32> {
        match self {
            Self::Leaf(label) => label.iter().copied().collect(),
            Self::Inner { candidates, .. } => candidates.clone(),
        }
    }

    fn emit(
        &self,
        first: u32,
        prefix: u8,
        inherited: Option<u32>,
        row: &mut impl FnMut(u16, u8, u32),
    ) {
        let candidates = self.candidates();
        let holds = match (inherited, candidates.first()) {
            (Some(label), _) if candidates.contains(&label) => Some(label),
            (_, Some(label)) => {
                // A port block's first port fits: blocks lie within the 16 bits of a port.
                row(first as u16, prefix, *label);
                Some(*label)
            }
            (_, None) => None,
        };
        if let Self::Inner { halves, .. } = self {
            let middle = first + (1u32 << (15 - prefix));
            halves[0].emit(first, prefix + 1, holds, row);
            halves[1].emit(middle, prefix + 1, holds, row);
        }
    }
}

#[cfg(test)]
mod tests;
