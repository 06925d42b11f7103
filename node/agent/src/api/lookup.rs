//! What the datapath does with one packet: the row that decides, whom it takes the peer for, and the
//! connection it belongs to.

use super::state::{Known, NODE};
use super::tables::{TCP_RST, connection, ends_of, port_range, protocol_name};
use crate::agent::{Agent, blocking};
use crate::endpoint::kernel_failure;
use heddle_abi::{
    CT_CLOSING, CT_SEEN_REPLY, ConnectionKey, HOST_ENDPOINT, LIFETIME_CLOSING, LIFETIME_OTHER,
    LIFETIME_RESET, LIFETIME_SYN, LIFETIME_TCP,
};
use heddle_datapath::{ConnectionRow, ConnectionRows, Facts, PeerRow, RealisedPolicy};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction, Entry, EntryVerdict};
use heddle_rpc::node::TrackedConnection;
use heddle_rpc::{ApiError, Call, error_codes};
use heddle_verify::path::Tracked;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// Connections of one question that are looked through at most.
pub const MOST_CONNECTIONS: usize = 131_072;
/// Connections that are told at most.
const TOLD: usize = 5;
/// Connections whose answers are told of at most.
const MOST_RECENT: usize = 64;
const TCP: u8 = 6;
const TCP_ACK: u8 = 0x10;

/// The other end of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AskedPeer {
    /// An address, or a range: the finest ipcache row that covers all of it counts.
    Range(IpNet),
    /// Somebody with this identity and no known address.
    Identity(Identity),
}

/// A packet that opens a connection, seen from one of its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Address of the pod whose policy is asked; `None`: the node's own.
    pub address: Option<IpAddr>,
    /// Egress when that one sends it.
    pub direction: Direction,
    /// The other end.
    pub peer: AskedPeer,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; for ICMP the message type.
    pub port: u16,
}

/// Whom the datapath takes the peer for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundPeer {
    /// The ipcache row that counts; for a pod of the same node its address.
    pub prefix: Option<IpNet>,
    /// Security identity.
    pub identity: Identity,
    /// CIDR identity; 0 for none.
    pub cidr: Identity,
    /// Underlay address of the node that holds it.
    pub node: Option<IpAddr>,
}

/// What the datapath does with the packet.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Endpoint id; `None` when the node's datapath has no pod at this address.
    pub endpoint: Option<u16>,
    /// The identity that the programs give the pod.
    pub identity: Option<Identity>,
    /// Generation of its policy.
    pub generation: u32,
    /// Whether it has a policy map. Without one everything of a pod is dropped, and nothing of a node is evaluated.
    pub has_policy: bool,
    /// Whether what its policy denies is told and passes.
    pub audit: bool,
    /// Whom it takes the peer for; `None` when no ipcache row covers it.
    pub peer: Option<FoundPeer>,
    /// The row that decides; without one the packet is dropped.
    #[serde(serialize_with = "printed_row")]
    pub row: Option<Entry>,
    /// What happens to the packet, as far as this end's policy goes.
    pub verdict: EntryVerdict,
    /// Tracked connections of the two ends by this protocol and port.
    pub connections: Vec<TrackedConnection>,
    /// The same connections, those with the latest packets, each with whether it was answered.
    pub recent_connections: RecentConnections,
}

/// Tracked connections of the two ends that had a packet lately.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecentConnections {
    /// The latest first.
    pub latest: Vec<Tracked>,
    /// Whether those are all.
    pub complete: bool,
    /// Whether those are the latest of all, though there are more.
    #[serde(default)]
    pub latest_of_all: bool,
}

impl RecentConnections {
    /// `all`: the rows are of every connection there is.
    fn of<'a>(rows: impl Iterator<Item = &'a ConnectionRow>, all: bool) -> Self {
        let mut latest: Vec<Tracked> = rows.map(tracked).collect();
        latest.sort_by_key(|it| it.idle_seconds);
        let all_fit = latest.len() <= MOST_RECENT;
        latest.truncate(MOST_RECENT);
        Self {
            latest,
            complete: all && all_fit,
            latest_of_all: all && !all_fit,
        }
    }
}

fn printed_row<S: serde::Serializer>(row: &Option<Entry>, to: S) -> Result<S::Ok, S::Error> {
    row.map(|entry| {
        json!({
            "identity": entry.key.identity,
            "protocol": protocol_name(entry.key.protocol),
            "port": port_range(entry.key.protocol, entry.key.port, entry.key.port_prefix),
            "verdict": entry.verdict,
            "precedence": entry.precedence,
            "cookie": entry.cookie,
        })
    })
    .serialize(to)
}

/// What a datapath holds that bears on a question.
pub struct Held<'a> {
    /// Facts of the node's endpoints.
    pub endpoints: &'a [Facts],
    /// The ipcache.
    pub peers: &'a [PeerRow],
    /// Tracked connections of the two ends, or of more.
    pub connections: &'a ConnectionRows,
}

/// Answers a question as the programs would; `policy` reads an endpoint's policy.
///
/// # Errors
///
/// When `policy` fails.
pub fn look_up<E>(
    question: &Question,
    held: &Held<'_>,
    policy: impl FnOnce(u16) -> Result<RealisedPolicy, E>,
) -> Result<Standing, E> {
    let peer = peer_of(question.peer, held);
    let connections = || {
        let all = held.connections.rows.iter();
        all.filter(|row| is_about(row, question))
    };
    let mut standing = Standing {
        endpoint: None,
        identity: None,
        generation: 0,
        has_policy: false,
        audit: false,
        peer,
        row: None,
        verdict: EntryVerdict::Deny,
        connections: connections().take(TOLD).map(connection).collect(),
        recent_connections: RecentConnections::of(connections(), held.connections.left_out == 0),
    };
    let (endpoint, identity) = match question.address {
        None => (HOST_ENDPOINT as u16, Identity::HOST),
        Some(address) => {
            let mut endpoints = held.endpoints.iter();
            match endpoints.find(|facts| has_address(facts, address)) {
                Some(facts) => (facts.endpoint, facts.identity),
                None => return Ok(standing),
            }
        }
    };
    standing.endpoint = Some(endpoint);
    standing.identity = Some(identity);
    let realised = policy(endpoint)?;
    standing.generation = realised.generation;
    let Some(entries) = realised.entries else {
        if question.address.is_none() {
            standing.verdict = EntryVerdict::Allow;
        }
        return Ok(standing);
    };
    standing.has_policy = true;
    standing.audit = realised.audit;
    let rows = CompiledPolicy {
        audit: realised.audit,
        // The rows alone are the whole truth.
        ingress_enforced: true,
        egress_enforced: true,
        entries,
        aliases: realised.aliases,
    };
    if let Some(peer) = peer {
        standing.row = rows.lookup(
            question.direction,
            peer.identity,
            peer.cidr,
            question.protocol,
            question.port,
        );
    }
    standing.verdict = standing.row.map_or(EntryVerdict::Deny, |row| row.verdict);
    Ok(standing)
}

pub(super) fn has_address(facts: &Facts, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => facts.ipv4 == Some(v4),
        IpAddr::V6(v6) => facts.ipv6 == Some(v6),
    }
}

/// The programs look among the node's own pods first, and then into the ipcache.
fn peer_of(asked: AskedPeer, held: &Held<'_>) -> Option<FoundPeer> {
    let range = match asked {
        AskedPeer::Identity(identity) => {
            return Some(FoundPeer {
                prefix: None,
                identity,
                cidr: Identity::UNKNOWN,
                node: None,
            });
        }
        AskedPeer::Range(range) => range,
    };
    let here = held.endpoints.iter().find(|facts| {
        range.prefix_len() == range.max_prefix_len() && has_address(facts, range.addr())
    });
    if let Some(facts) = here {
        return Some(FoundPeer {
            prefix: Some(range),
            identity: facts.identity,
            cidr: match range {
                IpNet::V4(_) => facts.cidr_ipv4,
                IpNet::V6(_) => facts.cidr_ipv6,
            },
            node: None,
        });
    }
    held.peers
        .iter()
        .filter(|row| row.prefix.contains(&range))
        .max_by_key(|row| row.prefix.prefix_len())
        .map(|row| FoundPeer {
            prefix: Some(row.prefix),
            identity: row.identity,
            cidr: row.cidr,
            node: row.node,
        })
}

/// Whether a connection that lives is one of the question's.
fn is_about(row: &ConnectionRow, question: &Question) -> bool {
    row.remaining_seconds > 0 && question.is_about(&row.key)
}

impl Question {
    /// Whether a connection with this key is one of the two ends by this protocol and port.
    pub fn is_about(&self, key: &ConnectionKey) -> bool {
        let sides = [
            (IpAddr::from(key.low), u16::from_be(key.low_port)),
            (IpAddr::from(key.high), u16::from_be(key.high_port)),
        ];
        key.protocol == self.protocol && is_between(sides, self)
    }
}

/// The same of a connection as it is listed.
fn is_listed_about(row: &TrackedConnection, question: &Question) -> bool {
    let sides = [row.source, row.destination].map(|side| (side.ip(), side.port()));
    row.remaining_seconds > 0
        && row.protocol == protocol_name(question.protocol)
        && is_between(sides, question)
}

/// Whether a connection with these two sides, in either order, is one of the question's pair and port.
fn is_between([one, two]: [(IpAddr, u16); 2], question: &Question) -> bool {
    let AskedPeer::Range(range) = question.peer else {
        return false;
    };
    let is_pair =
        |own: IpAddr, other: IpAddr| question.address == Some(own) && range.contains(&other);
    // For ICMP the key's ports are not the message type.
    let is_icmp = matches!(question.protocol, 1 | 58);
    let port_fits = |destination: (IpAddr, u16)| is_icmp || destination.1 == question.port;
    [(one, two), (two, one)].into_iter().any(|(own, other)| {
        is_pair(own.0, other.0)
            && match question.direction {
                Direction::Egress => port_fits(other),
                Direction::Ingress => port_fits(own),
            }
    })
}

/// Listed connections that a question is about, as many as [`look_up`] tells.
pub(super) fn connections_about<'a>(
    rows: impl Iterator<Item = &'a TrackedConnection>,
    question: &Question,
) -> Vec<TrackedConnection> {
    rows.filter(|row| is_listed_about(row, question))
        .take(TOLD)
        .cloned()
        .collect()
}

fn tracked(row: &ConnectionRow) -> Tracked {
    let entry = &row.entry;
    let (source, destination) = ends_of(row);
    let answered = entry.flags & CT_SEEN_REPLY != 0;
    let closing = entry.flags & CT_CLOSING != 0;
    let is_reset = (entry.tcp_flags[0] | entry.tcp_flags[1]) & TCP_RST != 0;
    let lifetime = match row.key.protocol {
        TCP if closing => LIFETIME_CLOSING,
        TCP if is_reset => LIFETIME_RESET,
        TCP if answered && entry.tcp_flags[0] & TCP_ACK != 0 => LIFETIME_TCP,
        TCP => LIFETIME_SYN,
        _ => LIFETIME_OTHER,
    };
    Tracked {
        source,
        destination,
        packets: entry.packets,
        // A reset answers, too.
        answered: answered || entry.packets[1] > 0,
        idle_seconds: lifetime.saturating_sub(row.remaining_seconds),
    }
}

impl Call for Question {
    const METHOD: &'static str = "policy.lookup";
    /// A [`Standing`] with what the agent knows: see [`Known::answer`].
    type Answer = Value;
}

/// `policy.lookup`: answered by this node's datapath, with what the agent knows about it.
pub(super) async fn lookup(agent: &Arc<Agent>, question: Question) -> Result<Value, ApiError> {
    let datapath = Arc::clone(&agent.datapath);
    let standing = blocking(move || {
        let endpoints: Vec<Facts> = datapath
            .endpoints()?
            .into_iter()
            .map(|it| it.facts)
            .collect();
        let held = Held {
            endpoints: &endpoints,
            peers: &datapath.peers()?,
            connections: &datapath.connections(&|key| question.is_about(key), MOST_CONNECTIONS)?,
        };
        look_up(&question, &held, |id| datapath.policy(id))
    })
    .await
    .map_err(|error| kernel_failure(&error))?;
    let rules = standing.row.map(|row| agent.directory.rules_of(row.cookie));
    let known = match question.address {
        None => Some(NODE),
        Some(address) => agent.directory.endpoint_at(address),
    };
    let known = match known {
        None => Known::default(),
        Some(id) => {
            let directory = Arc::clone(&agent.directory);
            agent
                .on_ledger(move |ledger| Known::of(id, ledger, &directory))
                .await
        }
    };
    let revision = agent.health.realised_revision();
    known
        .answer(
            &standing,
            question.direction,
            rules.unwrap_or_default(),
            Some(revision),
        )
        .map_err(|error| ApiError::new(error_codes::BAD_ANSWER, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_policy::compiled::{EntryKey, PRECEDENCE_ALLOW, PRECEDENCE_DENY};

    fn facts(endpoint: u16, ipv4: &str, identity: u32, cidr: u32) -> Facts {
        Facts {
            endpoint,
            ifindex: u32::from(endpoint) + 10,
            ipv4: Some(ipv4.parse().unwrap()),
            ipv6: None,
            identity: Identity(identity),
            cidr_ipv4: Identity(cidr),
            cidr_ipv6: Identity::UNKNOWN,
            mac: [0; 6],
            host_mac: [0; 6],
        }
    }

    fn peer_row(prefix: &str, identity: u32, cidr: u32) -> PeerRow {
        PeerRow {
            prefix: prefix.parse().unwrap(),
            identity: Identity(identity),
            cidr: Identity(cidr),
            node: None,
            in_cluster: false,
            is_node: false,
        }
    }

    fn row(identity: u32, verdict: EntryVerdict, cookie: u32) -> Entry {
        Entry {
            key: EntryKey {
                direction: Direction::Egress,
                identity: Identity(identity),
                protocol: 6,
                port: 80,
                port_prefix: 16,
            },
            verdict,
            precedence: match verdict {
                EntryVerdict::Allow => PRECEDENCE_ALLOW,
                EntryVerdict::Deny => PRECEDENCE_DENY,
            },
            cookie,
        }
    }

    fn ask(peer: AskedPeer, port: u16, policy: Option<Vec<Entry>>) -> Standing {
        let (endpoints, peers) = (
            [
                facts(7, "10.244.0.5", 300, 0),
                facts(8, "10.244.0.6", 301, 900),
            ],
            [
                peer_row("0.0.0.0/0", 9, 0),
                peer_row("198.51.100.0/24", 9, 901),
                peer_row("198.51.100.7/32", 9, 902),
            ],
        );
        let held = Held {
            endpoints: &endpoints,
            peers: &peers,
            connections: &ConnectionRows::default(),
        };
        let question = Question {
            address: Some("10.244.0.5".parse().unwrap()),
            direction: Direction::Egress,
            peer,
            protocol: 6,
            port,
        };
        look_up(&question, &held, |id| {
            assert_eq!(id, 7);
            Ok::<_, ()>(RealisedPolicy {
                generation: 3,
                audit: false,
                entries: policy,
                aliases: Vec::new(),
            })
        })
        .unwrap()
    }

    #[test]
    fn the_row_is_found_as_the_programs_find_it() {
        let mut rows = vec![
            row(9, EntryVerdict::Allow, 1),
            row(901, EntryVerdict::Deny, 2),
            row(301, EntryVerdict::Allow, 3),
            row(900, EntryVerdict::Deny, 4),
        ];
        rows.sort_unstable();
        for (prefix, port, cookie, verdict) in [
            // Anybody outside: the identity's row.
            ("203.0.113.1/32", 80, Some(1), EntryVerdict::Allow),
            ("0.0.0.0/0", 80, Some(1), EntryVerdict::Allow),
            ("203.0.113.1/32", 81, None, EntryVerdict::Deny),
            // The longest prefix counts, and a deny for it beats the identity's allow.
            ("198.51.100.9/32", 80, Some(2), EntryVerdict::Deny),
            ("198.51.100.7/32", 80, Some(1), EntryVerdict::Allow),
            // A pod of this node is known by its facts, not by the ipcache.
            ("10.244.0.6/32", 80, Some(4), EntryVerdict::Deny),
        ] {
            let range = AskedPeer::Range(prefix.parse().unwrap());
            let found = ask(range, port, Some(rows.clone()));
            assert_eq!(
                (found.row.map(|row| row.cookie), found.verdict),
                (cookie, verdict),
                "{prefix} {port}"
            );
            assert_eq!((found.endpoint, found.generation), (Some(7), 3));
        }
        let by_identity = ask(AskedPeer::Identity(Identity(301)), 80, Some(rows));
        assert_eq!(by_identity.row.map(|row| row.cookie), Some(3));
    }

    #[test]
    fn without_a_map_or_a_peer_everything_is_dropped() {
        let world = AskedPeer::Range("203.0.113.1/32".parse().unwrap());
        let no_map = ask(world, 80, None);
        assert_eq!(
            (no_map.has_policy, no_map.verdict),
            (false, EntryVerdict::Deny)
        );
        let rows = vec![row(0, EntryVerdict::Allow, 1)];
        let unknown = ask(
            AskedPeer::Range("2001:db8::1/128".parse().unwrap()),
            80,
            Some(rows),
        );
        assert_eq!((unknown.peer, unknown.verdict), (None, EntryVerdict::Deny));
    }

    #[test]
    fn a_node_is_evaluated_only_where_it_has_a_policy() {
        let held = Held {
            endpoints: &[],
            peers: &[peer_row("0.0.0.0/0", 9, 0)],
            connections: &ConnectionRows::default(),
        };
        let question = Question {
            address: None,
            direction: Direction::Egress,
            peer: AskedPeer::Range("203.0.113.1/32".parse().unwrap()),
            protocol: 6,
            port: 80,
        };
        for (entries, verdict) in [
            (None, EntryVerdict::Allow),
            (Some(vec![]), EntryVerdict::Deny),
            (
                Some(vec![row(9, EntryVerdict::Allow, 1)]),
                EntryVerdict::Allow,
            ),
        ] {
            let has_policy = entries.is_some();
            let found = look_up(&question, &held, |id| {
                assert_eq!(u32::from(id), HOST_ENDPOINT);
                Ok::<_, ()>(RealisedPolicy {
                    generation: 1,
                    audit: false,
                    entries,
                    aliases: Vec::new(),
                })
            })
            .unwrap();
            assert_eq!((found.has_policy, found.verdict), (has_policy, verdict));
        }
    }

    #[test]
    fn an_address_that_no_pod_has_is_no_endpoint() {
        let held = Held {
            endpoints: &[],
            peers: &[],
            connections: &ConnectionRows::default(),
        };
        let question = Question {
            address: Some("10.244.0.9".parse().unwrap()),
            direction: Direction::Ingress,
            peer: AskedPeer::Identity(Identity::HOST),
            protocol: 17,
            port: 53,
        };
        let found = look_up(&question, &held, |_| {
            Err::<RealisedPolicy, _>("nothing to be read")
        });
        assert_eq!(found.map(|found| found.endpoint), Ok(None));
    }

    #[test]
    fn recent_connections_are_told_with_who_opened_them_and_when_their_last_packet_was() {
        use heddle_abi::{Address, CT_INITIATOR_IS_LOW, ConnectionEntry, ConnectionKey};
        let (low, high): (IpAddr, IpAddr) =
            ("10.244.0.5".parse().unwrap(), "10.244.0.6".parse().unwrap());
        let row = |protocol: u8, flags: u8, tcp_flags: [u8; 2], remaining_seconds| ConnectionRow {
            key: ConnectionKey {
                low: Address::from(low),
                high: Address::from(high),
                low_port: 80_u16.to_be(),
                high_port: 40_000_u16.to_be(),
                protocol,
                ..ConnectionKey::default()
            },
            entry: ConnectionEntry {
                flags,
                tcp_flags,
                packets: [3, 0],
                ..ConnectionEntry::default()
            },
            remaining_seconds,
        };
        let (syn, ack) = (2, 0x10);
        for (row, answered, idle) in [
            (row(6, 0, [syn, 0], 55), false, 5),
            (row(6, CT_SEEN_REPLY, [syn, syn | ack], 58), true, 2),
            (
                row(6, CT_SEEN_REPLY, [syn | ack, syn | ack], 7_990),
                true,
                10,
            ),
            (
                row(6, CT_SEEN_REPLY, [syn | ack, syn | ack | TCP_RST], 239),
                true,
                1,
            ),
            (
                row(6, CT_SEEN_REPLY | CT_CLOSING, [syn | ack, ack], 9),
                true,
                1,
            ),
            (row(17, 0, [0, 0], 20), false, 40),
        ] {
            let found = tracked(&row);
            assert_eq!(
                (found.answered, found.idle_seconds),
                (answered, idle),
                "{row:?}"
            );
            assert_eq!(found.source.to_string(), "10.244.0.6:40000");
            assert_eq!(found.destination.to_string(), "10.244.0.5:80");
        }
        let opened_by_low = row(17, CT_INITIATOR_IS_LOW, [0, 0], 20);
        assert_eq!(tracked(&opened_by_low).source.to_string(), "10.244.0.5:80");
        let many: Vec<ConnectionRow> = (1..=60)
            .cycle()
            .take(70)
            .map(|left| row(17, 0, [0, 0], left))
            .collect();
        let recent = RecentConnections::of(many.iter(), true);
        assert_eq!((recent.latest.len(), recent.complete), (MOST_RECENT, false));
        assert_eq!(recent.latest[0].idle_seconds, 0);
        for (rows, all, complete, latest_of_all) in [
            (&many[..3], true, true, false),
            (&many[..], true, false, true),
            // A table was cut: there may be any among the rest.
            (&many[..3], false, false, false),
            (&many[..], false, false, false),
        ] {
            let recent = RecentConnections::of(rows.iter(), all);
            let told = (recent.complete, recent.latest_of_all);
            assert_eq!(told, (complete, latest_of_all), "{} {all}", rows.len());
        }
    }

    #[test]
    fn a_connection_belongs_to_the_question_by_its_pair_protocol_and_port() {
        use heddle_abi::{Address, ConnectionEntry, ConnectionKey};
        let (client, server): (IpAddr, IpAddr) =
            ("10.244.0.5".parse().unwrap(), "10.244.0.6".parse().unwrap());
        let row = |protocol: u8, server_port: u16, remaining_seconds| ConnectionRow {
            key: ConnectionKey {
                low: Address::from(client),
                high: Address::from(server),
                low_port: 40_000_u16.to_be(),
                high_port: server_port.to_be(),
                protocol,
                ..ConnectionKey::default()
            },
            entry: ConnectionEntry::default(),
            remaining_seconds,
        };
        let question = |address, peer: IpAddr, direction| Question {
            address: Some(address),
            direction,
            peer: AskedPeer::Range(peer.into()),
            protocol: 6,
            port: 80,
        };
        let sending = question(client, server, Direction::Egress);
        let receiving = question(server, client, Direction::Ingress);
        let backwards = question(server, client, Direction::Egress);
        for (row, expected) in [
            (row(6, 80, 9), [true, true, false]),
            (row(6, 81, 9), [false, false, false]),
            (row(17, 80, 9), [false, false, false]),
            (row(6, 80, 0), [false, false, false]),
        ] {
            let told = [sending, receiving, backwards].map(|question| is_about(&row, &question));
            assert_eq!(told, expected, "{row:?}");
            let listed = connection(&row);
            let told =
                [sending, receiving, backwards].map(|question| is_listed_about(&listed, &question));
            assert_eq!(told, expected, "{listed:?}");
        }
    }
}
