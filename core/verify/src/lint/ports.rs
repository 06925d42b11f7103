//! Ports that no pod on the receiving end declares.

use super::{Found, Place, Scene, Written, population::Finding};
use heddle_model::Identity;
use heddle_policy::{
    Direction, Peer, Peers, PolicySpec, PortMatch, PortTerm, Ports, Rule, Transport, protocol,
};
use std::collections::BTreeSet;

pub(super) fn lint(scene: &Scene<'_>, found: &mut Found) {
    for line in scene.lines() {
        let Ports::Only(terms) = &line.rule.ports else {
            continue;
        };
        let Some(receivers) = receivers(scene, line.part.spec, line.rule) else {
            continue;
        };
        let declared = Declared::by(scene, &receivers);
        for (at, term) in terms.iter().enumerate() {
            if let PortTerm::Transport(transport, port) = term {
                let written = line.part.written;
                look(written, &declared, *transport, port, line.port(at), found);
            }
        }
    }
}

/// The identities on the receiving end, when the manifests have them all.
fn receivers(scene: &Scene<'_>, spec: &PolicySpec, rule: &Rule) -> Option<BTreeSet<Identity>> {
    if rule.section.direction() == Direction::Ingress {
        return match scene.population.find(&spec.subject) {
            Finding::Pods(pods) => Some((*pods).clone()),
            _ => None,
        };
    }
    let Peers::Terms(terms) = &rule.peers else {
        return None;
    };
    let mut found = BTreeSet::new();
    for term in terms {
        match term {
            Peer::Endpoints(selector) => match scene.population.find(selector) {
                Finding::Pods(pods) => found.extend(pods.iter().copied()),
                _ => return None,
            },
            _ => return None,
        }
    }
    (!found.is_empty()).then_some(found)
}

/// What the receiving pods declare.
struct Declared {
    /// Protocol, number and name of every port.
    ports: BTreeSet<(u8, u16, String)>,
    /// Every pod declares some port; one that declares none may listen on any.
    all: bool,
}

impl Declared {
    fn by(scene: &Scene<'_>, receivers: &BTreeSet<Identity>) -> Self {
        let mut declared = Self {
            ports: BTreeSet::new(),
            all: true,
        };
        let pods = receivers
            .iter()
            .flat_map(|identity| scene.population.pods(*identity));
        for position in pods {
            let ports = &scene.cluster.pods[*position].ports;
            declared.all &= !ports.is_empty();
            for port in ports {
                if let Some(number) = protocol::number(&port.protocol) {
                    declared
                        .ports
                        .insert((number, port.number, port.name.clone()));
                }
            }
        }
        declared
    }

    fn listed(&self) -> String {
        let listed: Vec<String> = self
            .ports
            .iter()
            .take(5)
            .map(|(number, port, name)| {
                let transport = protocol::name(*number).unwrap_or_default();
                match name.as_str() {
                    "" => format!("{transport}/{port}"),
                    name => format!("{transport}/{port} ({name})"),
                }
            })
            .collect();
        listed.join(", ")
    }
}

fn look(
    written: &Written<'_>,
    declared: &Declared,
    transport: Transport,
    wanted: &PortMatch,
    place: Place,
    found: &mut Found,
) {
    let speaks = |number: u8| transport.protocols().contains(&number);
    match wanted {
        PortMatch::All => {}
        PortMatch::Name(name) => {
            if declared
                .ports
                .iter()
                .any(|(number, _, known)| speaks(*number) && known == name)
            {
                return;
            }
            let help = if declared.ports.is_empty() {
                "declare the port under containers[].ports, or write its number".to_owned()
            } else {
                format!("the pods declare {}", declared.listed())
            };
            let message = format!(
                "no pod on the receiving end names a {} port {name:?}, so this selects nothing",
                transport.name()
            );
            written.warn(found, "policy/port-not-declared", place, message, help);
        }
        PortMatch::Range(first, last) => {
            let served = declared
                .ports
                .iter()
                .any(|(number, port, _)| speaks(*number) && (*first..=*last).contains(port));
            if served || !declared.all {
                return;
            }
            let port = PortTerm::Transport(transport, wanted.clone());
            written.warn(
                found,
                "policy/port-not-served",
                place,
                format!("no pod on the receiving end declares {port}"),
                format!(
                    "the pods declare {}; a policy sees the pod's port (a Service's targetPort), not the Service's",
                    declared.listed()
                ),
            );
        }
    }
}
