//! Links, addresses, routes and neighbours.
//!
//! A netlink socket belongs to the network namespace in which it was opened, so the node's is opened once
//! and each pod's for one visit.

use crate::{DatapathError, api::LinkSpec, object::chain};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::{
    link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
    neighbour::NeighbourState,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder,
    new_connection,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    os::unix::fs::OpenOptionsExt,
    sync::Mutex,
};
use tokio::runtime::{Builder, Runtime};

/// Marks the routes that Heddle made (a number without a meaning of its own in rtnetlink.h).
pub(crate) const ROUTES: RouteProtocol = RouteProtocol::Other(0x48);

/// A netlink socket in one network namespace.
pub(crate) struct Netlink {
    inner: Mutex<(Runtime, Handle)>,
}

/// A link as the kernel describes it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

pub(crate) fn failed(
    doing: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(rtnetlink::Error) -> DatapathError {
    let object = object.into();
    move |error| DatapathError::Failed {
        doing,
        object,
        reason: chain(&error),
    }
}

pub(crate) fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

/// Metric of a second default route: above 1024, which IPv6 routes have that name none.
const SECOND_DEFAULT_METRIC: u32 = 2048;

const EEXIST: i32 = 17;
pub(crate) const ENODEV: i32 = 19;
const ESRCH: i32 = 3;

impl Netlink {
    /// A socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, DatapathError> {
        let io = |error: std::io::Error| DatapathError::Failed {
            doing: "open",
            object: "a netlink socket".to_owned(),
            reason: error.to_string(),
        };
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(io)?;
        let (connection, handle, _) = {
            let _guard = runtime.enter();
            new_connection().map_err(io)?
        };
        runtime.spawn(connection);
        Ok(Self {
            inner: Mutex::new((runtime, handle)),
        })
    }

    pub(crate) fn run<T, F: Future<Output = T>>(&self, work: impl FnOnce(Handle) -> F) -> T {
        let inner = self
            .inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.0.block_on(work(inner.1.clone()))
    }

    /// The link with this name.
    pub(crate) fn link(&self, name: &str) -> Result<Option<Link>, DatapathError> {
        let found = self.run(|handle| async move {
            handle
                .link()
                .get()
                .match_name(name.to_owned())
                .execute()
                .try_next()
                .await
        });
        match found {
            Ok(message) => Ok(message.map(describe)),
            Err(error) if is_errno(&error, ENODEV) => Ok(None),
            Err(error) => Err(failed("look up link", name)(error)),
        }
    }

    /// The names of all links by their index.
    pub(crate) fn link_names(&self) -> Result<BTreeMap<u32, String>, DatapathError> {
        let links: Vec<LinkMessage> = self
            .run(|handle| async move { handle.link().get().execute().try_collect().await })
            .map_err(failed("list", "links"))?;
        let named = links.into_iter().filter_map(|link| {
            let name = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.clone()),
                    _ => None,
                })?;
            Some((link.header.index, name))
        });
        Ok(named.collect())
    }

    /// Removes a link; one that is not there is no error.
    pub(crate) fn remove_link(&self, name: &str) -> Result<(), DatapathError> {
        let Some(link) = self.link(name)? else {
            return Ok(());
        };
        match self.run(|handle| async move { handle.link().del(link.index).execute().await }) {
            Err(error) if !is_errno(&error, ENODEV) => Err(failed("remove link", name)(error)),
            _ => Ok(()),
        }
    }

    /// Makes a veth pair whose other end is born in the pod's namespace under its final name.
    pub(crate) fn add_pod_link(
        &self,
        host: &str,
        host_mac: [u8; 6],
        spec: &LinkSpec,
        mac: [u8; 6],
        netns: &File,
        mtu: u32,
    ) -> Result<(), DatapathError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(spec.interface.clone())
            .address(mac.to_vec())
            .mtu(mtu)
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(host, &spec.interface)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(host_mac.to_vec())
            .mtu(mtu)
            .build();
        self.run(|handle| async move { handle.link().add(message).execute().await })
            .map_err(failed("make link", host))
    }

    /// Makes the overlay device if it is not there: VXLAN with per-packet addresses and identities.
    pub(crate) fn ensure_overlay(
        &self,
        name: &str,
        port: u16,
        mtu: u32,
    ) -> Result<Link, DatapathError> {
        if self.link(name)?.is_none() {
            let message = LinkMessageBuilder::<LinkVxlan>::new(name)
                .collect_metadata(true)
                .port(port)
                .learning(false)
                .udp_zero_csum6_rx(true)
                .mtu(mtu)
                .arp(false)
                .up()
                .build();
            self.run(|handle| async move { handle.link().add(message).execute().await })
                .map_err(failed("make link", name))?;
        }
        self.link(name)?.ok_or_else(|| DatapathError::Failed {
            doing: "look up link",
            object: name.to_owned(),
            reason: "it is gone again".to_owned(),
        })
    }

    /// Brings a link up.
    pub(crate) fn up(&self, index: u32) -> Result<(), DatapathError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.run(|handle| async move { handle.link().change(message).execute().await })
            .map_err(failed("bring up link", index.to_string()))
    }

    /// A route to a prefix by an interface; one that is there is replaced.
    pub(crate) fn set_route(&self, prefix: IpNet, interface: u32) -> Result<(), DatapathError> {
        let route = route_to(prefix, interface).scope(RouteScope::Link).build();
        self.add_route(route, &prefix.to_string())
    }

    /// A default route by a gateway that is taken to be on the link. Where another link of the namespace has one, this one
    /// is for the time when that is gone.
    pub(crate) fn add_default_route(
        &self,
        gateway: IpAddr,
        interface: u32,
    ) -> Result<(), DatapathError> {
        let everything = match gateway {
            IpAddr::V4(_) => IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            IpAddr::V6(_) => IpNet::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let Ok(everything) = everything else {
            return Ok(());
        };
        let object = format!("default by {gateway}");
        let route = |metric: Option<u32>| {
            let route = route_to(everything, interface);
            let route = match metric {
                Some(metric) => route.priority(metric),
                None => route,
            };
            route
                .gateway(gateway)
                .map(|route| route.onlink().build())
                .map_err(|error| DatapathError::Failed {
                    doing: "build route",
                    object: object.clone(),
                    reason: error.to_string(),
                })
        };
        let first = route(None)?;
        let added = self.run(|handle| async move { handle.route().add(first).execute().await });
        match added {
            Err(error) if is_errno(&error, EEXIST) => {
                self.add_route(route(Some(SECOND_DEFAULT_METRIC))?, &object)
            }
            outcome => outcome.map_err(failed("set route", object)),
        }
    }

    fn add_route(&self, route: RouteMessage, object: &str) -> Result<(), DatapathError> {
        self.run(|handle| async move { handle.route().add(route).replace().execute().await })
            .map_err(failed("set route", object))
    }

    /// All routes of a namespace, of every table.
    pub(crate) fn all_routes(&self) -> Result<Vec<RouteMessage>, DatapathError> {
        let mut found = Vec::new();
        let requests = [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ];
        for request in requests {
            let routes: Vec<RouteMessage> =
                self.run(|handle| async move {
                    handle.route().get(request).execute().try_collect().await
                })
                .map_err(failed("list", "routes"))?;
            found.extend(routes);
        }
        Ok(found)
    }

    /// The prefixes that Heddle's routes by this interface lead to.
    pub(crate) fn routes_by(
        &self,
        interface: u32,
    ) -> Result<Vec<(IpNet, RouteMessage)>, DatapathError> {
        let routes = self.all_routes()?.into_iter();
        let own = routes
            .filter(|route| route.header.protocol == ROUTES && output_of(route) == Some(interface));
        Ok(own
            .filter_map(|route| Some((destination(&route)?, route)))
            .collect())
    }

    /// The prefixes whose packets the kernel takes for itself: the `local`, `broadcast` and `anycast` routes.
    pub(crate) fn local_routes(&self) -> Result<Vec<IpNet>, DatapathError> {
        let routes = self.all_routes()?;
        let taken = routes.iter().filter(|route| {
            matches!(
                route.header.kind,
                RouteType::Local | RouteType::Broadcast | RouteType::Anycast
            )
        });
        Ok(taken.filter_map(destination).collect())
    }

    /// Removes a route.
    pub(crate) fn remove_route(
        &self,
        route: RouteMessage,
        object: &str,
    ) -> Result<(), DatapathError> {
        match self.run(|handle| async move { handle.route().del(route).execute().await }) {
            Err(error) if !is_errno(&error, ESRCH) => Err(failed("remove route", object)(error)),
            _ => Ok(()),
        }
    }

    /// A neighbour entry that never ages.
    pub(crate) fn set_neighbour(
        &self,
        interface: u32,
        address: IpAddr,
        mac: [u8; 6],
    ) -> Result<(), DatapathError> {
        self.run(|handle| async move {
            handle
                .neighbours()
                .add(interface, address)
                .link_layer_address(&mac)
                .state(NeighbourState::Permanent)
                .replace()
                .execute()
                .await
        })
        .map_err(failed("set neighbour", address.to_string()))
    }

    /// Gives a link an address.
    pub(crate) fn add_address(&self, interface: u32, address: IpAddr) -> Result<(), DatapathError> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        match self.run(|handle| async move {
            handle
                .address()
                .add(interface, address, length)
                .execute()
                .await
        }) {
            Err(error) if !is_errno(&error, EEXIST) => {
                Err(failed("add address", address.to_string())(error))
            }
            _ => Ok(()),
        }
    }
}

fn describe(message: LinkMessage) -> Link {
    let mtu = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    Link {
        index: message.header.index,
        mtu: mtu.unwrap_or(1500),
    }
}

/// The device of a route, the first of its next hops'.
pub(crate) fn output_of(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
            _ => None,
        })
}

/// Where a route leads.
pub(crate) fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

fn route_to(prefix: IpNet, interface: u32) -> RouteMessageBuilder<IpAddr> {
    let builder = RouteMessageBuilder::<IpAddr>::new();
    // Length and family come from a parsed prefix, so this cannot be refused; an unspecified route would.
    let builder = match builder.destination_prefix(prefix.addr(), prefix.prefix_len()) {
        Ok(builder) => builder,
        Err(_) => RouteMessageBuilder::<IpAddr>::new(),
    };
    builder.output_interface(interface).protocol(ROUTES)
}

/// Opens a network namespace. Whatever else lies at the path is refused, and waited for by nobody: to open a
/// FIFO would take until somebody writes to it.
pub(crate) fn open_namespace(path: &std::path::Path) -> Result<File, DatapathError> {
    let refused = |reason: String| DatapathError::NoNamespace {
        path: path.to_owned(),
        reason,
    };
    let file = File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| refused(error.to_string()))?;
    match nix::sys::statfs::fstatfs(&file) {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::NSFS_MAGIC => Ok(file),
        Ok(_) => Err(refused("it is no namespace".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Sets up the pod's side of its link: addresses, routes by the gateways, loopback.
pub(crate) fn configure_pod(
    spec: &LinkSpec,
    netns: &File,
    gateways: &[IpAddr],
) -> Result<(), DatapathError> {
    let lost = |reason: String| DatapathError::NoNamespace {
        path: spec.netns.clone(),
        reason,
    };
    std::thread::scope(|scope| {
        // A thread of its own: a thread that has changed namespaces is good for nothing else.
        let visit = scope.spawn(|| -> Result<(), DatapathError> {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| lost(error.to_string()))?;
            // Nothing in a pod has to find out whether its address is taken, or look for routers.
            for (setting, value) in [
                ("accept_dad", "0"),
                ("accept_ra", "0"),
                ("router_solicitations", "0"),
            ] {
                set_sysctl(
                    &format!("net/ipv6/conf/{}/{setting}", spec.interface),
                    value,
                );
            }
            let netlink = Netlink::open()?;
            let link = netlink
                .link(&spec.interface)?
                .ok_or_else(|| lost("the link is gone".to_owned()))?;
            if let Some(loopback) = netlink.link("lo")? {
                netlink.up(loopback.index)?;
            }
            netlink.up(link.index)?;
            for address in [spec.ipv4.map(IpAddr::V4), spec.ipv6.map(IpAddr::V6)]
                .into_iter()
                .flatten()
            {
                netlink.add_address(link.index, address)?;
            }
            for gateway in gateways {
                netlink.add_default_route(*gateway, link.index)?;
            }
            Ok(())
        });
        visit
            .join()
            .unwrap_or_else(|_| Err(lost("the visit ended early".to_owned())))
    })
}

/// Writes a sysctl of the thread's network namespace. One that is missing (a kernel without IPv6) is as
/// good as set; a refusal shows in what it was to prevent.
pub(crate) fn set_sysctl(path: &str, value: &str) {
    let written = File::options()
        .write(true)
        .open(format!("/proc/sys/{path}"))
        .and_then(|mut file| file.write_all(value.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(%path, %value, %error, "sysctl not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_namespace_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [fifo.as_path(), &file, directory.path()] {
            let error = open_namespace(path).unwrap_err();
            assert!(error.to_string().contains("no namespace"), "{error}");
        }
        open_namespace("/proc/self/ns/net".as_ref()).unwrap();
    }
}
