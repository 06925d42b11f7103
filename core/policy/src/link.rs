//! A part of a policy with what its terms stand for, and the indexes that find it again.

use crate::{
    Action, Direction, Engine, Isolation, Peer, Peers, Policy, PolicyId, PolicySpec, Ports, Rule,
    RuleRef, ServiceRef, Tier,
    cidr::{Area, RegionNo},
    index::SelectorNo,
    order::Place,
    port::has_names,
};
use heddle_model::{Entity, Identity};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A part of a policy in force.
pub(crate) type SpecNo = u32;

/// A rule that says something, with what its terms stand for.
#[derive(Clone, Debug)]
pub(crate) struct LinkedRule {
    /// Its position among all rules of its part.
    position: usize,
    direction: Direction,
    place: Place,
    /// It is about anybody.
    pub(crate) anybody: bool,
    /// It has named ports.
    pub(crate) named: bool,
    /// It has named ports towards addresses of the cluster: each pod there says what they mean.
    names_pods_by_address: bool,
    /// As the rule has them; a copy, because every question asks for them.
    pub(crate) ports: Ports,
    pub(crate) region: Option<RegionNo>,
    /// Of its pod selectors and of the services it names.
    pub(crate) selectors: Vec<SelectorNo>,
    pub(crate) entities: Vec<Entity>,
}

/// A part of a policy, with what its terms stand for.
#[derive(Clone, Debug)]
pub(crate) struct LinkedSpec {
    policy: Arc<Policy>,
    position: usize,
    subject: SelectorNo,
    isolates: Isolation,
    rules: Vec<LinkedRule>,
}

/// A rule that is asked about an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) linked: &'a LinkedRule,
    spec: &'a LinkedSpec,
}

impl<'a> Asked<'a> {
    pub(crate) const fn place(&self) -> Place {
        self.linked.place
    }

    /// The rule as it was written; there always is one.
    pub(crate) fn rule(&self) -> Option<&'a Rule> {
        self.spec.part()?.rules.get(self.linked.position)
    }

    /// What orders rules in what people read.
    pub(crate) fn order(&self) -> (&'a PolicyId, Option<u32>, usize) {
        let position = self.spec.part().and_then(|part| part.position);
        (&self.spec.policy.id, position, self.linked.position)
    }

    pub(crate) fn name(&self) -> Option<RuleRef> {
        let position = self.spec.part()?.position;
        Some(RuleRef::of(&self.spec.policy.id, position, self.rule()?))
    }
}

impl LinkedSpec {
    pub(crate) fn id(&self) -> &PolicyId {
        &self.policy.id
    }

    /// Empty for a part that its policy does not have: there is none such.
    fn part(&self) -> Option<&PolicySpec> {
        self.policy.specs.get(self.position)
    }

    /// Its rules of a direction.
    pub(crate) fn rules(&self, direction: Direction) -> impl Iterator<Item = Asked<'_>> {
        self.rules
            .iter()
            .filter(move |rule| rule.direction == direction)
            .map(|linked| Asked { spec: self, linked })
    }

    pub(crate) const fn isolates(&self, direction: Direction) -> bool {
        self.isolates.holds(direction)
    }
}

/// What a change touches, before it is known who that is.
#[derive(Default)]
pub(crate) struct Touched {
    /// Selectors of subjects.
    subjects: BTreeSet<SelectorNo>,
    identities: BTreeSet<Identity>,
}

impl Engine {
    pub(crate) fn spec(&self, number: SpecNo) -> Option<&LinkedSpec> {
        self.specs.get(number as usize)?.as_ref()
    }

    /// Notes that the subjects of a part are touched.
    pub(crate) fn touch(&self, number: SpecNo, touched: &mut Touched) {
        if let Some(spec) = self.spec(number) {
            touched.subjects.insert(spec.subject);
        }
    }

    /// Notes that one identity is touched.
    pub(crate) fn touch_identity(&self, identity: Identity, touched: &mut Touched) {
        if self.attends(identity) {
            touched.identities.insert(identity);
        }
    }

    fn attends(&self, identity: Identity) -> bool {
        self.attended
            .as_ref()
            .is_none_or(|attended| attended.contains(&identity))
    }

    /// The subjects that a selector stands for, as far as anybody asks for them.
    fn subjects_of<'a>(&'a self, selector: SelectorNo) -> Box<dyn Iterator<Item = Identity> + 'a> {
        let matches = self.subjects.matches(selector);
        match &self.attended {
            Some(attended) if attended.len() < matches.len() => Box::new(
                attended
                    .iter()
                    .copied()
                    .filter(|identity| matches.binary_search(identity).is_ok()),
            ),
            _ => Box::new(
                matches
                    .iter()
                    .copied()
                    .filter(|identity| self.attends(*identity)),
            ),
        }
    }

    /// Who is touched.
    pub(crate) fn resolve(&self, touched: Touched) -> BTreeSet<Identity> {
        let mut identities = touched.identities;
        for selector in touched.subjects {
            identities.extend(self.subjects_of(selector));
        }
        identities
    }

    /// Rules or facts changed: brings CIDRs up to date, and says who is touched by all of it.
    pub(crate) fn finish(&mut self, mut touched: Touched, facts: bool) -> BTreeSet<Identity> {
        let wanted = !self.with_passes.is_empty() || !self.with_named_addresses.is_empty();
        self.cidrs.split_by_identity(wanted);
        for region in self.cidrs.flush(facts) {
            self.touch_region(region, &mut touched);
        }
        self.resolve(touched)
    }

    pub(crate) fn touch_region(&self, region: RegionNo, touched: &mut Touched) {
        for user in self.cidrs.users(region) {
            self.touch(user, touched);
        }
    }

    /// Puts a part of a policy into the indexes.
    pub(crate) fn link(
        &mut self,
        policy: &Arc<Policy>,
        position: usize,
        touched: &mut Touched,
    ) -> Option<SpecNo> {
        let part = policy.specs.get(position)?;
        let number = self.free.pop().unwrap_or_else(|| {
            self.specs.push(None);
            // As many parts as numbers do not fit into memory.
            (self.specs.len() - 1) as SpecNo
        });
        let subject = self.subjects.add(&part.subject, number, &self.label_index);
        let rules = part
            .rules
            .iter()
            .enumerate()
            .filter_map(|(position, rule)| {
                let place = Place::of(policy, rule)?;
                Some(self.link_rule(place, position, rule, number))
            })
            .collect();
        let isolates = match policy.tier {
            Tier::Normal => part.isolates,
            Tier::Admin | Tier::Baseline => Isolation::default(),
        };
        self.specs[number as usize] = Some(LinkedSpec {
            policy: Arc::clone(policy),
            position,
            subject,
            isolates,
            rules,
        });
        self.touch(number, touched);
        Some(number)
    }

    fn link_rule(
        &mut self,
        place: Place,
        position: usize,
        rule: &Rule,
        user: SpecNo,
    ) -> LinkedRule {
        let mut linked = LinkedRule {
            position,
            direction: rule.section.direction(),
            place,
            anybody: matches!(rule.peers, Peers::Any),
            named: has_names(rule),
            names_pods_by_address: false,
            ports: rule.ports.clone(),
            entities: Vec::new(),
            selectors: Vec::new(),
            region: None,
        };
        let terms = match &rule.peers {
            Peers::Any => [].as_slice(),
            Peers::Terms(terms) => terms,
        };
        for term in terms {
            match term {
                Peer::Entity(Entity::All) => linked.anybody = true,
                Peer::Entity(entity) => {
                    linked.entities.push(*entity);
                    self.with_entities.entry(*entity).or_default().insert(user);
                }
                Peer::Endpoints(selector) => {
                    let selector = self.peers.add(selector, user, &self.label_index);
                    linked.selectors.push(selector);
                }
                Peer::Services(services) => {
                    for selector in self.pods_behind(services) {
                        let selector = self.peers.add(&selector, user, &self.label_index);
                        linked.selectors.push(selector);
                    }
                    let users = self.with_services.entry(services.clone()).or_default();
                    users.insert(user);
                }
                Peer::Cidr(_) | Peer::CidrGroup { .. } | Peer::Nodes(_) => {}
            }
        }
        let areas = Area::all_of(rule);
        let egress = linked.direction == Direction::Egress;
        linked.names_pods_by_address = egress && linked.named && areas.iter().any(Area::in_cluster);
        if !areas.is_empty() {
            let named = &self.named_addresses;
            linked.region = Some(self.cidrs.acquire(areas, user, |area| named.blocks(area)));
        }
        if linked.anybody && linked.named {
            self.with_names.insert(user);
        }
        if linked.names_pods_by_address {
            self.with_named_addresses.insert(user);
        }
        if place.action() == Action::Pass {
            self.with_passes.insert(user);
        }
        linked
    }

    /// Takes a part of a policy out of the indexes.
    pub(crate) fn unlink(&mut self, number: SpecNo, touched: &mut Touched) {
        let Some(spec) = self.specs.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        let subjects: Vec<Identity> = self.subjects_of(spec.subject).collect();
        touched.identities.extend(subjects);
        self.subjects.remove(spec.subject, number);
        for rule in &spec.rules {
            for selector in &rule.selectors {
                self.peers.remove(*selector, number);
            }
            if let Some(region) = rule.region {
                self.cidrs.release(region, number);
            }
            for entity in &rule.entities {
                drop_user(&mut self.with_entities, entity, number);
            }
        }
        let terms = spec.part().into_iter().flat_map(|part| &part.rules);
        for services in terms.flat_map(services_of) {
            drop_user(&mut self.with_services, services, number);
        }
        self.with_names.remove(&number);
        self.with_named_addresses.remove(&number);
        self.with_passes.remove(&number);
        self.free.push(number);
    }

    /// Looks up again what pods the services of a part stand for.
    pub(crate) fn relink_services(&mut self, number: SpecNo) {
        let Some(mut spec) = self.specs.get_mut(number as usize).and_then(Option::take) else {
            return;
        };
        let policy = Arc::clone(&spec.policy);
        let part = policy.specs.get(spec.position);
        for linked in &mut spec.rules {
            let Some(rule) = part.and_then(|part| part.rules.get(linked.position)) else {
                continue;
            };
            if services_of(rule).next().is_none() {
                continue;
            }
            let mut selectors = Vec::new();
            let Peers::Terms(terms) = &rule.peers else {
                continue;
            };
            for term in terms {
                match term {
                    Peer::Endpoints(selector) => {
                        selectors.push(self.peers.add(selector, number, &self.label_index));
                    }
                    Peer::Services(services) => {
                        for selector in self.pods_behind(services) {
                            selectors.push(self.peers.add(&selector, number, &self.label_index));
                        }
                    }
                    _ => {}
                }
            }
            let before = std::mem::replace(&mut linked.selectors, selectors);
            for selector in before {
                self.peers.remove(selector, number);
            }
        }
        self.specs[number as usize] = Some(spec);
    }
}

/// The services that a rule names.
fn services_of(rule: &Rule) -> impl Iterator<Item = &ServiceRef> {
    let terms = match &rule.peers {
        Peers::Any => [].as_slice(),
        Peers::Terms(terms) => terms,
    };
    terms.iter().filter_map(|term| match term {
        Peer::Services(services) => Some(services),
        _ => None,
    })
}

fn drop_user<K: Ord>(index: &mut BTreeMap<K, BTreeSet<SpecNo>>, key: &K, user: SpecNo) {
    if let Some(users) = index.get_mut(key) {
        users.remove(&user);
        if users.is_empty() {
            index.remove(key);
        }
    }
}
