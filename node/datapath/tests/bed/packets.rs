//! Builders of packets and frames, the same for both address families.

use std::net::IpAddr;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

/// An IP packet; IPv6 when the source is.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload.len()).expect("length");
            let mut packet = vec![0x45, 0];
            packet.extend(length.to_be_bytes());
            packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len()).expect("length");
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            packet.extend(payload);
            packet
        }
        _ => unreachable!("one family"),
    }
}

/// One fragment; `offset` counts units of eight bytes.
pub fn fragment(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    (id, offset, more): (u16, u16, bool),
    payload: &[u8],
) -> Vec<u8> {
    if source.is_ipv4() {
        let mut packet = ip(source, destination, protocol, payload);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        let field = offset | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet
    } else {
        let field = (offset << 3 | u16::from(more)).to_be_bytes();
        let id = u32::from(id).to_be_bytes();
        let header = [&[protocol, 0][..], &field, &id, payload].concat();
        ip(source, destination, 44, &header)
    }
}

/// A TCP segment without data.
pub fn tcp(ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut header = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// A UDP datagram of eight bytes.
pub fn udp(ports: (u16, u16)) -> Vec<u8> {
    let mut header = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    header.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    header
}

/// An ICMP message: type, code, the second word, and what follows.
pub fn icmp(kind: u8, code: u8, word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], &word, rest].concat()
}

/// An echo request or reply.
pub fn echo(v6: bool, request: bool, id: u16) -> Vec<u8> {
    let kind = match (v6, request) {
        (false, true) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (true, false) => 129,
    };
    let [high, low] = id.to_be_bytes();
    icmp(kind, 0, [high, low, 0, 1], &[])
}

/// The ICMP protocol of a family.
pub fn icmp_protocol(v6: bool) -> u8 {
    if v6 { ICMPV6 } else { ICMP }
}

/// An Ethernet frame around an IP packet.
pub fn ethernet(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    };
    [&destination[..], &source, &ethertype, packet].concat()
}
