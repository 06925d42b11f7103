//! The engine: policies, identities and CIDRs, and what a change of one of them touches.

use crate::{
    CidrAssignment, CidrScope, Direction, Peer, Peers, Policy, PolicyId, PolicySpec, PortMatch,
    PortTerm, Ports, Rule, RuleRef,
    cidr::CidrTable,
    cookie::CookieTable,
    selector::{Role, SelectorIndex},
};
use heddle_model::{Entity, Identity, LabelSet, Source};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// A part of a policy: the policy, and the position among its parts.
pub(crate) type SpecKey = (PolicyId, usize);

/// Policies and identities, and the answers that follow from them.
///
/// It knows the reserved identities from the start. Methods that change it return the identities whose
/// [`compile`](Engine::compile) may now answer differently; these are the endpoints to look at again.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) identities: BTreeMap<Identity, LabelSet>,
    pub(crate) named: BTreeSet<Identity>,
    pub(crate) policies: BTreeMap<PolicyId, Policy>,
    pub(crate) selectors: SelectorIndex,
    pub(crate) cidrs: CidrTable,
    pub(crate) cookies: CookieTable,
    /// Parts with CIDR peers: a new prefix inside one of their blocks needs a row there.
    with_cidrs: BTreeSet<SpecKey>,
    /// Parts whose rows depend on identities that no selector of theirs names: entities, and named ports
    /// towards anybody.
    with_groups: BTreeSet<SpecKey>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine without policies that knows the reserved identities.
    pub fn new() -> Self {
        let mut engine = Self {
            identities: BTreeMap::new(),
            named: BTreeSet::new(),
            policies: BTreeMap::new(),
            selectors: SelectorIndex::default(),
            cidrs: CidrTable::default(),
            cookies: CookieTable::default(),
            with_cidrs: BTreeSet::new(),
            with_groups: BTreeSet::new(),
        };
        for (identity, name) in Identity::RESERVED {
            engine.set_identity(identity, LabelSet::reserved(name));
        }
        engine
    }

    /// Adds a policy, or replaces the one with its id.
    ///
    /// Returns the identities to compile again. A CIDR that old and new have in common keeps its number.
    pub fn set_policy(&mut self, policy: Policy) -> BTreeSet<Identity> {
        if self.policies.get(&policy.id) == Some(&policy) {
            return BTreeSet::new();
        }
        let mut changed: Vec<(IpNet, CidrScope)> = Vec::new();
        for (prefix, scope) in prefixes(&policy) {
            if self.cidrs.acquire(prefix, scope) {
                changed.push((prefix, scope));
            }
        }
        let mut touched = match self.policies.remove(&policy.id) {
            Some(before) => self.unlink(&before, &mut changed),
            None => BTreeSet::new(),
        };
        for (position, spec) in policy.specs.iter().enumerate() {
            let key = (policy.id.clone(), position);
            self.selectors
                .add(&spec.subject, Role::Subject, &key, &self.identities);
            for selector in peer_selectors(spec) {
                self.selectors
                    .add(selector, Role::Peer, &key, &self.identities);
            }
            if spec.rules.iter().any(has_cidrs) {
                self.with_cidrs.insert(key.clone());
            }
            if spec.rules.iter().any(depends_on_groups) {
                self.with_groups.insert(key);
            }
            touched.extend(self.selectors.matches(&spec.subject));
        }
        self.policies.insert(policy.id.clone(), policy);
        touched.extend(self.touched_by_cidrs(&changed));
        touched
    }

    /// Removes a policy; returns the identities to compile again.
    pub fn remove_policy(&mut self, id: &PolicyId) -> BTreeSet<Identity> {
        let Some(policy) = self.policies.remove(id) else {
            return BTreeSet::new();
        };
        let mut changed = Vec::new();
        let mut touched = self.unlink(&policy, &mut changed);
        touched.extend(self.touched_by_cidrs(&changed));
        touched
    }

    /// Takes a policy out of the indexes; `changed` gets the prefixes that nobody uses any more.
    fn unlink(
        &mut self,
        policy: &Policy,
        changed: &mut Vec<(IpNet, CidrScope)>,
    ) -> BTreeSet<Identity> {
        let mut touched = BTreeSet::new();
        for (position, spec) in policy.specs.iter().enumerate() {
            let key = (policy.id.clone(), position);
            touched.extend(self.selectors.matches(&spec.subject));
            self.selectors.remove(&spec.subject, Role::Subject, &key);
            for selector in peer_selectors(spec) {
                self.selectors.remove(selector, Role::Peer, &key);
            }
            self.with_cidrs.remove(&key);
            self.with_groups.remove(&key);
        }
        for (prefix, scope) in prefixes(policy) {
            if self.cidrs.release(prefix, scope) {
                changed.push((prefix, scope));
            }
        }
        touched
    }

    /// Adds an identity, or replaces its labels; returns the identities to compile again.
    pub fn set_identity(&mut self, identity: Identity, labels: LabelSet) -> BTreeSet<Identity> {
        if self.identities.get(&identity) == Some(&labels) {
            return BTreeSet::new();
        }
        let mut touched = self.remove_identity(identity);
        self.selectors.add_identity(identity, &labels);
        if named_ports_of(&labels).is_some() {
            self.named.insert(identity);
        }
        self.identities.insert(identity, labels);
        touched.extend(self.affected_by_identity(identity));
        touched
    }

    /// Forgets an identity; returns the identities to compile again.
    pub fn remove_identity(&mut self, identity: Identity) -> BTreeSet<Identity> {
        let Some(labels) = self.identities.get(&identity) else {
            return BTreeSet::new();
        };
        let mut touched = self.affected_by_identity(identity);
        touched.remove(&identity);
        self.selectors.remove_identity(identity, labels);
        self.named.remove(&identity);
        self.identities.remove(&identity);
        touched
    }

    /// The labels of an identity.
    pub fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.identities.get(&identity)
    }

    /// Every identity it knows, the reserved ones included.
    pub fn identities(&self) -> impl Iterator<Item = (Identity, &LabelSet)> {
        self.identities
            .iter()
            .map(|(identity, labels)| (*identity, labels))
    }

    /// The identities whose rows may depend on this one, itself included.
    pub fn affected_by_identity(&self, identity: Identity) -> BTreeSet<Identity> {
        let mut touched = BTreeSet::from([identity]);
        let named = self.selectors.users_matching(identity, Role::Peer);
        for key in named.into_iter().chain(&self.with_groups) {
            touched.extend(self.subjects(key));
        }
        touched
    }

    /// The identities that a policy is about.
    pub fn affected_by_policy(&self, id: &PolicyId) -> BTreeSet<Identity> {
        self.policies
            .get(id)
            .into_iter()
            .flat_map(|policy| &policy.specs)
            .flat_map(|spec| self.selectors.matches(&spec.subject))
            .collect()
    }

    fn touched_by_cidrs(&self, changed: &[(IpNet, CidrScope)]) -> BTreeSet<Identity> {
        if changed.is_empty() {
            return BTreeSet::new();
        }
        let touches = |rule: &Rule| match &rule.peers {
            Peers::Any => false,
            Peers::Terms(terms) => terms.iter().any(|term| match term {
                Peer::Cidr(cidr) => changed.iter().any(|(prefix, scope)| {
                    (cidr.in_cluster || *scope == CidrScope::World) && cidr.block.contains(prefix)
                }),
                _ => false,
            }),
        };
        self.with_cidrs
            .iter()
            .filter(|key| {
                self.spec(key)
                    .is_some_and(|spec| spec.rules.iter().any(touches))
            })
            .flat_map(|key| self.subjects(key))
            .collect()
    }

    fn spec(&self, (id, position): &SpecKey) -> Option<&PolicySpec> {
        self.policies.get(id)?.specs.get(*position)
    }

    fn subjects(&self, key: &SpecKey) -> impl Iterator<Item = Identity> + '_ {
        self.spec(key)
            .into_iter()
            .flat_map(|spec| self.selectors.matches(&spec.subject))
    }

    /// The parts of policies that are about this identity, in the order of their ids.
    pub(crate) fn selecting(&self, subject: Identity) -> Vec<(&PolicyId, &PolicySpec)> {
        self.selectors
            .users_matching(subject, Role::Subject)
            .into_iter()
            .filter_map(|key| Some((&key.0, self.spec(key)?)))
            .collect()
    }

    /// Gives a prefix the number it had before a restart; call it before the policies are set. A number
    /// out of range, or another prefix's, is not taken.
    pub fn restore_cidr(&mut self, prefix: IpNet, scope: CidrScope, identity: Identity) {
        self.cidrs.restore(prefix, scope, identity);
    }

    /// Every prefix that policies name, with its number: the blocks, and the holes in them.
    pub fn cidrs(&self) -> Vec<CidrAssignment> {
        self.cidrs.all().collect()
    }

    /// The identity of the longest policy prefix that covers `prefix`; 0 without one.
    pub fn cidr_covering(&self, prefix: IpNet, scope: CidrScope) -> Identity {
        self.cidrs.covering(prefix, scope)
    }

    /// The rules that a compiled entry comes from; empty when no rule is behind it.
    pub fn rules_of(&self, cookie: u32) -> Vec<RuleRef> {
        self.cookies.rules(cookie).unwrap_or_default().to_vec()
    }

    /// Forgets the cookies that no entry bears any more.
    pub fn retain_cookies(&mut self, in_use: impl FnMut(u32) -> bool) {
        self.cookies.retain(in_use);
    }

    /// The policies that deny the subject what no rule allows.
    pub fn isolating(&self, subject: Identity, direction: Direction) -> Vec<PolicyId> {
        let ids: BTreeSet<&PolicyId> = self
            .selecting(subject)
            .into_iter()
            .filter(|(_, spec)| spec.isolates.holds(direction))
            .map(|(id, _)| id)
            .collect();
        ids.into_iter().cloned().collect()
    }

    /// Every policy's id, sorted.
    pub fn policy_ids(&self) -> Vec<PolicyId> {
        self.policies.keys().cloned().collect()
    }

    /// A policy.
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.get(id)
    }
}

/// The value of an identity's named ports.
pub(crate) fn named_ports_of(labels: &LabelSet) -> Option<&str> {
    labels.get_from(Source::Heddle, LabelSet::NAMED_PORTS)
}

fn peer_selectors(spec: &PolicySpec) -> impl Iterator<Item = &crate::EndpointSelector> {
    spec.rules
        .iter()
        .flat_map(|rule| match &rule.peers {
            Peers::Any => [].as_slice(),
            Peers::Terms(terms) => terms,
        })
        .filter_map(|term| match term {
            Peer::Endpoints(selector) => Some(selector),
            _ => None,
        })
}

fn has_cidrs(rule: &Rule) -> bool {
    matches!(&rule.peers, Peers::Terms(terms) if terms.iter().any(|t| matches!(t, Peer::Cidr(_))))
}

fn depends_on_groups(rule: &Rule) -> bool {
    let named_port = matches!(&rule.ports, Ports::Only(terms) if terms
        .iter()
        .any(|term| matches!(term, PortTerm::Transport(_, PortMatch::Name(_)))));
    match &rule.peers {
        Peers::Any => named_port,
        Peers::Terms(terms) => terms.iter().any(|term| match term {
            Peer::Entity(Entity::All) => named_port,
            Peer::Entity(_) => true,
            _ => false,
        }),
    }
}

/// Every prefix of a policy in every scope it counts in, as often as it is used.
fn prefixes(policy: &Policy) -> Vec<(IpNet, CidrScope)> {
    let mut found = Vec::new();
    for rule in policy.specs.iter().flat_map(|spec| &spec.rules) {
        let Peers::Terms(terms) = &rule.peers else {
            continue;
        };
        for term in terms {
            let Peer::Cidr(cidr) = term else { continue };
            for prefix in std::iter::once(&cidr.block).chain(&cidr.except) {
                found.push((*prefix, CidrScope::World));
                if cidr.in_cluster {
                    found.push((*prefix, CidrScope::InCluster));
                }
            }
        }
    }
    found
}
