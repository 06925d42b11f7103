//! What the kernel says of the way between an end and its peer: devices, routes, neighbours, sockets. Questions alone;
//! nothing is sent to anybody.

mod routes;
mod sockets;

use crate::{
    kernel::link_name,
    netlink::{Netlink, open_namespace},
};
use heddle_verify::path::{Inside, Listener, Observed, Place, Seen};
use nix::sched::{CloneFlags, setns};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

/// An end of this node, and its peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathQuestion {
    /// The pod that is the end; `None`: the node.
    pub pod: Option<PathPod>,
    /// The end's address.
    pub own: Option<IpAddr>,
    /// The peer's address; for all that is outside any of theirs.
    pub peer: Option<IpAddr>,
    /// Where the peer is.
    pub place: Place,
    /// Protocol number and port, when the end is the destination.
    pub listens: Option<(u8, u16)>,
}

/// A pod of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathPod {
    /// Endpoint id.
    pub endpoint: u16,
    /// Path of its network namespace, and its interface there; `None` when they are not known.
    pub inside: Option<(PathBuf, String)>,
}

/// What the node has.
pub(crate) struct NodeDevices<'a> {
    pub(crate) host_routing: bool,
    pub(crate) uplink: &'a str,
    pub(crate) overlay: Option<&'a str>,
}

/// Asks the kernel all that bears on a question.
pub(crate) fn look(netlink: &Netlink, node: &NodeDevices<'_>, question: &PathQuestion) -> Seen {
    let device = |name: &str| Observed::from(netlink.device(name));
    let route = |address: IpAddr| Observed::from(netlink.route_to(address));
    let to_node = match (&question.place, node.overlay) {
        (Place::RemotePod { node } | Place::RemoteNode { node }, Some(_)) => Some(*node),
        _ => None,
    };
    let pod = question.pod.as_ref();
    Seen {
        host_routing: node.host_routing,
        place: question.place.clone(),
        uplink: Some(device(node.uplink)),
        overlay: node.overlay.map(device),
        pod_link: pod.map(|pod| device(&link_name(pod.endpoint))),
        inside: pod.map(|pod| match &pod.inside {
            Some((namespace, interface)) => visit(namespace, interface, question),
            None => Observed::Failed("the agent does not know it".to_owned()),
        }),
        to_peer: question.peer.map(|peer| match question.place {
            Place::RemotePod { .. } | Place::RemoteNode { .. } | Place::Outside
                if pod.is_some() && node.host_routing =>
            {
                netlink.route_by(peer, node.uplink).into()
            }
            _ => route(peer),
        }),
        to_node: to_node.map(route),
        to_own: question.own.filter(|_| pod.is_some()).map(route),
        listeners: match question.listens {
            Some((protocol, port)) if pod.is_none() => listeners(netlink, protocol, port),
            _ => None,
        },
    }
}

/// Looks from inside the pod.
fn visit(namespace: &Path, interface: &str, question: &PathQuestion) -> Observed<Inside> {
    let file = match open_namespace(namespace) {
        Ok(file) => file,
        Err(error) => return Observed::Failed(error.to_string()),
    };
    std::thread::scope(|scope| {
        // A thread of its own: a thread that has changed namespaces is good for nothing else.
        let visit = std::thread::Builder::new().spawn_scoped(scope, || -> Observed<Inside> {
            if let Err(error) = setns(&file, CloneFlags::CLONE_NEWNET) {
                return Observed::Failed(format!("it cannot be entered: {error}"));
            }
            let inside = Netlink::open().and_then(|netlink| {
                Ok(Inside {
                    device: netlink.device(interface)?,
                    to_peer: question.peer.map(|peer| netlink.route_to(peer).into()),
                    listeners: question
                        .listens
                        .and_then(|(protocol, port)| listeners(&netlink, protocol, port)),
                })
            });
            inside.into()
        });
        match visit {
            Ok(visit) => visit
                .join()
                .unwrap_or_else(|_| Observed::Failed("the visit ended early".to_owned())),
            Err(error) => Observed::Failed(format!("there is no thread to enter it: {error}")),
        }
    })
}

/// Who takes packets for a port in the thread's network namespace, which is that of `netlink`; `None` for protocols without
/// ports.
fn listeners(netlink: &Netlink, protocol: u8, port: u16) -> Option<Observed<Vec<Listener>>> {
    let named = |bound: sockets::Bound| {
        let device = match bound.interface {
            0 => None,
            index => Some(netlink.device_at(index)?.name),
        };
        Ok(Listener {
            address: bound.address,
            ipv6_only: bound.ipv6_only,
            device,
        })
    };
    match protocol {
        sockets::TCP | sockets::UDP => {
            let found = sockets::listeners(protocol, port);
            let found = found.and_then(|found| found.into_iter().map(named).collect());
            Some(found.into())
        }
        // The question alone would have the kernel load the protocol's module.
        sockets::SCTP => Some(Observed::Failed(
            "SCTP sockets are not looked at".to_owned(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
