//! Connections whose state hostile segments try to change: only the ends know what is right.

use crate::{
    bed, craft,
    floods::{Connection, Node},
    lab::{address, ip},
    raw::Wire,
    table::Table,
};
use heddle_abi::ConnectionKey;
use heddle_datapath::{ConnectionRow, Datapath};
use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Longer than a connection lives that both ends have closed.
const IDLE: Duration = Duration::from_secs(11);

/// The ports of the client and the server.
fn ports(connection: &Connection) -> (u16, u16) {
    let port = |address: std::io::Result<SocketAddr>| address.expect("address").port();
    (
        port(connection.client.local_addr()),
        port(connection.client.peer_addr()),
    )
}

fn row(node: &Node, (client, server): (u16, u16)) -> Option<ConnectionRow> {
    let (client, server) = (client.to_be(), server.to_be());
    let is_its = |key: &ConnectionKey| {
        let found = (key.low_port, key.high_port);
        found == (client, server) || found == (server, client)
    };
    let found = node.bed.datapath.connections(&is_its, 1000);
    found.expect("connections").rows.into_iter().next()
}

fn remaining(node: &Node, ports: (u16, u16)) -> u32 {
    row(node, ports).map_or(0, |row| row.remaining_seconds)
}

/// Waits until a connection has at most so many seconds left.
fn falls_to(node: &Node, ports: (u16, u16), most: u32) -> u32 {
    let end = Instant::now() + Duration::from_secs(5);
    while remaining(node, ports) > most && Instant::now() < end {
        std::thread::yield_now();
    }
    remaining(node, ports)
}

#[test]
fn a_blind_reset_ends_no_connection() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| settings.host_routing = host_routing);
        let wires = [
            Wire::open(&node.victim.netns, "eth0"),
            Wire::open(&node.server.netns, "eth0"),
        ];
        let mut all = Vec::new();
        for v6 in [false, true] {
            for by_server in [false, true] {
                for is_sealed in [false, true] {
                    let name = format!(
                        "{}, by the {}, IPv6 {v6}, host routing {host_routing}",
                        if is_sealed { "number" } else { "checksum" },
                        if by_server { "responder" } else { "initiator" },
                    );
                    all.push((name, v6, by_server, is_sealed, node.connect(v6)));
                }
            }
        }
        let mut check = |name: &str, right: bool, found: String| {
            table.check("K resets", name, right, &found);
        };
        for (name, v6, by_server, is_sealed, connection) in &all {
            let ports = ports(connection);
            let ends = (address(&node.victim, *v6), address(&node.server, *v6));
            let mut packet = if *by_server {
                craft::segment((ends.1, ends.0), (ports.1, ports.0), RST, &[])
            } else {
                craft::segment(ends, ports, RST, &[])
            };
            if !is_sealed {
                let at = packet.len() - 4;
                packet[at] ^= 0x55;
            }
            let frame = node.frame(1 + u16::from(*by_server), &packet);
            wires[usize::from(*by_server)].send(&frame);
            let left = falls_to(&node, ports, 240);
            let right = (230..=240).contains(&left);
            check(
                &format!("it is marked: {name}"),
                right,
                format!("{left} seconds"),
            );
        }
        let kept = node.established();
        check(
            "all keep their places",
            kept == all.len() as u64,
            format!("{kept}"),
        );
        let end = Instant::now() + IDLE;
        while Instant::now() < end {
            std::thread::park_timeout(IDLE);
        }
        for (name, _, _, _, connection) in &mut all {
            let heard = connection.answers();
            let left = remaining(&node, ports(connection));
            check(
                &format!("the server speaks first: {name}"),
                heard && left > 7000,
                format!("heard: {heard}, {left} seconds"),
            );
        }
    }
    table.finish();
}

#[test]
fn a_reset_that_is_accepted_stays() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| settings.host_routing = host_routing);
        let servers = Wire::open(&node.server.netns, "eth0");
        for v6 in [false, true] {
            let mut connection = node.connect(v6);
            assert!(connection.echoes());
            let ports = ports(&connection);
            // What is not read when its receiver closes is answered with an RST.
            let Connection { client, server } = connection;
            std::io::Write::write_all(&mut &server, b"unread").expect("write");
            let end = Instant::now() + Duration::from_secs(3);
            while !matches!(client.peek(&mut [0]), Ok(1)) && Instant::now() < end {}
            drop(client);
            let mut check = |name: &str, right: bool, found: String| {
                let name = format!("{name}, IPv6 {v6}, host routing {host_routing}");
                table.check("K real resets", &name, right, &found);
            };
            let left = falls_to(&node, ports, 240);
            check("it is marked", left <= 240, format!("{left} seconds"));
            let ends = (address(&node.server, v6), address(&node.victim, v6));
            let packets = |row: &ConnectionRow| row.entry.packets[0];
            let before = row(&node, ports).as_ref().map_or(0, packets);
            let stray = craft::segment(ends, (ports.1, ports.0), ACK, b"stray");
            servers.send(&node.frame(2, &stray));
            let end = Instant::now() + Duration::from_secs(3);
            let answers = || row(&node, ports).as_ref().map_or(0, packets) - before;
            while answers() == 0 && Instant::now() < end {
                std::thread::yield_now();
            }
            let left = falls_to(&node, ports, 240);
            check(
                "a later segment is answered, and it is marked again",
                answers() > 0 && left <= 240,
                format!("{} answers, {left} seconds", answers()),
            );
        }
    }
    table.finish();
}

/// The sequence number of the answer to a SYN from this port.
fn answer(outside: &Wire, v6: bool, port: u16) -> Option<u32> {
    let transport = if v6 { 14 + 40 } else { 14 + 20 };
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        for frame in outside.arrived() {
            let Some(header) = frame.get(transport..transport + 20) else {
                continue;
            };
            if header[2..4] == port.to_be_bytes() && header[13] == SYN | ACK {
                return header[4..8].try_into().ok().map(u32::from_be_bytes);
            }
        }
        std::thread::yield_now();
    }
    None
}

#[test]
fn only_who_read_the_answer_establishes_a_connection() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| settings.host_routing = host_routing);
        let datapath = &node.bed.datapath;
        datapath.set_policy(2, &bed::allow_all()).expect("policy");
        node.bed.tell_router();
        let router = node.bed.outside();
        assert!(bed::sh(&format!(
            "ip -n {router} route add blackhole 203.0.113.0/24
             ip -n {router} route add blackhole 2001:db8::/64"
        )));
        let outside = Wire::open(router, "n1");
        let uplink = Wire::open(node.bed.node(), "eth0");
        let listener = bed::in_netns(&node.server.netns, || {
            TcpListener::bind(("::", 0)).expect("bind")
        });
        let port = listener.local_addr().expect("port").port();
        for v6 in [false, true] {
            let mut check = |name: &str, right: bool, found: String| {
                let name = format!("{name}, IPv6 {v6}, host routing {host_routing}");
                table.check("K acknowledgments", &name, right, &found);
            };
            let before = node.established();
            let source = ip(if v6 { "2001:db8::66" } else { "203.0.113.66" });
            let (ends, ports) = (
                (source, address(&node.server, v6)),
                (20_000 + u16::from(v6), port),
            );
            let send = |numbers, flags, is_sealed: bool| {
                let mut packet = craft::numbered(ends, ports, numbers, flags, &[]);
                if !is_sealed {
                    let at = packet.len() - 4;
                    packet[at] ^= 0x55;
                }
                outside.send(&craft::frame(uplink.mac, outside.mac, &packet));
            };
            let packets = || row(&node, ports).map_or(0, |row| row.entry.packets[0]);
            let has_seen = |count| {
                let end = Instant::now() + Duration::from_secs(3);
                while packets() < count && Instant::now() < end {
                    std::thread::yield_now();
                }
                packets() >= count
            };
            outside.arrived();
            // An acknowledgment before the answer proves nothing either.
            send((1, 1), ACK, false);
            send((1, 0), SYN, true);
            let sequence = answer(&outside, v6, ports.0);
            check("it is answered", sequence.is_some(), String::new());
            let next = sequence.unwrap_or(0).wrapping_add(1);
            for (count, name, number, is_sealed) in [
                (
                    3,
                    "with a wrong checksum and number",
                    next ^ 0x0100_0000,
                    false,
                ),
                (
                    4,
                    "with the number of the answer itself",
                    next.wrapping_sub(1),
                    false,
                ),
                (5, "with a wrong number", next ^ 0x0001_0000, true),
            ] {
                send((2, number), ACK, is_sealed);
                let (seen, kept) = (has_seen(count), node.established());
                let left = remaining(&node, ports);
                check(
                    name,
                    seen && kept == before && left <= 60,
                    format!("seen: {seen}, places: {kept}, {left} seconds"),
                );
            }
            send((2, next), ACK, true);
            let (seen, kept) = (has_seen(6), node.established());
            let left = remaining(&node, ports);
            check(
                "with the right number",
                seen && kept == before + 1 && left > 7000,
                format!("seen: {seen}, places: {kept}, {left} seconds"),
            );
        }
    }
    table.finish();
}
