//! What the programs cost: instructions of each, and the time of one run for the packets that matter most.
//!
//! Needs root. Everything lives in network namespaces that are removed at the end; frames go nowhere. Prints JSON.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a broken bed ends the measurement"
)]

#[path = "../tests/bed/mod.rs"]
mod bed;

use bed::{
    Bed, Pod, allow_all,
    packets::{ACK, FIN, PSH, SYN, TCP, UDP, ethernet, ip, tcp, udp},
};
use heddle_datapath::{Datapath, Facts};
use heddle_model::Identity;
use heddle_policy::compiled::Entry;
use std::{net::IpAddr, time::Instant};

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Runs of one measurement, and how many there are: the smallest counts.
const REPEAT: u32 = 200_000;
const ROUNDS: u32 = 9;
/// A run takes a hop off a packet's life where the packet leaves the node's pods.
const HOPS: u32 = 60;
const CONNECTIONS: u16 = 2_000;

fn main() {
    let bed = Bed::new(|_| {});
    let (a, b) = (bed.pod(1, 300), bed.pod(2, 301));
    // The frame that went into the second pod can then be sent by the first one again.
    let [first, second] = [(1, &a, MAC_A, MAC_B), (2, &b, MAC_B, MAC_A)].map(facts(&bed));
    let remote = Bed::beside(&bed, |_| {});
    let far = remote.pod(1, 302);
    bed.learn(&remote, &[(&far, 302)]);

    let mut rows = Vec::new();
    for size in bed.datapath.program_sizes().unwrap() {
        rows.push(format!(
            "{{\"program\": \"{}\", \"instructions\": {}, \"verified\": {}}}",
            size.name, size.instructions, size.verified
        ));
    }
    let mut tell = |name: &str, nanoseconds: u128| {
        rows.push(format!("{{\"case\": \"{name}\", \"ns\": {nanoseconds}}}"));
    };
    for v6 in [false, true] {
        let (from, to) = ends(v6, &a, &b);
        let family = if v6 { "v6" } else { "v4" };
        let frame = |from, to, protocol, payload: &[u8]| {
            ethernet(MAC_B, MAC_A, &ip(from, to, protocol, payload))
        };
        let handshake = |port| {
            for (ifindex, packet) in [
                (first, tcp((port, 80), SYN)),
                (second, tcp((80, port), SYN | ACK)),
                (first, tcp((port, 80), ACK)),
            ] {
                send(&bed, ifindex, first, (from, to), &packet);
            }
        };
        handshake(4000);
        let data = tcp((4000, 80), ACK | PSH);
        tell(
            &format!("same-node/tcp-{family}"),
            cost(
                &bed,
                "from_pod",
                &frame(from, to, TCP, &data),
                first,
                REPEAT,
            ),
        );
        tell(
            &format!("same-node/udp-{family}"),
            cost(
                &bed,
                "from_pod",
                &frame(from, to, UDP, &udp((4000, 53))),
                first,
                REPEAT,
            ),
        );
        let outside = if v6 { far.ipv6.into() } else { far.ipv4.into() };
        tell(
            &format!("other-node/tcp-{family}"),
            cost(
                &bed,
                "from_pod",
                &frame(from, outside, TCP, &data),
                first,
                HOPS,
            ),
        );
        tell(
            &format!("from-network/tcp-{family}"),
            cost(
                &bed,
                "from_network",
                &frame(outside, to, TCP, &tcp((80, 4001), ACK)),
                1,
                HOPS,
            ),
        );
        let denied = tcp((4000, 81), SYN);
        closed(&bed, 2);
        tell(
            &format!("same-node/denied-{family}"),
            cost(
                &bed,
                "from_pod",
                &frame(from, to, TCP, &denied),
                first,
                REPEAT,
            ),
        );
        bed.datapath.set_policy(2, &allow_all()).unwrap();
        tell(
            &format!("short-connection/{family}"),
            short(&bed, first, second, (from, to)),
        );
    }
    println!("[\n{}\n]", rows.join(",\n"));
}

/// Gives an endpoint MAC addresses of this program's; its interface.
fn facts(bed: &Bed) -> impl Fn((u16, &Pod, [u8; 6], [u8; 6])) -> u32 {
    |(endpoint, pod, mac, host_mac)| {
        let found = bed.datapath.endpoints().unwrap();
        let present = found
            .iter()
            .find(|it| it.facts.endpoint == endpoint)
            .unwrap();
        let facts = Facts {
            mac,
            host_mac,
            ..present.facts.clone()
        };
        assert_eq!(facts.ipv4, Some(pod.ipv4));
        bed.datapath.set_facts(&facts).unwrap();
        facts.ifindex
    }
}

fn ends(v6: bool, a: &Pod, b: &Pod) -> (IpAddr, IpAddr) {
    if v6 {
        (a.ipv6.into(), b.ipv6.into())
    } else {
        (a.ipv4.into(), b.ipv4.into())
    }
}

/// Nothing may be begun towards the endpoint.
fn closed(bed: &Bed, endpoint: u16) {
    let mut policy = allow_all();
    policy.entries.retain(|entry: &Entry| {
        entry.key.direction == heddle_policy::compiled::Direction::Egress
            && entry.key.identity == Identity(0)
    });
    bed.datapath.set_policy(endpoint, &policy).unwrap();
}

/// A segment of the connection between two pods, from whichever owns the interface.
fn send(bed: &Bed, ifindex: u32, first: u32, (from, to): (IpAddr, IpAddr), segment: &[u8]) -> u128 {
    let frame = if ifindex == first {
        ethernet(MAC_B, MAC_A, &ip(from, to, TCP, segment))
    } else {
        ethernet(MAC_A, MAC_B, &ip(to, from, TCP, segment))
    };
    let (code, took) = bed.in_node(|| {
        bed.datapath
            .time_program("from_pod", &frame, ifindex, 1)
            .unwrap()
    });
    assert_eq!(code, 7, "{segment:?}");
    took.as_nanos()
}

/// Nanoseconds of one run.
fn cost(bed: &Bed, program: &str, frame: &[u8], ifindex: u32, repeat: u32) -> u128 {
    let rounds = if repeat == HOPS { ROUNDS * 200 } else { ROUNDS };
    let once = || {
        let run = || bed.datapath.time_program(program, frame, ifindex, repeat);
        bed.in_node(run).unwrap().1.as_nanos()
    };
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let mut all: Vec<u128> = (0..rounds)
        .map_while(|_| (Instant::now() < deadline).then(once))
        .collect();
    all.sort_unstable();
    // The lower quarter: what else the machine does only adds.
    all[all.len() / 4]
}

/// Nanoseconds of the ten segments of a short connection, each in a run of its own.
fn short(bed: &Bed, first: u32, second: u32, ends: (IpAddr, IpAddr)) -> u128 {
    let mut all: Vec<u128> = (0..CONNECTIONS)
        .map(|n| {
            let port = 10_000 + n;
            let (there, back) = ((port, 80), (80, port));
            [
                (first, tcp(there, SYN)),
                (second, tcp(back, SYN | ACK)),
                (first, tcp(there, ACK)),
                (first, tcp(there, ACK | PSH)),
                (second, tcp(back, ACK)),
                (second, tcp(back, ACK | PSH)),
                (first, tcp(there, ACK)),
                (first, tcp(there, FIN | ACK)),
                (second, tcp(back, FIN | ACK)),
                (first, tcp(there, ACK)),
            ]
            .iter()
            .map(|(ifindex, segment)| send(bed, *ifindex, first, ends, segment))
            .sum()
        })
        .collect();
    all.sort_unstable();
    all[all.len() / 4]
}
