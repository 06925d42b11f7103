//! Who an address is.

use crate::maps::{ENDPOINTS, IPCACHE};
use aya_ebpf::btf_maps::lpm_trie::Key;
use heddle_abi::{Address, Endpoint, IPCACHE_REMOTE, IpcacheValue};

/// A pod address that nobody is known to have, another node, and the numbers of label sets (reference 1.7).
pub const UNMANAGED: u32 = 3;
pub const REMOTE_NODE: u32 = 6;
pub const CLUSTER_FIRST: u32 = 256;
pub const CLUSTER_LAST: u32 = 65_535;
/// World, the address family told apart (reference 1.7).
const WORLD_IPV4: u32 = 9;
const WORLD_IPV6: u32 = 10;

/// One end of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Peer {
    pub identity: u32,
    pub cidr: u32,
    /// `IPCACHE_*` bits.
    pub flags: u32,
}

/// The local pod with this address.
#[inline(always)]
pub fn local(address: &Address) -> Option<&'static Endpoint> {
    // SAFETY: a hash map entry stays readable until the program ends; an update replaces it whole.
    unsafe { ENDPOINTS.get(address) }.map(|endpoint| unsafe { &*core::ptr::from_ref(endpoint) })
}

/// The row for an address that is not a local pod's.
#[inline(always)]
pub fn row(address: &Address) -> Option<&'static IpcacheValue> {
    IPCACHE
        .get(&Key::new(128, *address))
        // SAFETY: as above; trie nodes are replaced whole.
        .map(|value| unsafe { &*core::ptr::from_ref(value) })
}

/// Who a local pod is to a policy.
#[inline(always)]
pub fn of_endpoint(endpoint: &Endpoint, v6: bool) -> Peer {
    Peer {
        identity: endpoint.identity,
        cidr: if v6 {
            endpoint.cidr_ipv6
        } else {
            endpoint.cidr_ipv4
        },
        flags: heddle_abi::IPCACHE_IN_CLUSTER,
    }
}

/// Who a row stands for; without a row the address is outside.
#[inline(always)]
pub fn of_row(row: Option<&IpcacheValue>, v6: bool) -> Peer {
    match row {
        Some(row) => Peer {
            identity: row.identity,
            cidr: row.cidr,
            flags: row.flags,
        },
        None => Peer {
            identity: if v6 { WORLD_IPV6 } else { WORLD_IPV4 },
            cidr: 0,
            flags: 0,
        },
    }
}

/// Who has an address, on this node or elsewhere.
#[inline(always)]
pub fn of(address: &Address, v6: bool) -> Peer {
    match local(address) {
        Some(endpoint) => of_endpoint(endpoint, v6),
        None => of_row(row(address), v6),
    }
}

impl Peer {
    #[inline(always)]
    pub fn is(&self, bits: u32) -> bool {
        self.flags & bits != 0
    }

    /// True when another node holds the address.
    #[inline(always)]
    pub fn is_remote(&self) -> bool {
        self.is(IPCACHE_REMOTE)
    }
}
