//! Who an address is, and where it lives.

use crate::Address;

/// The address belongs to this node itself.
pub const IPCACHE_LOCAL_NODE: u32 = 1;
/// The address belongs to another node.
pub const IPCACHE_REMOTE: u32 = 2;
/// The address is inside the cluster (a pod's, a node's, or in a pod range).
pub const IPCACHE_IN_CLUSTER: u32 = 4;
/// The address is a node's own, not a pod's.
pub const IPCACHE_NODE: u32 = 8;

/// Who an address is, and where it lives.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpcacheValue {
    /// Security identity.
    pub identity: u32,
    /// Identity of the longest policy CIDR that covers the address; 0 means none.
    pub cidr: u32,
    /// `IPCACHE_*` bits.
    pub flags: u32,
    /// Room, zero: index of the key that packets to the address are encrypted with; 0 means none.
    pub encryption_key: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Underlay address of the node that holds the address; unspecified for this node and for outside.
    pub node: Address,
}

const _: () = assert!(size_of::<IpcacheValue>() == 32);
