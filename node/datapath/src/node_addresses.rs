//! Where this node is: the addresses at which its kernel takes packets for itself, and when they change.
//!
//! The local routing table is the kernel's own answer to that. It has the addresses of all devices, the broadcast
//! addresses of their networks, and whatever an operator routed to `local`.

use crate::DatapathError;
use crate::netlink::Netlink;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (linux/rtnetlink.h).
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;
/// Changes come in groups (an address and its network's broadcast): they are waited for together.
const QUIET: Duration = Duration::from_millis(20);

/// The node's addresses.
pub(crate) struct NodeAddresses {
    netlink: Netlink,
    changes: Mutex<Socket>,
}

impl NodeAddresses {
    /// Those of the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, DatapathError> {
        let netlink = Netlink::open()?;
        let socket = Socket::new(NETLINK_ROUTE).and_then(|mut socket| {
            socket.bind(&SocketAddr::new(0, ADDRESS_GROUPS))?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        });
        let changes = Mutex::new(socket.map_err(|error| failed("watch", &error))?);
        Ok(Self { netlink, changes })
    }

    /// Waits up to `timeout` for a change, and returns the addresses as they are. Loopback, link-local IPv6 and multicast
    /// are left out: no packet comes from elsewhere to them.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<BTreeSet<IpNet>, DatapathError> {
        if !timeout.is_zero() {
            // Whoever only asks does not wait for those who wait.
            let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
            if is_readable(&changes, timeout)? {
                std::thread::sleep(QUIET);
                // What was lost for want of room is a change, too.
                while !matches!(changes.recv_from_full(), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
                {
                }
            }
        }
        let all = self.netlink.local_routes()?.into_iter();
        Ok(all.filter(|prefix| is_reachable(prefix.addr())).collect())
    }
}

fn is_readable(socket: &Socket, timeout: Duration) -> Result<bool, DatapathError> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(
        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
        timeout,
    ) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(failed("watch", &errno.into())),
    }
}

const fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_multicast() && !v4.is_unspecified(),
        IpAddr::V6(v6) => {
            !v6.is_loopback()
                && !v6.is_multicast()
                && !v6.is_unspecified()
                && !v6.is_unicast_link_local()
        }
    }
}

fn failed(doing: &'static str, error: &std::io::Error) -> DatapathError {
    DatapathError::Failed {
        doing,
        object: "the node's addresses".to_owned(),
        reason: error.to_string(),
    }
}
