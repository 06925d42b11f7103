//! What this node's kernel says of the way between one of its ends and the peer.

use super::lookup::{AskedPeer, has_address};
use crate::agent::{Agent, blocking};
use crate::endpoint::kernel_failure;
use heddle_datapath::{Facts, PathPod, PathQuestion, PeerRow};
use heddle_rpc::{ApiError, Call};
use heddle_verify::path::{Observed, Place, Route, Seen};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Addresses that stand for all that is outside: what covers all covers them, and no packet is sent to them. First those of
/// a.root-servers.net (IANA's root hints), which every network with a way to the outside leads there; then some that nobody
/// has (RFC 5737, RFC 3849), which many networks drop by a route of their own.
const OUTSIDE_IPV4: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 41, 0, 4), Ipv4Addr::new(192, 0, 2, 1)];
const OUTSIDE_IPV6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
];

/// A connection, seen from one of its ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedPath {
    /// The end's address.
    pub own: Option<IpAddr>,
    /// The end is the node, or a pod in its network.
    pub is_node: bool,
    /// The other end.
    pub peer: AskedPeer,
    /// Whether the end is the destination.
    pub receives: bool,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
}

/// The peer's address, or several each of which stands for it; and where the datapath takes it to be.
fn place_of(peer: AskedPeer, endpoints: &[Facts], peers: &[PeerRow]) -> (Vec<IpAddr>, Place) {
    let AskedPeer::Range(range) = peer else {
        return (Vec::new(), Place::Unknown);
    };
    if range.prefix_len() != range.max_prefix_len() {
        let stand_for_it = match range {
            IpNet::V4(_) => OUTSIDE_IPV4.map(IpAddr::V4),
            IpNet::V6(_) => OUTSIDE_IPV6.map(IpAddr::V6),
        };
        return (stand_for_it.into(), Place::Outside);
    }
    let address = range.addr();
    if endpoints.iter().any(|it| has_address(it, address)) {
        return (vec![address], Place::Pod);
    }
    let rows = peers.iter().filter(|row| row.prefix.contains(&address));
    let place = match rows.max_by_key(|row| row.prefix.prefix_len()) {
        Some(row) if row.is_node && row.node.is_none() => Place::ThisNode,
        Some(row) if row.is_node => Place::RemoteNode {
            node: row.node.unwrap_or(address),
        },
        Some(row) if row.in_cluster => match row.node {
            Some(node) => Place::RemotePod { node },
            None => Place::Unknown,
        },
        _ => Place::Outside,
    };
    (vec![address], place)
}

/// What is seen of the first of these addresses to which there is a route, else of the first: one that stands for all that
/// is outside may have a route of its own that leads nowhere.
fn of_first_with_route<E>(
    addresses: &[IpAddr],
    mut look: impl FnMut(Option<IpAddr>) -> Result<Seen, E>,
) -> Result<Seen, E> {
    let Some((first, others)) = addresses.split_first() else {
        return look(None);
    };
    let seen = look(Some(*first))?;
    if has_route(&seen) {
        return Ok(seen);
    }
    for other in others {
        let of_other = look(Some(*other))?;
        if has_route(&of_other) {
            return Ok(of_other);
        }
    }
    Ok(seen)
}

/// Whether no route to the peer is refused, on the node and inside the pod.
fn has_route(seen: &Seen) -> bool {
    let inside = seen.inside.as_ref().and_then(Observed::seen);
    let inside = inside.and_then(|inside| inside.to_peer.as_ref());
    let mut routes = seen.to_peer.iter().chain(inside);
    !routes.any(|route| matches!(route, Observed::Seen(Route::Refused(_))))
}

impl Call for AskedPath {
    const METHOD: &'static str = "path.look";
    type Answer = Seen;
}

/// `path.look`: what the kernel says.
pub(super) async fn look(agent: &Arc<Agent>, asked: AskedPath) -> Result<Seen, ApiError> {
    let own = asked.own.filter(|_| !asked.is_node);
    let known = own.and_then(|address| agent.directory.endpoint_at(address));
    let inside = agent
        .on_ledger(move |ledger| {
            let record = &ledger.endpoints.get(known?)?.record;
            Some((record.netns.clone(), record.key.interface.clone()))
        })
        .await;
    let datapath = Arc::clone(&agent.datapath);
    let seen = blocking(move || {
        let endpoints = datapath.endpoints()?.into_iter().map(|it| it.facts);
        let endpoints: Vec<Facts> = endpoints.collect();
        let (peers, place) = place_of(asked.peer, &endpoints, &datapath.peers()?);
        let pod = own.and_then(|address| {
            let facts = endpoints.iter().find(|it| has_address(it, address))?;
            Some(PathPod {
                endpoint: facts.endpoint,
                inside,
            })
        });
        if pod.is_none() && !asked.is_node {
            return Ok(None);
        }
        let mut question = PathQuestion {
            pod,
            own: asked.own,
            peer: None,
            place,
            listens: asked.receives.then_some((asked.protocol, asked.port)),
        };
        let look = |peer| {
            question.peer = peer;
            datapath.path(&question)
        };
        of_first_with_route(&peers, look).map(Some)
    })
    .await
    .map_err(|error| kernel_failure(&error))?;
    seen.ok_or_else(|| {
        ApiError::new(
            "path/unknown-endpoint",
            "the node's datapath does not know the pod",
        )
        .help("`heddle endpoint list` shows those that it knows")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_model::Identity;
    use heddle_verify::path::{Device, Inside, NoRoute};

    fn row(prefix: &str, node: Option<&str>, in_cluster: bool, is_node: bool) -> PeerRow {
        PeerRow {
            prefix: prefix.parse().unwrap(),
            identity: Identity(300),
            cidr: Identity::UNKNOWN,
            node: node.map(|node| node.parse().unwrap()),
            in_cluster,
            is_node,
        }
    }

    #[test]
    fn a_peer_is_where_the_datapath_takes_it_to_be() {
        let here = Facts {
            endpoint: 7,
            ifindex: 17,
            ipv4: Some("10.244.0.5".parse().unwrap()),
            ipv6: Some("fd10::5".parse().unwrap()),
            identity: Identity(300),
            cidr_ipv4: Identity::UNKNOWN,
            cidr_ipv6: Identity::UNKNOWN,
            mac: [0; 6],
            host_mac: [0; 6],
        };
        let rows = [
            row("0.0.0.0/0", None, false, false),
            row("10.244.0.0/16", None, true, false),
            row("10.244.1.0/24", Some("172.31.2.2"), true, false),
            row("10.244.1.9/32", Some("172.31.2.2"), true, false),
            row("172.31.1.2/32", None, true, true),
            row("fd31:2::2/128", Some("172.31.2.2"), true, true),
        ];
        let remote = Place::RemotePod {
            node: "172.31.2.2".parse().unwrap(),
        };
        let node = Place::RemoteNode {
            node: "172.31.2.2".parse().unwrap(),
        };
        for (peer, address, place) in [
            ("10.244.0.5/32", "10.244.0.5", Place::Pod),
            ("fd10::5/128", "fd10::5", Place::Pod),
            ("10.244.1.9/32", "10.244.1.9", remote.clone()),
            // A pod that is behind a range alone so far.
            ("10.244.1.8/32", "10.244.1.8", remote),
            ("10.244.7.7/32", "10.244.7.7", Place::Unknown),
            ("172.31.1.2/32", "172.31.1.2", Place::ThisNode),
            ("fd31:2::2/128", "fd31:2::2", node),
            ("203.0.113.10/32", "203.0.113.10", Place::Outside),
            ("0.0.0.0/0", "198.41.0.4 192.0.2.1", Place::Outside),
            ("::/0", "2001:503:ba3e::2:30 2001:db8::1", Place::Outside),
        ] {
            let asked = AskedPeer::Range(peer.parse().unwrap());
            let found = place_of(asked, std::slice::from_ref(&here), &rows);
            let addresses = address.split(' ').map(|it| it.parse().unwrap());
            assert_eq!(found, (addresses.collect(), place), "{peer}");
        }
        let nobody = AskedPeer::Identity(Identity::HOST);
        assert_eq!(place_of(nobody, &[], &rows), (Vec::new(), Place::Unknown));
    }

    #[test]
    fn a_route_of_its_own_that_leads_nowhere_says_nothing_of_all_that_is_outside() {
        let null_route = Observed::Seen(Route::Refused(NoRoute::Blackhole));
        let whole = Observed::Failed("not looked at".to_owned());
        let device = Device {
            name: "eth0".to_owned(),
            state: None,
        };
        let addresses: [IpAddr; 3] =
            ["198.41.0.4", "192.0.2.1", "203.0.113.1"].map(|it| it.parse().unwrap());
        let ask = |refused: &[usize], in_pod: bool, addresses: &[IpAddr]| {
            let look = |peer: Option<IpAddr>| {
                let at = addresses.iter().position(|it| Some(*it) == peer);
                let is_refused = at.is_some_and(|at| refused.contains(&at));
                let route = if is_refused { &null_route } else { &whole };
                let inside = Inside {
                    device: device.clone(),
                    to_peer: in_pod.then(|| route.clone()),
                    listeners: None,
                };
                // The place tells the addresses apart.
                let place = peer.map_or(Place::Unknown, |node| Place::RemotePod { node });
                Ok::<_, ()>(Seen {
                    place,
                    inside: Some(Observed::Seen(inside)),
                    to_peer: (!in_pod).then(|| route.clone()),
                    ..Seen::default()
                })
            };
            of_first_with_route(addresses, look).unwrap().place
        };
        for in_pod in [false, true] {
            for (refused, expected) in [
                (&[][..], 0),
                (&[1, 2], 0),
                (&[0], 1),
                (&[0, 1], 2),
                (&[0, 1, 2], 0),
            ] {
                let node = addresses[expected];
                let found = ask(refused, in_pod, &addresses);
                assert_eq!(found, Place::RemotePod { node }, "{refused:?}");
            }
        }
        assert_eq!(ask(&[], false, &[]), Place::Unknown);
    }
}
