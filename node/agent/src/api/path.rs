//! What this node's kernel says of the way between one of its ends and the peer.

use super::lookup::{AskedPeer, has_address};
use crate::agent::{Agent, blocking};
use crate::endpoint::kernel_failure;
use heddle_datapath::{Facts, PathPod, PathQuestion, PeerRow};
use heddle_rpc::{ApiError, Call};
use heddle_verify::path::{Place, Seen};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Addresses that stand for all that is outside: nobody has them (RFC 5737, RFC 3849), and what covers all covers them.
const OUTSIDE_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

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

/// The peer's address, and where the datapath takes it to be.
fn place_of(peer: AskedPeer, endpoints: &[Facts], peers: &[PeerRow]) -> (Option<IpAddr>, Place) {
    let AskedPeer::Range(range) = peer else {
        return (None, Place::Unknown);
    };
    if range.prefix_len() != range.max_prefix_len() {
        let stands_for_it = match range {
            IpNet::V4(_) => OUTSIDE_IPV4.into(),
            IpNet::V6(_) => OUTSIDE_IPV6.into(),
        };
        return (Some(stands_for_it), Place::Outside);
    }
    let address = range.addr();
    if endpoints.iter().any(|it| has_address(it, address)) {
        return (Some(address), Place::Pod);
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
    (Some(address), place)
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
        let (peer, place) = place_of(asked.peer, &endpoints, &datapath.peers()?);
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
        let question = PathQuestion {
            pod,
            own: asked.own,
            peer,
            place,
            listens: asked.receives.then_some((asked.protocol, asked.port)),
        };
        datapath.path(&question).map(Some)
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
            ("0.0.0.0/0", "192.0.2.1", Place::Outside),
            ("::/0", "2001:db8::1", Place::Outside),
        ] {
            let asked = AskedPeer::Range(peer.parse().unwrap());
            let found = place_of(asked, std::slice::from_ref(&here), &rows);
            assert_eq!(found, (Some(address.parse().unwrap()), place), "{peer}");
        }
        let nobody = AskedPeer::Identity(Identity::HOST);
        assert_eq!(place_of(nobody, &[], &rows), (None, Place::Unknown));
    }
}
