//! Connections: what counts as a reply, what belongs to one, and when one is over.
//!
//! Needs root. Frames are run by `BPF_PROG_TEST_RUN`; streams are real.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use bed::{Bed, Pod, allow_all, deny_all};
use heddle_abi::{CT_CLOSING, CT_SEEN_REPLY, ConnectionKey};
use heddle_datapath::{ConnectionRows, Datapath};
use heddle_policy::compiled::Direction;
use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

const PASS: u32 = 7;
const DROP: u32 = 2;

/// A frame between two pods of one node.
struct Frame {
    v6: bool,
    protocol: u8,
    transport: Vec<u8>,
}

struct Two {
    bed: Bed,
    a: Pod,
    b: Pod,
}

impl Two {
    /// `a` may do everything; nothing may be begun towards `a`.
    fn new() -> Self {
        let bed = Bed::new(|_| {});
        let a = bed.pod(1, 300);
        let b = bed.pod(2, 301);
        let mut closed = allow_all();
        closed
            .entries
            .retain(|entry| entry.key.direction == Direction::Egress);
        bed.datapath.set_policy(1, &closed).unwrap();
        Self { bed, a, b }
    }

    fn address(&self, pod: u16, v6: bool) -> IpAddr {
        let pod = if pod == 1 { &self.a } else { &self.b };
        if v6 { pod.ipv6.into() } else { pod.ipv4.into() }
    }

    fn packet(&self, from: u16, frame: &Frame) -> Vec<u8> {
        let to = 3 - from;
        let mut packet = match (self.address(from, frame.v6), self.address(to, frame.v6)) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = u16::try_from(20 + frame.transport.len())
                    .unwrap()
                    .to_be_bytes();
                let mut header = vec![
                    0x45,
                    0,
                    length[0],
                    length[1],
                    0,
                    1,
                    0,
                    0,
                    64,
                    frame.protocol,
                    0,
                    0,
                ];
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let length = u16::try_from(frame.transport.len()).unwrap().to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, length[0], length[1], frame.protocol, 64];
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => unreachable!("one family"),
        };
        packet.extend(&frame.transport);
        packet
    }

    fn send_packet(&self, from: u16, v6: bool, packet: &[u8]) -> u32 {
        let endpoints = self.bed.datapath.endpoints().unwrap();
        let facts = &endpoints
            .iter()
            .find(|found| found.facts.endpoint == from)
            .unwrap()
            .facts;
        let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [8, 0] };
        let frame = [&facts.host_mac[..], &facts.mac, &ethertype, packet].concat();
        self.bed.in_node(|| {
            self.bed
                .datapath
                .run_program("from_pod", &frame, facts.ifindex)
                .unwrap()
                .0
        })
    }

    fn send(&self, from: u16, frame: &Frame) -> u32 {
        self.send_packet(from, frame.v6, &self.packet(from, frame))
    }

    fn tcp(&self, from: u16, v6: bool, ports: (u16, u16), flags: u8) -> u32 {
        let mut transport = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        transport.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        self.send(
            from,
            &Frame {
                v6,
                protocol: 6,
                transport,
            },
        )
    }

    fn udp(&self, from: u16, v6: bool, ports: (u16, u16)) -> u32 {
        let transport = [
            &ports.0.to_be_bytes()[..],
            &ports.1.to_be_bytes(),
            &[0, 8, 0, 0],
        ]
        .concat();
        self.send(
            from,
            &Frame {
                v6,
                protocol: 17,
                transport,
            },
        )
    }

    fn sctp(&self, from: u16, v6: bool, ports: (u16, u16)) -> u32 {
        let transport = [
            &ports.0.to_be_bytes()[..],
            &ports.1.to_be_bytes(),
            &[0; 8],
            &[1, 0, 0, 4],
        ]
        .concat();
        self.send(
            from,
            &Frame {
                v6,
                protocol: 132,
                transport,
            },
        )
    }

    fn echo(&self, from: u16, v6: bool, request: bool, identifier: u16) -> u32 {
        let (protocol, kind) = match (v6, request) {
            (false, true) => (1, 8),
            (false, false) => (1, 0),
            (true, true) => (58, 128),
            (true, false) => (58, 129),
        };
        let transport = [&[kind, 0, 0, 0][..], &identifier.to_be_bytes(), &[0, 1]].concat();
        self.send(
            from,
            &Frame {
                v6,
                protocol,
                transport,
            },
        )
    }

    /// The one connection with this port.
    fn connection(&self, port: u16) -> heddle_datapath::ConnectionRow {
        let port = port.to_be();
        let is_its = |key: &ConnectionKey| key.low_port == port || key.high_port == port;
        let found = self.bed.datapath.connections(&is_its, 1000).unwrap();
        assert_eq!(found.left_out, 0);
        let mut rows = found.rows.into_iter();
        rows.next().expect("connection")
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
const RST: u8 = 4;

#[test]
fn replies_pass_and_nothing_else_does() {
    let two = Two::new();
    for v6 in [false, true] {
        assert_eq!(
            two.tcp(2, v6, (80, 1000), SYN | ACK),
            DROP,
            "a reply to nothing"
        );
        assert_eq!(two.tcp(1, v6, (1000, 80), SYN), PASS);
        assert_eq!(two.tcp(2, v6, (80, 1000), SYN | ACK), PASS);
        assert_eq!(two.tcp(2, v6, (81, 1000), SYN | ACK), DROP, "another port");
        assert_eq!(two.udp(2, v6, (53, 1000)), DROP);
        assert_eq!(two.udp(1, v6, (1000, 53)), PASS);
        assert_eq!(two.udp(2, v6, (53, 1000)), PASS);
        assert_eq!(two.sctp(2, v6, (9, 1000)), DROP);
        assert_eq!(two.sctp(1, v6, (1000, 9)), PASS);
        assert_eq!(two.sctp(2, v6, (9, 1000)), PASS);
        assert_eq!(two.echo(2, v6, false, 7), DROP, "an echo reply to nothing");
        assert_eq!(two.echo(1, v6, true, 7), PASS);
        assert_eq!(two.echo(2, v6, false, 7), PASS);
        assert_eq!(
            two.echo(2, v6, true, 7),
            DROP,
            "a request with the same identifier is no reply"
        );
    }
}

#[test]
fn tcp_states_set_lifetimes() {
    let two = Two::new();
    for v6 in [false, true] {
        let (client, server) = if v6 { (2006, 80) } else { (2004, 80) };
        let remaining = || two.connection(client).remaining_seconds;
        two.tcp(1, v6, (client, server), SYN);
        assert!((59..=60).contains(&remaining()), "SYN: {}", remaining());
        two.tcp(2, v6, (server, client), SYN | ACK);
        two.tcp(1, v6, (client, server), ACK);
        assert!(
            (7999..=8000).contains(&remaining()),
            "established: {}",
            remaining()
        );
        two.tcp(1, v6, (client, server), FIN | ACK);
        assert!(
            remaining() > 7000,
            "half closed: the other side may go on sending"
        );
        assert_eq!(two.tcp(2, v6, (server, client), ACK), PASS);
        two.tcp(2, v6, (server, client), FIN | ACK);
        assert!((9..=10).contains(&remaining()), "closed: {}", remaining());
        assert_ne!(two.connection(client).entry.flags & CT_CLOSING, 0);
        // A new connection on the old tuple, this time from a port that the server knows.
        assert_eq!(two.tcp(1, v6, (client, server), SYN), PASS);
        let row = two.connection(client);
        assert_eq!(row.entry.flags & (CT_CLOSING | CT_SEEN_REPLY), 0);
        two.tcp(1, v6, (client, server), RST);
        assert!((9..=10).contains(&remaining()), "reset: {}", remaining());
        // The responder cannot turn a closed connection round.
        assert_eq!(two.tcp(2, v6, (server, client), SYN), DROP);
        // An established one is only marked, and may stand again.
        two.tcp(1, v6, (client, server), SYN);
        two.tcp(2, v6, (server, client), SYN | ACK);
        two.tcp(1, v6, (client, server), ACK);
        two.tcp(1, v6, (client, server), FIN | ACK);
        two.tcp(2, v6, (server, client), RST);
        assert!((239..=240).contains(&remaining()), "reset: {}", remaining());
        assert_eq!(two.connection(client).entry.flags & CT_CLOSING, 0);
        assert_eq!(two.tcp(2, v6, (server, client), SYN), DROP);
        assert_eq!(two.tcp(1, v6, (client, server), SYN), PASS);
        two.tcp(2, v6, (server, client), SYN | ACK);
        two.tcp(1, v6, (client, server), ACK);
        assert!(remaining() > 7000, "stands: {}", remaining());
        two.tcp(2, v6, (server, client), FIN | ACK);
        assert!(remaining() > 7000, "half closed: {}", remaining());
    }
}

/// An ICMP error from `b` that quotes a packet which `a` sent.
fn error(two: &Two, v6: bool, kind: (u8, u8), quoted: &[u8]) -> u32 {
    let transport = [&[kind.0, kind.1, 0, 0, 0, 0, 5, 0xdc][..], quoted].concat();
    two.send(
        2,
        &Frame {
            v6,
            protocol: if v6 { 58 } else { 1 },
            transport,
        },
    )
}

#[test]
fn icmp_errors_pass_for_live_connections_only() {
    let two = Two::new();
    for v6 in [false, true] {
        let too_big = if v6 { (2, 0) } else { (3, 4) };
        let unreachable = if v6 { (1, 4) } else { (3, 3) };
        let quoted = |port: u16| {
            let transport = [
                &3000_u16.to_be_bytes()[..],
                &port.to_be_bytes(),
                &[0, 8, 0, 0],
            ]
            .concat();
            two.packet(
                1,
                &Frame {
                    v6,
                    protocol: 17,
                    transport,
                },
            )
        };
        for kind in [too_big, unreachable] {
            assert_eq!(error(&two, v6, kind, &quoted(99)), DROP, "about nothing");
        }
        assert_eq!(two.udp(1, v6, (3000, 99)), PASS);
        for kind in [too_big, unreachable] {
            assert_eq!(error(&two, v6, kind, &quoted(99)), PASS, "{kind:?}");
            assert_eq!(
                error(&two, v6, kind, &quoted(98)),
                DROP,
                "about another port"
            );
            assert_eq!(error(&two, v6, kind, &quoted(99)[..20]), DROP, "cut short");
        }
        // What it quotes must have been sent by whom it is sent to.
        let forged = two.packet(
            2,
            &Frame {
                v6,
                protocol: 17,
                transport: [0, 99, 11, 184, 0, 8, 0, 0].to_vec(),
            },
        );
        assert_eq!(error(&two, v6, too_big, &forged), DROP);
    }
}

#[test]
fn fragments_follow_their_first() {
    let two = Two::new();
    let udp = [0x0b, 0xb8, 0, 53, 0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let fragment = |first: bool, more: bool, identification: u8| {
        let payload: &[u8] = if first { &udp } else { &[9; 8] };
        let mut packet = two.packet(
            1,
            &Frame {
                v6: false,
                protocol: 17,
                transport: payload.to_vec(),
            },
        );
        packet[5] = identification;
        packet[6] = if more { 0x20 } else { 0 };
        packet[7] = if first { 0 } else { 2 };
        packet
    };
    assert_eq!(
        two.send_packet(1, false, &fragment(false, false, 1)),
        DROP,
        "before its first"
    );
    assert_eq!(two.send_packet(1, false, &fragment(true, true, 1)), PASS);
    assert_eq!(two.send_packet(1, false, &fragment(false, false, 1)), PASS);
    assert_eq!(
        two.send_packet(1, false, &fragment(false, false, 2)),
        DROP,
        "of another datagram"
    );
    let fragment6 = |first: bool, identification: u8| {
        let header = [
            17,
            0,
            0,
            if first { 1 } else { 16 },
            0,
            0,
            0,
            identification,
        ];
        let payload: &[u8] = if first { &udp } else { &[9; 8] };
        let transport = [&header[..], payload].concat();
        two.packet(
            1,
            &Frame {
                v6: true,
                protocol: 44,
                transport,
            },
        )
    };
    assert_eq!(two.send_packet(1, true, &fragment6(false, 1)), DROP);
    assert_eq!(two.send_packet(1, true, &fragment6(true, 1)), PASS);
    assert_eq!(two.send_packet(1, true, &fragment6(false, 1)), PASS);
    assert_eq!(two.send_packet(1, true, &fragment6(false, 2)), DROP);
}

#[test]
fn a_deny_cuts_both_directions_of_what_is_established() {
    let two = Two::new();
    for v6 in [false, true] {
        let client = if v6 { 4006 } else { 4004 };
        assert_eq!(two.udp(1, v6, (client, 53)), PASS);
        assert_eq!(two.udp(2, v6, (53, client)), PASS);
        let open = two.bed.datapath.policy(1).unwrap();
        two.bed.datapath.set_policy(1, &deny_all()).unwrap();
        // The server may be the only one that still sends.
        assert_eq!(
            two.udp(2, v6, (53, client)),
            DROP,
            "replies to a denied connection"
        );
        assert_eq!(two.udp(1, v6, (client, 53)), DROP);
        let mut again = allow_all();
        again.entries = open.entries.unwrap();
        two.bed.datapath.set_policy(1, &again).unwrap();
        assert_eq!(two.udp(1, v6, (client, 53)), PASS);
    }
}

#[test]
fn a_removed_pod_leaves_no_connection() {
    let two = Two::new();
    for v6 in [false, true] {
        two.udp(1, v6, (5000, 53));
    }
    let listed = |limit| two.bed.datapath.connections(&|_| true, limit).unwrap();
    let of = |found: &ConnectionRows| (found.rows.len(), found.left_out);
    assert_eq!([of(&listed(100)), of(&listed(1))], [(2, 0), (1, 1)]);
    two.bed
        .in_node(|| two.bed.datapath.remove_endpoint(1).unwrap());
    assert_eq!(of(&listed(100)), (0, 0));
    assert_eq!(two.bed.datapath.endpoints().unwrap().len(), 1);
    two.bed
        .in_node(|| two.bed.datapath.remove_endpoint(1).unwrap());
}

/// Each question goes on though the others are asked at the same time: `heddle status` beside `heddle why` once left
/// both waiting for each other, and all that came after.
#[test]
fn maps_that_are_looked_at_from_several_sides_keep_nobody_waiting() {
    const ROUNDS: usize = 300;
    let bed = Bed::new(|_| {});
    let datapath = &*bed.datapath;
    let asks: [&(dyn Fn() + Sync); 3] = [
        &|| drop(datapath.connections(&|_| true, 16).unwrap()),
        &|| drop(datapath.peers().unwrap()),
        &|| drop(datapath.endpoints().unwrap()),
    ];
    let (done, ended) = std::sync::mpsc::channel();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for ask in asks {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    ask();
                }
            });
        }
        scope.spawn(|| {
            (0..ROUNDS).for_each(|_| drop(datapath.map_use().unwrap()));
            stop.store(true, Ordering::Relaxed);
            let _ = done.send(());
        });
        if ended.recv_timeout(Duration::from_secs(60)).is_err() {
            // The scope would wait for those that wait for each other.
            eprintln!("some wait for each other");
            std::process::exit(1);
        }
    });
}
