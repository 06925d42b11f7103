//! The memory layouts that the eBPF programs and user space share.
//!
//! This crate is the only place where a map key, a map value or an event is laid out. Every type is
//! `#[repr(C)]` without hidden padding, its size is asserted at compile time, and both sides use the
//! same definition. Numbers are in host byte order unless a field says otherwise.
#![no_std]

mod address;
mod connection;
mod drop_reason;
mod endpoint;
mod event;
#[cfg(not(feature = "former-abi"))]
mod former;
mod layout;
mod mark;
mod policy;
mod route;

pub use address::Address;
pub use connection::{
    CT_ANSWERED, CT_BY_STACK, CT_CLOSING, CT_INITIATOR_IS_LOW, CT_SEEN_REPLY, ConnectionEntry,
    ConnectionKey, ConnectionVerdict, FRAGMENT_SLOTS, FragmentEntry, FragmentKey, ICMP_BY_HIGH,
    ICMP_BY_LOW, LIFETIME_CLOSING, LIFETIME_OTHER, LIFETIME_RESET, LIFETIME_SYN, LIFETIME_TCP,
    Redirect, SHARES, Translation, share_index,
};
pub use drop_reason::DropReason;
pub use endpoint::{
    Endpoint, MacAddress, NODE_HOST_POLICY, NODE_HOST_ROUTING, NODE_OVERLAY, NodeConfig,
};
pub use event::{
    ARRIVAL_SAMPLERS, CAPTURE_LENGTH, EVENT_AUDIT, EVENT_DROP, EVENT_IPV6, EVENT_RELATED,
    EVENT_REPLY, EVENT_TRACE, EVENT_VERDICT, Event, LOSS_CAUSES, LOSS_RING_FULL, LOSS_SAMPLED,
    METRIC_SLOTS, MetricSlot, SAMPLERS, Sampler, TracePoint, arrival_sampler, departure_sampler,
    metric_index, trace_sampler,
};
#[cfg(not(feature = "former-abi"))]
pub use former::ConnectionEntry1;
#[cfg(feature = "next-abi")]
pub use layout::next_abi;
pub use layout::{Content, LAYOUTS, MapLayout, VERSION_WITHOUT_RECORD, former_layout, layout_of};
pub use mark::{
    MARK_DECRYPT, MARK_ENCRYPT, MARK_IDENTITY, MARK_KIND, MARK_OTHERS, MARK_OVERLAY,
    MARK_PROXY_EGRESS, MARK_PROXY_INGRESS, MARK_TO_PROXY, identity_of_mark, mark_identity,
};
pub use policy::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, MAX_POLICY_SLOTS, POLICY_ANY_PORT_PREFIX,
    POLICY_ANY_PROTOCOL_PREFIX, POLICY_FULL_PREFIX, POLICY_PEER_ROWS, POLICY_SLOT_NONE,
    POLICY_VERDICT_ALIAS, POLICY_VERDICT_ALLOW, POLICY_VERDICT_DENY, PolicyBinding, PolicyKey,
    PolicyValue,
};
pub use route::{
    IPCACHE_IN_CLUSTER, IPCACHE_LOCAL_NODE, IPCACHE_NODE, IPCACHE_REMOTE, IpcacheValue,
};

/// Version of the layouts below; part of the path under which maps are pinned, so that a program never
/// reads a map whose layout it does not know.
pub const ABI_VERSION: u32 =
    VERSION + cfg!(feature = "next-abi") as u32 - cfg!(feature = "former-abi") as u32;

const VERSION: u32 = 4;

/// Names of the maps, the same in the object file, in the pin directory and in `heddle bpf`.
pub mod map_names {
    /// One [`crate::NodeConfig`].
    pub const CONFIG: &str = "CONFIG";
    /// [`crate::Address`] of a local pod to its [`crate::Endpoint`].
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Interface index of a pod's host-side link to its [`crate::Endpoint`].
    pub const DEVICES: &str = "DEVICES";
    /// Slot to a policy map (map in map).
    pub const POLICIES: &str = "POLICIES";
    /// Endpoint id to its [`crate::PolicyBinding`].
    pub const BINDINGS: &str = "BINDINGS";
    /// Prefix to [`crate::IpcacheValue`].
    pub const IPCACHE: &str = "IPCACHE";
    /// [`crate::ConnectionKey`] to [`crate::ConnectionEntry`].
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// [`crate::ConnectionKey`] to [`crate::ConnectionEntry`], for TCP connections that are established: nothing
    /// is evicted from it, and each endpoint has a bounded share.
    pub const ESTABLISHED: &str = "ESTABLISHED";
    /// [`crate::share_index`] to the number of entries of `ESTABLISHED` in that share. The programs count up and
    /// down; user space, which removes dead entries, writes what it found.
    pub const SHARES: &str = "SHARES";
    /// [`crate::FragmentKey`] to [`crate::FragmentEntry`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Counters per reason and direction, see [`crate::metric_index`].
    pub const METRICS: &str = "METRICS";
    /// Events on their way to user space.
    pub const EVENTS: &str = "EVENTS";
    /// Events that could not be sent, per cause.
    pub const LOSSES: &str = "LOSSES";
    /// Token buckets that bound events per endpoint, see [`crate::sampler_index`].
    pub const SAMPLERS: &str = "SAMPLERS";
}

/// Highest endpoint id plus one: the size of the per-endpoint arrays.
pub const MAX_ENDPOINTS: u32 = 4096;

/// The node itself where policies are bound to endpoints; no pod has this id. In events the node is 0.
pub const HOST_ENDPOINT: u32 = MAX_ENDPOINTS - 1;

/// UDP port of the overlay (Cilium's VXLAN port, reference 3.4).
pub const OVERLAY_PORT: u16 = 8472;

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($t:ty),* $(,)?) => { $(
            // SAFETY: #[repr(C)], Copy, 'static, and every bit pattern is a valid value; the size
            // assertions beside each type rule out padding.
            #[allow(unsafe_code)]
            unsafe impl aya::Pod for $t {}
        )* };
    }
    #[cfg(not(feature = "former-abi"))]
    pod!(crate::ConnectionEntry1);
    pod!(
        crate::Address,
        crate::ConnectionEntry,
        crate::ConnectionKey,
        crate::Endpoint,
        crate::FragmentEntry,
        crate::FragmentKey,
        crate::IpcacheValue,
        crate::MetricSlot,
        crate::NodeConfig,
        crate::PolicyBinding,
        crate::PolicyKey,
        crate::PolicyValue,
        crate::Sampler,
    );
}
