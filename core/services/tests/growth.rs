//! What a change costs among few Services and among many. Run by hand, with optimization:
//! `cargo test --release -p heddle-services --test growth -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_model::NamespacedName;
use heddle_services::{
    ClusterFacts, EndpointSlice, Node, Services, WrittenEndpoint, WrittenEndpointSlice,
    WrittenPort, WrittenService, WrittenSlicePort,
};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const ENDPOINTS_PER_SERVICE: u32 = 5;
const NODES: u32 = 1000;

fn service(number: u32) -> WrittenService {
    WrittenService {
        name: NamespacedName::new(format!("ns-{}", number % 300), format!("service-{number}")),
        uid: format!("00000000-0000-0000-0000-{number:012}"),
        created: number.into(),
        cluster_ips: vec![Ipv4Addr::from(0x0a60_0000 + number).to_string()],
        ports: vec![WrittenPort {
            name: "http".to_owned(),
            port: 80,
            target: "8080".to_owned(),
            ..WrittenPort::default()
        }],
        has_selector: true,
        ..WrittenService::default()
    }
}

fn slice(number: u32, is_ready: bool) -> EndpointSlice {
    let service = service(number);
    let endpoint = |at: u32| {
        let pod = number * ENDPOINTS_PER_SERVICE + at;
        WrittenEndpoint {
            addresses: vec![Ipv4Addr::from(0x0b00_0000 + pod).to_string()],
            ready: Some(is_ready || at > 0),
            serving: Some(is_ready || at > 0),
            node: format!("node-{}", pod % NODES),
            zone: format!("zone-{}", pod % 3),
            pod: format!("service-{number}-7c9d8f6b5-{pod:05}"),
            for_zones: vec![format!("zone-{}", pod % 3)],
            ..WrittenEndpoint::default()
        }
    };
    let written = WrittenEndpointSlice {
        name: NamespacedName::new(
            service.name.namespace.as_str(),
            format!("service-{number}-abcde"),
        ),
        service: service.name.name,
        family: "IPv4".to_owned(),
        ports: vec![WrittenSlicePort {
            name: "http".to_owned(),
            port: Some(8080),
            ..WrittenSlicePort::default()
        }],
        endpoints: (0..ENDPOINTS_PER_SERVICE).map(endpoint).collect(),
    };
    written.read().unwrap().unwrap()
}

/// Resident memory of this process, in MiB.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

fn cluster_of(count: u32) -> Services {
    let mut services = Services::new("node-0");
    for number in 0..NODES {
        services.set_node(Node {
            name: format!("node-{number}"),
            zone: Some(format!("zone-{}", number % 3)),
            addresses: vec![Ipv4Addr::from(0xc0a8_0000 + number).into()],
            pod_ranges: Vec::new(),
        });
    }
    for number in 0..count {
        services.set_service(service(number).read(&ClusterFacts::default()));
        services.set_slice(slice(number, true));
    }
    services
}

/// Services of which an endpoint changes: so many that they are not in the caches by chance.
const CHANGING: u32 = 1000;

/// Median time to enter one endpoint's change and compute what it changed. Every Service of a pass changes once.
fn one_change(services: &mut Services, count: u32, is_ready: bool) -> Duration {
    let mut times: Vec<Duration> = (0..count.min(CHANGING))
        .map(|round| {
            // A prime: it visits each of them once, far from each other.
            let changed = slice(round.wrapping_mul(7919) % count, is_ready);
            let start = Instant::now();
            services.set_slice(changed);
            let changes = services.take_changes();
            assert!(services.outcome(&changes[0]).is_some());
            start.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "measures; run by hand with --release"]
fn one_endpoint_s_change_costs_the_same_among_many_services() {
    let mut few = cluster_of(10);
    few.take_changes();
    let before = resident();
    let start = Instant::now();
    let mut many = cluster_of(30_000);
    let entered = start.elapsed();
    let held = resident() - before;
    let start = Instant::now();
    let changes = many.take_changes();
    let frontends: usize = changes
        .iter()
        .map(|subject| many.outcome(subject).unwrap().frontends.len())
        .sum();
    let computed = start.elapsed();
    assert_eq!((changes.len(), frontends), (30_000, 30_000));
    for round in 0..6 {
        let is_ready = round % 2 == 1;
        let in_few = one_change(&mut few, 10, is_ready);
        let in_many = one_change(&mut many, 30_000, is_ready);
        let ratio = in_many.as_secs_f64() / in_few.as_secs_f64();
        println!(
            "round {round}: one endpoint's change: {in_few:?} among 10 Services, {in_many:?} among 30000 ({ratio:.2} x)"
        );
    }
    println!(
        "30000 Services, 150000 endpoints: entered in {entered:?}, all outcomes in {computed:?}, {held:.1} MiB"
    );
}
