//! `policy.state`: what a node's datapath holds and its agent knows that bears on any question about policy, so that
//! questions can be answered later, and elsewhere.

use super::lookup::{Held, MOST_CONNECTIONS, Question, Standing, connections_about, look_up};
use super::tables::connection;
use crate::agent::{Agent, blocking};
use crate::directory::Directory;
use crate::endpoint::kernel_failure;
use crate::ledger::Ledger;
use heddle_abi::HOST_ENDPOINT;
use heddle_datapath::{
    ConnectionRows, Datapath, DatapathError, Facts, PeerRow, Pinned, RealisedPolicy,
};
use heddle_policy::{Direction, PolicyId, RuleRef};
use heddle_rpc::node::TrackedConnection;
use heddle_rpc::server::Reply;
use heddle_rpc::{ApiError, Call};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

/// The node among its endpoints, as the directory numbers them.
pub(super) const NODE: u16 = 0;

/// What the agent knows of an endpoint, or of its node, beside what the datapath holds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Known {
    /// The endpoint's addresses.
    addresses: Vec<IpAddr>,
    /// How it is.
    state: Option<String>,
    /// Why its policy could not be brought into force.
    failure: Option<String>,
    /// Store revision up to which its policy is in force.
    policy_revision: Option<u64>,
    /// The policies that isolate it.
    isolated_by: BTreeMap<Direction, Vec<PolicyId>>,
}

impl Known {
    pub(super) fn of(id: u16, ledger: &Ledger, directory: &Directory) -> Self {
        let endpoint = ledger.endpoints.get(id);
        let failure = match ledger.host.lock_outs().first() {
            Some(one) if id == NODE => Some(format!("it would cut {}", one.what)),
            _ => endpoint.and_then(|it| it.failure.clone()),
        };
        Self {
            addresses: endpoint
                .map(|it| it.record.addresses().collect())
                .unwrap_or_default(),
            state: endpoint.map(|it| it.state().to_owned()),
            failure,
            policy_revision: endpoint.map(|it| it.policy_revision),
            isolated_by: [Direction::Ingress, Direction::Egress]
                .into_iter()
                .map(|direction| (direction, directory.isolating(id, direction)))
                .collect(),
        }
    }

    /// The answer to `policy.lookup`.
    pub(super) fn answer(
        &self,
        standing: &Standing,
        direction: Direction,
        rules: Vec<RuleRef>,
        realised_revision: Option<u64>,
    ) -> Result<Value, serde_json::Error> {
        let mut answer = serde_json::to_value(standing)?;
        let isolated = self.isolated_by.get(&direction);
        answer["rules"] = json!(rules);
        answer["isolatedBy"] = json!(isolated.map(Vec::as_slice).unwrap_or_default());
        answer["state"] = json!(self.state);
        answer["failure"] = json!(self.failure);
        answer["policyRevision"] = json!(self.policy_revision);
        answer["realisedRevision"] = json!(realised_revision);
        Ok(answer)
    }
}

/// Everything that answers a [`Question`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyState {
    /// Facts of the node's endpoints.
    endpoints: Vec<Facts>,
    /// The ipcache.
    peers: Vec<PeerRow>,
    /// Policies by endpoint; the node's own under [`HOST_ENDPOINT`].
    policies: BTreeMap<u16, RealisedPolicy>,
    /// Tracked connections, where `bpf.ct` does not tell them.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "those_that_fit"
    )]
    connections: Vec<TrackedConnection>,
    /// The rules behind the cookies of the policies' rows.
    rules: BTreeMap<u32, Vec<RuleRef>>,
    /// What the agent knows of endpoints, and of its node as endpoint 0.
    known: BTreeMap<u16, Known>,
    /// Store revision that is in force; `None` without an agent.
    realised_revision: Option<u64>,
}

fn those_that_fit<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TrackedConnection>, D::Error> {
    Vec::deserialize(from).map(TrackedConnection::each_that_fits)
}

impl PolicyState {
    /// What a node's pinned maps say, without its agent.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn of_maps(maps: &Pinned) -> Result<Self, DatapathError> {
        let endpoints = maps.endpoints()?;
        let connections = maps.connections(&|_| true, MOST_CONNECTIONS)?;
        Ok(Self {
            policies: policies(&endpoints, |id| maps.policy(id))?,
            peers: maps.peers()?,
            connections: connections.rows.iter().map(connection).collect(),
            endpoints,
            ..Self::default()
        })
    }

    /// What a node's running datapath says.
    fn of_datapath(datapath: &dyn Datapath) -> Result<Self, DatapathError> {
        let endpoints = datapath.endpoints()?.into_iter();
        let endpoints: Vec<Facts> = endpoints.map(|it| it.facts).collect();
        Ok(Self {
            policies: policies(&endpoints, |id| datapath.policy(id))?,
            peers: datapath.peers()?,
            endpoints,
            ..Self::default()
        })
    }

    /// What the datapath does with a packet; `connections` are those that `bpf.ct` told.
    pub fn standing(&self, question: &Question, connections: &[TrackedConnection]) -> Standing {
        let held = Held {
            endpoints: &self.endpoints,
            peers: &self.peers,
            connections: &ConnectionRows::default(),
        };
        let without = RealisedPolicy {
            generation: 0,
            audit: false,
            entries: None,
            aliases: Vec::new(),
        };
        let policy = |id| Ok(self.policies.get(&id).unwrap_or(&without).clone());
        let mut standing = match look_up::<Infallible>(question, &held, policy) {
            Ok(standing) => standing,
            Err(never) => match never {},
        };
        // What `bpf.ct` told has no counts of packets.
        standing.recent_connections.complete = false;
        let rows = self.connections.iter().chain(connections);
        standing.connections = connections_about(rows, question);
        standing
    }

    /// The answer to `policy.lookup` as the agent would have given it.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON.
    pub fn answer(
        &self,
        question: &Question,
        connections: &[TrackedConnection],
    ) -> Result<Value, serde_json::Error> {
        let standing = self.standing(question, connections);
        let known = match question.address {
            None => self.known.get(&NODE),
            Some(address) => {
                let mut known = self.known.values();
                known.find(|one| one.addresses.contains(&address))
            }
        };
        let rules = standing
            .row
            .and_then(|row| self.rules.get(&row.cookie).cloned());
        known.unwrap_or(&Known::default()).answer(
            &standing,
            question.direction,
            rules.unwrap_or_default(),
            self.realised_revision,
        )
    }
}

/// The policies of these endpoints and of the node.
fn policies<E>(
    endpoints: &[Facts],
    policy: impl Fn(u16) -> Result<RealisedPolicy, E>,
) -> Result<BTreeMap<u16, RealisedPolicy>, E> {
    let ids = endpoints.iter().map(|facts| facts.endpoint);
    ids.chain([HOST_ENDPOINT as u16])
        .map(|id| Ok((id, policy(id)?)))
        .collect()
}

/// `policy.state`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadPolicyState {}

impl Call for ReadPolicyState {
    const METHOD: &'static str = "policy.state";
    type Answer = PolicyState;
}

/// `policy.state`.
pub(super) async fn state(agent: &Arc<Agent>) -> Result<Reply, ApiError> {
    let directory = Arc::clone(&agent.directory);
    let known = agent
        .on_ledger(move |ledger| {
            let ids = ledger.endpoints.iter().map(|(id, _)| id).chain([NODE]);
            ids.map(|id| (id, Known::of(id, ledger, &directory)))
                .collect()
        })
        .await;
    let (datapath, directory) = (Arc::clone(&agent.datapath), Arc::clone(&agent.directory));
    let realised_revision = Some(agent.health.realised_revision());
    blocking(move || {
        let mut state =
            PolicyState::of_datapath(&*datapath).map_err(|error| kernel_failure(&error))?;
        let cookies: BTreeSet<u32> = state
            .policies
            .values()
            .flat_map(|policy| policy.entries.iter().flatten())
            .map(|entry| entry.cookie)
            .collect();
        state.rules = cookies
            .into_iter()
            .map(|cookie| (cookie, directory.rules_of(cookie)))
            .collect();
        state.known = known;
        state.realised_revision = realised_revision;
        Reply::one::<ReadPolicyState>(&state)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AskedPeer;
    use heddle_model::Identity;
    use heddle_policy::{Entry, EntryKey, EntryVerdict};
    use heddle_rpc::node::ConnectionState;

    fn state() -> PolicyState {
        let facts = Facts {
            endpoint: 7,
            ifindex: 17,
            ipv4: Some([10, 244, 0, 5].into()),
            ipv6: None,
            identity: Identity(300),
            cidr_ipv4: Identity::UNKNOWN,
            cidr_ipv6: Identity::UNKNOWN,
            mac: [0; 6],
            host_mac: [0; 6],
        };
        let entry = Entry {
            key: EntryKey {
                direction: Direction::Egress,
                identity: Identity::WORLD,
                protocol: 6,
                port: 80,
                port_prefix: 16,
            },
            verdict: EntryVerdict::Allow,
            precedence: 1,
            cookie: 9,
        };
        let policy = |entries| RealisedPolicy {
            generation: 3,
            audit: false,
            entries,
            aliases: Vec::new(),
        };
        let rule = json!({"kind": "NetworkPolicy", "namespace": "n", "name": "p", "section": "egress", "index": 0, "action": "allow"});
        let isolating = json!({"kind": "NetworkPolicy", "namespace": "n", "name": "p"});
        PolicyState {
            endpoints: vec![facts],
            peers: vec![PeerRow {
                prefix: "0.0.0.0/0".parse().unwrap(),
                identity: Identity::WORLD,
                cidr: Identity::UNKNOWN,
                node: None,
                in_cluster: false,
                is_node: false,
            }],
            policies: [
                (7, policy(Some(vec![entry]))),
                (HOST_ENDPOINT as u16, policy(None)),
            ]
            .into(),
            connections: Vec::new(),
            rules: [(9, vec![serde_json::from_value(rule).unwrap()])].into(),
            known: [
                (
                    NODE,
                    Known {
                        failure: Some("it would cut SSH".to_owned()),
                        ..Known::default()
                    },
                ),
                (
                    7,
                    Known {
                        addresses: vec!["10.244.0.5".parse().unwrap()],
                        state: Some("ready".to_owned()),
                        failure: None,
                        policy_revision: Some(40),
                        isolated_by: [(
                            Direction::Egress,
                            vec![serde_json::from_value(isolating).unwrap()],
                        )]
                        .into(),
                    },
                ),
            ]
            .into(),
            realised_revision: Some(42),
        }
    }

    fn ask(address: Option<&str>, port: u16) -> Question {
        Question {
            address: address.map(|text| text.parse().unwrap()),
            direction: Direction::Egress,
            peer: AskedPeer::Range("203.0.113.1/32".parse().unwrap()),
            protocol: 6,
            port,
        }
    }

    #[test]
    fn a_state_that_was_written_and_read_gives_the_same_answers() {
        let state = state();
        let text = serde_json::to_string(&state).unwrap();
        let read: PolicyState = serde_json::from_str(&text).unwrap();
        assert_eq!(read, state);
        let connection = |source: &str| TrackedConnection {
            protocol: "TCP".to_owned(),
            source: source.parse().unwrap(),
            destination: "203.0.113.1:80".parse().unwrap(),
            state: ConnectionState::New,
            source_identity: Identity(300),
            destination_identity: Identity::WORLD,
            egress: None,
            ingress: None,
            packets: [1, 0],
            bytes: [60, 0],
            tcp_flags: [2, 0],
            remaining_seconds: 5,
        };
        let connections = [connection("10.244.0.5:4000"), connection("10.244.0.6:4000")];
        let answer = read
            .answer(&ask(Some("10.244.0.5"), 80), &connections)
            .unwrap();
        assert_eq!(answer["verdict"], "allow");
        assert_eq!(answer["rules"][0]["name"], "p");
        assert_eq!(answer["isolatedBy"][0]["name"], "p");
        assert_eq!(
            (&answer["state"], &answer["failure"]),
            (&json!("ready"), &Value::Null)
        );
        assert_eq!(
            (&answer["policyRevision"], &answer["realisedRevision"]),
            (&json!(40), &json!(42))
        );
        assert_eq!(answer["connections"], json!([connections[0]]));
    }

    #[test]
    fn what_a_state_does_not_have_is_as_in_a_datapath_without_it() {
        let state = state();
        let other_port = state.answer(&ask(Some("10.244.0.5"), 81), &[]).unwrap();
        assert_eq!(
            (&other_port["verdict"], &other_port["rules"]),
            (&json!("deny"), &json!([]))
        );
        let stranger = state.answer(&ask(Some("10.244.0.9"), 80), &[]).unwrap();
        assert_eq!(
            (&stranger["endpoint"], &stranger["state"]),
            (&Value::Null, &Value::Null)
        );
        let node = state.answer(&ask(None, 80), &[]).unwrap();
        assert_eq!(
            (&node["verdict"], &node["failure"]),
            (&json!("allow"), &json!("it would cut SSH"))
        );
        let empty = PolicyState::default().answer(&ask(None, 80), &[]).unwrap();
        assert_eq!(empty["hasPolicy"], false);
    }
}
