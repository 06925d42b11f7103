//! Rules that never decide, because another one decides all that they are about.

use super::{Found, Scene, Written, cover, place};
use heddle_policy::{Action, PolicySpec, Rule, RuleRef, Tier};

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    denies_of_the_same_tier(scene, found);
    earlier_rules_of_the_same_policy(scene, found);
}

/// In the tier of namespaces' policies a deny wins over every allow, wherever the two stand.
fn denies_of_the_same_tier(scene: &Scene<'_>, found: &mut Found) {
    let normal =
        |(written, _, _): &(&Written<'_>, &PolicySpec, &Rule)| written.policy.tier == Tier::Normal;
    let denies: Vec<_> = scene
        .rules()
        .filter(normal)
        .filter(|(_, _, rule)| rule.action == Action::Deny)
        .collect();
    if denies.is_empty() {
        return;
    }
    for (written, spec, rule) in scene.rules().filter(normal) {
        if rule.action != Action::Allow {
            continue;
        }
        let hidden = denies.iter().find(|(_, over, deny)| {
            deny.section.direction() == rule.section.direction()
                && cover::ports(&deny.ports, &rule.ports)
                && cover::endpoints(&scene.population, &over.subject, &spec.subject)
                && cover::peers(&scene.population, &deny.peers, &rule.peers)
        });
        if let Some((by, over, deny)) = hidden {
            written.warn(
                found,
                "policy/allow-shadowed",
                place::rule(spec.position, rule),
                format!(
                    "the rule allows nothing: {} denies all of it",
                    RuleRef::of(&by.policy.id, over.position, deny)
                ),
                "a deny wins over every allow: narrow the deny, or remove this rule",
            );
        }
    }
}

/// In the other tiers the first rule that matches decides.
fn earlier_rules_of_the_same_policy(scene: &Scene<'_>, found: &mut Found) {
    for (written, spec) in scene.specs() {
        if written.policy.tier == Tier::Normal {
            continue;
        }
        for (at, rule) in spec.rules.iter().enumerate() {
            let earlier = spec.rules[..at].iter().find(|earlier| {
                earlier.section == rule.section
                    && cover::ports(&earlier.ports, &rule.ports)
                    && cover::peers(&scene.population, &earlier.peers, &rule.peers)
            });
            if let Some(earlier) = earlier {
                written.warn(
                    found,
                    "policy/rule-shadowed",
                    place::rule(spec.position, rule),
                    format!(
                        "the rule decides nothing: {} comes first and takes all of it",
                        place::rule(spec.position, earlier)
                    ),
                    "move it before that rule, or remove it",
                );
            }
        }
    }
}
