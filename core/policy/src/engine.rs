//! The engine: policies, identities and facts, and what a change of one of them touches.

use crate::{
    CidrAssignment, CidrScope, Direction, EnforcementMode, Policy, PolicyId, RuleRef, ServiceRef,
    cidr::Cidrs,
    cookie::CookieTable,
    index::{LabelIndex, Marks, SelectorIndex},
    link::{LinkedSpec, SpecNo, Touched},
    order::Frame,
    world::NamedAddresses,
};
use heddle_model::{Entity, Identity, IdentityScope, LabelSet, Source};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

#[derive(Clone, Debug)]
pub(crate) struct Stored {
    policy: Arc<Policy>,
    specs: Vec<SpecNo>,
}

/// Policies, identities and facts, and the answers that follow from them.
///
/// It knows the reserved identities from the start. Methods that change it return the identities whose
/// [`compile`](Engine::compile) may now answer differently; these are the endpoints to look at again.
///
/// An agent that brings changes into a running kernel calls [`Engine::stage_cidrs`] first and follows the
/// order that stands there.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) label_index: LabelIndex,
    /// Identities that give ports names.
    pub(crate) named: BTreeSet<Identity>,
    pub(crate) policies: BTreeMap<PolicyId, Stored>,
    pub(crate) specs: Vec<Option<LinkedSpec>>,
    pub(crate) free: Vec<SpecNo>,
    pub(crate) subjects: SelectorIndex,
    pub(crate) peers: SelectorIndex,
    pub(crate) cidrs: Cidrs,
    pub(crate) cookies: CookieTable,
    /// Parts with an entity other than `all` as a peer.
    pub(crate) with_entities: BTreeMap<Entity, BTreeSet<SpecNo>>,
    /// Parts with named ports towards anybody.
    pub(crate) with_names: BTreeSet<SpecNo>,
    /// Parts with named ports towards addresses of the cluster.
    pub(crate) with_named_addresses: BTreeSet<SpecNo>,
    pub(crate) with_services: BTreeMap<ServiceRef, BTreeSet<SpecNo>>,
    /// Parts with a pass.
    pub(crate) with_passes: BTreeSet<SpecNo>,
    pub(crate) named_addresses: NamedAddresses,
    pub(crate) mode: EnforcementMode,
    pub(crate) own_node_passes: bool,
    pub(crate) attended: Option<BTreeSet<Identity>>,
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
            label_index: LabelIndex::default(),
            named: BTreeSet::new(),
            policies: BTreeMap::new(),
            specs: Vec::new(),
            free: Vec::new(),
            subjects: SelectorIndex::default(),
            peers: SelectorIndex::default(),
            cidrs: Cidrs::default(),
            cookies: CookieTable::default(),
            with_entities: BTreeMap::new(),
            with_names: BTreeSet::new(),
            with_named_addresses: BTreeSet::new(),
            with_services: BTreeMap::new(),
            with_passes: BTreeSet::new(),
            named_addresses: NamedAddresses::default(),
            mode: EnforcementMode::Default,
            own_node_passes: true,
            attended: None,
        };
        for (identity, name) in Identity::RESERVED {
            engine.set_identity(identity, LabelSet::reserved(name));
        }
        engine
    }

    // ---- policies ----

    /// Adds a policy, or replaces the one with its id.
    ///
    /// Returns the identities to compile again.
    pub fn set_policy(&mut self, policy: Policy) -> BTreeSet<Identity> {
        self.set_policies([policy])
    }

    /// Adds or replaces many policies: the same as one after the other, but CIDRs are sorted out once.
    pub fn set_policies(
        &mut self,
        policies: impl IntoIterator<Item = Policy>,
    ) -> BTreeSet<Identity> {
        let mut touched = Touched::default();
        let mut changed = false;
        for policy in policies {
            let known = self.policies.get(&policy.id);
            if known.is_some_and(|known| *known.policy == policy) {
                continue;
            }
            changed = true;
            let before = self.policies.remove(&policy.id);
            let policy = Arc::new(policy);
            let specs = (0..policy.specs.len())
                .filter_map(|position| self.link(&policy, position, &mut touched))
                .collect();
            // Last: what old and new have in common stays.
            for spec in before.into_iter().flat_map(|before| before.specs) {
                self.unlink(spec, &mut touched);
            }
            let id = policy.id.clone();
            self.policies.insert(id, Stored { policy, specs });
        }
        if !changed {
            return BTreeSet::new();
        }
        self.finish(touched, false)
    }

    /// Removes a policy; returns the identities to compile again.
    pub fn remove_policy(&mut self, id: &PolicyId) -> BTreeSet<Identity> {
        let Some(before) = self.policies.remove(id) else {
            return BTreeSet::new();
        };
        let mut touched = Touched::default();
        for spec in before.specs {
            self.unlink(spec, &mut touched);
        }
        self.finish(touched, false)
    }

    /// Every policy's id, sorted.
    pub fn policy_ids(&self) -> Vec<PolicyId> {
        self.policies.keys().cloned().collect()
    }

    /// A policy.
    pub fn policy(&self, id: &PolicyId) -> Option<&Policy> {
        self.policies.get(id).map(|stored| stored.policy.as_ref())
    }

    /// The identities that a policy is about.
    pub fn affected_by_policy(&self, id: &PolicyId) -> BTreeSet<Identity> {
        let mut touched = Touched::default();
        for spec in self.policies.get(id).into_iter().flat_map(|it| &it.specs) {
            self.touch(*spec, &mut touched);
        }
        self.resolve(touched)
    }

    // ---- identities ----

    /// Adds an identity, or replaces its labels; returns the identities to compile again.
    pub fn set_identity(&mut self, identity: Identity, labels: LabelSet) -> BTreeSet<Identity> {
        if self.labels(identity) == Some(&labels) {
            return BTreeSet::new();
        }
        let mut touched = Touched::default();
        self.forget(identity, &mut touched);
        let marks = Marks::of(&labels);
        self.subjects.add_identity(identity, &labels, &marks);
        self.peers.add_identity(identity, &labels, &marks);
        if named_ports_of(&labels).is_some() {
            self.named.insert(identity);
        }
        self.label_index.add(identity, Arc::new(labels), &marks);
        self.touch_affected(identity, &mut touched);
        self.resolve(touched)
    }

    /// Forgets an identity; returns the identities to compile again.
    pub fn remove_identity(&mut self, identity: Identity) -> BTreeSet<Identity> {
        let mut touched = Touched::default();
        self.forget(identity, &mut touched);
        let mut identities = self.resolve(touched);
        identities.remove(&identity);
        identities
    }

    fn forget(&mut self, identity: Identity, touched: &mut Touched) {
        if self.labels(identity).is_none() {
            return;
        }
        self.touch_affected(identity, touched);
        self.subjects.remove_identity(identity);
        self.peers.remove_identity(identity);
        self.named.remove(&identity);
        self.label_index.remove(identity);
    }

    fn touch_affected(&self, identity: Identity, touched: &mut Touched) {
        self.touch_identity(identity, touched);
        for spec in self.peers.users_matching(identity) {
            self.touch(spec, touched);
        }
        for (entity, specs) in &self.with_entities {
            if entity.contains(identity) {
                for spec in specs {
                    self.touch(*spec, touched);
                }
            }
        }
        if self.named.contains(&identity) {
            for spec in self.with_names.union(&self.with_named_addresses) {
                self.touch(*spec, touched);
            }
        }
    }

    /// The labels of an identity.
    pub fn labels(&self, identity: Identity) -> Option<&LabelSet> {
        self.label_index.get(identity).map(AsRef::as_ref)
    }

    /// Every identity it knows, the reserved ones included.
    pub fn identities(&self) -> impl Iterator<Item = (Identity, &LabelSet)> {
        self.label_index.iter()
    }

    /// The identities whose rows may depend on this one, itself included.
    pub fn affected_by_identity(&self, identity: Identity) -> BTreeSet<Identity> {
        let mut touched = Touched::default();
        self.touch_affected(identity, &mut touched);
        self.resolve(touched)
    }

    /// From now on only these identities are reported as touched: an agent names those of its endpoints,
    /// so that a change among tens of thousands costs what it touches on this node. `None`: all.
    pub fn attend(&mut self, identities: Option<BTreeSet<Identity>>) {
        self.attended = identities;
    }

    // ---- what policies say of an endpoint ----

    /// Sets when policy is enforced; returns the identities to compile again.
    pub fn set_mode(&mut self, mode: EnforcementMode) -> BTreeSet<Identity> {
        if std::mem::replace(&mut self.mode, mode) == mode {
            return BTreeSet::new();
        }
        self.everybody()
    }

    /// Sets whether an endpoint's own node passes its default deny (`--allow-localhost`, reference D11; it
    /// does unless told otherwise); returns the identities to compile again.
    pub fn set_allow_localhost(&mut self, passes: bool) -> BTreeSet<Identity> {
        if std::mem::replace(&mut self.own_node_passes, passes) == passes {
            return BTreeSet::new();
        }
        self.everybody()
    }

    fn everybody(&self) -> BTreeSet<Identity> {
        match &self.attended {
            Some(attended) => attended.clone(),
            None => self
                .label_index
                .iter()
                .map(|(identity, _)| identity)
                .collect(),
        }
    }

    /// Whether this peer passes a default deny of this subject because it is the subject's own node.
    pub(crate) fn passes_as_own_node(
        &self,
        subject: Identity,
        peer: Identity,
        direction: Direction,
    ) -> bool {
        self.own_node_passes
            && peer == Identity::HOST
            && direction == Direction::Ingress
            && subject.scope() != IdentityScope::Subject
    }

    /// The parts of policies that are about this identity.
    pub(crate) fn selecting(&self, subject: Identity) -> Vec<&LinkedSpec> {
        self.subjects
            .users_matching(subject)
            .filter_map(|number| self.spec(number))
            .collect()
    }

    /// The policies that are about this identity, each once, in order.
    pub fn policies_about(&self, subject: Identity) -> BTreeSet<PolicyId> {
        let specs = self.selecting(subject).into_iter();
        specs.map(|spec| spec.id().clone()).collect()
    }

    /// Whether some policy is about this identity, and policy is enforced at all.
    pub fn is_about(&self, subject: Identity) -> bool {
        self.mode != EnforcementMode::Never
            && self.subjects.users_matching(subject).next().is_some()
    }

    /// What holds for a subject whatever its rules say; `None`: its rules are not asked, and nothing is
    /// enforced. `specs` are the parts that are about it.
    pub(crate) fn frame(
        &self,
        subject: Identity,
        specs: &[&LinkedSpec],
        direction: Direction,
    ) -> Option<Frame> {
        let reserved = subject.scope() == IdentityScope::Reserved;
        let unknown = self.labels(subject).is_none();
        let init = subject == Identity::INIT;
        if self.mode == EnforcementMode::Never || (reserved && !unknown && !init) {
            return None;
        }
        // A node that no policy is about stays open in every mode: else nobody could reach it to tell it more.
        let always =
            self.mode == EnforcementMode::Always && subject.scope() != IdentityScope::Subject;
        Some(Frame {
            isolated: specs.iter().any(|spec| spec.isolates(direction)),
            strict: init || unknown || always,
            own_node: false,
        })
    }

    /// The policies that deny the subject what no rule allows.
    pub fn isolating(&self, subject: Identity, direction: Direction) -> Vec<PolicyId> {
        isolating(&self.selecting(subject), direction)
    }

    // ---- numbers ----

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

    /// The cookie of entries that deny without a rule.
    pub fn cookie_of_no_rule(&mut self) -> u32 {
        self.cookies.cookie(Vec::new())
    }

    /// How many cookies are remembered.
    pub fn cookie_count(&self) -> usize {
        self.cookies.len()
    }

    /// Forgets the cookies that no entry bears any more.
    pub fn retain_cookies(&mut self, in_use: impl FnMut(u32) -> bool) {
        self.cookies.retain(in_use);
    }
}

/// The value of an identity's named ports.
pub(crate) fn named_ports_of(labels: &LabelSet) -> Option<&str> {
    labels.get_from(Source::Heddle, LabelSet::NAMED_PORTS)
}

/// The policies among these parts that isolate their subjects, each once, in order.
pub(crate) fn isolating(specs: &[&LinkedSpec], direction: Direction) -> Vec<PolicyId> {
    let mut ids: Vec<&PolicyId> = specs
        .iter()
        .filter(|spec| spec.isolates(direction))
        .map(|spec| spec.id())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().cloned().collect()
}
