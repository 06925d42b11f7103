//! From the policies that select an endpoint to the rows of its policy map.

use crate::{
    Action, Alias, Because, CompiledPolicy, Direction, Engine, Entry, EntryKey, PolicyId, RuleRef,
    Tier,
    cidr::Class,
    compiled::{PRECEDENCE_ALLOW, PRECEDENCE_FALLBACK},
    engine::named_ports_of,
    link::Asked,
    order::{Frame, Levels},
    rows::{Label, Reach, Row, RuleMatch, Setting, Terms, Weight, rows},
};
use heddle_model::{Entity, Identity};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Precedence of rows that are the whole answer for an identity.
const WHOLE_IDENTITY: u32 = u32::MAX - 1;
/// Precedence of rows that are the whole answer for an address, whose identity is part of it.
const WHOLE_ADDRESS: u32 = u32::MAX;

/// One rule's part in one key's rows.
type Part = (u32, Terms);

/// All that a key's rows depend on: its rules, what names mean there, and how its rows weigh.
type Shape<'a> = (Vec<Part>, Option<&'a str>, Weight, bool);

/// One key of the map, before its rows are known.
#[derive(Default)]
struct Key {
    parts: Vec<Part>,
    /// Whose names for ports count.
    names_of: Option<Identity>,
    weight: Option<Weight>,
    own_node: bool,
}

/// The rows of one direction, before cookies are given out.
struct Draft<'a> {
    direction: Direction,
    isolated: bool,
    /// What rules the numbers in the labels mean.
    rules: Vec<Asked<'a>>,
    keys: Vec<(Identity, Arc<[Row]>)>,
}

impl Engine {
    /// The rows of an endpoint with this identity.
    ///
    /// An identity that the engine does not know is isolated and allowed nothing: nobody can say which
    /// policies are about it. Pods whose labels are not known yet (`Identity::INIT`) are isolated always
    /// (reference D4), other reserved identities never (reference D5).
    pub fn compile(&mut self, subject: Identity) -> CompiledPolicy {
        let mut entries = Vec::new();
        let mut aliases = Vec::new();
        let mut enforced = [false; 2];
        // Only the cookies change; everything else is read.
        let mut cookies = std::mem::take(&mut self.cookies);
        for (direction, enforced) in [Direction::Ingress, Direction::Egress]
            .into_iter()
            .zip(&mut enforced)
        {
            let mut draft = self.draft(subject, direction);
            *enforced = draft.isolated;
            aliases.extend(draft.take_aliases());
            draft.finish(&mut cookies, &mut entries);
        }
        self.cookies = cookies;
        entries.sort_unstable_by_key(|entry| entry.key);
        aliases.sort_unstable();
        CompiledPolicy {
            ingress_enforced: enforced[0],
            egress_enforced: enforced[1],
            entries,
            aliases,
            audit: false,
        }
    }

    /// How many rows of an endpoint each policy has a part in, the largest first: who makes its map large.
    /// A row that rules of several policies share counts for each.
    pub fn rows_by_policy(&mut self, subject: Identity) -> Vec<(PolicyId, usize)> {
        let compiled = self.compile(subject);
        let mut by_cookie: HashMap<u32, usize> = HashMap::new();
        for entry in &compiled.entries {
            *by_cookie.entry(entry.cookie).or_default() += 1;
        }
        let mut counts: BTreeMap<PolicyId, usize> = BTreeMap::new();
        for (cookie, rows) in by_cookie {
            let rules = self.cookies.rules(cookie).unwrap_or_default();
            let policies: BTreeSet<PolicyId> = rules.iter().map(RuleRef::policy).collect();
            for policy in policies {
                *counts.entry(policy).or_default() += rows;
            }
        }
        let mut found: Vec<(PolicyId, usize)> = counts.into_iter().collect();
        found.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        found
    }

    fn draft(&self, subject: Identity, direction: Direction) -> Draft<'_> {
        let specs = self.selecting(subject);
        let Some(frame) = self.frame(subject, &specs, direction) else {
            return self.open(direction);
        };
        let mut rules = Vec::new();
        for spec in specs {
            // Where the tier Normal isolates, the tier Baseline is not asked.
            rules.extend(
                spec.rules(direction)
                    .filter(|asked| !(frame.isolated && asked.place().tier() == Tier::Baseline)),
            );
        }
        let isolated = frame.isolated || frame.strict;
        let Some(levels) = Levels::new(rules.iter().map(Asked::place)) else {
            // More levels than precedences: no row, so everything is dropped.
            return Draft {
                direction,
                isolated: true,
                rules,
                keys: Vec::new(),
            };
        };
        let whole = rules
            .iter()
            .any(|asked| asked.place().action() == Action::Pass);
        let mut keys = self.spread(&rules, direction, whole);
        // Keys whose rows exist even when no rule is about them.
        if !isolated {
            keys.entry(Identity::UNKNOWN).or_default();
        } else if self.passes_as_own_node(subject, Identity::HOST, direction) {
            // An endpoint's own node may always connect to it, for health probes (reference D11).
            keys.entry(Identity::HOST).or_default();
        }
        if whole {
            complete(&mut keys, isolated);
        }
        let subject_names = self.labels(subject).and_then(named_ports_of);
        let mut known: HashMap<Shape<'_>, Arc<[Row]>> = HashMap::new();
        let mut drafted = Vec::with_capacity(keys.len());
        for (identity, key) in keys {
            let bearer = if key.own_node {
                Identity::HOST
            } else {
                identity
            };
            let own_node = self.passes_as_own_node(subject, bearer, direction);
            let default = if isolated {
                own_node
            } else {
                identity == Identity::UNKNOWN
            };
            let weight = key.weight.unwrap_or(Weight::ByPlace {
                default: default.then_some(PRECEDENCE_FALLBACK),
            });
            let names = match direction {
                Direction::Ingress => subject_names,
                Direction::Egress => self
                    .labels(key.names_of.unwrap_or(identity))
                    .and_then(named_ports_of),
            };
            // Names only matter to rules with names; most keys share their rows.
            let names = names.filter(|_| {
                key.parts
                    .iter()
                    .any(|(rule, _)| rules[*rule as usize].linked.named)
            });
            let setting = Setting {
                frame: Frame { own_node, ..frame },
                weight,
                levels: &levels,
            };
            let shape = (key.parts, names, weight, own_node);
            let rows = known.entry(shape).or_insert_with_key(|(parts, names, ..)| {
                let matches: Vec<RuleMatch> = parts
                    .iter()
                    .map(|(number, which)| RuleMatch {
                        rule: *number,
                        place: rules[*number as usize].place(),
                        reach: Reach::of(&rules[*number as usize].linked.ports, *names, *which),
                    })
                    .collect();
                rows(&matches, setting).into()
            });
            drafted.push((identity, Arc::clone(rows)));
        }
        Draft {
            direction,
            isolated,
            rules,
            keys: drafted,
        }
    }

    /// Everything passes.
    fn open(&self, direction: Direction) -> Draft<'_> {
        let row = Row {
            protocol: 0,
            port: 0,
            port_prefix: 0,
            label: Label::Default {
                because: Because::NotEnforced,
                precedence: PRECEDENCE_FALLBACK,
            },
        };
        Draft {
            direction,
            isolated: false,
            rules: Vec::new(),
            keys: vec![(Identity::UNKNOWN, Arc::new([row]))],
        }
    }

    /// Puts rules on every key that their peers are found by.
    fn spread(
        &self,
        rules: &[Asked<'_>],
        direction: Direction,
        whole: bool,
    ) -> BTreeMap<Identity, Key> {
        let mut parts: Vec<(Identity, Part)> = Vec::new();
        let mut classes: BTreeMap<Identity, &Class> = BTreeMap::new();
        // The classes of the cluster whose names for ports are those of the pods there.
        let mut speaking: BTreeMap<Identity, Identity> = BTreeMap::new();
        for (number, asked) in rules.iter().enumerate() {
            // As many rules as numbers do not fit into memory.
            let number = number as u32;
            let linked = asked.linked;
            if linked.anybody {
                parts.push((Identity::UNKNOWN, (number, Terms::Every)));
                // A name means what each receiving pod says it means (reference P6), so towards anybody it
                // stands on the rows of those that have it.
                if direction == Direction::Egress && linked.named {
                    parts.extend(self.named.iter().map(|id| (*id, (number, Terms::Named))));
                }
            }
            for selector in &linked.selectors {
                let matches = self.peers.matches(*selector);
                parts.extend(matches.iter().map(|id| (*id, (number, Terms::Every))));
            }
            for entity in &linked.entities {
                let standing_for = |identity: &Identity| entity.contains(*identity);
                let reserved = self.label_index.reserved().filter(standing_for);
                parts.extend(reserved.map(|id| (id, (number, Terms::Every))));
                // Of the entities only the cluster has pods in it.
                if *entity == Entity::Cluster {
                    let pods = self.label_index.pods().filter(standing_for);
                    parts.extend(pods.map(|id| (id, (number, Terms::Every))));
                }
            }
            for class in linked
                .region
                .into_iter()
                .flat_map(|r| self.cidrs.classes(r))
            {
                let pods = class.base().filter(|_| class.in_cluster());
                let terms = match (direction, pods) {
                    (Direction::Ingress, _) | (_, Some(_)) => Terms::Every,
                    (Direction::Egress, None) => Terms::Unnamed,
                };
                parts.push((class.number(), (number, terms)));
                if let Some(pods) = pods.filter(|_| direction == Direction::Egress && linked.named)
                {
                    speaking.insert(class.number(), pods);
                }
                if whole {
                    classes.insert(class.number(), class);
                }
            }
        }
        parts.sort_unstable();
        parts.dedup();
        let mut keys: BTreeMap<Identity, Key> = BTreeMap::new();
        for (identity, part) in parts {
            keys.entry(identity).or_default().parts.push(part);
        }
        for (number, pods) in speaking {
            keys.entry(number).or_default().names_of = Some(pods);
        }
        for (number, class) in classes {
            let Some(key) = keys.get_mut(&number) else {
                continue;
            };
            let base = if class.in_cluster() {
                class.base()
            } else {
                Some(class.world())
            };
            let precedence = WHOLE_ADDRESS;
            key.weight = Some(match base {
                Some(_) => Weight::Whole {
                    precedence,
                    default: true,
                },
                // Nobody told who is there.
                None => Weight::Closed { precedence },
            });
            key.names_of = base;
        }
        keys
    }
}

/// Makes every key's rows the whole answer: passes are followed here, because a lookup cannot. Whoever bears
/// an identity is also anybody, and an address has its own identity's rules too.
fn complete(keys: &mut BTreeMap<Identity, Key>, isolated: bool) {
    let of = |keys: &BTreeMap<Identity, Key>, identity: Identity| -> Vec<Part> {
        keys.get(&identity)
            .map(|key| key.parts.clone())
            .unwrap_or_default()
    };
    let anybody = of(keys, Identity::UNKNOWN);
    let bases: BTreeMap<Identity, Vec<Part>> = keys
        .values()
        .filter_map(|key| key.names_of)
        .map(|base| (base, of(keys, base)))
        .collect();
    for (identity, key) in keys.iter_mut() {
        match (key.weight, key.names_of) {
            (Some(Weight::Closed { .. }), _) => {
                key.parts.clear();
                continue;
            }
            (Some(_), Some(base)) => {
                key.own_node = base == Identity::HOST;
                key.parts.extend(bases.get(&base).into_iter().flatten());
            }
            _ if *identity == Identity::UNKNOWN => {
                key.weight = Some(Weight::Whole {
                    precedence: PRECEDENCE_ALLOW,
                    default: !isolated,
                });
                continue;
            }
            _ => {
                key.weight = Some(Weight::Whole {
                    precedence: WHOLE_IDENTITY,
                    default: true,
                });
            }
        }
        key.parts.extend(&anybody);
        key.parts.sort_unstable();
        key.parts.dedup();
    }
}

impl Draft<'_> {
    /// Takes out the keys whose several rows another key has, too. A single row is no larger than the alias in its
    /// place, and is found sooner.
    fn take_aliases(&mut self) -> Vec<Alias> {
        let direction = self.direction;
        let mut first_with: HashMap<*const Row, Identity> = HashMap::new();
        let mut aliases = Vec::new();
        self.keys.retain(|(identity, rows)| {
            if *identity == Identity::UNKNOWN || rows.len() < 2 {
                return true;
            }
            // Keys with equal rows share them.
            let like = *first_with.entry(rows.as_ptr()).or_insert(*identity);
            if like == *identity {
                return true;
            }
            aliases.push(Alias {
                direction,
                identity: *identity,
                like,
            });
            false
        });
        aliases
    }

    /// Gives the rows their cookies.
    fn finish(self, cookies: &mut crate::cookie::CookieTable, entries: &mut Vec<Entry>) {
        let mut given: HashMap<Label, u32> = HashMap::new();
        for (identity, rows) in &self.keys {
            for row in rows.iter() {
                let cookie = match given.get(&row.label) {
                    Some(cookie) => *cookie,
                    None => {
                        let cookie = match &row.label {
                            Label::Default {
                                because: Because::NotEnforced,
                                ..
                            } => 0,
                            Label::Default { .. } => cookies.cookie(Vec::new()),
                            Label::Rules { rules, .. } => {
                                let mut set: Vec<RuleRef> = rules
                                    .iter()
                                    .filter_map(|number| self.rules.get(*number as usize))
                                    .filter_map(Asked::name)
                                    .collect();
                                set.sort();
                                cookies.cookie(set)
                            }
                        };
                        given.insert(row.label.clone(), cookie);
                        cookie
                    }
                };
                let (verdict, precedence) = match &row.label {
                    Label::Default {
                        because,
                        precedence,
                    } => (because.verdict(), *precedence),
                    Label::Rules {
                        verdict,
                        precedence,
                        ..
                    } => (*verdict, *precedence),
                };
                entries.push(Entry {
                    key: EntryKey {
                        direction: self.direction,
                        identity: *identity,
                        protocol: row.protocol,
                        port: row.port,
                        port_prefix: row.port_prefix,
                    },
                    verdict,
                    precedence,
                    cookie,
                });
            }
        }
    }
}
