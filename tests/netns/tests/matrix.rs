//! Live equals paper: for policy sets drawn by seed, real connections between all pods, nodes and the
//! world equal `heddle policy matrix`, cell by cell, both families.
//!
//! `HEDDLE_POLICY_SETS` sets the number of sets (`make test-policy-live` runs more than `make test`),
//! `HEDDLE_POLICY_SEED` the first one's seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{
    Lab,
    draw::{APPS, Addresses, Draw, NAMESPACES, ROLES, TIERS},
    probe::{Probe, Servers, probe, raise_file_limit},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

const PROBES: [Probe; 4] = [
    Probe::Tcp(8080),
    Probe::Tcp(9090),
    Probe::Udp(5353),
    Probe::Echo,
];

/// How long an answer is waited for; a cell that differs is asked again with more.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(900);
const MORE_PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who connects and is connected to.
struct End {
    /// As `heddle policy matrix` names it.
    name: String,
    netns: PathBuf,
    addresses: Vec<IpAddr>,
    is_pod: bool,
    is_node: bool,
}

impl End {
    fn address(&self, v6: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|it| it.is_ipv6() == v6)
    }
}

/// Source, destination, probe.
type Cell = (usize, usize, Probe);

struct Bed {
    lab: Lab,
    ends: Vec<End>,
    addresses: Addresses,
    objects: Vec<Value>,
    _servers: Vec<Servers>,
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect(variable))
}

fn documents(values: &[Value]) -> String {
    values
        .iter()
        .map(Value::to_string)
        .collect::<Vec<_>>()
        .join("\n---\n")
}

fn pod(number: usize, nodes: usize) -> Value {
    let app = APPS[number / 3 % 3];
    // The same names for other numbers: a name means what each pod says.
    let (http, alt) = if app == "db" {
        (9090, 8080)
    } else {
        (8080, 9090)
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("p{number}"), "namespace": NAMESPACES[number % 3].0,
            "labels": {"app": app, "tier": TIERS[number / 9 % 2]},
        },
        "spec": {
            "nodeName": format!("node-{}", number % nodes + 1),
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "echo", "image": "heddle/echo", "ports": [
                {"name": "http", "containerPort": http},
                {"name": "alt", "containerPort": alt},
                {"name": "dns", "containerPort": 5353, "protocol": "UDP"},
            ]}],
        },
    })
}

fn addresses_in(list: &Value, field: &str) -> Vec<IpAddr> {
    let list = list.as_array().into_iter().flatten();
    list.map(|one| {
        one[field]
            .as_str()
            .unwrap_or(one.as_str().unwrap_or_default())
            .parse()
            .unwrap()
    })
    .collect()
}

impl Bed {
    fn new(options: &[&str], nodes: usize, pods: usize, with_world: bool) -> Self {
        raise_file_limit();
        let lab = Lab::up(&[options, &["--nodes", &nodes.to_string()]].concat());
        let namespaces = NAMESPACES.map(|(name, env)| {
            json!({"apiVersion": "v1", "kind": "Namespace",
                   "metadata": {"name": name, "labels": {"team": name, "env": env}}})
        });
        let roles: Vec<Value> = (0..nodes)
            .map(|number| {
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {
                    "name": format!("node-{}", number + 1),
                    "labels": {"role": ROLES[number % 2]}}})
            })
            .collect();
        let pods: Vec<Value> = (0..pods).map(|number| pod(number, nodes)).collect();
        lab.apply(&documents(&[&namespaces[..], &roles, &pods].concat()));

        let items = |kind: &str| -> Vec<Value> {
            let list = lab
                .run(&["lab", "get", kind, "-A", "-o", "json"])
                .ok()
                .json();
            list["items"].as_array().unwrap().clone()
        };
        let status = lab.run(&["lab", "status", "-o", "json"]).ok().json();
        let named = |name: String| PathBuf::from("/run/netns").join(name);
        let mut ends = Vec::new();
        let mut prefixes = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        let mut prefix_of =
            |address: &IpAddr| prefixes.push(format!("{}", ipnet::IpNet::from(*address)));
        for pod in items("pods") {
            let (namespace, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
            let (namespace, name) = (namespace.as_str().unwrap(), name.as_str().unwrap());
            let addresses = addresses_in(&pod["status"]["podIPs"], "ip");
            if ends.len() % 5 == 0 {
                addresses.iter().for_each(&mut prefix_of);
            }
            ends.push(End {
                name: format!("{namespace}/{name}"),
                netns: named(format!("heddle-{}-pod-{namespace}.{name}", lab.name)),
                addresses,
                is_pod: true,
                is_node: false,
            });
        }
        let mut servers = Vec::new();
        for node in status["nodes"].as_array().unwrap() {
            let addresses = addresses_in(&node["addresses"], "address");
            addresses.iter().for_each(&mut prefix_of);
            let netns = node["netns"].as_str().unwrap().rsplit('/').next().unwrap();
            let netns = named(netns.to_owned());
            servers.push(Servers::start(netns.clone(), PROBES.to_vec()));
            ends.push(End {
                name: format!("host:{}", node["name"].as_str().unwrap()),
                netns,
                addresses,
                is_pod: false,
                is_node: true,
            });
        }
        if with_world {
            let netns = named(format!("heddle-{}-world", lab.name));
            servers.push(Servers::start(netns.clone(), PROBES.to_vec()));
            for address in addresses_in(&status["world"]["addresses"], "address") {
                prefix_of(&address);
                ends.push(End {
                    name: address.to_string(),
                    netns: netns.clone(),
                    addresses: vec![address],
                    is_pod: false,
                    is_node: false,
                });
            }
        }
        let ranges = status["nodes"].as_array().unwrap().iter();
        for range in ranges.flat_map(|node| node["podCIDRs"].as_array().unwrap()) {
            prefixes.push(range.as_str().unwrap().to_owned());
        }
        prefixes.extend(["10.244.0.0/16", "10.0.0.0/8", "fd10:244::/48"].map(str::to_owned));
        let objects = ["namespaces", "nodes", "pods"].map(items).concat();
        Self {
            lab,
            ends,
            addresses: Addresses { prefixes },
            objects,
            _servers: servers,
        }
    }

    /// What `heddle policy matrix` says of a family.
    fn paper(&self, v6: bool, policies: &[Value]) -> BTreeMap<Cell, bool> {
        let objects: Vec<Value> = self
            .objects
            .iter()
            .cloned()
            .map(|it| only(it, v6))
            .collect();
        let file = std::env::temp_dir().join(format!("{}-{v6}.yaml", self.lab.name));
        std::fs::write(&file, documents(&[&objects[..], policies].concat())).unwrap();
        let mut arguments = vec![
            "policy",
            "matrix",
            "-o",
            "csv",
            "-f",
            file.to_str().unwrap(),
        ];
        let names: Vec<String> = PROBES.iter().map(|probe| probe.name(v6)).collect();
        arguments.push("--probe");
        arguments.extend(names.iter().map(String::as_str));
        let peers: Vec<&End> = self
            .ends
            .iter()
            .filter(|end| !end.is_pod && end.address(v6).is_some())
            .collect();
        arguments.push("--peer");
        arguments.extend(peers.iter().map(|end| end.name.as_str()));
        let said = self.lab.run(&arguments).ok();
        std::fs::remove_file(&file).unwrap();
        let by_name: BTreeMap<&str, usize> = self
            .ends
            .iter()
            .enumerate()
            .map(|(at, end)| (end.name.as_str(), at))
            .collect();
        let mut cells = BTreeMap::new();
        for line in said.out.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let (from, to) = (by_name[fields[0]], by_name[fields[1]]);
            let probe = PROBES[names.iter().position(|name| name == fields[2]).unwrap()];
            // The world's talk with itself does not go through Heddle; what one says to itself, nobody sees.
            let is_seen = |end: usize| self.ends[end].is_pod || self.ends[end].is_node;
            if from != to && (is_seen(from) || is_seen(to)) {
                cells.insert((from, to, probe), fields[3] == "allow");
            }
        }
        cells
    }

    /// What real packets say.
    fn live(&self, v6: bool, cells: &[Cell], patience: Duration) -> BTreeMap<Cell, bool> {
        let mut by_source: BTreeMap<usize, Vec<Cell>> = BTreeMap::new();
        for cell in cells {
            by_source.entry(cell.0).or_default().push(*cell);
        }
        let asked: Vec<_> = by_source
            .into_iter()
            .map(|(from, cells)| {
                let target = |cell: &Cell| (self.ends[cell.1].address(v6).unwrap(), cell.2);
                let targets = cells.iter().map(target).collect();
                (
                    probe(self.ends[from].netns.clone(), targets, patience),
                    cells,
                )
            })
            .collect();
        let mut heard = BTreeMap::new();
        for (asked, cells) in asked {
            heard.extend(cells.into_iter().zip(asked.join().unwrap()));
        }
        heard
    }

    /// Compares one policy set; gives the number of cells.
    fn compare(&self, seed: u64) -> usize {
        let policies = Draw::new(seed).policies(&self.addresses);
        let text = documents(&policies);
        self.lab.apply(&text);
        let mut number = 0;
        for v6 in [false, true] {
            let paper = self.paper(v6, &policies);
            let cells: Vec<Cell> = paper.keys().copied().collect();
            number += cells.len();
            let first = self.live(v6, &cells, ANSWER_TIMEOUT);
            let doubtful: Vec<Cell> = cells
                .into_iter()
                .filter(|cell| paper[cell] != first[cell])
                .collect();
            if doubtful.is_empty() {
                continue;
            }
            let again = self.live(v6, &doubtful, MORE_PATIENCE);
            let wrong: Vec<String> = doubtful
                .iter()
                .filter(|cell| paper[cell] != again[cell])
                .map(|cell| {
                    format!(
                        "{} -> {} {}: paper {}, live {}",
                        self.ends[cell.0].name,
                        self.ends[cell.1].name,
                        cell.2.name(v6),
                        paper[cell],
                        again[cell]
                    )
                })
                .collect();
            assert!(
                wrong.is_empty(),
                "seed {seed}, {} of {} cells differ:\n{}\n{text}",
                wrong.len(),
                paper.len(),
                wrong[..wrong.len().min(20)].join("\n")
            );
        }
        let _ = self.lab.run_with(&["lab", "delete", "-f", "-"], &text).ok();
        number
    }

    fn run(&self, what: &str, sets: u64) {
        let first = number_from("HEDDLE_POLICY_SEED", 0);
        let started = Instant::now();
        let cells: usize = (first..first + sets).map(|seed| self.compare(seed)).sum();
        println!(
            "{what}: {cells} cells of {sets} policy sets are the same live and on paper ({} ends, {:.0} s)",
            self.ends.len(),
            started.elapsed().as_secs_f64()
        );
    }
}

/// An object as a single-family cluster would have it.
fn only(mut object: Value, v6: bool) -> Value {
    let keep = |one: &Value, field: &str| {
        one[field].as_str().is_some_and(|address| {
            address.contains(':') == v6 || address.parse::<IpAddr>().is_err()
        })
    };
    if let Some(list) = object["status"]["podIPs"].as_array_mut() {
        list.retain(|one| keep(one, "ip"));
        let first = list
            .first()
            .map(|one| one["ip"].clone())
            .unwrap_or_default();
        object["status"]["podIP"] = first;
    }
    if let Some(list) = object["status"]["addresses"].as_array_mut() {
        list.retain(|one| keep(one, "address"));
    }
    object
}

/// Three nodes over the overlay, thirty pods, beside a routed lab whose world joins in: nothing of the one
/// shows in the other.
#[test]
fn what_is_decided_on_paper_happens_to_packets() {
    let sets = number_from("HEDDLE_POLICY_SETS", 20);
    let vxlan = Bed::new(&["--fabric", "vxlan"], 3, 30, false);
    let routed = Bed::new(&["--fabric", "routed"], 2, 12, true);
    vxlan.run("vxlan", sets);
    routed.run("routed", sets);
}
