//! The policy engine, and whose compiled policy may have changed since it was compiled.

use super::budget::{self, Budget};
use crate::config::{AgentConfig, AllowLocalhost};
use crate::directory::{PolicyListing, Shapes};
use heddle_model::{Identity, LabelSet};
use heddle_policy::{
    CidrAssignment, CidrChange, CompiledPolicy, Direction, DirectionDecision, Engine, Party,
    PolicyId, Traffic,
};
use std::collections::BTreeSet;

/// Policies that the error about one which does not fit names.
const NAMED_LARGEST: usize = 3;
/// Cookies that are remembered in any case.
const LEAST_COOKIES: usize = 4_096;

/// The engine, and the identities that what it was told is about.
pub(crate) struct Rules {
    engine: Engine,
    /// Whose addresses are enforced.
    pub(super) budget: Budget,
    /// Identities whose compiled policy may have changed.
    touched: BTreeSet<Identity>,
    /// Number of cookies at which those that nobody bears are forgotten.
    cookies_due: usize,
}

impl Rules {
    /// No policy; the numbers of addresses are those that the kernel holds.
    pub(crate) fn new(config: &AgentConfig, cidrs: &[CidrAssignment]) -> Self {
        let mut engine = Engine::new();
        engine.stage_cidrs();
        engine.set_mode(config.policy_enforcement);
        engine.set_allow_localhost(config.allow_localhost == AllowLocalhost::Always);
        for one in cidrs {
            engine.restore_cidr(one.prefix, one.scope, one.identity);
        }
        Self {
            engine,
            budget: budget::of(config),
            touched: BTreeSet::new(),
            cookies_due: LEAST_COOKIES,
        }
    }

    /// What the engine knows.
    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tells the engine something. Whom it touches is compiled anew.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Engine) -> BTreeSet<Identity>) {
        let touched = change(&mut self.engine);
        self.touched.extend(touched);
    }

    /// What the engine does not know of counts for the policies of these too.
    pub(crate) fn touch(&mut self, identities: impl IntoIterator<Item = Identity>) {
        self.touched.extend(identities);
    }

    /// Whose policies are to be compiled anew.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<Identity> {
        std::mem::take(&mut self.touched)
    }

    /// Every policy is compiled as the engine knows it.
    pub(crate) fn is_compiled(&self) -> bool {
        self.touched.is_empty()
    }

    /// Only what touches these is worth the engine's time.
    pub(crate) fn attend(&mut self, identities: BTreeSet<Identity>) {
        self.engine.attend(Some(identities));
    }

    /// Who an identity's labels say it is; `None` when the number stands for nobody any more.
    pub(crate) fn set_identity(&mut self, identity: Identity, labels: Option<&LabelSet>) {
        self.change(|engine| match labels {
            Some(labels) => engine.set_identity(identity, labels.clone()),
            None => engine.remove_identity(identity),
        });
    }

    /// What became of the numbers of addresses since this was asked last.
    pub(crate) fn take_cidr_changes(&mut self) -> Vec<CidrChange> {
        self.engine.take_cidr_changes()
    }

    /// The rows of a subject's policy.
    pub(crate) fn compile(&mut self, subject: Identity) -> CompiledPolicy {
        self.engine.compile(subject)
    }

    /// What those who describe flows want to know of a policy.
    pub(crate) fn listing(&self, subject: Identity, policy: &CompiledPolicy) -> PolicyListing {
        let cookies: BTreeSet<u32> = policy.entries.iter().map(|entry| entry.cookie).collect();
        PolicyListing {
            ingress: self.engine.isolating(subject, Direction::Ingress),
            egress: self.engine.isolating(subject, Direction::Egress),
            cookies: cookies
                .into_iter()
                .filter(|cookie| *cookie != 0)
                .map(|cookie| (cookie, self.engine.rules_of(cookie)))
                .collect(),
            shapes: Shapes::of(policy),
        }
    }

    /// The policies that are about a subject.
    pub(crate) fn policies_about(&self, subject: Identity) -> BTreeSet<PolicyId> {
        self.engine.policies_about(subject)
    }

    /// What is decided in one direction, and why.
    pub(crate) fn decide(
        &self,
        subject: &Party,
        peer: &Party,
        direction: Direction,
        traffic: Traffic,
    ) -> DirectionDecision {
        self.engine
            .decide_direction(subject, peer, direction, traffic)
    }

    /// Who makes the policy of an identity large.
    pub(crate) fn largest_policies(&mut self, identity: Identity) -> String {
        let mut by_policy = self.engine.rows_by_policy(identity);
        by_policy.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        let named = by_policy.iter().take(NAMED_LARGEST);
        let named: Vec<String> = named
            .map(|(policy, rows)| format!("{policy} ({rows} rows)"))
            .collect();
        format!("its largest parts are {}", named.join(", "))
    }

    /// A cookie for rows that no rule is behind.
    pub(crate) fn cookie_of_no_rule(&mut self) -> u32 {
        self.engine.cookie_of_no_rule()
    }

    /// Keeps the cookies that the rows of these policies bear, once there are twice as many as then.
    pub(crate) fn forget_cookies<'a>(
        &mut self,
        policies: impl Iterator<Item = &'a CompiledPolicy>,
    ) {
        if self.engine.cookie_count() < self.cookies_due {
            return;
        }
        let cookies: BTreeSet<u32> = policies
            .flat_map(|policy| policy.entries.iter().map(|entry| entry.cookie))
            .collect();
        self.engine
            .retain_cookies(|cookie| cookies.contains(&cookie));
        self.cookies_due = LEAST_COOKIES.max(2 * cookies.len());
    }
}
