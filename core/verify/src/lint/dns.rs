//! Egress that forgets DNS: pods may reach peers whose names they cannot ask for.

use super::{Found, Part, Place, Scene, cover};
use heddle_policy::{
    Action, Peer, Peers, PolicySpec, PortMatch, PortTerm, Ports, Rule, Section, Tier, Transport,
};
use std::collections::BTreeSet;

/// Names that people give to the DNS port.
const NAMES: [&str; 3] = ["dns", "dns-udp", "domain"];

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    for Part { written, at, spec } in scene.parts() {
        let tier_fits = written.policy.tier == Tier::Normal && spec.isolates.egress;
        // Who is allowed nothing is meant to be; who is allowed addresses alone needs no names.
        // A node asks its own resolver, wherever that is.
        if !tier_fits
            || spec.subject.selects_nodes()
            || !spec
                .rules
                .iter()
                .any(|rule| allows(rule) && needs_names(rule))
        {
            continue;
        }
        let selected = scene.population.selected(&spec.subject);
        let helped = |over: &PolicySpec, tier: Tier| {
            tier != Tier::Baseline && over.rules.iter().any(|r| allows(r) && allows_dns(r))
        };
        let forgotten = if selected.is_empty() {
            !scene.parts().any(|over| {
                helped(over.spec, over.written.policy.tier)
                    && cover::endpoints(&scene.population, &over.spec.subject, &spec.subject)
            })
        } else {
            let mut left: BTreeSet<_> = (*selected).clone();
            for over in scene.parts() {
                if helped(over.spec, over.written.policy.tier) {
                    for identity in scene.population.selected(&over.spec.subject).iter() {
                        left.remove(identity);
                    }
                }
            }
            !left.is_empty()
        };
        if forgotten {
            written.warn(
                found,
                "policy/egress-forgets-dns",
                Place::Egress { spec: at },
                format!(
                    "{} may not ask for names: no egress rule allows UDP/53",
                    spec.subject
                ),
                "allow UDP and TCP port 53 to the cluster's DNS pods, if these pods look up names",
            );
        }
    }
}

fn allows(rule: &Rule) -> bool {
    rule.section == Section::Egress && rule.action == Action::Allow
}

fn needs_names(rule: &Rule) -> bool {
    match &rule.peers {
        Peers::Any => true,
        Peers::Terms(terms) => terms
            .iter()
            .any(|term| !matches!(term, Peer::Cidr(_) | Peer::CidrGroup { .. })),
    }
}

fn allows_dns(rule: &Rule) -> bool {
    let somebody = !matches!(&rule.peers, Peers::Terms(terms) if terms.is_empty());
    let question = PortTerm::Transport(Transport::Udp, PortMatch::Range(53, 53));
    somebody
        && match &rule.ports {
            Ports::All => true,
            Ports::Only(terms) => terms.iter().any(|term| {
                cover::port(term, &question)
                    || matches!(term, PortTerm::Transport(_, PortMatch::Name(name))
                        if NAMES.contains(&name.as_str()))
            }),
        }
}
