//! Malformed and hostile frames through the real programs: each is dropped, and for the reason that the
//! table names.
//!
//! Needs root. Frames are run by `BPF_PROG_TEST_RUN` and go nowhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use bed::{Bed, Pod};
use heddle_abi::DropReason::{self, *};
use heddle_datapath::Datapath;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const DROP: u32 = 2;
const REDIRECT: u32 = 7;

/// Who sends, and to whom.
struct Wire {
    mac: [u8; 6],
    host_mac: [u8; 6],
    ifindex: u32,
    from: Pod,
    to: Pod,
}

fn ethernet(wire: &Wire, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [
        &wire.host_mac[..],
        &wire.mac,
        &ethertype.to_be_bytes(),
        payload,
    ]
    .concat()
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(payload);
    let length = u16::try_from(header.len()).unwrap();
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend([next, 255]);
    header.extend(source.octets());
    header.extend(destination.octets());
    header.extend(payload);
    header
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags];
    header.extend([0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn udp(port: u16) -> Vec<u8> {
    [
        &[0x9c, 0x40][..],
        &port.to_be_bytes(),
        &[0, 12, 0, 0, 1, 2, 3, 4],
    ]
    .concat()
}

fn icmp6(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], body].concat()
}

impl Wire {
    fn new(bed: &Bed) -> Self {
        let from = bed.pod(1, 300);
        let to = bed.pod(2, 301);
        let facts = bed.datapath.endpoints().unwrap();
        let facts = &facts
            .iter()
            .find(|found| found.facts.endpoint == 1)
            .unwrap()
            .facts;
        Self {
            mac: facts.mac,
            host_mac: facts.host_mac,
            ifindex: facts.ifindex,
            from,
            to,
        }
    }

    fn v4(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ethernet(
            self,
            0x0800,
            &ipv4(self.from.ipv4, self.to.ipv4, protocol, payload),
        )
    }

    fn v6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        ethernet(
            self,
            0x86dd,
            &ipv6(self.from.ipv6, self.to.ipv6, next, payload),
        )
    }
}

/// Packets dropped for a reason so far.
fn drops(bed: &Bed, reason: DropReason) -> u64 {
    let metrics = bed.datapath.metrics().unwrap();
    metrics
        .iter()
        .filter(|((number, _), _)| *number == reason as u8)
        .map(|(_, slot)| slot.packets)
        .sum()
}

fn send(bed: &Bed, wire: &Wire, frame: &[u8]) -> u32 {
    bed.in_node(|| {
        bed.datapath
            .run_program("from_pod", frame, wire.ifindex)
            .unwrap()
            .0
    })
}

/// What the tests of noise rely on: the kernel runs the program on a whole IP header. On less it may refuse to, and the
/// program, where it runs, drops it.
#[test]
fn a_frame_shorter_than_its_ip_header_passes_no_program() {
    let bed = Bed::new(|_| {});
    let wire = Wire::new(&bed);
    for (ethertype, header) in [(0x0800, 20), (0x86dd, 40)] {
        for length in 0..=header {
            let frame = ethernet(&wire, ethertype, &vec![0; length]);
            let before = drops(&bed, InvalidPacketDropped);
            let run = bed.in_node(|| bed.datapath.run_program("from_pod", &frame, wire.ifindex));
            let counted = drops(&bed, InvalidPacketDropped) - before;
            match run {
                Ok((code, _)) => assert_eq!((code, counted), (DROP, 1), "{length} bytes"),
                Err(error) => {
                    assert_ne!(length, header, "a whole header: {error}");
                    let is_refusal = error.to_string().contains("Invalid argument");
                    assert!(is_refusal && counted == 0, "{length} bytes: {error}");
                }
            }
        }
    }
}

fn patched(mut frame: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
    for (at, value) in changes {
        frame[*at] = *value;
    }
    frame
}

#[test]
fn hostile_frames_are_dropped_with_their_reason() {
    let bed = Bed::new(|_| {});
    let wire = Wire::new(&bed);
    let stranger4: Ipv4Addr = "10.244.9.9".parse().unwrap();
    let stranger6: Ipv6Addr = "fd10:244::9".parse().unwrap();
    let node4: Ipv4Addr = "172.31.1.2".parse().unwrap();
    let syn4 = wire.v4(6, &tcp(2));
    let syn6 = wire.v6(6, &tcp(2));
    assert_eq!(send(&bed, &wire, &syn4), REDIRECT);
    assert_eq!(send(&bed, &wire, &syn6), REDIRECT);
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let link_local: Ipv6Addr = "fe80::99".parse().unwrap();
    let advertisement = icmp6(134, &[64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0]);
    let claim = icmp6(136, &[&[0xa0, 0, 0, 0][..], &stranger6.octets()].concat());
    let arp_reply = [
        &[0, 1, 8, 0, 6, 4, 0, 2][..],
        &wire.mac,
        &stranger4.octets(),
        &[0; 6],
        &stranger4.octets(),
    ]
    .concat();
    let table: Vec<(&str, Vec<u8>, DropReason)> = vec![
        (
            "source MAC of another",
            patched(syn4.clone(), &[(6, 0x02), (7, 0x99)]),
            InvalidSourceMac,
        ),
        (
            "source address of another",
            ethernet(&wire, 0x0800, &ipv4(stranger4, wire.to.ipv4, 6, &tcp(2))),
            InvalidSourceIp,
        ),
        (
            "source address of another, IPv6",
            ethernet(&wire, 0x86dd, &ipv6(stranger6, wire.to.ipv6, 6, &tcp(2))),
            InvalidSourceIp,
        ),
        (
            "link-local source",
            ethernet(&wire, 0x86dd, &ipv6(link_local, wire.to.ipv6, 17, &udp(53))),
            InvalidSourceIp,
        ),
        (
            "IPv4-mapped source in IPv6",
            ethernet(
                &wire,
                0x86dd,
                &ipv6(wire.from.ipv4.to_ipv6_mapped(), wire.to.ipv6, 6, &tcp(2)),
            ),
            InvalidPacketDropped,
        ),
        (
            "DHCP",
            ethernet(
                &wire,
                0x0800,
                &ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, 17, &udp(67)),
            ),
            InvalidSourceIp,
        ),
        (
            "router advertisement",
            ethernet(
                &wire,
                0x86dd,
                &ipv6(link_local, all_nodes, 58, &advertisement),
            ),
            ForbiddenIcmpv6Message,
        ),
        (
            "router advertisement from its own address",
            ethernet(
                &wire,
                0x86dd,
                &ipv6(wire.from.ipv6, all_nodes, 58, &advertisement),
            ),
            ForbiddenIcmpv6Message,
        ),
        (
            "neighbour advertisement for another",
            ethernet(&wire, 0x86dd, &ipv6(wire.from.ipv6, all_nodes, 58, &claim)),
            ForbiddenIcmpv6Message,
        ),
        (
            "gratuitous ARP for another",
            ethernet(&wire, 0x0806, &arp_reply),
            InvalidSourceIp,
        ),
        (
            "multicast",
            ethernet(
                &wire,
                0x0800,
                &ipv4(
                    wire.from.ipv4,
                    "224.0.0.251".parse().unwrap(),
                    17,
                    &udp(5353),
                ),
            ),
            StaleOrUnroutableIp,
        ),
        (
            "broadcast",
            ethernet(
                &wire,
                0x0800,
                &ipv4(wire.from.ipv4, Ipv4Addr::BROADCAST, 17, &udp(9)),
            ),
            StaleOrUnroutableIp,
        ),
        (
            "encapsulated, to a node",
            ethernet(&wire, 0x0800, &ipv4(wire.from.ipv4, node4, 17, &udp(8472))),
            EncapsulationTrafficIsProhibited,
        ),
        (
            "IPv4 version 5",
            patched(syn4.clone(), &[(14, 0x55)]),
            InvalidPacketDropped,
        ),
        (
            "IPv4 header of 16 bytes",
            patched(syn4.clone(), &[(14, 0x44)]),
            InvalidPacketDropped,
        ),
        (
            "IPv4 length beyond the frame",
            patched(syn4.clone(), &[(16, 0xff)]),
            InvalidPacketDropped,
        ),
        (
            "IPv4 length below the header",
            patched(syn4.clone(), &[(16, 0), (17, 19)]),
            InvalidPacketDropped,
        ),
        (
            "IPv6 version 4",
            patched(syn6.clone(), &[(14, 0x40)]),
            InvalidPacketDropped,
        ),
        (
            "IPv6 length beyond the frame",
            patched(syn6.clone(), &[(18, 0xff)]),
            InvalidPacketDropped,
        ),
        (
            "TCP header of 16 bytes",
            patched(syn4.clone(), &[(14 + 20 + 12, 0x40)]),
            CtTruncatedOrInvalidHeader,
        ),
        (
            "TCP cut short",
            wire.v4(6, &tcp(2)[..12]),
            CtTruncatedOrInvalidHeader,
        ),
        (
            "UDP cut short",
            wire.v6(17, &udp(53)[..4]),
            CtTruncatedOrInvalidHeader,
        ),
        (
            "ICMPv6 in IPv4",
            wire.v4(58, &icmp6(128, &[0; 4])),
            CtUnknownL4Protocol,
        ),
        ("GRE", wire.v4(47, &[0; 8]), CtUnknownL4Protocol),
        ("no next header", wire.v6(59, &[]), CtUnknownL4Protocol),
        (
            "routing header",
            wire.v6(43, &[&[6, 0, 0, 0, 0, 0, 0, 0][..], &tcp(2)].concat()),
            InvalidIpv6ExtensionHeader,
        ),
        (
            "hop-by-hop behind destination options",
            wire.v6(
                60,
                &[
                    &[0, 0, 1, 4, 0, 0, 0, 0][..],
                    &[6, 0, 1, 4, 0, 0, 0, 0],
                    &tcp(2),
                ]
                .concat(),
            ),
            InvalidIpv6ExtensionHeader,
        ),
        (
            "five extension headers",
            wire.v6(
                60,
                &[
                    &[60, 0, 1, 4, 0, 0, 0, 0].repeat(4)[..],
                    &[6, 0, 1, 4, 0, 0, 0, 0],
                    &tcp(2),
                ]
                .concat(),
            ),
            InvalidIpv6ExtensionHeader,
        ),
        (
            "extension header behind a fragment header",
            wire.v6(
                44,
                &[
                    &[60, 0, 0, 1, 0, 0, 0, 7][..],
                    &[6, 0, 1, 4, 0, 0, 0, 0],
                    &tcp(2),
                ]
                .concat(),
            ),
            InvalidIpv6ExtensionHeader,
        ),
        (
            "later fragment without a first",
            patched(wire.v4(17, &udp(53)), &[(21, 4)]),
            FirstLogicalDatagramFragmentNotFound,
        ),
        (
            "later fragment without a first, IPv6",
            wire.v6(44, &[&[17, 0, 0, 8, 0, 0, 0, 7][..], &udp(53)].concat()),
            FirstLogicalDatagramFragmentNotFound,
        ),
        (
            "fragment over the TCP flags",
            patched(syn4.clone(), &[(21, 1)]),
            InvalidPacketDropped,
        ),
        (
            "another ethertype",
            ethernet(&wire, 0x88cc, &[0; 46]),
            UnsupportedL3Protocol,
        ),
    ];
    for (name, frame, reason) in table {
        let before = drops(&bed, reason);
        assert_eq!(send(&bed, &wire, &frame), DROP, "{name}");
        assert_eq!(drops(&bed, reason), before + 1, "{name}: reason {reason:?}");
    }
    // Every cut of a good frame is dropped; a test run wants a whole IP header.
    let udp4 = wire.v4(17, &udp(53));
    let udp6 = wire.v6(17, &udp(53));
    for (frame, headers) in [(syn4, 34), (syn6, 54), (udp4, 34), (udp6, 54)] {
        for length in headers..frame.len() {
            assert_eq!(send(&bed, &wire, &frame[..length]), DROP, "cut to {length}");
        }
    }
}

#[test]
fn only_well_formed_frames_from_the_pods_own_addresses_pass() {
    let bed = Bed::new(|_| {});
    let wire = Wire::new(&bed);
    let seeds = [
        wire.v4(6, &tcp(2)),
        wire.v6(6, &tcp(2)),
        wire.v4(17, &udp(53)),
        wire.v6(60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(53)].concat()),
        wire.v4(1, &[8, 0, 0, 0, 0, 1, 0, 1]),
    ];
    let mutated = (
        0..seeds.len(),
        prop::collection::vec((0_usize..90, any::<u8>()), 0..6),
        0_usize..100,
    );
    let noise = prop::collection::vec(any::<u8>(), 14..200);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&noise, |mut frame| {
            // The kernel runs no program on a frame that is shorter than the IP header that it announces.
            if matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd]) && frame.len() < 54 {
                frame.resize(54, 0);
            }
            // Random bytes would have to guess two MAC addresses' worth of facts.
            prop_assert_eq!(send(&bed, &wire, &frame), DROP);
            Ok(())
        })
        .unwrap();
    runner
        .run(&mutated, |(seed, changes, cut)| {
            let mut frame = seeds[seed].clone();
            for (at, value) in changes {
                let length = frame.len();
                frame[at % length] = value;
            }
            frame.truncate(frame.len().saturating_sub(cut / 10).max(54));
            if send(&bed, &wire, &frame) != DROP {
                prop_assert!(is_well_formed(&wire, &frame), "passed: {frame:02x?}");
            }
            Ok(())
        })
        .unwrap();
}

/// The oracle: written from the RFCs, not from the programs.
fn is_well_formed(wire: &Wire, frame: &[u8]) -> bool {
    if frame[6..12] != wire.mac {
        return false;
    }
    let packet = &frame[14..];
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => {
            let header = usize::from(packet[0] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            packet[0] >> 4 == 4
                && header >= 20
                && total >= header
                && total <= packet.len()
                && packet[12..16] == wire.from.ipv4.octets()
                && matches!(packet[9], 1 | 6 | 17 | 132)
        }
        0x86dd => {
            let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            packet[0] >> 4 == 6
                && payload + 40 <= packet.len()
                && packet[8..24] == wire.from.ipv6.octets()
        }
        // The gateway's ARP answer.
        0x0806 => packet[14..18] == wire.from.ipv4.octets(),
        _ => false,
    }
}
