//! What to ask when nothing is given: the ports and addresses that policies and pods name.

use super::Sides;
use crate::{Cluster, Holder, Probe, VerifyError};
use heddle_model::Identity;
use heddle_policy::{CidrScope, IcmpFamily, Peers, PortMatch, PortTerm, Ports, Rule, protocol};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Probes, and addresses, that are drawn at most.
const MOST: usize = 64;

fn rules(cluster: &Cluster) -> Vec<Rule> {
    let engine = &cluster.engine;
    let ids = engine.policy_ids();
    ids.iter()
        .filter_map(|id| engine.policy(id))
        .flat_map(|policy| policy.specs.iter().flat_map(|spec| spec.rules.clone()))
        .collect()
}

/// One probe for each port that a rule or a pod names, one for a port that none does, and one for ICMP.
pub fn probes(sides: &mut Sides) -> Result<Vec<Probe>, VerifyError> {
    let mut numbers: BTreeSet<(u8, u16)> = BTreeSet::new();
    let mut names: BTreeSet<(u8, String)> = BTreeSet::new();
    for cluster in [&sides.before, &sides.after] {
        for rule in rules(cluster) {
            let Ports::Only(terms) = &rule.ports else {
                continue;
            };
            for term in terms {
                match term {
                    PortTerm::Transport(transport, PortMatch::Range(first, last)) => {
                        for number in transport.protocols() {
                            numbers.extend([(*number, *first), (*number, *last)]);
                        }
                    }
                    PortTerm::Transport(transport, PortMatch::Name(name)) => {
                        for number in transport.protocols() {
                            names.insert((*number, name.clone()));
                        }
                    }
                    PortTerm::Transport(transport, PortMatch::All) => {
                        let other = transport.protocols().iter().map(|number| (*number, 1));
                        numbers.extend(other);
                    }
                    PortTerm::Icmp(family, kind) => {
                        numbers.insert((family.protocol(), u16::from(*kind)));
                    }
                }
            }
        }
        for port in cluster.pods.iter().flat_map(|pod| &pod.ports) {
            if let Some(number) = protocol::number(&port.protocol)
                && port.number > 0
            {
                numbers.insert((number, port.number));
            }
        }
    }
    let unnamed = (1..u16::MAX).find(|port| !numbers.contains(&(protocol::TCP, *port)));
    numbers.extend(unnamed.map(|port| (protocol::TCP, port)));
    numbers.insert((IcmpFamily::V4.protocol(), 8));
    let name = |number: u8| protocol::name(number).unwrap_or_default();
    let mut drawn: Vec<String> = names
        .iter()
        .map(|(number, port)| format!("{}/{port}", name(*number)))
        .chain(
            numbers
                .iter()
                .map(|(number, port)| format!("{}/{port}", name(*number))),
        )
        .collect();
    if drawn.len() > MOST {
        sides.notes.push(format!(
            "{} probes can be drawn, the first {MOST} are used; name others with --probe",
            drawn.len()
        ));
        drawn.truncate(MOST);
    }
    drawn.iter().map(|probe| Probe::parse(probe)).collect()
}

/// The world, two nodes of each kind that policies can tell, and an address of each kind that they can tell.
pub fn peers(sides: &mut Sides) -> Vec<String> {
    let mut drawn = vec!["world".to_owned()];
    let entities: BTreeSet<&'static str> = [&sides.before, &sides.after]
        .into_iter()
        .flat_map(rules)
        .flat_map(|rule| match rule.peers {
            Peers::Any => Vec::new(),
            Peers::Terms(terms) => terms,
        })
        .filter_map(|term| match term {
            heddle_policy::Peer::Entity(entity) => {
                let alone = Identity::from_reserved_name(entity.name()).is_some();
                alone.then(|| entity.name())
            }
            _ => None,
        })
        .filter(|name| !["world", "host"].contains(name))
        .collect();
    drawn.extend(entities.into_iter().map(str::to_owned));
    let mut nodes: BTreeMap<(Vec<Identity>, [_; 2]), usize> = BTreeMap::new();
    for node in &sides.before.nodes {
        let Some(after) = sides.after.node(&node.name) else {
            continue;
        };
        // To host policies nodes with other labels are others.
        let judged = [node, &sides.after.nodes[after]].map(|node| node.labels.clone());
        let kind = node
            .addresses
            .iter()
            .flat_map(|address| of_both(sides, *address, CidrScope::InCluster))
            .collect();
        let judged = if has_host_policies(sides) {
            judged
        } else {
            Default::default()
        };
        let count = nodes.entry((kind, judged)).or_default();
        *count += 1;
        if *count <= 2 {
            drawn.push(format!("host:{}", node.name));
        }
    }
    let mut kinds: BTreeSet<[Identity; 2]> = BTreeSet::new();
    let mut addresses = Vec::new();
    for cluster in [&sides.before, &sides.after] {
        for known in cluster.engine.cidrs() {
            if known.scope != CidrScope::World {
                continue;
            }
            let kind_of = |address| of_both(sides, address, CidrScope::World);
            let found = candidates(known.prefix)
                .into_iter()
                .find(|address| kinds.insert(kind_of(*address)));
            addresses.extend(found);
        }
    }
    let outside = |address: &IpAddr| {
        [&sides.before, &sides.after]
            .iter()
            .all(|side| side.holder(*address) == Holder::World)
    };
    addresses.retain(outside);
    if addresses.len() > MOST {
        sides.notes.push(format!(
            "{} addresses can be drawn, the first {MOST} are used; name others with --peer",
            addresses.len()
        ));
        addresses.truncate(MOST);
    }
    drawn.extend(addresses.iter().map(ToString::to_string));
    drawn
}

/// The kinds of an address on both sides.
fn of_both(sides: &Sides, address: IpAddr, scope: CidrScope) -> [Identity; 2] {
    let prefix = IpNet::from(address);
    [&sides.before, &sides.after].map(|side| side.engine.cidr_covering(prefix, scope))
}

/// Addresses of a prefix that its narrower neighbours may not hold: one after the first, the first, the last.
fn candidates(prefix: IpNet) -> Vec<IpAddr> {
    let mut hosts = prefix.hosts();
    let mut found: Vec<IpAddr> = hosts.next().into_iter().collect();
    found.extend([prefix.network(), prefix.broadcast()]);
    found
}

/// Whether some policy of a side is about nodes.
fn has_host_policies(sides: &Sides) -> bool {
    [&sides.before, &sides.after].into_iter().any(|cluster| {
        let engine = &cluster.engine;
        let policies = engine.policy_ids().into_iter();
        policies
            .filter_map(|id| engine.policy(&id))
            .flat_map(|policy| &policy.specs)
            .any(|spec| spec.subject.selects_nodes())
    })
}
