//! Facts about local pods and about this node.

use crate::Address;

/// An Ethernet address, in halves so that programs compare it three halves at a time.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MacAddress([u16; 3]);

impl MacAddress {
    /// The address of these bytes, in the order of the wire.
    #[inline(always)]
    pub const fn new(bytes: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self([
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ])
    }

    /// Its bytes, in the order of the wire.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 6] {
        let [[a, b], [c, d], [e, f]] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
        ];
        [a, b, c, d, e, f]
    }
}

/// A local pod's network attachment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// The pod's IPv4 address, or unspecified.
    pub ipv4: Address,
    /// The pod's IPv6 address, or unspecified.
    pub ipv6: Address,
    /// Endpoint id, below [`crate::MAX_ENDPOINTS`].
    pub id: u32,
    /// Interface index of the host side of its link.
    pub ifindex: u32,
    /// Security identity.
    pub identity: u32,
    /// CIDR identity of its IPv4 address for rules that select pods by address; 0 means none.
    pub cidr_ipv4: u32,
    /// CIDR identity of its IPv6 address for rules that select pods by address; 0 means none.
    pub cidr_ipv6: u32,
    /// MAC address of the pod's interface.
    pub mac: MacAddress,
    /// MAC address of the host side.
    pub host_mac: MacAddress,
}

const _: () = assert!(size_of::<Endpoint>() == 64);

/// Packets leave by eBPF redirects, not through the node's own network stack.
pub const NODE_HOST_ROUTING: u32 = 1;
/// Packets to other nodes' pods are encapsulated.
pub const NODE_OVERLAY: u32 = 2;
/// Host policies are about this node: what it sends and receives is asked of [`crate::HOST_ENDPOINT`]'s policy.
pub const NODE_HOST_POLICY: u32 = 4;

/// Facts about this node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeConfig {
    /// `NODE_*` bits.
    pub flags: u32,
    /// Interface index of the uplink.
    pub uplink_ifindex: u32,
    /// Interface index of the overlay device; 0 without one.
    pub overlay_ifindex: u32,
    /// Seconds between two events of one connection.
    pub report_interval: u32,
    /// The gateway address that pods use for IPv4.
    pub gateway_ipv4: Address,
    /// The gateway address that pods use for IPv6.
    pub gateway_ipv6: Address,
    /// Drop events per second that are sent at most from one token bucket: see [`crate::departure_sampler`] and
    /// [`crate::arrival_sampler`].
    pub drop_event_rate: u32,
    /// Verdict and trace events per second that are sent at most for an endpoint, a direction and a CPU.
    pub trace_event_rate: u32,
    /// Entries of `ESTABLISHED` in one share at most, see [`crate::share_index`].
    pub established_share: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<NodeConfig>() == 64);
