//! One question put to rules, and what came near when none matched.

use crate::{
    Action, Direction, Engine, Nearest, Party, Peers, PortMatch, PortTerm, Ports, Term, Tier,
    Traffic,
    engine::named_ports_of,
    index::SelectorNo,
    link::{Asked, LinkedRule, LinkedSpec},
    order::{Frame, Ruling},
    protocol,
};
use heddle_model::{Identity, LabelSet, Source};
use std::fmt::{Display, Write};

/// Rules named as nearest at most: enough to see what is missing, few enough to read.
const MOST_NEAREST: usize = 8;

/// One question, ready to be put to rules.
pub(crate) struct Case<'a> {
    engine: &'a Engine,
    peer: &'a Party,
    /// The selectors that match the peer, sorted.
    selecting: &'a [SelectorNo],
    /// Whose names for ports count.
    receiver: Identity,
    direction: Direction,
    traffic: Traffic,
}

impl<'a> Case<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        subject: &Party,
        peer: &'a Party,
        direction: Direction,
        traffic: Traffic,
    ) -> Self {
        let receiver = match direction {
            Direction::Ingress => subject,
            Direction::Egress => peer,
        };
        Self {
            engine,
            peer,
            selecting: engine.peers.matching(peer.identity),
            receiver: receiver.identity,
            direction,
            traffic,
        }
    }

    /// The first term of the rule that fails, or `None` when the rule matches.
    pub(crate) fn failure(&self, asked: Asked<'_>) -> Option<Term> {
        match self.names_count(asked.linked) {
            Some(names) => self.port_failure(&asked.linked.ports, names),
            None => Some(Term::Peer),
        }
    }

    /// Whether names for ports count where the rule is about the peer; `None` where it is not.
    pub(crate) fn names_count(&self, linked: &LinkedRule) -> Option<bool> {
        if self.is_peer(linked) {
            Some(true)
        } else if self.is_address(linked) {
            // Towards an address outside the cluster there is nobody to say what a port's name means; an address
            // inside is a pod's, which does.
            Some(self.direction == Direction::Ingress || self.peer.in_cluster)
        } else {
            None
        }
    }

    /// How many of the rule's two terms fail, peer and ports.
    fn failures(&self, asked: Asked<'_>, first: Term) -> usize {
        match first {
            Term::Peer if self.port_failure(&asked.linked.ports, true).is_some() => 2,
            _ => 1,
        }
    }

    fn is_peer(&self, linked: &LinkedRule) -> bool {
        let identity = self.peer.identity;
        linked.anybody
            || linked.entities.iter().any(|it| it.contains(identity))
            || linked
                .selectors
                .iter()
                .any(|selector| self.selecting.binary_search(selector).is_ok())
    }

    fn is_address(&self, linked: &LinkedRule) -> bool {
        let (Some(region), Some(prefix)) = (linked.region, self.peer.prefix) else {
            return false;
        };
        let in_cluster = self.peer.in_cluster;
        self.engine.cidrs.covers(region, prefix.trunc(), in_cluster)
    }

    /// Named ports of the receiving end.
    fn names(&self) -> &str {
        let labels = self.engine.labels(self.receiver);
        labels.and_then(named_ports_of).unwrap_or_default()
    }

    /// The nearest that the rule's port terms come; `None` when one matches.
    pub(crate) fn port_failure(&self, ports: &Ports, names_known: bool) -> Option<Term> {
        let Ports::Only(terms) = ports else {
            return None;
        };
        let Traffic { protocol, port } = self.traffic;
        let mut nearest = Some(Term::Protocol);
        for term in terms {
            let failure = match term {
                PortTerm::Transport(transport, wanted) => {
                    if !transport.protocols().contains(&protocol) {
                        continue;
                    }
                    let holds = match wanted {
                        PortMatch::All => true,
                        PortMatch::Range(first, last) => (*first..=*last).contains(&port),
                        PortMatch::Name(name) => {
                            names_known
                                && protocol::named_ports(self.names())
                                    .any(|known| known == (name.as_str(), protocol, port))
                        }
                    };
                    (!holds).then_some(Term::Port)
                }
                PortTerm::Icmp(family, kind) => {
                    if family.protocol() != protocol {
                        continue;
                    }
                    (u16::from(*kind) != port).then_some(Term::Icmp)
                }
            };
            nearest = nearest.min(failure);
        }
        nearest
    }
}

impl Case<'_> {
    /// The allows that came near, those with the fewest terms that failed first.
    pub(crate) fn nearest(
        &self,
        specs: &[&LinkedSpec],
        frame: Frame,
        ruling: &Ruling,
    ) -> Vec<Nearest> {
        let mut found = Vec::new();
        for spec in specs {
            for asked in spec.rules(self.direction) {
                let place = asked.place();
                let unasked =
                    ruling.skips(place) || (frame.isolated && place.tier() == Tier::Baseline);
                if place.action() == Action::Allow
                    && !unasked
                    && let Some(failed) = self.failure(asked)
                {
                    found.push((self.failures(asked, failed), failed, asked));
                }
            }
        }
        let closer = |a: &(usize, Term, Asked<'_>), b: &(usize, Term, Asked<'_>)| {
            (a.0, a.1)
                .cmp(&(b.0, b.1))
                .then_with(|| a.2.order().cmp(&b.2.order()))
        };
        if found.len() > MOST_NEAREST {
            found.select_nth_unstable_by(MOST_NEAREST - 1, closer);
            found.truncate(MOST_NEAREST);
        }
        found.sort_unstable_by(closer);
        let (mut party, mut traffic) = (None, None);
        found
            .into_iter()
            .filter_map(|(_, failed, asked)| Some((failed, asked.name()?, asked.rule()?)))
            .map(|(failed, name, rule)| Nearest {
                rule: name,
                failed,
                wanted: match failed {
                    Term::Peer => describe_peers(&rule.peers),
                    _ => describe_ports(&rule.ports),
                },
                got: match failed {
                    Term::Peer => party
                        .get_or_insert_with(|| {
                            describe_party(self.peer, self.engine.labels(self.peer.identity))
                        })
                        .clone(),
                    _ => traffic
                        .get_or_insert_with(|| {
                            protocol::describe(self.traffic.protocol, self.traffic.port)
                        })
                        .clone(),
                },
            })
            .collect()
    }
}

fn describe_peers(peers: &Peers) -> String {
    match peers {
        Peers::Any => "anybody".to_owned(),
        Peers::Terms(terms) if terms.is_empty() => "nobody (the rule names no peer)".to_owned(),
        Peers::Terms(terms) => join(terms.iter()),
    }
}

fn describe_ports(ports: &Ports) -> String {
    match ports {
        Ports::All => "everything".to_owned(),
        Ports::Only(terms) if terms.is_empty() => "nothing (the rule names no port)".to_owned(),
        Ports::Only(terms) => join(terms.iter()),
    }
}

fn join(terms: impl Iterator<Item = impl Display>) -> String {
    let mut text = String::with_capacity(96);
    for (at, term) in terms.enumerate() {
        // Writing to a string does not fail.
        let _ = write!(text, "{}{term}", if at == 0 { "" } else { ", or " });
    }
    text
}

fn describe_party(party: &Party, labels: Option<&LabelSet>) -> String {
    let Some(labels) = labels else {
        return format!("identity {}", party.identity);
    };
    if let Some(namespace) = labels.namespace() {
        let mut text = String::with_capacity(192);
        text.push_str("pod with ");
        let mut none = true;
        for (source, key, value) in labels.iter() {
            if source == Source::K8s && !key.starts_with("io.") {
                for part in [if none { "" } else { ", " }, key, "=", value] {
                    text.push_str(part);
                }
                none = false;
            }
        }
        for part in [
            if none { "no labels" } else { "" },
            " of namespace ",
            namespace,
        ] {
            text.push_str(part);
        }
        return text;
    }
    let name = party.identity.reserved_name().unwrap_or("unknown");
    match party.prefix {
        Some(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
            format!("{} ({name})", prefix.addr())
        }
        _ => name.to_owned(),
    }
}
