//! Ports and message types of a rule.

use crate::Rule;
use std::fmt;

/// What a rule is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ports {
    /// Everything, ICMP and unknown protocols included (reference P2).
    All,
    /// What one of these says; an empty list is nothing (reference E9).
    Only(Vec<PortTerm>),
}

/// True when the rule has named ports.
pub(crate) fn has_names(rule: &Rule) -> bool {
    match &rule.ports {
        Ports::All => false,
        Ports::Only(terms) => terms
            .iter()
            .any(|term| matches!(term, PortTerm::Transport(_, PortMatch::Name(_)))),
    }
}

/// One term of a rule's ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortTerm {
    /// Ports of a transport protocol.
    Transport(Transport, PortMatch),
    /// An ICMP message type.
    Icmp(IcmpFamily, u8),
}

impl fmt::Display for PortTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(transport, PortMatch::All) => write!(f, "{}", transport.name()),
            Self::Transport(transport, PortMatch::Range(first, last)) if first == last => {
                write!(f, "{}/{first}", transport.name())
            }
            Self::Transport(transport, PortMatch::Range(first, last)) => {
                write!(f, "{}/{first}-{last}", transport.name())
            }
            Self::Transport(transport, PortMatch::Name(name)) => {
                write!(f, "{}/{name}", transport.name())
            }
            Self::Icmp(IcmpFamily::V4, kind) => write!(f, "ICMP/{kind}"),
            Self::Icmp(IcmpFamily::V6, kind) => write!(f, "ICMPv6/{kind}"),
        }
    }
}

/// A transport protocol of a rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// All three; not ICMP (reference P1).
    Any,
}

impl Transport {
    /// Its name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Any => "ANY",
        }
    }

    /// The IP protocol numbers.
    pub const fn protocols(self) -> &'static [u8] {
        use crate::protocol::{SCTP, TCP, UDP};
        match self {
            Self::Tcp => &[TCP],
            Self::Udp => &[UDP],
            Self::Sctp => &[SCTP],
            Self::Any => &[TCP, UDP, SCTP],
        }
    }
}

/// Ports of a transport protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortMatch {
    /// All of them.
    All,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// The ports that the pod on the receiving end gives this name (references P5, P6).
    Name(String),
}

/// An ICMP version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IcmpFamily {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

impl IcmpFamily {
    /// The IP protocol number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::V4 => crate::protocol::ICMP,
            Self::V6 => crate::protocol::ICMPV6,
        }
    }
}

impl PortTerm {
    /// The message types that `name` stands for in `icmps` (reference 1.2), or `None`.
    pub fn icmp_type(family: IcmpFamily, name: &str) -> Option<u8> {
        let table: &[(&str, u8)] = match family {
            IcmpFamily::V4 => &[
                ("EchoReply", 0),
                ("DestinationUnreachable", 3),
                ("Redirect", 5),
                ("Echo", 8),
                ("EchoRequest", 8),
                ("RouterAdvertisement", 9),
                ("RouterSelection", 10),
                ("TimeExceeded", 11),
                ("ParameterProblem", 12),
                ("Timestamp", 13),
                ("TimestampReply", 14),
                ("Photuris", 40),
                ("ExtendedEchoRequest", 42),
                ("ExtendedEchoReply", 43),
            ],
            IcmpFamily::V6 => &[
                ("DestinationUnreachable", 1),
                ("PacketTooBig", 2),
                ("TimeExceeded", 3),
                ("ParameterProblem", 4),
                ("EchoRequest", 128),
                ("EchoReply", 129),
                ("MulticastListenerQuery", 130),
                ("MulticastListenerReport", 131),
                ("MulticastListenerDone", 132),
                ("RouterSolicitation", 133),
                ("RouterAdvertisement", 134),
                ("NeighborSolicitation", 135),
                ("NeighborAdvertisement", 136),
                ("RedirectMessage", 137),
                ("RouterRenumbering", 138),
                ("ICMPNodeInformationQuery", 139),
                ("ICMPNodeInformationResponse", 140),
                ("InverseNeighborDiscoverySolicitation", 141),
                ("InverseNeighborDiscoveryAdvertisement", 142),
                ("HomeAgentAddressDiscoveryRequest", 144),
                ("HomeAgentAddressDiscoveryReply", 145),
                ("MobilePrefixSolicitation", 146),
                ("MobilePrefixAdvertisement", 147),
                ("DuplicateAddressRequestCodeSuffix", 157),
                ("DuplicateAddressConfirmationCodeSuffix", 158),
                ("ExtendedEchoRequest", 160),
                ("ExtendedEchoReply", 161),
            ],
        };
        table
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }
}
