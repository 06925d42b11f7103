//! From what rules say about ports to the fewest prefix rows that say the same.

use crate::{
    Because, EntryVerdict, PortMatch, PortTerm, Ports, Transport,
    order::{Frame, Levels, Place, rule_on},
    protocol,
};
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Terms {
    /// All.
    Every,
    /// Only the named ones: the rest stands on the row for anybody.
    Named,
    /// All but the named ones: towards an address of nobody there is nobody to say what a port's name means.
    Unnamed,
}

impl Reach {
    /// Resolves a rule's ports with the names that the receiving end gives its ports.
    pub(crate) fn of(ports: &Ports, names: Option<&str>, which: Terms) -> Self {
        let terms = match ports {
            Ports::All if which == Terms::Named => return Self::Spans(Vec::new()),
            Ports::All => return Self::All,
            Ports::Only(terms) => terms,
        };
        let names = names.filter(|_| which != Terms::Unnamed);
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

/// What a row matches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Label {
    /// What these rules say, by their numbers, sorted.
    Rules {
        verdict: EntryVerdict,
        precedence: u32,
        rules: Vec<u32>,
    },
    /// What holds where no rule decides.
    Default { because: Because, precedence: u32 },
}

/// One row: protocol, port prefix, and what it matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) port_prefix: u8,
    pub(crate) label: Label,
}

/// A rule that matches a peer, and the ports that it is about.
pub(crate) struct RuleMatch {
    pub(crate) rule: u32,
    pub(crate) place: Place,
    pub(crate) reach: Reach,
}

/// How the rows of a key relate to those that a lookup finds for the packet's other keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Weight {
    /// By what they say: each key's rows say what the key's own rules add up to, and the strongest wins.
    ByPlace {
        /// The precedence of a row where no rule of the key decides; `None`: no row.
        default: Option<u32>,
    },
    /// By the key: the key's rows are the whole answer, and have this precedence.
    Whole {
        precedence: u32,
        /// Whether there are rows where no rule decides, even where no wider row stands above.
        default: bool,
    },
    /// Nobody knows the answer, so it is no.
    Closed { precedence: u32 },
}

/// What the rows of a key depend on beside its rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) frame: Frame,
    pub(crate) weight: Weight,
    pub(crate) levels: &'a Levels,
}

impl Setting<'_> {
    /// What some rules that match add up to. Where a wider row stands above (`below`), silence has to be said.
    fn label<'a>(
        &self,
        matches: impl Iterator<Item = &'a RuleMatch> + Clone,
        below: bool,
    ) -> Option<Label> {
        if let Weight::Closed { precedence } = self.weight {
            return Some(Label::Default {
                because: Because::DefaultDeny,
                precedence,
            });
        }
        let ruling = rule_on(matches.clone().map(|one| one.place), self.frame);
        let Some(place) = ruling.decided else {
            let precedence = match self.weight {
                Weight::ByPlace { default } => default?,
                Weight::Whole { default: false, .. } if !below => return None,
                Weight::Whole { precedence, .. } | Weight::Closed { precedence } => precedence,
            };
            return Some(Label::Default {
                because: ruling.because,
                precedence,
            });
        };
        let mut rules: Vec<u32> = matches
            .filter(|one| one.place == place)
            .map(|one| one.rule)
            .collect();
        rules.sort_unstable();
        rules.dedup();
        Some(Label::Rules {
            verdict: ruling.because.verdict(),
            precedence: match self.weight {
                Weight::ByPlace { .. } => self.levels.precedence(place),
                Weight::Whole { precedence, .. } | Weight::Closed { precedence } => precedence,
            },
            rules,
        })
    }
}

/// The rows of one key: a lookup by longest prefix finds for each protocol and port exactly what the
/// matches add up to, or the default, or nothing.
pub(crate) fn rows(matches: &[RuleMatch], setting: Setting<'_>) -> Vec<Row> {
    let mut labels = Labels::default();
    let all = matches.iter().filter(|one| one.reach == Reach::All);
    let everywhere = labels.number(setting.label(all, false));
    let mut found = Vec::new();
    if let Some(label) = everywhere {
        found.push((0, 0, 0, label));
    }
    let protocols: BTreeSet<u8> = matches
        .iter()
        .flat_map(|one| match &one.reach {
            Reach::All => [].as_slice(),
            Reach::Spans(spans) => spans,
        })
        .map(|span| span.protocol)
        .collect();
    for protocol in protocols {
        let segments = segments(
            matches,
            protocol,
            setting,
            everywhere.is_some(),
            &mut labels,
        );
        let block = Block::build(0, 0, &segments);
        block.emit(0, 0, everywhere, &mut |port, port_prefix, label| {
            found.push((protocol, port, port_prefix, label));
        });
    }
    found
        .into_iter()
        .filter_map(|(protocol, port, port_prefix, label)| {
            Some(Row {
                protocol,
                port,
                port_prefix,
                label: labels.list.get(label as usize)?.clone(),
            })
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
    fn number(&mut self, label: Option<Label>) -> Option<u32> {
        let label = label?;
        if let Some(number) = self.numbers.get(&label) {
            return Some(*number);
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(label.clone());
        self.numbers.insert(label, number);
        Some(number)
    }
}

/// A stretch of ports on which the same holds.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u16,
    last: u16,
    label: Option<u32>,
}

/// The whole port space of a protocol in stretches, neighbours different; `below` a row for every protocol
/// or not.
fn segments(
    matches: &[RuleMatch],
    protocol: u8,
    setting: Setting<'_>,
    below: bool,
    labels: &mut Labels,
) -> Vec<Segment> {
    let spans_of = |one: &RuleMatch| -> Vec<Span> {
        match &one.reach {
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
    let spans: Vec<(&RuleMatch, Vec<Span>)> =
        matches.iter().map(|one| (one, spans_of(one))).collect();
    let mut starts = BTreeSet::from([0u16]);
    for span in spans.iter().flat_map(|(_, spans)| spans) {
        starts.insert(span.first);
        starts.extend(span.last.checked_add(1));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let mut segments: Vec<Segment> = Vec::with_capacity(starts.len());
    for (at, first) in starts.iter().enumerate() {
        let last = starts.get(at + 1).map_or(u16::MAX, |next| next - 1);
        let here = spans
            .iter()
            .filter(|(_, spans)| {
                spans
                    .iter()
                    .any(|span| span.first <= *first && last <= span.last)
            })
            .map(|(one, _)| *one);
        let label = labels.number(setting.label(here, below));
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
