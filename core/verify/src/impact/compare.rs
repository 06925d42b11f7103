//! Every pair and probe on both sides, asked once for each kind of pod.

use super::Sides;
use crate::{Answers, Cluster, Family, Kind, Named, Node, Peer, Probe};
use heddle_policy::{Decision, EntryVerdict, Party, Traffic};
use serde::Serialize;
use std::collections::BTreeMap;

/// Verdicts that change, for all pairs of two kinds of ends.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Names of the sources.
    pub from: Vec<String>,
    /// Names of the destinations; a pod is never paired with itself.
    pub to: Vec<String>,
    /// Position of the probe.
    pub probe: usize,
    /// The family, when the other one's verdict does not change in the same way.
    pub family: Option<Family>,
    /// The decision of the current objects.
    pub before: Decision,
    /// The decision of the changed ones.
    pub after: Decision,
}

impl Change {
    /// The pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.from.iter().flat_map(|from| {
            let others = self.to.iter().filter(move |to| *to != from);
            others.map(move |to| (from.as_str(), to.as_str()))
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        // Kinds are the same or have nobody in common.
        let paired_with_themselves = if self.from == self.to {
            self.from.len()
        } else {
            0
        };
        self.from.len() * self.to.len() - paired_with_themselves
    }

    /// True when what was denied is allowed.
    pub fn opens(&self) -> bool {
        self.after.verdict == EntryVerdict::Allow
    }
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// What changes, by sources and destinations; what closes first.
    pub changes: Vec<Change>,
    /// Pairs and probes that were compared.
    pub compared: usize,
    /// Pods that only the changed manifests have.
    pub added: Vec<String>,
    /// Pods that only the current manifests have.
    pub removed: Vec<String>,
}

/// Ends that no policy of either side can tell apart.
struct Group {
    names: Vec<String>,
    /// One of them on each side, and a second for pairs inside of the group.
    members: Vec<(Named, Named)>,
    /// A pod with policies of its own; between two others nothing is enforced.
    endpoint: bool,
}

/// All that policy can see of a pod: on both sides, in both families.
type Seen = [[Option<Kind>; 2]; 2];

/// Compares two clusters over the pods that both have and these peers, each as both sides have it.
pub fn compare(sides: &Sides, peers: &[(Named, Named)], probes: &[Probe]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut answers = (Answers::of(&sides.before), Answers::of(&sides.after));
    let mut groups: BTreeMap<Seen, Group> = BTreeMap::new();
    let mut nodes: Vec<Group> = Vec::new();
    let mut pods: Vec<(usize, usize)> = Vec::new();
    for (old, pod) in sides.before.pods.iter().enumerate() {
        let Some(new) = sides.after.pod(&pod.name) else {
            outcome.removed.push(pod.name.to_string());
            continue;
        };
        let both = (
            Named::pod(&sides.before, old),
            Named::pod(&sides.after, new),
        );
        if pod.host_network || sides.after.pods[new].host_network {
            let endpoint = is_subject(sides, &both);
            nodes.push(Group::alone(both, endpoint));
            continue;
        }
        pods.push((old, new));
        let seen = [
            kinds(&sides.before, &answers.0, &both.0),
            kinds(&sides.after, &answers.1, &both.1),
        ];
        let group = groups.entry(seen).or_insert_with(|| Group {
            names: Vec::new(),
            members: Vec::new(),
            endpoint: true,
        });
        group.names.push(pod.name.to_string());
        if group.members.len() < 2 {
            group.members.push(both);
        }
    }
    let new_pods = sides.after.pods.iter().map(|pod| &pod.name);
    outcome.added = new_pods
        .filter(|name| sides.before.pod(name).is_none())
        .map(ToString::to_string)
        .collect();
    let mut ends: Vec<Group> = groups.into_values().collect();
    for both in peers {
        match both.0.peer {
            Peer::Node(_) => nodes.push(Group::alone(both.clone(), is_subject(sides, both))),
            // A pod or node that is given joins anyway.
            Peer::Pod(_) => {}
            _ => ends.push(Group::alone(both.clone(), false)),
        }
    }
    for from in &ends {
        for to in &ends {
            pair(sides, &mut answers, from, to, probes, &mut outcome);
        }
    }
    // Who a node is depends on where the pod is: pod by pod.
    for (old, new) in pods {
        let both = (
            Named::pod(&sides.before, old),
            Named::pod(&sides.after, new),
        );
        let pod = Group::alone(both, true);
        for node in &nodes {
            pair(sides, &mut answers, node, &pod, probes, &mut outcome);
            pair(sides, &mut answers, &pod, node, probes, &mut outcome);
        }
    }
    // Host policies are about what nodes say to each other and to the world, too.
    for node in &nodes {
        for other in ends.iter().filter(|end| !end.endpoint).chain(&nodes) {
            pair(sides, &mut answers, node, other, probes, &mut outcome);
            if !nodes.iter().any(|one| one.names == other.names) {
                pair(sides, &mut answers, other, node, probes, &mut outcome);
            }
        }
    }
    outcome.changes.sort_by(|a, b| {
        (a.opens(), &a.from, &a.to, a.probe).cmp(&(b.opens(), &b.from, &b.to, b.probe))
    });
    outcome
}

/// Whether an end is a node that host policies of some side are about.
fn is_subject(sides: &Sides, both: &(Named, Named)) -> bool {
    [(&sides.before, &both.0), (&sides.after, &both.1)]
        .into_iter()
        .any(|(cluster, named)| {
            let node = named.peer.as_node(cluster).and_then(Node::subject);
            node.is_some_and(|node| cluster.engine.is_about(node))
        })
}

impl Group {
    fn alone(both: (Named, Named), endpoint: bool) -> Self {
        Self {
            names: vec![both.0.given.clone()],
            members: vec![both],
            endpoint,
        }
    }
}

fn kinds(cluster: &Cluster, answers: &Answers<'_>, named: &Named) -> [Option<Kind>; 2] {
    [Family::V4, Family::V6].map(|family| {
        let has = named.families(cluster).contains(&family);
        // Seen from anywhere else a pod is the same: its identity and its address.
        has.then(|| answers.kind(&named.peer.party(named.peer, cluster, family)))
    })
}

/// Both ends as one side has them.
struct Ends<'a> {
    cluster: &'a Cluster,
    from: &'a Named,
    to: &'a Named,
}

impl Ends<'_> {
    fn parties(&self, family: Family) -> (Party, Party) {
        (
            self.from.peer.party(self.to.peer, self.cluster, family),
            self.to.peer.party(self.from.peer, self.cluster, family),
        )
    }

    fn verdict(&self, answers: &mut Answers<'_>, family: Family, traffic: Traffic) -> EntryVerdict {
        let (from, to) = self.parties(family);
        let (egress, ingress) = answers.ask(&from, &to, traffic);
        egress.max(ingress)
    }

    fn decide(&self, family: Family, traffic: Traffic) -> Decision {
        let (from, to) = self.parties(family);
        self.cluster.engine.decide(&from, &to, traffic)
    }

    fn families(&self) -> Vec<Family> {
        let theirs = self.to.families(self.cluster);
        let ours = self.from.families(self.cluster);
        ours.into_iter()
            .filter(|family| theirs.contains(family))
            .collect()
    }
}

fn pair(
    sides: &Sides,
    answers: &mut (Answers<'_>, Answers<'_>),
    from: &Group,
    to: &Group,
    probes: &[Probe],
    outcome: &mut Outcome,
) {
    if !from.endpoint && !to.endpoint {
        return;
    }
    let Some(source) = from.members.first() else {
        return;
    };
    // Inside a group two different members stand for the pair; a pod alone has nobody to talk to.
    let target = if from.names == to.names {
        to.members.get(1)
    } else {
        to.members.first()
    };
    let Some(target) = target else { return };
    let ends = [
        Ends {
            cluster: &sides.before,
            from: &source.0,
            to: &target.0,
        },
        Ends {
            cluster: &sides.after,
            from: &source.1,
            to: &target.1,
        },
    ];
    let after = ends[1].families();
    let families: Vec<Family> = ends[0].families();
    let families: Vec<Family> = families.into_iter().filter(|f| after.contains(f)).collect();
    for (at, probe) in probes.iter().enumerate() {
        let traffic = [
            probe.traffic(&sides.before, target.0.peer),
            probe.traffic(&sides.after, target.1.peer),
        ];
        let [Some(old), Some(new)] = traffic else {
            continue;
        };
        let mut found: Vec<(Family, EntryVerdict)> = Vec::new();
        let mut asked = 0;
        for family in &families {
            if probe.family.is_some_and(|needed| needed != *family) {
                continue;
            }
            asked += 1;
            let before = ends[0].verdict(&mut answers.0, *family, old);
            let after = ends[1].verdict(&mut answers.1, *family, new);
            if before != after {
                found.push((*family, after));
            }
        }
        let change = |family: Family, only: bool| Change {
            from: from.names.clone(),
            to: to.names.clone(),
            probe: at,
            family: only.then_some(family),
            before: ends[0].decide(family, old),
            after: ends[1].decide(family, new),
        };
        if asked > 0 {
            let themselves = if from.names == to.names {
                from.names.len()
            } else {
                0
            };
            outcome.compared += from.names.len() * to.names.len() - themselves;
        }
        let same = found.iter().all(|(_, verdict)| *verdict == found[0].1);
        match found.as_slice() {
            [] => {}
            [(family, _), rest @ ..] if same && rest.len() + 1 == asked => {
                outcome.changes.push(change(*family, false));
            }
            each => {
                for (family, _) in each {
                    outcome.changes.push(change(*family, true));
                }
            }
        }
    }
}
