//! Connection tracking and fragments.

use crate::Address;

/// The connection's initiator is the `low` side of its key.
pub const CT_INITIATOR_IS_LOW: u8 = 1;
/// A packet in the reply direction was seen.
pub const CT_SEEN_REPLY: u8 = 2;
/// A FIN from both sides was seen, or an RST before the connection was established.
pub const CT_CLOSING: u8 = 4;
/// The node's own stack forwarded its first packet to a pod: it may have translated addresses, and only it can
/// turn answers back.
pub const CT_BY_STACK: u8 = 8;
/// The responder's answer to the SYN was seen, and the entry holds its sequence number until the initiator has
/// acknowledged it: see [`ConnectionEntry::set_answer`].
pub const CT_ANSWERED: u8 = 16;

/// Seconds that an established TCP connection lives after a packet (reference 3.3).
pub const LIFETIME_TCP: u32 = 8000;
/// Seconds that one lives which is not established yet.
pub const LIFETIME_SYN: u32 = 60;
/// Seconds that one lives which both ends have closed.
pub const LIFETIME_CLOSING: u32 = 10;
/// Seconds that one lives after an RST while it was established: nobody here knows whether its receiver accepts that, so
/// the connection gets the time that RFC 6146, 3.5.2.2, gives it for the same reason, and RFC 5382, 5, demands at least.
pub const LIFETIME_RESET: u32 = 240;
/// Seconds that what is no TCP lives after a packet.
pub const LIFETIME_OTHER: u32 = 60;

/// A connection, the same key for both directions: the side with the smaller (address, port) is `low`.
///
/// One entry serves a connection on a node, also when both ends are pods of that node, so a packet costs
/// one lookup. For ICMP echo the requester's port is the identifier and the responder's is 0. Only an echo
/// reply shares an entry with anything else, its request: every other ICMP message has one of its own for each
/// direction, so that no type is ever taken for the answer to another.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ConnectionKey {
    /// Address of the low side.
    pub low: Address,
    /// Address of the high side.
    pub high: Address,
    /// Port of the low side, network byte order.
    pub low_port: u16,
    /// Port of the high side, network byte order.
    pub high_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// ICMP type, that of the request for an echo reply; 0 for other protocols.
    pub icmp_type: u8,
    /// `ICMP_BY_*`: which side sent the message, or for an echo reply its request; 0 for other protocols.
    pub icmp_sender: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<ConnectionKey>() == 40);

/// [`ConnectionKey::icmp_sender`]: the low side.
pub const ICMP_BY_LOW: u8 = 1;
/// [`ConnectionKey::icmp_sender`]: the high side.
pub const ICMP_BY_HIGH: u8 = 2;

/// What policy said of a connection in one direction, and under which circumstances.
///
/// It holds only while the endpoint's policy generation and the peer's identities are the ones written
/// here; a packet that finds anything else asks the policy again, whichever way it travels. That is how
/// a new deny cuts established connections without a flush.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionVerdict {
    /// Policy generation of the endpoint when it was asked; 0 means never asked.
    pub generation: u32,
    /// Identity of the peer then.
    pub peer: u32,
    /// CIDR identity of the peer then; 0 means none.
    pub peer_cidr: u32,
    /// Cookie of the rules that allowed it; 0 means no policy is enforced in this direction.
    pub cookie: u32,
}

const _: () = assert!(size_of::<ConnectionVerdict>() == 16);

/// The other tuple of a connection whose destination is translated: its responder's end there.
///
/// A translated connection has two keys. Under the tuple as the initiator sent it, this is the backend; under the
/// tuple as it is translated, it is the frontend that the initiator sent to. The initiator's policy is about the first
/// tuple, the backend's about the second.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    /// Address of the other tuple's responder; unspecified where nothing is translated.
    pub address: Address,
    /// Its port, network byte order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// Number of the service; 0 means none.
    pub service: u32,
}

const _: () = assert!(size_of::<Translation>() == 24);

/// Where policy sends a connection on this node before it goes on.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Redirect {
    /// Port of the proxy's listener, network byte order; 0 means that there is no redirect.
    pub proxy_port: u16,
    /// What the proxy takes the stream for; 0 means none.
    pub parser: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Redirect>() == 4);

/// State of one connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionEntry {
    /// Zero: what the test version of the ABI has more.
    #[cfg(feature = "next-abi")]
    pub next_abi: u64,
    /// Second of the monotonic clock (`CLOCK_MONOTONIC`) after which the entry is dead.
    pub expires: u32,
    /// Second of the monotonic clock when the last event was sent for it; at first, when it was made.
    pub last_report: u32,
    /// The initiator's egress policy.
    pub egress: ConnectionVerdict,
    /// The responder's ingress policy.
    pub ingress: ConnectionVerdict,
    /// Identity of the initiator.
    pub source_identity: u32,
    /// Identity of the responder.
    pub destination_identity: u32,
    /// Packets from the initiator, and from the responder.
    pub packets: [u64; 2],
    /// Bytes from the initiator, and from the responder.
    pub bytes: [u64; 2],
    /// TCP flags seen from the initiator, and from the responder; RST only until a later segment speaks against it, and
    /// the initiator's ACK only if it acknowledges the answer, where that was seen.
    pub tcp_flags: [u8; 2],
    /// `CT_*` bits.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// For an entry of `ESTABLISHED`: whose share it counts in, see [`share_index`]. In `CONNECTIONS` the lower half
    /// of [`ConnectionEntry::answer`], or nothing.
    pub share: u16,
    /// Zero; in `CONNECTIONS` the upper half of [`ConnectionEntry::answer`], or nothing.
    pub answer_high: u16,
    /// Room, zero: the other tuple.
    #[cfg(not(feature = "former-abi"))]
    pub translation: Translation,
    /// Room, zero: the proxy.
    #[cfg(not(feature = "former-abi"))]
    pub redirect: Redirect,
    /// Room, zero: index of the key that its packets are encrypted with; 0 means none.
    #[cfg(not(feature = "former-abi"))]
    pub encryption_key: u8,
    /// Room, zero: whether its ends have proved who they are, where policy wants that.
    #[cfg(not(feature = "former-abi"))]
    pub authentication: u8,
    /// Zero.
    #[cfg(not(feature = "former-abi"))]
    pub room: [u8; 2],
}

impl ConnectionEntry {
    /// Whether everything is zero that nothing writes yet: a version that gives it a meaning relies on that.
    #[cfg(not(feature = "former-abi"))]
    pub fn room_is_zero(&self) -> bool {
        self.translation == Translation::default()
            && self.redirect == Redirect::default()
            && (self.encryption_key, self.authentication, self.room) == (0, 0, [0; 2])
    }

    /// Of an entry with [`CT_ANSWERED`] whose answer was not acknowledged yet: the answer's sequence number.
    #[inline(always)]
    pub const fn answer(&self) -> u32 {
        ((self.answer_high as u32) << 16) | self.share as u32
    }

    /// Keeps the sequence number of the responder's answer. Only for an entry of `CONNECTIONS`.
    #[inline(always)]
    pub const fn set_answer(&mut self, sequence: u32) {
        self.flags |= CT_ANSWERED;
        self.share = sequence as u16;
        self.answer_high = (sequence >> 16) as u16;
    }
}

#[cfg(not(any(feature = "next-abi", feature = "former-abi")))]
const _: () = assert!(size_of::<ConnectionEntry>() == 120);
#[cfg(feature = "next-abi")]
const _: () = assert!(size_of::<ConnectionEntry>() == 128);
#[cfg(feature = "former-abi")]
const _: () = assert!(size_of::<ConnectionEntry>() == 88);

/// Shares of `ESTABLISHED`: two an endpoint.
pub const SHARES: u32 = crate::MAX_ENDPOINTS * 2;

/// The share that an established connection counts in: what an endpoint opens and what is opened to it are
/// counted apart, so that those who connect to a pod cannot use up what it needs for its own connections.
#[inline(always)]
pub const fn share_index(endpoint: u32, is_initiator: bool) -> u32 {
    (endpoint << 1) | is_initiator as u32
}

/// Fragmented datagrams that are remembered for one endpoint.
pub const FRAGMENT_SLOTS: u32 = 64;

/// Where a fragmented datagram on its way is remembered. Each endpoint has [`FRAGMENT_SLOTS`] places of its own,
/// so that one endpoint's fragments cannot push out another's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragmentKey {
    /// The local endpoint that sends it, else the one that receives it.
    pub endpoint: u32,
    /// Below [`FRAGMENT_SLOTS`], from the addresses and the identification.
    pub slot: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 8);

/// A fragmented datagram whose first fragment was admitted: what only that one says.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragmentEntry {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification: 16 bits for IPv4, 32 for IPv6, network byte order.
    pub identification: u32,
    /// Source port, network byte order; see [`ConnectionKey`] for ICMP.
    pub source_port: u16,
    /// Destination port, network byte order; see [`ConnectionKey`] for ICMP.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// ICMP type, 0 for other protocols.
    pub icmp_type: u8,
    /// What kind of ICMP message it is, as the programs note it.
    pub kind: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<FragmentEntry>() == 44);
