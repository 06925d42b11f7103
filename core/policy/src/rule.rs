//! Policies in one normal form, whatever API they were written in.

use crate::{Direction, EndpointSelector, EntryVerdict, Peers, Ports};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The API a policy was written in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PolicyKind {
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// Its `kind` field.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "NetworkPolicy",
            Self::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Self::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// True for the kinds whose objects live in no namespace.
    pub const fn cluster_wide(self) -> bool {
        matches!(
            self,
            Self::CiliumClusterwideNetworkPolicy | Self::ClusterNetworkPolicy
        )
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which object a policy is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PolicyId {
    /// Its kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for cluster-wide policies.
    #[serde(default)]
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PolicyId {
    /// The policy of this kind, namespace and name.
    pub fn new(kind: PolicyKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The list of a policy that a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Section {
    /// `ingress`: allows.
    Ingress,
    /// `egress`: allows.
    Egress,
    /// `ingressDeny`.
    IngressDeny,
    /// `egressDeny`.
    EgressDeny,
}

impl Section {
    /// The field's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::IngressDeny => "ingressDeny",
            Self::EgressDeny => "egressDeny",
        }
    }

    /// The direction its rules are about.
    pub const fn direction(self) -> Direction {
        match self {
            Self::Ingress | Self::IngressDeny => Direction::Ingress,
            Self::Egress | Self::EgressDeny => Direction::Egress,
        }
    }

    /// What its rules say in the kinds of policy where the list tells (all but ClusterNetworkPolicy).
    pub const fn action(self) -> Action {
        match self {
            Self::Ingress | Self::Egress => Action::Allow,
            Self::IngressDeny | Self::EgressDeny => Action::Deny,
        }
    }
}

/// What a rule says of the traffic it matches; the earlier wins where two rules share a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Stop it.
    Deny,
    /// Let it pass (`Accept` in ClusterNetworkPolicy).
    Allow,
    /// Ask no more rules of this tier; the next tier decides (reference 2.9).
    Pass,
}

impl Action {
    /// The verdict, for a rule that gives one.
    pub const fn verdict(self) -> Option<EntryVerdict> {
        match self {
            Self::Allow => Some(EntryVerdict::Allow),
            Self::Deny => Some(EntryVerdict::Deny),
            Self::Pass => None,
        }
    }
}

/// When a policy is asked: tier after tier, until one decides (reference 2.9).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Before everything else.
    Admin,
    /// NetworkPolicy and Cilium's policies.
    #[default]
    Normal,
    /// For what no policy of the tier before isolates.
    Baseline,
}

/// Which rule of which policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RuleRef {
    /// The policy's kind.
    pub kind: PolicyKind,
    /// The policy's namespace; empty for cluster-wide policies.
    #[serde(default)]
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// Position in `specs`, for a policy that has `specs` instead of `spec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<u32>,
    /// The list it stands in.
    pub section: Section,
    /// Its position in that list, from 0.
    pub index: u32,
    /// What it says.
    pub action: Action,
    /// The rule's own name, in the kinds of policy whose rules have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl RuleRef {
    /// The rule at this place of a policy, where the list tells its action.
    pub fn new(policy: &PolicyId, spec: Option<u32>, section: Section, index: u32) -> Self {
        Self {
            kind: policy.kind,
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            spec,
            section,
            index,
            action: section.action(),
            rule: None,
        }
    }

    /// A rule of a policy's part.
    pub fn of(policy: &PolicyId, spec: Option<u32>, rule: &Rule) -> Self {
        Self {
            action: rule.action,
            rule: rule.name.clone(),
            ..Self::new(policy, spec, rule.section, rule.index)
        }
    }

    /// Its policy.
    pub fn policy(&self) -> PolicyId {
        PolicyId::new(self.kind, self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.policy())?;
        if let Some(spec) = self.spec {
            write!(f, "specs[{spec}].")?;
        }
        write!(f, "{}[{}]", self.section.name(), self.index)?;
        match &self.rule {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// A policy object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Which object it is.
    pub id: PolicyId,
    /// When it is asked.
    pub tier: Tier,
    /// Its place in the tiers Admin and Baseline: a lower number is asked earlier. Without a meaning in
    /// the tier Normal, where it is 0.
    pub priority: i32,
    /// Its parts: one for `spec`, as many as there are in `specs`. Each has a subject of its own.
    pub specs: Vec<PolicySpec>,
}

/// One part of a policy: whom it is about and what it says about them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicySpec {
    /// Position in `specs`; `None` when the policy has `spec`.
    pub position: Option<u32>,
    /// The endpoints it is about.
    pub subject: EndpointSelector,
    /// The directions in which it denies its subjects what no rule allows; counts in the tier Normal only.
    pub isolates: Isolation,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// In which directions an endpoint is denied what no rule allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Isolation {
    /// Connections to it.
    pub ingress: bool,
    /// Connections from it.
    pub egress: bool,
}

impl Isolation {
    /// True when it holds for this direction.
    pub const fn holds(self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// One rule: it matches when some peer term and some port term match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The list it stands in, which gives its direction.
    pub section: Section,
    /// Its position in that list, from 0. In the tiers Admin and Baseline an earlier rule of a policy goes
    /// before a later one.
    pub index: u32,
    /// What it says. A pass in the tier Normal, which has no order, says nothing.
    pub action: Action,
    /// Its own name, in the kinds of policy whose rules have one.
    pub name: Option<String>,
    /// Who the other end is.
    pub peers: Peers,
    /// What is spoken.
    pub ports: Ports,
}
