//! Between what user space speaks of and what stands in the maps.

use crate::{ConnectionRow, Facts, PeerRow};
use aya::maps::lpm_trie::Key;
use heddle_abi::{
    Address, ConnectionEntry, ConnectionKey, Endpoint, IPCACHE_IN_CLUSTER, IPCACHE_LOCAL_NODE,
    IPCACHE_NODE, IPCACHE_REMOTE, IpcacheValue, MacAddress,
};
use heddle_model::Identity;
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use std::net::IpAddr;

/// Monotonic seconds, the clock of connections' lifetimes.
pub(crate) fn monotonic_seconds() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec());
    u32::try_from(now).unwrap_or(u32::MAX)
}

pub(crate) fn to_kernel(facts: &Facts) -> Endpoint {
    Endpoint {
        ipv4: facts.ipv4.map_or(Address::UNSPECIFIED, Address::from),
        ipv6: facts.ipv6.map_or(Address::UNSPECIFIED, Address::from),
        id: u32::from(facts.endpoint),
        ifindex: facts.ifindex,
        identity: facts.identity.0,
        cidr_ipv4: facts.cidr_ipv4.0,
        cidr_ipv6: facts.cidr_ipv6.0,
        mac: MacAddress::new(facts.mac),
        host_mac: MacAddress::new(facts.host_mac),
    }
}

pub(crate) fn from_kernel(endpoint: &Endpoint) -> Facts {
    let address = |address: Address| (!address.is_unspecified()).then(|| IpAddr::from(address));
    Facts {
        endpoint: u16::try_from(endpoint.id).unwrap_or(0),
        ifindex: endpoint.ifindex,
        ipv4: address(endpoint.ipv4).and_then(|address| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }),
        ipv6: address(endpoint.ipv6).and_then(|address| match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        }),
        identity: Identity(endpoint.identity),
        cidr_ipv4: Identity(endpoint.cidr_ipv4),
        cidr_ipv6: Identity(endpoint.cidr_ipv6),
        mac: endpoint.mac.bytes(),
        host_mac: endpoint.host_mac.bytes(),
    }
}

pub(crate) fn peer_key(prefix: IpNet) -> Key<Address> {
    let length = Address::prefix_length(prefix.addr().is_ipv4(), prefix.prefix_len());
    Key::new(length, prefix.network().into())
}

pub(crate) fn peer_value(row: &PeerRow) -> IpcacheValue {
    let mut flags = 0;
    if row.in_cluster {
        flags |= IPCACHE_IN_CLUSTER;
    }
    match (row.is_node, row.node) {
        (true, None) => flags |= IPCACHE_NODE | IPCACHE_LOCAL_NODE,
        (true, Some(_)) => flags |= IPCACHE_NODE | IPCACHE_REMOTE,
        (false, Some(_)) => flags |= IPCACHE_REMOTE,
        (false, None) => {}
    }
    IpcacheValue {
        identity: row.identity.0,
        cidr: row.cidr.0,
        flags,
        node: row.node.map_or(Address::UNSPECIFIED, Address::from),
        ..IpcacheValue::default()
    }
}

/// An ipcache row as user space speaks of it; `None` for a key that is no prefix of its family.
pub(crate) fn peer_row(key: &Key<Address>, value: &IpcacheValue) -> Option<PeerRow> {
    let address = IpAddr::from(key.data());
    let family = if address.is_ipv4() { 96 } else { 0 };
    let length = key.prefix_len().saturating_sub(family);
    Some(PeerRow {
        prefix: IpNet::new(address, u8::try_from(length).unwrap_or(128)).ok()?,
        identity: Identity(value.identity),
        cidr: Identity(value.cidr),
        node: (!value.node.is_unspecified()).then(|| value.node.into()),
        in_cluster: value.flags & IPCACHE_IN_CLUSTER != 0,
        is_node: value.flags & IPCACHE_NODE != 0,
    })
}

/// A connection with the time it has left.
pub(crate) fn connection_row(key: ConnectionKey, entry: ConnectionEntry) -> ConnectionRow {
    ConnectionRow {
        key,
        entry,
        remaining_seconds: entry.expires.saturating_sub(monotonic_seconds()),
    }
}
