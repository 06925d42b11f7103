//! From the policies that select an endpoint to the rows of its policy map.

use crate::{
    Action, CidrScope, CompiledPolicy, Direction, Engine, Entry, EntryKey, EntryVerdict, Peer,
    Peers, PortMatch, PortTerm, Ports, Rule, RuleRef,
    compiled::{PRECEDENCE_ALLOW, PRECEDENCE_DENY, PRECEDENCE_FALLBACK},
    engine::named_ports_of,
    rows::{Label, Reach, Row, Say, Terms, rows},
};
use heddle_model::{Entity, Identity, IdentityScope};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of a direction of an endpoint before any rule is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stance {
    /// Nothing is enforced.
    Open,
    /// What no rule allows is denied.
    Isolated,
    /// Rules are never asked.
    Exempt,
}

/// One rule's part in one key's rows.
type Part = (usize, Terms);

/// All that a key's rows depend on: its rules, what names mean there, and whether it has a fallback.
type Shape<'a> = (Vec<Part>, Option<&'a str>, bool);

impl Engine {
    /// The rows of an endpoint with this identity.
    ///
    /// An identity that the engine does not know is isolated and allowed nothing: nobody can say which
    /// policies are about it. Pods whose labels are not known yet (`Identity::INIT`) are isolated always
    /// (reference D4), other reserved identities never (reference D5).
    pub fn compile(&mut self, subject: Identity) -> CompiledPolicy {
        let mut entries = Vec::new();
        let ingress_enforced = self.compile_direction(subject, Direction::Ingress, &mut entries);
        let egress_enforced = self.compile_direction(subject, Direction::Egress, &mut entries);
        entries.sort_unstable_by_key(|entry| entry.key);
        CompiledPolicy {
            ingress_enforced,
            egress_enforced,
            entries,
        }
    }

    /// Whether a direction is enforced for a subject.
    pub(crate) fn stance(&self, subject: Identity, direction: Direction) -> Stance {
        if !self.identities.contains_key(&subject) || subject == Identity::INIT {
            return Stance::Isolated;
        }
        if subject.scope() == IdentityScope::Reserved {
            return Stance::Exempt;
        }
        let isolated = self
            .selecting(subject)
            .iter()
            .any(|(_, spec)| spec.isolates.holds(direction));
        if isolated {
            Stance::Isolated
        } else {
            Stance::Open
        }
    }

    fn compile_direction(
        &mut self,
        subject: Identity,
        direction: Direction,
        entries: &mut Vec<Entry>,
    ) -> bool {
        let stance = self.stance(subject, direction);
        let selecting = match stance {
            Stance::Exempt => Vec::new(),
            _ => self.selecting(subject),
        };
        let mut rules: Vec<(&Rule, RuleRef)> = Vec::new();
        for (id, spec) in selecting {
            for rule in &spec.rules {
                if rule.section.direction() == direction && rule.action != Action::Pass {
                    let name = RuleRef::of(id, spec.position, rule);
                    rules.push((rule, name));
                }
            }
        }
        // Keys whose rows exist even when no rule is about them.
        let fallback_key = match (stance, direction) {
            (Stance::Open | Stance::Exempt, _) => Some(Identity::UNKNOWN),
            // An endpoint's own node may always connect to it, for health probes (reference D11).
            (Stance::Isolated, Direction::Ingress) => Some(Identity::HOST),
            (Stance::Isolated, Direction::Egress) => None,
        };
        let mut keys: BTreeMap<Identity, Vec<Part>> = BTreeMap::new();
        keys.extend(fallback_key.map(|key| (key, Vec::new())));
        for (number, (rule, _)) in rules.iter().enumerate() {
            self.spread(number, rule, direction, &mut keys);
        }

        let subject_names = self.labels(subject).and_then(named_ports_of);
        let mut known: BTreeMap<Shape<'_>, Vec<Row>> = BTreeMap::new();
        let mut compiled: Vec<(Identity, Vec<Row>)> = Vec::with_capacity(keys.len());
        for (key, parts) in keys {
            let names = match direction {
                Direction::Ingress => subject_names,
                Direction::Egress => self.labels(key).and_then(named_ports_of),
            };
            // Names only matter to rules with names; most keys share their rows.
            let names = names.filter(|_| parts.iter().any(|(rule, _)| has_names(rules[*rule].0)));
            let fallback = fallback_key == Some(key);
            let rows = known.entry((parts, names, fallback)).or_insert_with_key(
                |(parts, names, fallback)| {
                    let says: Vec<Say> = parts
                        .iter()
                        .filter_map(|(rule, which)| {
                            Some(Say {
                                rule: *rule,
                                verdict: rules[*rule].0.action.verdict()?,
                                reach: Reach::of(&rules[*rule].0.ports, *names, *which),
                            })
                        })
                        .collect();
                    rows(&says, *fallback)
                },
            );
            compiled.push((key, rows.clone()));
        }
        let refs: Vec<RuleRef> = rules.into_iter().map(|(_, name)| name).collect();
        let mut cookies: BTreeMap<Label, u32> = BTreeMap::new();
        for (identity, rows) in compiled {
            for row in rows {
                let (verdict, precedence) = match &row.label {
                    Label::Fallback => (EntryVerdict::Allow, PRECEDENCE_FALLBACK),
                    Label::Rules(EntryVerdict::Allow, _) => (EntryVerdict::Allow, PRECEDENCE_ALLOW),
                    Label::Rules(EntryVerdict::Deny, _) => (EntryVerdict::Deny, PRECEDENCE_DENY),
                };
                let key = EntryKey {
                    direction,
                    identity,
                    protocol: row.protocol,
                    port: row.port,
                    port_prefix: row.port_prefix,
                };
                let cookie = match cookies.get(&row.label) {
                    Some(cookie) => *cookie,
                    None => {
                        let cookie = match &row.label {
                            Label::Fallback if stance != Stance::Isolated => 0,
                            Label::Fallback => self.cookies.cookie(Vec::new()),
                            Label::Rules(_, numbers) => {
                                let mut set: Vec<RuleRef> =
                                    numbers.iter().map(|number| refs[*number].clone()).collect();
                                set.sort();
                                self.cookies.cookie(set)
                            }
                        };
                        cookies.insert(row.label, cookie);
                        cookie
                    }
                };
                entries.push(Entry {
                    key,
                    verdict,
                    precedence,
                    cookie,
                });
            }
        }
        stance == Stance::Isolated
    }

    /// Puts a rule on every key that its peers are found by.
    fn spread(
        &self,
        number: usize,
        rule: &Rule,
        direction: Direction,
        keys: &mut BTreeMap<Identity, Vec<Part>>,
    ) {
        let mut parts: BTreeSet<(Identity, Part)> = BTreeSet::new();
        let anybody = || {
            let mut parts = vec![(Identity::UNKNOWN, (number, Terms::Every))];
            // A name means what each receiving pod says it means (reference P6), so towards anybody it
            // stands on the rows of those that have it.
            if direction == Direction::Egress && has_names(rule) {
                parts.extend(self.named.iter().map(|id| (*id, (number, Terms::Named))));
            }
            parts
        };
        match &rule.peers {
            Peers::Any => parts.extend(anybody()),
            Peers::Terms(terms) => {
                for term in terms {
                    match term {
                        Peer::Entity(Entity::All) => parts.extend(anybody()),
                        Peer::Entity(entity) => parts.extend(
                            self.identities
                                .keys()
                                .filter(|identity| entity.contains(**identity))
                                .map(|identity| (*identity, (number, Terms::Every))),
                        ),
                        Peer::Endpoints(selector) => parts.extend(
                            self.selectors
                                .matches(selector)
                                .map(|identity| (identity, (number, Terms::Every))),
                        ),
                        Peer::CidrGroup { .. } | Peer::Services(_) => {}
                        Peer::Cidr(cidr) => {
                            let scopes = [
                                Some(CidrScope::World),
                                cidr.in_cluster.then_some(CidrScope::InCluster),
                            ];
                            for scope in scopes.into_iter().flatten() {
                                // The datapath finds the longest prefix only: the rule stands on the row
                                // of every prefix inside its block and outside its holes.
                                parts.extend(
                                    self.cidrs
                                        .within(cidr.block, scope)
                                        .filter(|(prefix, _)| {
                                            cidr.covers(*prefix, scope == CidrScope::InCluster)
                                        })
                                        .map(|(_, identity)| (identity, (number, Terms::Every))),
                                );
                            }
                        }
                    }
                }
            }
        }
        for (key, part) in parts {
            keys.entry(key).or_default().push(part);
        }
    }
}

/// True when the rule has named ports.
pub(crate) fn has_names(rule: &Rule) -> bool {
    match &rule.ports {
        Ports::All => false,
        Ports::Only(terms) => terms
            .iter()
            .any(|term| matches!(term, PortTerm::Transport(_, PortMatch::Name(_)))),
    }
}
