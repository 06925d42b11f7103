//! Rules that never decide, because another one decides all that they are about.

use super::{Found, Line, RuleName, Scene, cover};
use heddle_policy::{Action, RuleRef, Tier};

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    denies_of_the_same_tier(scene, found);
    earlier_rules_of_the_same_policy(scene, found);
}

/// In the tier of namespaces' policies a deny wins over every allow, wherever the two stand.
fn denies_of_the_same_tier(scene: &Scene<'_>, found: &mut Found) {
    let normal = |line: &Line<'_>| line.part.written.policy.tier == Tier::Normal;
    let denies: Vec<_> = scene
        .lines()
        .filter(normal)
        .filter(|line| line.rule.action == Action::Deny)
        .collect();
    if denies.is_empty() {
        return;
    }
    for line in scene.lines().filter(normal) {
        let (rule, spec) = (line.rule, line.part.spec);
        if rule.action != Action::Allow {
            continue;
        }
        let hidden = denies.iter().find(|by| {
            let (deny, over) = (by.rule, by.part.spec);
            deny.section.direction() == rule.section.direction()
                && cover::ports(&deny.ports, &rule.ports)
                && cover::endpoints(&scene.population, &over.subject, &spec.subject)
                && cover::peers(&scene.population, &deny.peers, &rule.peers)
        });
        if let Some(by) = hidden {
            let id = &by.part.written.policy.id;
            line.part.written.warn(
                found,
                "policy/allow-shadowed",
                line.place(),
                format!(
                    "the rule allows nothing: {} denies all of it",
                    RuleRef::of(id, by.part.spec.position, by.rule)
                ),
                "a deny wins over every allow: narrow the deny, or remove this rule",
            );
        }
    }
}

/// In the other tiers the first rule that matches decides.
fn earlier_rules_of_the_same_policy(scene: &Scene<'_>, found: &mut Found) {
    for part in scene.parts() {
        if part.written.policy.tier == Tier::Normal {
            continue;
        }
        let rules = part.spec.rules.iter().enumerate();
        let lines: Vec<_> = rules.map(|(at, rule)| Line { part, at, rule }).collect();
        for (at, line) in lines.iter().enumerate() {
            let earlier = lines[..at].iter().find(|earlier| {
                earlier.rule.section == line.rule.section
                    && cover::ports(&earlier.rule.ports, &line.rule.ports)
                    && cover::peers(&scene.population, &earlier.rule.peers, &line.rule.peers)
            });
            if let Some(earlier) = earlier {
                part.written.warn(
                    found,
                    "policy/rule-shadowed",
                    line.place(),
                    format!(
                        "the rule decides nothing: {} comes first and takes all of it",
                        RuleName::of(earlier)
                    ),
                    "move it before that rule, or remove it",
                );
            }
        }
    }
}
