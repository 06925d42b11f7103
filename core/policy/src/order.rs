//! The one total order of rules: which of the rules that match decides. Used on paper and for map rows.

use crate::{
    Action, Because, Policy, Rule, Tier,
    compiled::{PRECEDENCE_ALLOW, PRECEDENCE_CLOSED, PRECEDENCE_DENY},
};

/// Levels that a tier's precedences have room for: those between [`PRECEDENCE_DENY`] and [`PRECEDENCE_CLOSED`], and
/// those between the fallback's and [`PRECEDENCE_ALLOW`].
const MOST_LEVELS: u32 = (1 << 24) - 2;

/// Where a rule stands among all: of the rules that match, those at the least place decide.
///
/// In the tiers Admin and Baseline that is the policy's priority, then the rule's index; at a full tie deny
/// goes before allow before pass. In the tier Normal all rules share a place, so any deny beats any allow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Place {
    tier: Tier,
    priority: i32,
    index: u32,
    action: Action,
}

impl Place {
    /// The place of a rule; `None` for a rule that says nothing (a pass in the tier Normal).
    pub(crate) const fn of(policy: &Policy, rule: &Rule) -> Option<Self> {
        let (priority, index) = match (policy.tier, rule.action) {
            (Tier::Normal, Action::Pass) => return None,
            (Tier::Normal, _) => (0, 0),
            _ => (policy.priority, rule.index),
        };
        Some(Self {
            tier: policy.tier,
            priority,
            index,
            action: rule.action,
        })
    }

    pub(crate) const fn tier(&self) -> Tier {
        self.tier
    }

    pub(crate) const fn action(&self) -> Action {
        self.action
    }
}

/// What holds for an endpoint and a peer in a direction whatever the rules say.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Frame {
    /// A policy of the tier Normal denies the endpoint what no rule allows; the tier Baseline is not asked.
    pub(crate) isolated: bool,
    /// What no tier decides is denied (labels not known yet, enforcement mode `always`).
    pub(crate) strict: bool,
    /// The peer is the endpoint's own node, and connects to it: health probes pass every default deny,
    /// and only a rule stops them (references D11, D11b), in whatever tier it is.
    pub(crate) own_node: bool,
}

/// What the rules that match add up to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ruling {
    pub(crate) because: Because,
    /// Where the rules that decide stand.
    pub(crate) decided: Option<Place>,
    /// Where the passes stand that were followed, tier by tier.
    pub(crate) passed: [Option<Place>; 2],
}

impl Ruling {
    /// True when a rule at this place was not asked, because a pass before it was followed.
    pub(crate) fn skips(&self, place: Place) -> bool {
        let followed = self.passed.iter().flatten();
        followed
            .into_iter()
            .any(|pass| pass.tier == place.tier && *pass < place)
    }
}

/// Asks tier after tier (reference 2.9). `matching` are the places of the rules that match.
pub(crate) fn rule_on(matching: impl Iterator<Item = Place>, frame: Frame) -> Ruling {
    let mut first: [Option<Place>; 3] = [None; 3];
    for place in matching {
        let best = &mut first[place.tier as usize];
        if best.is_none_or(|best| place < best) {
            *best = Some(place);
        }
    }
    let mut passed = [None; 2];
    let default = |passed| Ruling {
        because: if frame.own_node {
            Because::Reserved
        } else {
            Because::DefaultDeny
        },
        decided: None,
        passed,
    };
    for tier in [Tier::Admin, Tier::Normal, Tier::Baseline] {
        match first[tier as usize] {
            Some(place) if place.action == Action::Pass => {
                passed[usize::from(tier == Tier::Baseline)] = Some(place);
            }
            Some(place) => {
                return Ruling {
                    because: if place.action == Action::Deny {
                        Because::ExplicitDeny
                    } else {
                        Because::Rule
                    },
                    decided: Some(place),
                    passed,
                };
            }
            None => {}
        }
        if tier == Tier::Normal && frame.isolated {
            return default(passed);
        }
    }
    if frame.strict {
        return default(passed);
    }
    Ruling {
        because: Because::NotEnforced,
        decided: None,
        passed,
    }
}

/// The precedences of the rules of one endpoint and direction: an earlier place has a higher one.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    admin: Vec<Place>,
    baseline: Vec<Place>,
}

impl Levels {
    /// `None` when there are more places than precedences.
    pub(crate) fn new(places: impl Iterator<Item = Place>) -> Option<Self> {
        let mut levels = Self::default();
        for place in places {
            match place.tier {
                Tier::Admin => levels.admin.push(place),
                Tier::Normal => {}
                Tier::Baseline => levels.baseline.push(place),
            }
        }
        for tier in [&mut levels.admin, &mut levels.baseline] {
            tier.sort_unstable();
            tier.dedup();
            if tier.len() > MOST_LEVELS as usize {
                return None;
            }
        }
        Some(levels)
    }

    /// The precedence of a row that says what the rules at this place say.
    pub(crate) fn precedence(&self, place: Place) -> u32 {
        // Bounded in `new`: the position fits.
        let position = |tier: &[Place]| tier.partition_point(|known| *known < place) as u32;
        match (place.tier, place.action) {
            (Tier::Admin, _) => PRECEDENCE_CLOSED - 1 - position(&self.admin),
            (Tier::Normal, Action::Deny) => PRECEDENCE_DENY,
            (Tier::Normal, _) => PRECEDENCE_ALLOW,
            (Tier::Baseline, _) => PRECEDENCE_ALLOW - 1 - position(&self.baseline),
        }
    }
}

/// The place of a rule of the tier Normal.
#[cfg(test)]
pub(crate) const fn normal_place(verdict: crate::EntryVerdict) -> Place {
    Place {
        tier: Tier::Normal,
        priority: 0,
        index: 0,
        action: match verdict {
            crate::EntryVerdict::Allow => Action::Allow,
            crate::EntryVerdict::Deny => Action::Deny,
        },
    }
}

#[cfg(test)]
mod tests;
