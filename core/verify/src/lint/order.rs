//! ClusterNetworkPolicies whose order nobody decided.

use super::{Found, Part, Place, Scene, Written, cover};
use heddle_policy::{PolicySpec, Tier};

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    let ordered: Vec<_> = scene
        .parts()
        .filter(|part| part.written.policy.tier != Tier::Normal)
        .collect();
    for (at, Part { written, spec, .. }) in ordered.iter().enumerate() {
        let same = ordered[..at].iter().find(|other| {
            let (other, over) = (other.written, other.spec);
            other.policy.tier == written.policy.tier
                && other.policy.priority == written.policy.priority
                && other.policy.id != written.policy.id
                && same_direction(spec, over)
                && overlap(scene, spec, over)
        });
        if let Some(Part { written: other, .. }) = same {
            let tier = match written.policy.tier {
                Tier::Admin => "Admin",
                _ => "Baseline",
            };
            written.warn(
                found,
                "policy/duplicate-priority",
                Place::Priority,
                format!(
                    "{} has priority {} of the tier {tier}, too, and is about the same pods: which goes first is not decided{}",
                    other.policy.id,
                    written.policy.priority,
                    conflict(written, other),
                ),
                "give each policy of a tier a priority of its own; lower numbers go first",
            );
        }
    }
}

fn same_direction(one: &PolicySpec, other: &PolicySpec) -> bool {
    one.rules
        .iter()
        .any(|rule| other.rules.iter().any(|over| over.section == rule.section))
}

fn overlap(scene: &Scene<'_>, one: &PolicySpec, other: &PolicySpec) -> bool {
    let population = &scene.population;
    let (first, second) = (
        population.selected(&one.subject),
        population.selected(&other.subject),
    );
    !first.is_disjoint(&second)
        || cover::endpoints(population, &one.subject, &other.subject)
        || cover::endpoints(population, &other.subject, &one.subject)
}

/// Whether the order matters.
fn conflict(one: &Written<'_>, other: &Written<'_>) -> &'static str {
    let rules = |written: &Written<'_>| {
        let specs = written.policy.specs.iter();
        specs
            .flat_map(|spec| &spec.rules)
            .map(|rule| rule.action)
            .collect::<Vec<_>>()
    };
    let (first, second) = (rules(one), rules(other));
    let differ = first
        .iter()
        .any(|action| second.iter().any(|over| over != action));
    if differ {
        ", and their rules say different things"
    } else {
        ""
    }
}
