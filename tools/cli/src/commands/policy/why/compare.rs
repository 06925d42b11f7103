//! The store's decision beside what a node's datapath does: where the two are not the same.

use heddle_model::Identity;
use heddle_policy::{Direction, EntryVerdict};
use serde::Serialize;
use serde_json::Value;

/// One end's part of the decision, and who is asked about it.
pub(super) struct End {
    pub(super) direction: Direction,
    /// The node whose datapath decides.
    pub(super) node: String,
    /// The pod whose policy it is; a node's name for its own.
    pub(super) pod: String,
    /// The policy is the node's own.
    pub(super) is_node: bool,
    /// What the store's policies say.
    pub(super) verdict: EntryVerdict,
    /// The pod's identity, by the store.
    pub(super) identity: Identity,
    /// The other end's identity, by the store.
    pub(super) peer: Identity,
    /// Who the other end is, as it was given.
    pub(super) peer_name: String,
    /// Revision of the store that was read.
    pub(super) revision: u64,
}

/// What is known of a node's datapath.
pub(super) enum Told {
    /// Its agent answered.
    Agent(Value),
    /// Its agent does not; the pinned maps were read.
    Maps { answer: Value, why: String },
    /// Neither could be asked.
    Nothing { why: String },
}

impl Told {
    pub(super) const fn answer(&self) -> Option<&Value> {
        match self {
            Self::Agent(answer) | Self::Maps { answer, .. } => Some(answer),
            Self::Nothing { .. } => None,
        }
    }
}

/// A place where store and datapath differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    pub(super) node: String,
    /// What differs: `verdict`, `identity`, `peer-identity`, `revision`, `endpoint`, `policy`, `failure`.
    pub(super) what: &'static str,
    pub(super) wished: String,
    pub(super) realised: String,
    pub(super) message: String,
    /// What to look at.
    pub(super) help: String,
}

const fn word(verdict: EntryVerdict) -> &'static str {
    match verdict {
        EntryVerdict::Allow => "allow",
        EntryVerdict::Deny => "deny",
    }
}

/// Every difference at one end, the one that matters most first.
pub(super) fn differences(lab: &str, end: &End, told: &Told) -> Vec<Difference> {
    let Some(answer) = told.answer() else {
        return Vec::new();
    };
    let node = &end.node;
    let start = format!("`heddle lab agent start {node} --lab {lab}` starts its agent");
    let look = match told {
        Told::Maps { .. } => start,
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
    if answer["endpoint"].is_null() {
        let message = format!("the datapath of {node} does not know pod {}", end.pod);
        add("endpoint", "present".into(), "missing".into(), message);
        return found;
    }
    let direction = match end.direction {
        Direction::Egress => format!("what {} sends to {}", end.pod, end.peer_name),
        Direction::Ingress => format!("what {} gets from {}", end.pod, end.peer_name),
    };
    let wished = word(end.verdict);
    let realised = answer["verdict"].as_str().unwrap_or("deny");
    if answer["hasPolicy"] == false && !end.is_node {
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
        if matches!(told, Told::Maps { .. }) {
            message.push_str("; it enforces what it had when its agent ended");
        }
        add("verdict", wished.into(), realised.into(), message);
    }
    let identity = answer["identity"].as_u64();
    if identity != Some(u64::from(end.identity.0)) {
        let realised = identity.map_or_else(|| "none".to_owned(), |number| number.to_string());
        let message = format!(
            "pod {} is identity {} by its labels and {realised} on {node}",
            end.pod, end.identity
        );
        add("identity", end.identity.to_string(), realised, message);
    }
    let peer = answer["peer"]["identity"].as_u64();
    if peer != Some(u64::from(end.peer.0)) {
        let realised = peer.map_or_else(|| "nobody".to_owned(), |number| number.to_string());
        let message = format!(
            "{node} takes {} for identity {realised}, and it is {}",
            end.peer_name, end.peer
        );
        add("peer-identity", end.peer.to_string(), realised, message);
    }
    if let Some(revision) = answer["realisedRevision"].as_u64()
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
    if let Some(failure) = answer["failure"].as_str() {
        let message = if end.is_node {
            format!("{node} did not put its own policy in force: {failure}")
        } else {
            format!(
                "{node} could not bring pod {} up to date: {failure}",
                end.pod
            )
        };
        add("failure", "ready".into(), failure.to_owned(), message);
    }
    found
}

/// Whether store and datapaths agree; `None` when a node could not be asked and the others agree.
pub(super) fn agrees<'a>(
    differences: &[Difference],
    told: impl IntoIterator<Item = &'a Told>,
) -> Option<bool> {
    if !differences.is_empty() {
        return Some(false);
    }
    let mut told = told.into_iter();
    told.all(|told| told.answer().is_some()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    fn answer(changes: Value) -> Value {
        let mut answer = json!({
            "endpoint": 7, "identity": 301, "hasPolicy": true, "verdict": "allow",
            "peer": {"identity": 300}, "realisedRevision": 40, "failure": null,
        });
        for (key, value) in changes.as_object().unwrap() {
            answer[key] = value.clone();
        }
        answer
    }

    #[test]
    fn each_way_to_differ_is_named_with_both_sides() {
        for (changes, what, wished, realised) in [
            (json!({"verdict": "deny"}), "verdict", "allow", "deny"),
            (json!({"identity": 299}), "identity", "301", "299"),
            (
                json!({"peer": {"identity": 9}}),
                "peer-identity",
                "300",
                "9",
            ),
            (json!({"peer": null}), "peer-identity", "300", "nobody"),
            (json!({"realisedRevision": 39}), "revision", "40", "39"),
            (
                json!({"hasPolicy": false, "verdict": "deny"}),
                "policy",
                "a policy map",
                "none",
            ),
            (
                json!({"endpoint": null, "identity": null, "verdict": "deny"}),
                "endpoint",
                "present",
                "missing",
            ),
            (
                json!({"failure": "map is full"}),
                "failure",
                "ready",
                "map is full",
            ),
        ] {
            let told = Told::Agent(answer(changes.clone()));
            let found = differences("l", &end(Direction::Ingress, EntryVerdict::Allow), &told);
            assert_eq!(found.len(), 1, "{changes}: {found:?}");
            let one = &found[0];
            assert_eq!(
                (one.what, one.wished.as_str(), one.realised.as_str()),
                (what, wished, realised)
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
        let host = json!({"identity": 1, "hasPolicy": false});
        let told = Told::Agent(answer(host));
        assert_eq!(differences("l", &own, &told), []);
        let kept_off = json!({"identity": 1, "hasPolicy": false, "failure": "it would cut SSH"});
        let denied = End {
            verdict: EntryVerdict::Deny,
            ..own
        };
        let found = differences("l", &denied, &Told::Agent(answer(kept_off)));
        let what: Vec<&str> = found.iter().map(|one| one.what).collect();
        assert_eq!(what, ["verdict", "failure"]);
    }

    #[test]
    fn an_agent_that_is_up_to_date_or_ahead_agrees() {
        for changes in [json!({}), json!({"realisedRevision": 99})] {
            let told = Told::Agent(answer(changes));
            let found = differences("l", &end(Direction::Ingress, EntryVerdict::Allow), &told);
            assert_eq!(found, []);
            assert_eq!(agrees(&found, [&told]), Some(true));
        }
    }

    #[test]
    fn without_an_agent_the_maps_are_compared_and_without_both_nobody_knows() {
        let maps = Told::Maps {
            answer: answer(json!({"verdict": "deny", "realisedRevision": null})),
            why: "it does not run".into(),
        };
        let found = differences("l", &end(Direction::Egress, EntryVerdict::Allow), &maps);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].message,
            "node-2 denies what shop/database sends to shop/front, and the store's policies allow it; it \
             enforces what it had when its agent ended"
        );
        assert!(found[0].help.contains("lab agent start node-2"));
        let nothing = Told::Nothing { why: "gone".into() };
        let none = differences("l", &end(Direction::Egress, EntryVerdict::Allow), &nothing);
        assert_eq!(agrees(&none, [&nothing]), None);
        assert_eq!(agrees(&found, [&maps, &nothing]), Some(false));
    }
}
