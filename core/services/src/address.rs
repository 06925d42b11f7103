//! Addresses that no Service and no endpoint can have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address means nothing outside of one host or link, or means no single host.
///
/// The Kubernetes API refuses most of these in EndpointSlices (`ValidateEndpointIP`); a cluster without its
/// validation, and the addresses of Services, need the same answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
pub enum AddressFault {
    /// `0.0.0.0/8` (RFC 1122, 3.2.1.3) and `::`.
    #[error("it is not the address of a host")]
    Unspecified,
    /// `127.0.0.0/8` and `::1`: it would reach the processes of whichever host translates to it.
    #[error("it is a loopback address")]
    Loopback,
    /// `169.254.0.0/16` (RFC 3927) and `fe80::/10` (RFC 4291): metadata services of clouds live here.
    #[error("it is a link-local address")]
    LinkLocal,
    /// `224.0.0.0/4` and `ff00::/8`.
    #[error("it is a multicast address")]
    Multicast,
    /// `255.255.255.255`.
    #[error("it is the broadcast address")]
    Broadcast,
    /// `::ffff:0:0/96` (RFC 4291, 2.5.5.2): a second spelling of an IPv4 address, which would pass by every
    /// check that is made of the first.
    #[error("it is an IPv4 address in IPv6 form")]
    Mapped,
}

impl AddressFault {
    /// What is wrong with an address in itself, whoever has it.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Option<Self> {
        if address.octets()[0] == 0 {
            Some(Self::Unspecified)
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_link_local() {
            Some(Self::LinkLocal)
        } else if address.is_multicast() {
            Some(Self::Multicast)
        } else if address.is_broadcast() {
            Some(Self::Broadcast)
        } else {
            None
        }
    }

    fn of_v6(address: Ipv6Addr) -> Option<Self> {
        if address.is_unspecified() {
            Some(Self::Unspecified)
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_unicast_link_local() {
            Some(Self::LinkLocal)
        } else if address.is_multicast() {
            Some(Self::Multicast)
        } else if address.to_ipv4_mapped().is_some() {
            Some(Self::Mapped)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_no_single_host_are_told_from_the_others() {
        use AddressFault::{Broadcast, LinkLocal, Loopback, Mapped, Multicast, Unspecified};
        for (text, fault) in [
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.0.9", Some(Loopback)),
            ("169.254.169.254", Some(LinkLocal)),
            ("224.0.0.1", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("255.255.255.255", Some(Broadcast)),
            ("10.0.0.1", None),
            // Some clouds give pods addresses of the former class E.
            ("240.0.0.1", None),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("ff02::1", Some(Multicast)),
            ("::ffff:10.0.0.1", Some(Mapped)),
            ("::ffff:127.0.0.1", Some(Mapped)),
            ("fd00::1", None),
            ("2001:db8::1", None),
        ] {
            assert_eq!(AddressFault::of(text.parse().unwrap()), fault, "{text}");
        }
    }
}
