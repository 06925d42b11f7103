//! IP protocol numbers that policy can tell apart, their names, and named ports.

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

/// The protocol's name, or `None` for one that no port or type can be asked of.
pub const fn name(protocol: u8) -> Option<&'static str> {
    match protocol {
        ICMP => Some("ICMP"),
        TCP => Some("TCP"),
        UDP => Some("UDP"),
        ICMPV6 => Some("ICMPv6"),
        SCTP => Some("SCTP"),
        _ => None,
    }
}

/// The number of a protocol by its name, whatever its case.
pub fn number(name: &str) -> Option<u8> {
    [ICMP, TCP, UDP, ICMPV6, SCTP]
        .into_iter()
        .find(|protocol| self::name(*protocol).is_some_and(|n| n.eq_ignore_ascii_case(name)))
}

/// `TCP/80`, `ICMP/8`, or `protocol 47`.
pub fn describe(protocol: u8, port: u16) -> String {
    match name(protocol) {
        Some(name) => format!("{name}/{port}"),
        None => format!("protocol {protocol}"),
    }
}

/// The named ports in the value of the identity label `LabelSet::NAMED_PORTS`:
/// `dns=UDP/53,http=TCP/8080`. Parts that are not of this form are passed over.
pub fn named_ports(value: &str) -> impl Iterator<Item = (&str, u8, u16)> {
    value.split(',').filter_map(|part| {
        let (name, rest) = part.split_once('=')?;
        let (protocol, port) = rest.split_once('/')?;
        Some((name, number(protocol)?, port.parse().ok()?))
    })
}
