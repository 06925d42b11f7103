//! Floods: what one pod does to the shared tables costs no other pod what it has.

use crate::{
    bed::{self, Bed, Pod, in_netns},
    craft::{self, datagram, fragments},
    lab::{address, ip},
    raw::{Wire, keep_to_one_cpu},
    table::Table,
};
use heddle_abi::{
    DropReason, EVENT_DROP, FRAGMENT_SLOTS, FragmentEntry, FragmentKey, MAX_ENDPOINTS, map_names,
};
use heddle_datapath::{Datapath, Settings};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

const VICTIM: u32 = 500;
const SERVER: u32 = 501;
const FLOODER: u32 = 502;
const TABLE: u32 = 2048;
const SHARE: u32 = 4;
const LIMIT: Duration = Duration::from_secs(20);

/// A node with a victim that may only begin something towards its server, the server, towards which only the
/// victim may begin something, and a pod that may do everything.
pub struct Node {
    pub bed: Bed,
    pub victim: Pod,
    pub server: Pod,
    flooder: Pod,
    wire: Wire,
}

/// Only this direction, with this peer, is allowed.
fn only(direction: Direction, identity: u32) -> CompiledPolicy {
    let mut policy = bed::allow_all();
    policy.ingress_enforced = true;
    policy.egress_enforced = true;
    policy.entries.retain(|row| row.key.direction == direction);
    for row in &mut policy.entries {
        row.key.identity = Identity(identity);
    }
    policy
}

impl Node {
    pub fn new(change: impl FnOnce(&mut Settings)) -> Self {
        keep_to_one_cpu();
        let bed = Bed::new(change);
        let victim = bed.pod(1, VICTIM);
        let server = bed.pod(2, SERVER);
        let flooder = bed.pod(3, FLOODER);
        let set = |endpoint, policy| bed.datapath.set_policy(endpoint, &policy).expect("policy");
        set(1, only(Direction::Egress, SERVER));
        set(2, only(Direction::Ingress, VICTIM));
        // The node knows its router.
        assert!(bed.ping_from_node("172.31.1.1") && bed.ping_from_node("fd31:1::1"));
        let wire = Wire::open(&flooder.netns, "eth0");
        Self {
            bed,
            victim,
            server,
            flooder,
            wire,
        }
    }

    /// A frame of an endpoint.
    pub fn frame(&self, endpoint: u16, packet: &[u8]) -> Vec<u8> {
        let endpoints = self.bed.datapath.endpoints().expect("endpoints");
        let facts = endpoints
            .into_iter()
            .find(|found| found.facts.endpoint == endpoint)
            .expect("endpoint")
            .facts;
        craft::frame(facts.host_mac, facts.mac, packet)
    }

    /// Connections in a table.
    fn entries(&self, map: &str) -> u64 {
        let rows = self.bed.datapath.map_use().expect("map use");
        rows.iter()
            .find(|row| row.name == map)
            .expect("map")
            .entries
    }

    pub fn established(&self) -> u64 {
        self.entries(map_names::ESTABLISHED)
    }

    pub fn connect(&self, v6: bool) -> Connection {
        let listener = in_netns(&self.server.netns, || {
            TcpListener::bind(("::", 0)).expect("bind")
        });
        let port = listener.local_addr().expect("port").port();
        let to = (address(&self.server, v6), port).into();
        let client = in_netns(&self.victim.netns, move || {
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connects")
        });
        let (server, _) = listener.accept().expect("accept");
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(3)))
                .expect("timeout");
            end.set_nodelay(true).expect("no delay");
        }
        Connection { client, server }
    }

    /// Opens ten times as many connections as the table holds, with two packets each.
    fn flood(&self, v6: bool) {
        let source = address(&self.flooder, v6);
        let end: IpAddr = ip(if v6 { "2001:db8::9" } else { "203.0.113.9" });
        let mut frame = self.frame(3, &datagram((source, end), (1, 1), b"flood"));
        let ports = if v6 { 14 + 40 } else { 14 + 20 };
        // Nobody checks a checksum on the way.
        for number in 0..TABLE * 10 {
            frame[ports..ports + 4].copy_from_slice(&(number * 3 + 1).to_be_bytes());
            self.wire.send(&frame);
            self.wire.send(&frame);
        }
    }
}

pub struct Connection {
    pub client: TcpStream,
    pub server: TcpStream,
}

impl Connection {
    fn carries(from: &mut TcpStream, to: &mut TcpStream) -> bool {
        let mut heard = [0; 4];
        from.write_all(b"data").is_ok() && to.read_exact(&mut heard).is_ok() && heard == *b"data"
    }

    pub fn echoes(&mut self) -> bool {
        Self::carries(&mut self.client, &mut self.server) && self.answers()
    }

    /// The server speaks first.
    pub fn answers(&mut self) -> bool {
        Self::carries(&mut self.server, &mut self.client)
    }
}

/// Talks until something holds, at most for the limit; a connection that carries nothing ends it, too.
fn talk(connections: &mut [Connection], mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    while !holds() {
        if Instant::now() > end || !connections.iter_mut().all(Connection::echoes) {
            return false;
        }
        // Each message takes its time; there is no hurry.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    true
}

#[test]
fn connections_outlive_a_flood() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        for v6 in [false, true] {
            let node = Node::new(|settings| {
                settings.max_connections = TABLE;
                settings.host_routing = host_routing;
            });
            let mode = format!("IPv6 {v6}, host routing {host_routing}");
            let mut check = |name: &str, right: bool, found: String| {
                table.check("J connections", &format!("{name}, {mode}"), right, &found);
            };
            let mut all = [node.connect(v6)];
            let moved = talk(&mut all, || node.established() == 1);
            check(
                "an answered connection is kept apart",
                moved,
                format!("{}", node.established()),
            );
            node.flood(v6);
            let held = node.entries(map_names::CONNECTIONS);
            check(
                "the flood fills its own table",
                held > u64::from(TABLE) / 2 && held <= u64::from(TABLE),
                format!("{held} of {TABLE}"),
            );
            let denied = || node.bed.drops(DropReason::PolicyDenied as u8);
            let before = denied();
            let answers = all[0].answers();
            let dropped = denied() - before;
            check(
                "the server speaks first after the flood",
                answers && dropped == 0,
                format!("heard: {answers}, denied: {dropped}"),
            );
            let kept = node.established();
            check("it is still kept", kept == 1, format!("{kept}"));
            drop(all);
            let end = Instant::now() + LIMIT;
            while node.established() != 0 && Instant::now() < end {
                std::thread::yield_now();
            }
            let kept = node.established();
            check("a closed one is not", kept == 0, format!("{kept}"));
        }
    }
    table.finish();
}

#[test]
fn connections_that_fell_silent_at_once_outlive_a_flood() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        for v6 in [false, true] {
            let node = Node::new(|settings| {
                settings.max_connections = TABLE;
                settings.host_routing = host_routing;
            });
            // One that never said anything, and one that did once.
            let mut all = [node.connect(v6), node.connect(v6)];
            let [_, talker] = &mut all;
            assert!(Connection::carries(&mut talker.client, &mut talker.server));
            node.flood(v6);
            for (connection, name) in all.iter_mut().zip(["silent", "talked once"]) {
                let denied = || node.bed.drops(DropReason::PolicyDenied as u8);
                let before = denied();
                let answers = connection.answers();
                let found = format!("heard: {answers}, denied: {}", denied() - before);
                let name = format!("{name}, IPv6 {v6}, host routing {host_routing}");
                table.check("J silence", &name, answers, &found);
            }
        }
    }
    table.finish();
}

/// Sends SYNs to a server in the name of hosts that do not answer, and waits until the server has said to each of
/// them for the second time that it accepts; gives whether it did.
fn flood_with_syns(node: &Node, outside: &Wire, v6: bool, port: u16, round: u16) -> bool {
    const COUNT: u16 = 16;
    let uplink = Wire::open(node.bed.node(), "eth0");
    let server = address(&node.server, v6);
    let source = ip(if v6 { "2001:db8::66" } else { "203.0.113.66" });
    let ports = round * COUNT..(round + 1) * COUNT;
    outside.arrived();
    for sport in ports {
        let syn = craft::segment((source, server), (10_000 + sport, port), 2, &[]);
        outside.send(&craft::frame(uplink.mac, outside.mac, &syn));
    }
    // Where the flags stand in an answer.
    let flags = if v6 { 14 + 40 + 13 } else { 14 + 20 + 13 };
    let accepts = |frame: &Vec<u8>| frame.get(flags) == Some(&18);
    let (end, mut seen) = (Instant::now() + LIMIT, 0);
    while seen < 2 * usize::from(COUNT) && Instant::now() < end {
        seen += outside
            .arrived()
            .iter()
            .filter(|frame| accepts(frame))
            .count();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    seen >= 2 * usize::from(COUNT)
}

#[test]
fn a_flood_of_syns_takes_no_places_of_a_service() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        for v6 in [false, true] {
            let node = Node::new(|settings| {
                settings.max_connections = TABLE;
                settings.established_share = SHARE;
                settings.host_routing = host_routing;
            });
            let mut check = |name: &str, right: bool, found: String| {
                let name = format!("{name}, IPv6 {v6}, host routing {host_routing}");
                table.check("J SYN flood", &name, right, &found);
            };
            // A service for everybody, which begins nothing itself.
            let mut service = bed::allow_all();
            service.egress_enforced = true;
            service
                .entries
                .retain(|row| row.key.direction == Direction::Ingress);
            let datapath = &node.bed.datapath;
            datapath.set_policy(2, &service).expect("policy");
            node.bed.tell_router();
            let router = node.bed.outside();
            assert!(bed::sh(&format!(
                "ip -n {router} route add blackhole 203.0.113.0/24
                 ip -n {router} route add blackhole 2001:db8::/64"
            )));
            let outside = Wire::open(router, "n1");
            let listener = in_netns(&node.server.netns, || {
                TcpListener::bind(("::", 0)).expect("bind")
            });
            let port = listener.local_addr().expect("port").port();
            let answered = flood_with_syns(&node, &outside, v6, port, 0);
            check("the server answers each SYN twice", answered, String::new());
            let kept = node.established();
            check("they take no places", kept == 0, format!("{kept}"));
            let half_open = datapath.connections(&|_| true, 1000);
            let half_open = half_open.expect("connections").rows;
            let longest = half_open.iter().map(|row| row.remaining_seconds).max();
            check(
                "they live as long as a SYN",
                half_open.len() >= 16 && longest.is_some_and(|seconds| seconds <= 60),
                format!("{} of {longest:?} seconds at most", half_open.len()),
            );
            let to = (address(&node.server, v6), port).into();
            let mut clients: Vec<_> = (0..SHARE)
                .map(|_| {
                    let client = in_netns(router, move || {
                        TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connects")
                    });
                    let (server, _) = listener.accept().expect("accept");
                    for end in [&client, &server] {
                        end.set_read_timeout(Some(Duration::from_secs(3)))
                            .expect("timeout");
                    }
                    Connection { client, server }
                })
                .collect();
            let talked = clients.iter_mut().all(Connection::echoes);
            let kept = node.established();
            check(
                "clients have theirs",
                talked && kept == u64::from(SHARE),
                format!("talked: {talked}, places: {kept}"),
            );
            flood_with_syns(&node, &outside, v6, port, 1);
            node.flood(v6);
            let heard: Vec<_> = clients.iter_mut().map(Connection::answers).collect();
            check(
                "the server speaks first after the floods",
                heard.iter().all(|heard| *heard),
                format!("{heard:?}"),
            );
        }
    }
    table.finish();
}

#[test]
fn a_share_is_no_limit_for_connections() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| {
            settings.established_share = SHARE;
            settings.host_routing = host_routing;
        });
        // Without host routing each of the two ends is at a hook of its own, and gives its share when the other's
        // is full.
        let share = u64::from(SHARE) * if host_routing { 1 } else { 2 };
        let mut check = |name: &str, right: bool, found: String| {
            let name = format!("{name}, host routing {host_routing}");
            table.check("J shares", &name, right, &found);
        };
        for round in ["first", "after the first were closed", "after a collection"] {
            let mut all: Vec<_> = (0..=share).map(|n| node.connect(n % 2 == 0)).collect();
            let full = talk(&mut all, || node.established() == share);
            check(
                &format!("a share fills, {round}"),
                full,
                format!("{}", node.established()),
            );
            // They have all been old enough for long now.
            let start = Instant::now();
            let works = talk(&mut all, || start.elapsed() > Duration::from_millis(1500));
            check(&format!("one more works, {round}"), works, String::new());
            let (kept, others) = (node.established(), node.entries(map_names::CONNECTIONS));
            check(
                &format!("it stays where it was, {round}"),
                kept == share && others >= 1,
                format!("{kept} and {others}"),
            );
            if round == "after the first were closed" {
                let (alive, _) = node.bed.datapath.collect_connections().expect("collected");
                check(
                    &format!("a collection keeps them, {round}"),
                    node.established() == share && alive > share,
                    format!("{} of {alive}", node.established()),
                );
            }
            drop(all);
            let end = Instant::now() + LIMIT;
            while node.established() != 0 && Instant::now() < end {
                std::thread::yield_now();
            }
            let kept = node.established();
            check(
                &format!("closed ones give their places back, {round}"),
                kept == 0,
                format!("{kept}"),
            );
        }
    }
    table.finish();
}

#[test]
fn datagrams_in_fragments_outlive_a_flood_of_others() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| settings.host_routing = host_routing);
        let victims = Wire::open(&node.victim.netns, "eth0");
        for v6 in [false, true] {
            let server = in_netns(&node.server.netns, || {
                UdpSocket::bind(("::", 0)).expect("bind")
            });
            server
                .set_read_timeout(Some(Duration::from_secs(3)))
                .expect("timeout");
            let port = server.local_addr().expect("port").port();
            let ends = (address(&node.victim, v6), address(&node.server, v6));
            let payload: Vec<u8> = (0..2000).map(|n| n as u8).collect();
            let parts = fragments(&datagram(ends, (4000, port), &payload), 1200, 4711);
            let [first, later] = parts.map(|part| node.frame(1, &part));
            victims.send(&first);
            // First fragments with every identification.
            let flooder = address(&node.flooder, v6);
            let many = fragments(&datagram((flooder, ends.1), (1, 1), &[0; 64]), 32, 0);
            let mut flood = node.frame(3, &many[0]);
            let world = ip(if v6 { "2001:db8::9" } else { "203.0.113.9" });
            let out = fragments(&datagram((flooder, world), (1, 1), &[0; 64]), 32, 0);
            let mut admitted = node.frame(3, &out[0]);
            let at = if v6 { 14 + 40 + 6 } else { 14 + 4 };
            for identification in 0..=u16::MAX {
                for frame in [&mut flood, &mut admitted] {
                    frame[at..at + 2].copy_from_slice(&identification.to_be_bytes());
                    if !v6 {
                        craft::renew_ipv4_checksum(&mut frame[14..34]);
                    }
                    node.wire.send(frame);
                }
            }
            victims.send(&later);
            let mut buffer = [0; 4096];
            let got = server.recv(&mut buffer).unwrap_or(0);
            let right = buffer[..got] == payload;
            let found = format!("{got} of {} bytes", payload.len());
            let name = format!("crafted, IPv6 {v6}, host routing {host_routing}");
            table.check("J fragments", &name, right, &found);
            // A real stack's large datagram right after it.
            let to = (ends.1, port);
            in_netns(&node.victim.netns, move || {
                let any: IpAddr = if v6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind((any, 0)).expect("bind");
                socket.send_to(&[7; 8192], to).expect("send");
            });
            let mut buffer = vec![0; 16_384];
            let got = server.recv(&mut buffer).unwrap_or(0);
            let name = format!("of a stack, IPv6 {v6}, host routing {host_routing}");
            table.check(
                "J fragments",
                &name,
                got == 8192,
                &format!("{got} of 8192 bytes"),
            );
        }
    }
    table.finish();
}

/// Who may send to the same pod takes none of its places.
#[test]
fn datagrams_in_fragments_outlive_a_flood_to_the_same_pod() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| settings.host_routing = host_routing);
        let policy = bed::allow_all();
        node.bed.datapath.set_policy(2, &policy).expect("policy");
        let victims = Wire::open(&node.victim.netns, "eth0");
        for v6 in [false, true] {
            let server = in_netns(&node.server.netns, || {
                UdpSocket::bind(("::", 0)).expect("bind")
            });
            server
                .set_read_timeout(Some(Duration::from_secs(3)))
                .expect("timeout");
            let port = server.local_addr().expect("port").port();
            let ends = (address(&node.victim, v6), address(&node.server, v6));
            let parts = fragments(&datagram(ends, (4000, port), &[7; 2000]), 1200, 4711);
            let [first, later] = parts.map(|part| node.frame(1, &part));
            victims.send(&first);
            let flooders = (address(&node.flooder, v6), ends.1);
            for identification in 0..256 {
                let parts = fragments(&datagram(flooders, (1, 1), &[0; 64]), 32, identification);
                node.wire.send(&node.frame(3, &parts[0]));
            }
            victims.send(&later);
            let got = server.recv(&mut [0; 4096]).unwrap_or(0);
            let name = format!("IPv6 {v6}, host routing {host_routing}");
            let found = format!("{got} of 2000 bytes");
            table.check("J fragments to one pod", &name, got == 2000, &found);
        }
    }
    table.finish();
}

/// The places of other endpoints are written by hand: so many pods would take a while.
#[test]
fn datagrams_in_fragments_outlive_those_of_every_other_endpoint() {
    let mut table = Table::default();
    let node = Node::new(|_| {});
    let victims = Wire::open(&node.victim.netns, "eth0");
    let version = format!("v{}", heddle_abi::ABI_VERSION);
    let pin = node.bed.pin_dir().join(version).join("maps/FRAGMENTS");
    let pinned = aya::maps::MapData::from_pin(pin).expect("map");
    let mut places: aya::maps::HashMap<_, FragmentKey, FragmentEntry> =
        aya::maps::Map::HashMap(pinned).try_into().expect("map");
    for v6 in [false, true] {
        let server = in_netns(&node.server.netns, || {
            UdpSocket::bind(("::", 0)).expect("bind")
        });
        server
            .set_read_timeout(Some(Duration::from_secs(3)))
            .expect("timeout");
        let port = server.local_addr().expect("port").port();
        let ends = (address(&node.victim, v6), address(&node.server, v6));
        let parts = fragments(&datagram(ends, (4000, port), &[7; 2000]), 1200, 4711);
        let [first, later] = parts.map(|part| node.frame(1, &part));
        victims.send(&first);
        let full = (10..MAX_ENDPOINTS).all(|endpoint| {
            (0..FRAGMENT_SLOTS).all(|slot| {
                let key = FragmentKey { endpoint, slot };
                places.insert(key, FragmentEntry::default(), 0).is_ok()
            })
        });
        victims.send(&later);
        let got = server.recv(&mut [0; 4096]).unwrap_or(0);
        let found = format!("{got} of 2000 bytes, every endpoint has its places: {full}");
        let name = format!("IPv6 {v6}");
        table.check("J fragments of all", &name, full && got == 2000, &found);
    }
    table.finish();
}

#[test]
fn a_drop_is_told_beside_a_flood_of_drops() {
    let mut table = Table::default();
    for (rate, reason) in [
        (250, DropReason::PolicyDenied),
        (250, DropReason::InvalidSourceIp),
    ] {
        let node = Node::new(|settings| settings.drop_event_rate = rate);
        node.bed.events();
        let _ = node
            .bed
            .datapath
            .poll_events(Duration::ZERO, &mut Vec::new());
        let ends = (address(&node.flooder, false), address(&node.server, false));
        let source = if reason == DropReason::PolicyDenied {
            ends.0
        } else {
            ip("10.244.1.99")
        };
        let flood = node.frame(3, &datagram((source, ends.1), (1, 9), b"flood"));
        let before = node.bed.drops(reason as u8);
        let start = Instant::now();
        for _ in 0..5000 {
            node.wire.send(&flood);
        }
        let victims = Wire::open(&node.victim.netns, "eth0");
        let denied = (address(&node.victim, false), ends.0);
        victims.send(&node.frame(1, &datagram(denied, (1, 9), b"one")));
        let seconds = start.elapsed().as_secs() + 2;
        let of_victim = u64::from(reason == DropReason::PolicyDenied);
        let end = Instant::now() + LIMIT;
        while node.bed.drops(reason as u8) < before + 5000 + of_victim && Instant::now() < end {
            std::thread::yield_now();
        }
        let (mut told, mut sampled, mut full, mut is_told) = (0, 0, 0, false);
        while Instant::now() < end && !(is_told && told + sampled >= 5000) {
            let mut events = Vec::new();
            let lost = node
                .bed
                .datapath
                .poll_events(Duration::from_millis(50), &mut events)
                .expect("events");
            full += lost.0;
            sampled += lost.1;
            for event in events.iter().filter(|event| event.kind == EVENT_DROP) {
                // A policy's drop is told as the receiver's.
                told += u64::from(event.endpoint != 1 && event.reason == reason as u8);
                is_told |= event.endpoint == 1 && event.destination_port == 9;
            }
        }
        let found =
            format!("{told} told, {sampled} sampled, {full} without room, victim's: {is_told}");
        let mut check = |name: &str, right| {
            table.check("J events", &format!("{name}, {reason:?}"), right, &found);
        };
        check("the victim's drop is told", is_told);
        check(
            "no more than the rate is told",
            told >= 1 && told <= u64::from(rate) * seconds,
        );
        check("the rest is counted", told + sampled == 5000 && full == 0);
    }
    table.finish();
}

/// Waits for the drops that are told at the server, and gives those from these sources.
fn told_of(node: &Node, sources: &[IpAddr]) -> usize {
    let mut told = std::collections::BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(2);
    while told.len() < sources.len() && Instant::now() < end {
        let mut events = Vec::new();
        node.bed
            .datapath
            .poll_events(Duration::from_millis(50), &mut events)
            .expect("events");
        let drops = events
            .iter()
            .filter(|event| event.kind == EVENT_DROP && event.endpoint == 2);
        told.extend(drops.map(|event| IpAddr::from(event.source)));
    }
    sources
        .iter()
        .filter(|source| told.contains(source))
        .count()
}

#[test]
fn a_drop_is_told_beside_a_flood_of_drops_at_the_same_pod() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let node = Node::new(|settings| {
            settings.drop_event_rate = 20;
            settings.host_routing = host_routing;
        });
        node.bed.tell_router();
        let neighbour = node.bed.pod(4, 503);
        let neighbours = Wire::open(&neighbour.netns, "eth0");
        let outside = Wire::open(node.bed.outside(), "n1");
        let uplink = Wire::open(node.bed.node(), "eth0");
        for v6 in [false, true] {
            let server = address(&node.server, v6);
            let denied = |source| datagram((source, server), (1, 9), b"denied");
            let world = |number: u8| {
                ip(&if v6 {
                    format!("2001:db8::{number:x}")
                } else {
                    format!("203.0.113.{number}")
                })
            };
            let from_outside =
                |number| craft::frame(uplink.mac, outside.mac, &denied(world(number)));
            let (flooder, other) = (address(&node.flooder, v6), address(&neighbour, v6));
            let by_pod = node.frame(3, &denied(flooder));
            let by_world = from_outside(1);
            let mut check = |flood: &str, heard: &str, right: bool, found: usize| {
                let name =
                    format!("{heard} beside {flood}, IPv6 {v6}, host routing {host_routing}");
                table.check(
                    "J events at one pod",
                    &name,
                    right,
                    &format!("{found} told"),
                );
            };
            for (flood, wire, frame) in [
                ("a pod's flood", &node.wire, &by_pod),
                ("a flood from outside", &outside, &by_world),
            ] {
                node.bed.events();
                for _ in 0..3000 {
                    wire.send(frame);
                }
                neighbours.send(&node.frame(4, &denied(other)));
                let told = told_of(&node, &[other]);
                check(flood, "a pod's drop", told == 1, told);
                for _ in 0..3000 {
                    wire.send(frame);
                }
                let sources: Vec<_> = (10..26).map(world).collect();
                for number in 10..26 {
                    outside.send(&from_outside(number));
                }
                let told = told_of(&node, &sources);
                // Some of them share the flood's bucket.
                check(flood, "drops from outside", told >= 8, told);
            }
        }
    }
    table.finish();
}
