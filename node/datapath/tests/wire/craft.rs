//! Packets byte by byte, with right lengths and checksums: real stacks receive them.

use std::net::IpAddr;

const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// The port of the overlay.
pub const VXLAN: u16 = 8472;

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

fn checksum(sum: u32) -> [u8; 2] {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    (!(twice as u16)).to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Writes the checksum of a transport header at a place.
fn sealed(ends: (IpAddr, IpAddr), protocol: u8, at: usize, mut bytes: Vec<u8>) -> Vec<u8> {
    let pseudo = [octets(ends.0), octets(ends.1)].concat();
    let total = sum(&pseudo) + u32::from(protocol) + bytes.len() as u32 + sum(&bytes);
    let value = checksum(total);
    bytes[at..at + 2].copy_from_slice(&value);
    bytes
}

/// An IP packet; `ends` are its source and destination.
pub fn ip(ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    let addresses = [octets(ends.0), octets(ends.1)].concat();
    if ends.0.is_ipv4() {
        let length = (20 + payload.len()) as u16;
        let mut header = [
            &[0x45, 0][..],
            &length.to_be_bytes(),
            &[0x12, 0x34, 0, 0, 64, protocol, 0, 0],
            &addresses,
        ]
        .concat();
        let value = checksum(sum(&header));
        header[10..12].copy_from_slice(&value);
        [&header, payload].concat()
    } else {
        let length = (payload.len() as u16).to_be_bytes();
        let header = [0x60, 0, 0, 0, length[0], length[1], protocol, 64];
        [&header, &addresses[..], payload].concat()
    }
}

/// A UDP header with its payload.
pub fn udp(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let bytes = [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &length.to_be_bytes(),
        &[0, 0],
        payload,
    ]
    .concat();
    sealed(ends, UDP, 6, bytes)
}

/// A datagram in its IP packet.
pub fn datagram(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    ip(ends, UDP, &udp(ends, ports, payload))
}

/// A TCP segment in its IP packet.
pub fn segment(ends: (IpAddr, IpAddr), ports: (u16, u16), flags: u8, payload: &[u8]) -> Vec<u8> {
    numbered(ends, ports, (1, 1), flags, payload)
}

/// The same with its sequence and acknowledgment numbers.
pub fn numbered(
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    let bytes = [
        &ports.0.to_be_bytes()[..],
        &ports.1.to_be_bytes(),
        &numbers.0.to_be_bytes(),
        &numbers.1.to_be_bytes(),
        &[0x50, flags, 0xff, 0xff, 0, 0, 0, 0],
        payload,
    ]
    .concat();
    ip(ends, TCP, &sealed(ends, TCP, 16, bytes))
}

/// An ICMP error that quotes a packet.
pub fn icmp_error(ends: (IpAddr, IpAddr), kind: (u8, u8), rest: u32, quoted: &[u8]) -> Vec<u8> {
    let bytes = [&[kind.0, kind.1, 0, 0][..], &rest.to_be_bytes(), quoted].concat();
    if ends.0.is_ipv4() {
        let mut bytes = bytes;
        let value = checksum(sum(&bytes));
        bytes[2..4].copy_from_slice(&value);
        ip(ends, ICMP, &bytes)
    } else {
        ip(ends, ICMPV6, &sealed(ends, ICMPV6, 2, bytes))
    }
}

/// The same IPv6 packet with headers of destination options before its transport header.
pub fn with_options(packet: &[u8], headers: usize) -> Vec<u8> {
    let mut next = packet[6];
    let mut chain = Vec::new();
    for _ in 0..headers {
        chain.splice(0..0, [next, 0, 1, 4, 0, 0, 0, 0]);
        next = DESTINATION_OPTIONS;
    }
    let payload = [&chain, &packet[40..]].concat();
    let length = (payload.len() as u16).to_be_bytes();
    let mut header = packet[..40].to_vec();
    header[4..6].copy_from_slice(&length);
    header[6] = next;
    [header, payload].concat()
}

/// The two fragments of a packet whose payload is cut at a place, a multiple of 8.
pub fn fragments(packet: &[u8], at: usize, identification: u16) -> [Vec<u8>; 2] {
    let v4 = packet[0] >> 4 == 4;
    let (header, payload) = packet.split_at(if v4 { 20 } else { 40 });
    let part = |offset: usize, more: bool, bytes: &[u8]| {
        if v4 {
            let mut header = header.to_vec();
            let length = (20 + bytes.len()) as u16;
            let position = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[4..6].copy_from_slice(&identification.to_be_bytes());
            header[6..8].copy_from_slice(&position.to_be_bytes());
            header[10..12].fill(0);
            let value = checksum(sum(&header));
            header[10..12].copy_from_slice(&value);
            [&header, bytes].concat()
        } else {
            let position = (offset as u16 | u16::from(more)).to_be_bytes();
            let id = identification.to_be_bytes();
            let between = [header[6], 0, position[0], position[1], 0, 0, id[0], id[1]];
            let length = ((8 + bytes.len()) as u16).to_be_bytes();
            let mut header = header.to_vec();
            header[4..6].copy_from_slice(&length);
            header[6] = FRAGMENT;
            [&header, &between[..], bytes].concat()
        }
    };
    [
        part(0, true, &payload[..at]),
        part(at, false, &payload[at..]),
    ]
}

/// An Ethernet frame around an IP packet.
pub fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if packet[0] >> 4 == 4 {
        [8, 0]
    } else {
        [0x86, 0xdd]
    };
    [&to[..], &from, &ethertype, packet].concat()
}

/// An IP packet as a node encapsulates it for another.
pub fn encapsulated(outer: (IpAddr, IpAddr), vni: u32, inner: &[u8]) -> Vec<u8> {
    let vni = vni.to_be_bytes();
    let header = [8, 0, 0, 0, vni[1], vni[2], vni[3], 0];
    let inner = frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], inner);
    datagram(outer, (50_000, VXLAN), &[&header[..], &inner].concat())
}

/// Makes an IPv4 header's checksum right again.
pub fn renew_ipv4_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let value = checksum(sum(header));
    header[10..12].copy_from_slice(&value);
}
