//! Addresses that nobody in particular has: what a pod sends there the programs drop before any policy is asked.
//!
//! Written after `is_unroutable` in `bpf/programs/src/hooks/from_pod.rs` and `bpf/programs/src/packet/address.rs`; a test
//! asks the latter's functions the same questions.

use std::net::{IpAddr, Ipv4Addr};

/// The gateway address in pods' IPv4 routes (RFC 3927 range): the programs tell its MAC address, and take nothing for it.
pub const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 23, 1);

/// Whether the programs drop whatever a pod sends to this address (`STALE_OR_UNROUTABLE_IP`). What the node itself sends
/// does not meet them there.
pub fn is_unroutable(destination: IpAddr) -> bool {
    unroutable_class(destination).is_some()
}

/// The class for which the programs drop what a pod sends to an address, with its article; `None` where they do not.
pub fn unroutable_class(destination: IpAddr) -> Option<&'static str> {
    if destination == GATEWAY_IPV4 {
        // IPv6's gateway is a link-local address like any other.
        return Some("the gateway of pods' routes");
    }
    nobodys_class(destination)
}

/// The class of an address from which no packet that is forwarded to a pod can come, with its article. IPv4 link-local
/// addresses are none: clouds put services there.
pub(crate) fn nobodys_class(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => match v4.octets()[0] {
            0 => Some("an address of this host (0.0.0.0/8)"),
            127 => Some("a loopback address (inside a pod: the pod itself)"),
            224..=239 => Some("a multicast address"),
            _ if v4.is_broadcast() => Some("the broadcast address"),
            240..=255 => Some("a reserved address (240.0.0.0/4)"),
            _ => None,
        },
        IpAddr::V6(v6) if v6.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(v6) if v6.is_loopback() => {
            Some("the loopback address (inside a pod: the pod itself)")
        }
        IpAddr::V6(v6) if v6.is_multicast() => Some("a multicast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
#[path = "../../../bpf/programs/src/packet/address.rs"]
#[allow(unreachable_pub, reason = "it is another crate's")]
mod program;

#[cfg(test)]
mod tests {
    use super::*;

    /// An address, whether a pod's packets to it are dropped, and whether packets from it to a pod are.
    const CASES: &[(&str, bool, bool)] = &[
        ("0.0.0.0", true, true),
        ("0.1.2.3", true, true),
        ("1.0.0.1", false, false),
        ("10.244.1.5", false, false),
        ("126.255.255.255", false, false),
        ("127.0.0.1", true, true),
        ("127.255.255.255", true, true),
        ("128.0.0.1", false, false),
        ("169.254.23.0", false, false),
        ("169.254.23.1", true, false),
        ("169.254.169.254", false, false),
        ("172.31.1.2", false, false),
        ("203.0.113.10", false, false),
        ("223.255.255.255", false, false),
        ("224.0.0.1", true, true),
        ("239.255.255.255", true, true),
        ("240.0.0.1", true, true),
        ("255.255.255.255", true, true),
        ("::", true, true),
        ("::1", true, true),
        ("::2", false, false),
        ("fd10::5", false, false),
        ("2001:db8::1", false, false),
        ("fe7f:ffff::1", false, false),
        ("fe80::23:1", true, true),
        ("fe80::1", true, true),
        ("febf:ffff::1", true, true),
        ("fec0::1", false, false),
        ("feff::1", false, false),
        ("ff00::1", true, true),
        ("ff02::1", true, true),
        ("ffff::1", true, true),
    ];

    #[test]
    fn each_class_of_addresses_is_refused_as_the_programs_refuse_it() {
        for (text, refused, refused_as_source) in CASES {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(is_unroutable(address), *refused, "to {text}");
            assert_eq!(
                nobodys_class(address).is_some(),
                *refused_as_source,
                "from {text}"
            );
            let seen = heddle_abi::Address::from(address);
            let by_program = program::is_no_source(&seen, address.is_ipv6());
            assert_eq!(by_program, *refused_as_source, "{text}, by the program");
        }
    }
}
