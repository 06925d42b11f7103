//! Paper beside datapath: what policies say of a connection, what a node's datapath does with it, and where the
//! two are not the same.

use crate::{Cluster, Family, Named, Peer, word};
use heddle_model::Identity;
use heddle_policy::{Decision, Direction, EntryVerdict, Party};
use serde::Serialize;
use std::net::IpAddr;

/// One end's part of the decision, and who is asked about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Whether it sends or receives.
    pub direction: Direction,
    /// The node whose datapath decides.
    pub node: String,
    /// The pod whose policy it is; a node's name for its own.
    pub pod: String,
    /// The policy is the node's own.
    pub is_node: bool,
    /// What the store's policies say.
    pub verdict: EntryVerdict,
    /// The pod's identity, by the store.
    pub identity: Identity,
    /// The other end's identity, by the store.
    pub peer: Identity,
    /// Who the other end is, as it was given.
    pub peer_name: String,
    /// Revision of the store that was read.
    pub revision: u64,
}

/// What a node's datapath does with the packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Realised {
    /// The endpoint's number; `None` when the datapath does not know the pod.
    pub endpoint: Option<u64>,
    /// The identity that the endpoint has there.
    pub identity: Option<u64>,
    /// Whether the endpoint has a policy map.
    pub has_policy: bool,
    /// What becomes of the packet.
    pub denied: bool,
    /// The identity that the other end's address has there.
    pub peer: Option<u64>,
    /// The revision that is in force there; known of a running agent only.
    pub revision: Option<u64>,
    /// Why the endpoint could not be brought up to date.
    pub failure: Option<String>,
}

/// Who told what a node's datapath does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// Its agent.
    Agent(Realised),
    /// The maps that its agent left pinned.
    Maps(Realised),
    /// Nobody could be asked.
    Nothing,
}

impl Told {
    /// What was told.
    pub const fn realised(&self) -> Option<&Realised> {
        match self {
            Self::Agent(realised) | Self::Maps(realised) => Some(realised),
            Self::Nothing => None,
        }
    }
}

/// A place where store and datapath differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The node.
    pub node: String,
    /// What differs: `verdict`, `identity`, `peer-identity`, `revision`, `endpoint`, `policy`, `failure`.
    pub what: &'static str,
    /// What the store says.
    pub wished: String,
    /// What the datapath has.
    pub realised: String,
    /// Both in a sentence.
    pub message: String,
    /// What to look at.
    pub help: String,
}

/// Every difference at one end, the one that matters most first.
pub fn differences(lab: &str, end: &End, told: &Told) -> Vec<Difference> {
    let Some(answer) = told.realised() else {
        return Vec::new();
    };
    let node = &end.node;
    let start = format!("`heddle lab agent start {node} --lab {lab}` starts its agent");
    let look = match told {
        Told::Maps(_) => start,
        _ => format!(
            "`heddle diff --node {node} --lab {lab}` shows what differs there, its agent's log why"
        ),
    };
    let mut found = Vec::new();
    let mut add = |what, wished: String, realised: String, message: String| {
        found.push(Difference {
            node: node.clone(),
            what,
            wished,
            realised,
            message,
            help: look.clone(),
        });
    };
    if answer.endpoint.is_none() {
        let message = format!("the datapath of {node} does not know pod {}", end.pod);
        add("endpoint", "present".into(), "missing".into(), message);
        return found;
    }
    let direction = match end.direction {
        Direction::Egress => format!("what {} sends to {}", end.pod, end.peer_name),
        Direction::Ingress => format!("what {} gets from {}", end.pod, end.peer_name),
    };
    let wished = word(end.verdict);
    let realised = if answer.denied { "deny" } else { "allow" };
    if !answer.has_policy && !end.is_node {
        add(
            "policy",
            "a policy map".into(),
            "none".into(),
            format!(
                "pod {} has no policy map on {node}: everything is dropped",
                end.pod
            ),
        );
    } else if realised != wished {
        let denies = |verdict: &str| {
            if verdict == "deny" {
                "denies"
            } else {
                "allows"
            }
        };
        let mut message = format!(
            "{node} {} {direction}, and the store's policies {} it",
            denies(realised),
            if wished == "deny" { "deny" } else { "allow" }
        );
        if matches!(told, Told::Maps(_)) {
            message.push_str("; it enforces what it had when its agent ended");
        }
        add("verdict", wished.into(), realised.into(), message);
    }
    let identity = answer.identity;
    if identity != Some(u64::from(end.identity.0)) {
        let realised = identity.map_or_else(|| "none".to_owned(), |number| number.to_string());
        let message = format!(
            "pod {} is identity {} by its labels and {realised} on {node}",
            end.pod, end.identity
        );
        add("identity", end.identity.to_string(), realised, message);
    }
    let peer = answer.peer;
    if peer != Some(u64::from(end.peer.0)) {
        let realised = peer.map_or_else(|| "nobody".to_owned(), |number| number.to_string());
        let message = format!(
            "{node} takes {} for identity {realised}, and it is {}",
            end.peer_name, end.peer
        );
        add("peer-identity", end.peer.to_string(), realised, message);
    }
    if let Some(revision) = answer.revision
        && revision < end.revision
    {
        let message = format!(
            "the agent of {node} is behind: it has put revision {revision} in force, the store is at {}",
            end.revision
        );
        add(
            "revision",
            end.revision.to_string(),
            revision.to_string(),
            message,
        );
    }
    if let Some(failure) = &answer.failure {
        let message = if end.is_node {
            format!("{node} did not put its own policy in force: {failure}")
        } else {
            format!(
                "{node} could not bring pod {} up to date: {failure}",
                end.pod
            )
        };
        add("failure", "ready".into(), failure.clone(), message);
    }
    found
}

/// Whether store and datapaths agree; `None` when a node could not be asked and the others agree.
pub fn agrees<'a>(
    differences: &[Difference],
    told: impl IntoIterator<Item = &'a Told>,
) -> Option<bool> {
    if !differences.is_empty() {
        return Some(false);
    }
    let mut told = told.into_iter();
    told.all(|told| told.realised().is_some()).then_some(true)
}

/// One end that has a policy of its own, and where the packet meets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedEnd {
    /// The end.
    pub end: End,
    /// Its address; `None` for a node's own policy.
    pub address: Option<IpAddr>,
    /// The other end, as this one sees it.
    pub party: Party,
}

/// The ends that have a datapath of their own.
pub fn ends(
    cluster: &Cluster,
    revision: u64,
    from: &Named,
    to: &Named,
    decision: &Decision,
    family: Family,
) -> Vec<AskedEnd> {
    if from.peer.is_same_pod(to.peer, cluster) {
        return Vec::new();
    }
    let part = |own: &Named, other: &Named, direction, verdict| {
        let (node, pod, identity, address) = match (own.peer, own.peer.as_node(cluster)) {
            // What a node says to itself no policy is asked about.
            (_, Some(node)) if other.peer.as_node(cluster) == Some(node) => return None,
            (_, Some(node)) => {
                let name = cluster.nodes[node].name.clone();
                (node, name, Identity::HOST, None)
            }
            (Peer::Pod(pod), None) => {
                let node = own.peer.endpoint_node(cluster)?;
                let (name, identity) = (&cluster.pods[pod].name, cluster.pods[pod].identity);
                let address = own.peer.address(cluster, family)?;
                (node, name.to_string(), identity, Some(address))
            }
            _ => return None,
        };
        let party = other.peer.party(own.peer, cluster, family);
        let end = End {
            direction,
            node: cluster.nodes[node].name.clone(),
            pod,
            is_node: address.is_none(),
            verdict,
            identity,
            peer: party.identity,
            peer_name: other.given.clone(),
            revision,
        };
        Some(AskedEnd {
            end,
            address,
            party,
        })
    };
    let sending = part(from, to, Direction::Egress, decision.egress.verdict);
    let receiving = part(to, from, Direction::Ingress, decision.ingress.verdict);
    sending.into_iter().chain(receiving).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(direction: Direction, verdict: EntryVerdict) -> End {
        End {
            direction,
            node: "node-2".into(),
            pod: "shop/database".into(),
            is_node: false,
            verdict,
            identity: Identity(301),
            peer: Identity(300),
            peer_name: "shop/front".into(),
            revision: 40,
        }
    }

    fn realised(change: impl FnOnce(&mut Realised)) -> Realised {
        let mut realised = Realised {
            endpoint: Some(7),
            identity: Some(301),
            has_policy: true,
            denied: false,
            peer: Some(300),
            revision: Some(40),
            failure: None,
        };
        change(&mut realised);
        realised
    }

    #[test]
    fn each_way_to_differ_is_named_with_both_sides() {
        type Change = fn(&mut Realised);
        let changes: [(Change, &str, &str, &str); 8] = [
            (|it| it.denied = true, "verdict", "allow", "deny"),
            (|it| it.identity = Some(299), "identity", "301", "299"),
            (|it| it.peer = Some(9), "peer-identity", "300", "9"),
            (|it| it.peer = None, "peer-identity", "300", "nobody"),
            (|it| it.revision = Some(39), "revision", "40", "39"),
            (
                |it| (it.has_policy, it.denied) = (false, true),
                "policy",
                "a policy map",
                "none",
            ),
            (
                |it| (it.endpoint, it.identity, it.denied) = (None, None, true),
                "endpoint",
                "present",
                "missing",
            ),
            (
                |it| it.failure = Some("map is full".into()),
                "failure",
                "ready",
                "map is full",
            ),
        ];
        for (change, what, wished, had) in changes {
            let told = Told::Agent(realised(change));
            let found = differences("l", &end(Direction::Ingress, EntryVerdict::Allow), &told);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            let one = &found[0];
            assert_eq!(
                (one.what, one.wished.as_str(), one.realised.as_str()),
                (what, wished, had)
            );
            assert!(one.message.contains("node-2"), "{one:?}");
            assert!(
                one.help.contains("heddle diff --node node-2 --lab l"),
                "{one:?}"
            );
            assert_eq!(agrees(&found, [&told]), Some(false));
        }
    }

    #[test]
    fn a_node_without_a_policy_is_not_judged_and_one_that_is_kept_off_is_told() {
        let own = End {
            is_node: true,
            pod: "node-2".into(),
            identity: Identity::HOST,
            ..end(Direction::Ingress, EntryVerdict::Allow)
        };
        let host = realised(|it| (it.identity, it.has_policy) = (Some(1), false));
        let told = Told::Agent(host.clone());
        assert_eq!(differences("l", &own, &told), []);
        let kept_off = Realised {
            failure: Some("it would cut SSH".into()),
            ..host
        };
        let denied = End {
            verdict: EntryVerdict::Deny,
            ..own
        };
        let found = differences("l", &denied, &Told::Agent(kept_off));
        let what: Vec<&str> = found.iter().map(|one| one.what).collect();
        assert_eq!(what, ["verdict", "failure"]);
    }

    #[test]
    fn an_agent_that_is_up_to_date_or_ahead_agrees() {
        for revision in [40, 99] {
            let told = Told::Agent(realised(|it| it.revision = Some(revision)));
            let found = differences("l", &end(Direction::Ingress, EntryVerdict::Allow), &told);
            assert_eq!(found, []);
            assert_eq!(agrees(&found, [&told]), Some(true));
        }
    }

    #[test]
    fn without_an_agent_the_maps_are_compared_and_without_both_nobody_knows() {
        let maps = Told::Maps(realised(|it| (it.denied, it.revision) = (true, None)));
        let found = differences("l", &end(Direction::Egress, EntryVerdict::Allow), &maps);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].message,
            "node-2 denies what shop/database sends to shop/front, and the store's policies allow it; it \
             enforces what it had when its agent ended"
        );
        assert!(found[0].help.contains("lab agent start node-2"));
        let nothing = Told::Nothing;
        let none = differences("l", &end(Direction::Egress, EntryVerdict::Allow), &nothing);
        assert_eq!(agrees(&none, [&nothing]), None);
        assert_eq!(agrees(&found, [&maps, &nothing]), Some(false));
    }
}
