//! Policies that select no pod or node, and peers that match none.

use super::{Found, Part, Scene, population::Finding};
use heddle_policy::{CidrGroupRef, EndpointSelector, Peer, Peers, ServiceRef};

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    for part in scene.parts() {
        let Part { written, spec, .. } = part;
        let finding = scene.population.find(&spec.subject);
        if let Some((reason, help)) = explain(&finding) {
            written.warn(
                found,
                "policy/selects-nothing",
                part.subject(),
                format!("the policy is about {}, and {reason}", spec.subject),
                help,
            );
        }
    }
    for line in scene.lines() {
        let Peers::Terms(terms) = &line.rule.peers else {
            continue;
        };
        for (at, term) in terms.iter().enumerate() {
            let (code, message, help) = match term {
                Peer::Nodes(selector) => {
                    let finding = scene.population.find(&EndpointSelector::of_nodes(selector));
                    let Some((reason, help)) = explain(&finding) else {
                        continue;
                    };
                    let message = format!("the peer is {term}, and {reason}");
                    ("policy/peer-selects-nothing", message, help)
                }
                Peer::Endpoints(selector) => {
                    let finding = scene.population.find(selector);
                    let Some((reason, help)) = explain(&finding) else {
                        continue;
                    };
                    let message = format!("the peer is {selector}, and {reason}");
                    ("policy/peer-selects-nothing", message, help)
                }
                Peer::CidrGroup { by, .. } => {
                    let groups = &scene.cluster.groups;
                    let there = match by {
                        CidrGroupRef::Name(name) => groups.contains_key(name),
                        CidrGroupRef::Labels(selector) => groups.values().any(|group| {
                            selector.matches(|key| group.labels.get(key).map(String::as_str))
                        }),
                    };
                    if there {
                        continue;
                    }
                    (
                        "policy/missing-cidr-group",
                        format!(
                            "the manifests have no CiliumCIDRGroup for {term}, so this selects nothing"
                        ),
                        "create the group, or check its name and labels".to_owned(),
                    )
                }
                Peer::Services(services) => {
                    if scene.cluster.services.is_empty() || has(scene, services) {
                        continue;
                    }
                    (
                        "policy/missing-service",
                        format!(
                            "the manifests have no Service for {term}, so this selects nothing"
                        ),
                        "create the Service, or check its name, namespace and labels".to_owned(),
                    )
                }
                Peer::Cidr(_) | Peer::Entity(_) => continue,
            };
            let written = line.part.written;
            written.warn(found, code, line.peer(at), message, help);
        }
    }
}

fn has(scene: &Scene<'_>, wanted: &ServiceRef) -> bool {
    let services = &scene.cluster.services;
    match wanted {
        ServiceRef::Name(name) => services.contains_key(name),
        ServiceRef::Labels {
            selector,
            namespace,
        } => services.iter().any(|(name, service)| {
            namespace
                .as_ref()
                .is_none_or(|wanted| *wanted == name.namespace)
                && selector.matches(|key| service.labels.get(key).map(String::as_str))
        }),
    }
}

/// Why nothing is selected and what to try; `None` when something is, or the manifests cannot tell.
fn explain(finding: &Finding) -> Option<(&'static str, String)> {
    match finding {
        Finding::Pods(_) | Finding::Elsewhere => None,
        Finding::NoNamespace => Some((
            "no namespace of the manifests has these labels",
            "check the namespace's labels; every namespace has kubernetes.io/metadata.name: NAME"
                .into(),
        )),
        Finding::NoNode => Some((
            "no node of the manifests has these labels",
            "check the labels of the Node objects".into(),
        )),
        Finding::NoPod { instead } => Some((
            "no pod of the manifests is one of them",
            if instead.is_empty() {
                "check the labels' keys: pods there have none of them".into()
            } else {
                format!("check the labels; pods there have {}", instead.join(", "))
            },
        )),
    }
}
