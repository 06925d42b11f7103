//! Policy map rows.

/// Row of the ingress direction.
pub const DIRECTION_INGRESS: u8 = 0;
/// Row of the egress direction.
pub const DIRECTION_EGRESS: u8 = 1;

/// Traffic is allowed.
pub const POLICY_VERDICT_ALLOW: u8 = 1;
/// Traffic is denied by an explicit deny.
pub const POLICY_VERDICT_DENY: u8 = 2;
/// The rows of another identity count; the cookie is its number. Only in a row for every protocol, and only for the one
/// row of an identity other than 0; the identity that it leads to has rows of its own.
pub const POLICY_VERDICT_ALIAS: u8 = 3;

/// Room in a policy map beside what `maxPolicyEntries` is about: a first row of each identity and direction, or an alias.
/// Larger than twice the identities (65,535) and twice the classes of addresses that there can be.
pub const POLICY_PEER_ROWS: u32 = 1 << 19;

/// Prefix bits of a row for every protocol.
pub const POLICY_ANY_PROTOCOL_PREFIX: u32 = 40;
/// Prefix bits of a row for every port of one protocol.
pub const POLICY_ANY_PORT_PREFIX: u32 = 48;
/// Prefix bits of a row for one port.
pub const POLICY_FULL_PREFIX: u32 = 64;

/// The data part of a policy map's longest-prefix-match key (the prefix length stands before it).
///
/// A row covers a port range of a power of two: its prefix is [`POLICY_ANY_PORT_PREFIX`] plus the
/// number of fixed leading port bits. An ICMP type stands where the port does.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PolicyKey {
    /// The peer: an identity, a CIDR identity, or 0 for anybody.
    pub identity: u32,
    /// [`DIRECTION_INGRESS`] or [`DIRECTION_EGRESS`].
    pub direction: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port, network byte order.
    pub port: u16,
}

const _: () = assert!(size_of::<PolicyKey>() == 8);

/// Which policy map an endpoint has, and how often that has changed.
///
/// One word, so that a packet reads both halves at once.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyBinding(u64);

/// Bit of a binding whose policy is on audit; slots are far below it.
const AUDIT: u64 = 1 << 63;

impl PolicyBinding {
    /// The policy map in this slot, since the change of this number.
    #[inline(always)]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self((slot as u64) << 32 | generation as u64)
    }

    /// The same on audit, or not: what the policy denies is told and passes.
    #[inline(always)]
    #[must_use]
    pub const fn on_audit(self, audit: bool) -> Self {
        if audit {
            Self(self.0 | AUDIT)
        } else {
            Self(self.0 & !AUDIT)
        }
    }

    /// Whether what the policy denies passes.
    #[inline(always)]
    pub const fn is_on_audit(self) -> bool {
        self.0 & AUDIT != 0
    }

    /// Position of the policy map in [`crate::map_names::POLICIES`]; [`POLICY_SLOT_NONE`] without one.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        ((self.0 & !AUDIT) >> 32) as u32
    }

    /// 0 until the endpoint is given its first policy map, another number after each change.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// Slot of an endpoint without a policy: nothing passes.
pub const POLICY_SLOT_NONE: u32 = 0;

/// Policy maps at most: one for each endpoint, and as many that are about to be taken or were just left.
pub const MAX_POLICY_SLOTS: u32 = 2 * crate::MAX_ENDPOINTS;

const _: () = assert!(size_of::<PolicyBinding>() == 8);

/// What a row says.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyValue {
    /// The row of the higher precedence wins between the rows that the peer's keys find.
    pub precedence: u32,
    /// Names the rules behind the row; user space keeps the meaning. For an alias the identity whose rows count.
    pub cookie: u32,
    /// `POLICY_VERDICT_*`; the upper four bits are zero: room for how the ends have to prove who they are.
    pub verdict: u8,
    /// Room, zero: what a redirect's proxy takes the stream for.
    pub parser: u8,
    /// Room, zero: a redirect's port, network byte order.
    pub proxy_port: u16,
}

const _: () = assert!(size_of::<PolicyValue>() == 12);
