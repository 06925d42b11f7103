//! What user space's changes of the maps cost: policies, ipcache rows, and looks at the connections.
//!
//! Needs root. Everything lives in network namespaces that are removed at the end. Prints JSON, milliseconds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a broken bed ends the measurement"
)]

#[path = "../tests/bed/mod.rs"]
mod bed;

use aya::maps::{HashMap, Map, MapData};
use bed::{Bed, allow_all};
use heddle_abi::{ABI_VERSION, ConnectionEntry, ConnectionKey};
use heddle_datapath::{Datapath, PeerRow};
use heddle_model::Identity;
use heddle_policy::compiled::CompiledPolicy;
use std::time::Instant;

const ROWS: u32 = 10_000;
const ENDPOINTS: u16 = 100;
const CONNECTIONS: u32 = 100_000;
const ROUNDS: u32 = 21;

/// A policy that allows many identities, another one for each version.
fn policy(version: u32) -> CompiledPolicy {
    let mut policy = allow_all();
    let row = policy.entries[0];
    policy.entries.extend((0..ROWS).map(|n| {
        let mut row = row;
        row.key.identity = Identity(256 + 6 * n);
        (row.key.protocol, row.key.port, row.key.port_prefix) = (6, 80, 16);
        row.cookie = version;
        row
    }));
    policy
}

/// Median and the slowest of ten, milliseconds.
fn tell(name: &str, mut once: impl FnMut(u32)) -> String {
    let mut all: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let start = Instant::now();
            once(round);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    all.sort_by(f64::total_cmp);
    format!(
        "{{\"case\": \"{name}\", \"p50\": {:.2}, \"p90\": {:.2}}}",
        all[all.len() / 2],
        all[all.len() * 9 / 10]
    )
}

fn main() {
    let bed = Bed::new(|_| {});
    let mut rows = Vec::new();
    let policies: Vec<_> = (0..ROUNDS).map(policy).collect();
    rows.push(tell("set-policy/10000-rows/one-endpoint", |round| {
        bed.datapath
            .set_policy(1, &policies[round as usize])
            .unwrap();
    }));
    let later: Vec<_> = (0..ROUNDS).map(|n| policy(1000 + n)).collect();
    rows.push(tell("set-policy/10000-rows/100-endpoints", |round| {
        for endpoint in 1..=ENDPOINTS {
            bed.datapath
                .set_policy(endpoint, &later[round as usize])
                .unwrap();
        }
    }));
    let peers: Vec<_> = (0..ROWS)
        .map(|n| PeerRow {
            prefix: std::net::IpAddr::from([10, 9, (n >> 8) as u8, n as u8]).into(),
            identity: Identity(300),
            cidr: Identity(0),
            node: None,
            in_cluster: true,
            is_node: false,
        })
        .collect();
    rows.push(tell("set-peers/10000-rows", |_| {
        bed.datapath.set_peers(&peers).unwrap();
    }));
    rows.push(tell("map-use/empty-tables", |_| {
        bed.datapath.map_use().unwrap();
    }));
    rows.push(tell("remove-endpoint/empty-tables", |_| {
        let _pod = bed.pod(50, 300);
        bed::sh(&format!("ip netns del {}-p50", bed.node()));
        bed.in_node(|| bed.datapath.remove_endpoint(50).unwrap());
    }));
    fill(&bed);
    rows.push(tell("map-use/100000-connections", |_| {
        bed.datapath.map_use().unwrap();
    }));
    rows.push(tell("remove-endpoint/100000-connections", |_| {
        let _pod = bed.pod(50, 300);
        bed::sh(&format!("ip netns del {}-p50", bed.node()));
        bed.in_node(|| bed.datapath.remove_endpoint(50).unwrap());
    }));
    rows.push(tell("collect-connections/100000", |_| {
        bed.datapath.collect_connections().unwrap();
    }));
    println!("[\n{}\n]", rows.join(",\n"));
}

fn fill(bed: &Bed) {
    for name in ["CONNECTIONS", "ESTABLISHED"] {
        let pin = bed.pin_dir().join(format!("v{ABI_VERSION}/maps/{name}"));
        let map = MapData::from_pin(pin).unwrap();
        let mut table: HashMap<MapData, ConnectionKey, ConnectionEntry> =
            Map::HashMap(map).try_into().unwrap();
        for n in 0..CONNECTIONS {
            let key = ConnectionKey {
                low: std::net::Ipv4Addr::from(n).into(),
                protocol: 6,
                ..ConnectionKey::default()
            };
            let entry = ConnectionEntry {
                expires: u32::MAX,
                ..ConnectionEntry::default()
            };
            table.insert(key, entry, 0).unwrap();
        }
    }
}
