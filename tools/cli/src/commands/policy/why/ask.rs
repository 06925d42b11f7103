//! What the nodes of both ends say: their agents, or where one does not run the maps that it left pinned.

use super::store::{Live, Wished};
use crate::failure::Failure;
use heddle_agent::{Held, MOST_CONNECTIONS, Question, Standing, look_up};
use heddle_datapath::{DatapathError, Pinned};
use heddle_flow::{FilterFlag, ObserveRequest, Response};
use heddle_model::Identity;
use heddle_policy::RuleRef;
use heddle_verify::{
    Cluster, Family, Holder, Named, Peer,
    why::{End, Realised, Reported},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr};

/// Flows of the pair that a node is asked for.
const FLOWS: u64 = 5;

/// What a node's datapath does with the packet, and how that was learnt.
pub(super) struct Reply {
    pub(super) told: Reported,
    /// As it was told; null when nobody could be asked.
    pub(super) answer: Value,
    /// Why the agent did not tell.
    pub(super) problem: Option<String>,
}

impl Reply {
    /// What an agent (without a problem) or its maps told.
    pub(super) fn of(answer: Value, problem: Option<String>) -> Self {
        let realised = realised(&answer);
        Self {
            told: match problem {
                None => Reported::Agent(realised),
                Some(_) => Reported::Maps(realised),
            },
            answer,
            problem,
        }
    }
}

impl Reply {
    /// Leaves out the connections of others: a range that an end stands for holds more addresses than the end.
    pub(super) fn keep_connections_of(
        &mut self,
        cluster: &Cluster,
        from: &Named,
        to: &Named,
        family: Family,
    ) {
        let is_of = |end: &Named, written: &Value| {
            let written = written
                .as_str()
                .and_then(|text| text.parse::<SocketAddr>().ok());
            let Some(address) = written.map(|it| it.ip()) else {
                return false;
            };
            match end.peer {
                Peer::Reserved(identity) if identity.is_world() => {
                    cluster.holder(address) == Holder::World
                }
                // Whoever has an identity and no address of its own.
                Peer::Reserved(_) => true,
                _ => end.peer.address(cluster, family) == Some(address),
            }
        };
        for place in ["/connections", "/recentConnections/latest"] {
            let connections = self.answer.pointer_mut(place);
            if let Some(connections) = connections.and_then(Value::as_array_mut) {
                connections
                    .retain(|it| is_of(from, &it["source"]) && is_of(to, &it["destination"]));
            }
        }
    }
}

fn realised(answer: &Value) -> Realised {
    Realised {
        endpoint: answer["endpoint"].as_u64(),
        identity: answer["identity"].as_u64(),
        has_policy: answer["hasPolicy"] != false,
        denied: answer["verdict"] != "allow",
        peer: answer["peer"]["identity"].as_u64(),
        revision: answer["realisedRevision"].as_u64(),
        failure: answer["failure"].as_str().map(str::to_owned),
    }
}

/// What a node's datapath does with the packet.
pub(super) fn standing(live: &Live, wished: &Wished, end: &End, question: &Question) -> Reply {
    let asked = live.agent(&end.node).and_then(|agent| agent.call(question));
    let failure = match asked {
        Ok(answer) => return Reply::of(answer, None),
        Err(failure) => failure,
    };
    match from_maps(live, wished, end, question) {
        Ok(answer) => Reply::of(answer, Some(failure.message)),
        Err(other) => Reply {
            told: Reported::Nothing,
            answer: Value::Null,
            problem: Some(format!("{}; {}", failure.message, other.message)),
        },
    }
}

/// The same from the pinned maps. Which rules a row is from is known only of the rules that the store has.
fn from_maps(
    live: &Live,
    wished: &Wished,
    end: &End,
    question: &Question,
) -> Result<Value, Failure> {
    let standing = match &live.dump {
        Some(dump) => dump.maps(&end.node)?.standing(question, &[]),
        None => standing_in_maps(live, end, question)?,
    };
    let mut answer = serde_json::to_value(&standing).unwrap_or_default();
    if let Some(row) = standing.row {
        let rules = rules_of(wished, end.identity, row.cookie);
        answer["rules"] = json!(rules);
    }
    Ok(answer)
}

fn standing_in_maps(live: &Live, end: &End, question: &Question) -> Result<Standing, Failure> {
    let config = live.agent_config(&end.node)?;
    let unreadable = |error: DatapathError| {
        Failure::new("datapath/unreadable", error.to_string()).object(end.node.as_str())
    };
    let maps = Pinned::open(&config.pin_dir).map_err(unreadable)?;
    let endpoints = maps.endpoints().map_err(unreadable)?;
    let held = Held {
        endpoints: &endpoints,
        peers: &maps.peers().map_err(unreadable)?,
        connections: &maps
            .connections(&|key| question.is_about(key), MOST_CONNECTIONS)
            .map_err(unreadable)?,
    };
    look_up(question, &held, |id| maps.policy(id)).map_err(unreadable)
}

/// The rules behind a cookie, which is the same for the same rules on every node.
fn rules_of(wished: &Wished, identity: Identity, cookie: u32) -> Vec<RuleRef> {
    let mut engine = wished.cluster.engine.clone();
    // Compiling is what gives cookies out.
    let _ = engine.compile(identity);
    engine.rules_of(cookie)
}

/// Filters of one end of the pair.
pub(super) struct FlowEnd {
    /// Its addresses; none for somebody who is known by identity alone.
    pub(super) addresses: Vec<String>,
    /// An identity, as filters take it.
    pub(super) identity: String,
}

/// The last flows of the pair, of each node that was asked and answers.
pub(super) fn flows(
    live: &Live,
    nodes: impl IntoIterator<Item = String>,
    from: &FlowEnd,
    to: &FlowEnd,
) -> BTreeMap<String, Vec<Response>> {
    let mut builder = heddle_flow::FilterBuilder::default();
    for (end, by_address, by_identity) in [
        (from, FilterFlag::FromIp, FilterFlag::FromIdentity),
        (to, FilterFlag::ToIp, FilterFlag::ToIdentity),
    ] {
        match end.addresses.as_slice() {
            [] => builder.add(by_identity, &end.identity, false),
            addresses => builder.add(by_address, &addresses.join(","), false),
        }
    }
    let Ok(filter) = builder.build() else {
        return BTreeMap::new();
    };
    let request = ObserveRequest {
        number: Some(FLOWS),
        whitelist: filter.whitelist,
        blacklist: filter.blacklist,
        ..ObserveRequest::default()
    };
    nodes
        .into_iter()
        .filter_map(|node| {
            let agent = live.agent(&node).ok()?;
            Some((node, agent.flows(&request).ok()?))
        })
        .collect()
}
