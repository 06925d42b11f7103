//! The policy engine at the size of a large cluster: cold start, small changes, single questions.
//!
//! There is no other system to run beside it, so the baseline is the figure that the project promises
//! (issue 4, section 6), and a ratio below 1 keeps the promise; only the CIDR group is compared with its own
//! first load.

use crate::RunArguments;
use crate::compare::{Arm, Report, Rounds, median};
use anyhow::{Context, Result};
use heddle_model::{
    Entity, Identity, LabelFilter, LabelSet, NamespacedName, Operator, Requirement, Selector,
};
use heddle_policy::{
    CidrBlock, CidrGroupRef, Direction, EndpointSelector, Engine, EntryVerdict, Isolation, Outlook,
    Party, Peer, Peers, Policy, PolicyId, PolicyKind, PolicySpec, PortMatch, PortTerm, Ports, Rule,
    Section, Tier, Traffic, Transport, protocol,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Namespaces; with [`APPS`] in each that makes 10,000 identities.
pub(crate) const NAMESPACES: usize = 500;
/// Kinds of pods in a namespace.
const APPS: usize = 20;
/// Policies of a namespace; 20,000 in all.
const POLICIES: usize = 40;
/// Endpoints of one node.
const LOCAL: usize = 100;
/// Prefixes of the CIDR group.
const PREFIXES: u32 = 50_000;

/// Promised, seconds.
const COMPILE: f64 = 2.0;
/// Promised, megabytes.
const MEMORY: f64 = 300.0;
/// Promised, milliseconds.
const IDENTITY: f64 = 1.0;
/// Promised, microseconds.
const DECIDE: f64 = 5.0;
/// Promised, seconds.
const MATRIX: f64 = 2.0;

const NAMES: [&str; 6] = [
    "policy/compile-20000x10000",
    "policy/compile-20000x10000-memory",
    "policy/new-identity",
    "policy/decide",
    "policy/matrix-1000x4",
    "policy/group-50000-ten-changed",
];

/// Runs them.
pub(crate) fn run(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    let [compile, megabytes, new_identity, decision, pairs, group] = NAMES;
    if arguments.baselines_only || !arguments.wants_any(NAMES) {
        return Ok(());
    }
    if arguments.wants_any([compile, megabytes]) {
        let lines = [(compile, "s", COMPILE), (megabytes, "MB", MEMORY)];
        against_budget(&lines, &mut cold, arguments, report)?;
    }
    if arguments.wants_any([new_identity, decision]) {
        let mut engine = cluster();
        let lines = [(new_identity, "ms", IDENTITY), (decision, "us", DECIDE)];
        let mut measure = || Ok(vec![identity(&mut engine), decide(&engine)]);
        against_budget(&lines, &mut measure, arguments, report)?;
    }
    if arguments.wants(pairs) {
        let lines = [(pairs, "s", MATRIX)];
        against_budget(&lines, &mut || Ok(vec![matrix()]), arguments, report)?;
    }
    if arguments.wants(group) {
        change_group(group, arguments, report)?;
    }
    Ok(())
}

/// Compares what is measured, line by line, with what is promised.
fn against_budget(
    lines: &[(&str, &'static str, f64)],
    measure: &mut dyn FnMut() -> Result<Vec<f64>>,
    arguments: &RunArguments,
    report: &mut Report,
) -> Result<()> {
    let budget: Vec<f64> = lines.iter().map(|(.., promised)| *promised).collect();
    let arms = vec![
        Arm {
            name: "budget",
            measure: Box::new(move || Ok(budget.clone())),
        },
        Arm {
            name: "heddle-policy",
            measure: Box::new(measure),
        },
    ];
    let rounds = Rounds::run(arms, arguments.rounds)?;
    for (index, (name, unit, _)) in lines.iter().enumerate() {
        if arguments.wants(name)
            && let Some(line) = rounds.compare(name, unit, index, ("budget", "heddle-policy"))
        {
            report.add(line)?;
        }
    }
    Ok(())
}

// ---- what is measured ----

/// From nothing to the rows of every identity: seconds, and megabytes of this process at the peak, with the
/// policies and labels that it was given.
fn cold() -> Result<Vec<f64>> {
    let (pods, policies) = (pods(), policies());
    // 5 sets the peak back to what is resident now (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").context("write /proc/self/clear_refs")?;
    let start = Instant::now();
    let mut engine = Engine::new();
    let subjects: Vec<Identity> = pods.iter().map(|(identity, _)| *identity).collect();
    for (identity, labels) in pods {
        engine.set_identity(identity, labels);
    }
    engine.set_policies(policies);
    let mut rows = 0;
    for subject in subjects {
        rows += black_box(engine.compile(subject)).entries.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    let peak = peak_megabytes()?;
    anyhow::ensure!(rows > NAMESPACES * APPS, "compiled to {rows} rows only");
    Ok(vec![seconds, peak])
}

fn peak_megabytes() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let kilobytes: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("/proc/self/status has no VmHWM")?
        .parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// One new identity, and the rows of the node's endpoints that it touches: milliseconds, the mean of many.
fn identity(engine: &mut Engine) -> f64 {
    const TIMES: usize = 200;
    let local: BTreeSet<Identity> = (0..LOCAL).map(|n| number(n * 5, n % APPS)).collect();
    engine.attend(Some(local));
    let labels: Vec<LabelSet> = (0..TIMES)
        .map(|n| labels(n % NAMESPACES, n % APPS, "new"))
        .collect();
    let start = Instant::now();
    for (n, labels) in labels.into_iter().enumerate() {
        // Numbers of the cluster's scope that nobody has.
        let new = Identity(60_000 + n as u32);
        for touched in engine.set_identity(new, labels) {
            black_box(engine.compile(touched));
        }
    }
    let milliseconds = start.elapsed().as_secs_f64() * 1e3 / TIMES as f64;
    for n in 0..TIMES {
        engine.remove_identity(Identity(60_000 + n as u32));
    }
    engine.attend(None);
    milliseconds
}

/// One decision with its reasons, both directions, half of them allowed: microseconds. The median of short
/// runs, so that what others do on the machine meanwhile does not count.
fn decide(engine: &Engine) -> f64 {
    const RUNS: usize = 200;
    const TIMES: usize = 100;
    let party = |space: usize, app: usize| {
        let address = address((space * APPS + app) as u32);
        Party::in_cluster(number(space, app), Some(address))
    };
    let ask = |n: usize| {
        let (space, app) = (n * 7 % NAMESPACES, 9 + n % 9);
        // Half of them are allowed; the others are of another namespace, and denied.
        let from = party((space + n % 2) % NAMESPACES, app);
        let to = party(space, app + 2);
        let traffic = Traffic {
            protocol: protocol::TCP,
            port: 8000 + (app + 2) as u16,
        };
        engine.decide(&from, &to, traffic)
    };
    let runs: Vec<f64> = (0..RUNS)
        .map(|run| {
            let start = Instant::now();
            for n in run * TIMES..(run + 1) * TIMES {
                black_box(ask(n));
            }
            start.elapsed().as_secs_f64() * 1e6 / TIMES as f64
        })
        .collect();
    median(&runs)
}

/// Every pair of 1,000 pods that are all different, and four probes: seconds.
fn matrix() -> f64 {
    const PODS: usize = 1_000;
    let spaces = PODS / APPS;
    let mut engine = Engine::new();
    for space in 0..spaces {
        for app in 0..APPS {
            engine.set_identity(number(space, app), labels(space, app, "v1"));
        }
    }
    engine.set_policies((0..spaces).flat_map(policies_of));
    let ends: Vec<Party> = (0..PODS)
        .map(|n| {
            let identity = number(n / APPS, n % APPS);
            Party::in_cluster(identity, Some(address(n as u32)))
        })
        .collect();
    let probes = [8000, 8001, 8080, 53].map(|port| Traffic {
        protocol: protocol::TCP,
        port,
    });
    let start = Instant::now();
    let mut allowed = 0usize;
    let receiving: Vec<Outlook<'_>> = ends
        .iter()
        .map(|to| engine.outlook(to, Direction::Ingress))
        .collect();
    for from in &ends {
        let sending = engine.outlook(from, Direction::Egress);
        for (to, receiving) in ends.iter().zip(&receiving) {
            let (out, into) = (sending.towards(to), receiving.towards(from));
            for probe in probes {
                let verdict = out.verdict(probe).max(into.verdict(probe));
                allowed += usize::from(verdict == EntryVerdict::Allow);
            }
        }
    }
    black_box(allowed);
    start.elapsed().as_secs_f64()
}

/// A group of 50,000 prefixes: its first load, and another list that differs in ten.
fn change_group(name: &str, arguments: &RunArguments, report: &mut Report) -> Result<()> {
    let prefixes = |changed: u32| -> Vec<IpNet> {
        (0..PREFIXES)
            .map(|n| if n < changed { n + PREFIXES } else { n })
            .map(|n| Ipv4Addr::from(0x6400_0000 + n * 256))
            .filter_map(|address| IpNet::new(address.into(), 24).ok())
            .collect()
    };
    let loaded = || {
        let mut engine = Engine::new();
        engine.stage_cidrs();
        let mut policy = policies_of(0).swap_remove(0);
        if let Some(spec) = policy.specs.first_mut() {
            spec.rules = vec![rule(
                Section::Egress,
                0,
                vec![Peer::CidrGroup {
                    by: CidrGroupRef::Name("g".to_owned()),
                    except: Vec::new(),
                }],
                Ports::All,
            )];
        }
        engine.set_policy(policy);
        engine
    };
    let settle = |engine: &mut Engine| {
        black_box(engine.take_cidr_changes());
        black_box(engine.settle_cidrs());
        black_box(engine.take_cidr_changes());
    };
    let first = prefixes(0);
    let second = prefixes(10);
    let arms = vec![
        Arm {
            name: "first load",
            measure: Box::new(|| {
                let mut engine = loaded();
                let list = first.clone();
                let start = Instant::now();
                engine.set_cidr_group("g", BTreeMap::new(), list);
                settle(&mut engine);
                Ok(vec![start.elapsed().as_secs_f64() * 1e3])
            }),
        },
        Arm {
            name: "ten changed",
            measure: Box::new(|| {
                let mut engine = loaded();
                engine.set_cidr_group("g", BTreeMap::new(), first.clone());
                settle(&mut engine);
                let list = second.clone();
                let start = Instant::now();
                engine.set_cidr_group("g", BTreeMap::new(), list);
                settle(&mut engine);
                Ok(vec![start.elapsed().as_secs_f64() * 1e3])
            }),
        },
    ];
    let rounds = Rounds::run(arms, arguments.rounds)?;
    if let Some(line) = rounds.compare(name, "ms", 0, ("first load", "ten changed")) {
        report.add(line)?;
    }
    Ok(())
}

// ---- a cluster ----

fn cluster() -> Engine {
    let mut engine = Engine::new();
    for (identity, labels) in pods() {
        engine.set_identity(identity, labels);
    }
    engine.set_policies(policies());
    engine
}

const fn number(namespace: usize, app: usize) -> Identity {
    Identity(256 + (namespace * APPS + app) as u32)
}

fn address(n: u32) -> IpNet {
    IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(0x0a80_0000 + n)))
}

/// The name of a namespace.
pub(crate) fn namespace(n: usize) -> String {
    format!("team-{}-{n}", n % 50)
}

/// The identity labels of a kind of pods in a namespace.
pub(crate) fn labels(space: usize, app: usize, version: &str) -> LabelSet {
    let (name, app) = (namespace(space), format!("app-{app}"));
    let team = format!("{}", space % 50);
    LabelSet::of_pod(
        &NamespacedName::new(name.as_str(), "pod"),
        [
            ("app.kubernetes.io/name", app.as_str()),
            ("app.kubernetes.io/component", "server"),
            ("app.kubernetes.io/part-of", "shop"),
            ("version", version),
        ],
        [
            ("kubernetes.io/metadata.name", name.as_str()),
            ("team", team.as_str()),
        ],
        "default",
        "http=TCP/8080",
        "default",
        &LabelFilter::default(),
    )
}

fn pods() -> Vec<(Identity, LabelSet)> {
    (0..NAMESPACES)
        .flat_map(|space| (0..APPS).map(move |app| (space, app)))
        .map(|(space, app)| (number(space, app), labels(space, app, "v1")))
        .collect()
}

fn policies() -> Vec<Policy> {
    (0..NAMESPACES).flat_map(policies_of).collect()
}

fn requirement(key: &str, value: String) -> Requirement {
    Requirement {
        key: key.to_owned(),
        operator: Operator::In,
        values: vec![value],
    }
}

fn selecting(requirements: Vec<Requirement>) -> EndpointSelector {
    let selector = Selector::new(BTreeMap::new(), requirements);
    EndpointSelector::new(selector.unwrap_or_default())
}

fn of_app(space: usize, app: usize) -> EndpointSelector {
    selecting(vec![
        requirement(LabelSet::NAMESPACE, namespace(space)),
        requirement("app.kubernetes.io/name", format!("app-{app}")),
    ])
}

fn tcp(port: u16) -> Ports {
    Ports::Only(vec![PortTerm::Transport(
        Transport::Tcp,
        PortMatch::Range(port, port),
    )])
}

const fn rule(section: Section, index: u32, peers: Vec<Peer>, ports: Ports) -> Rule {
    Rule {
        section,
        index,
        action: section.action(),
        name: None,
        peers: Peers::Terms(peers),
        ports,
    }
}

/// What a namespace of a careful team has: default deny, its applications one to another, a shared
/// namespace, other namespaces of the team, DNS, the outside without the inside, and a deny.
fn policies_of(space: usize) -> Vec<Policy> {
    let own = || selecting(vec![requirement(LabelSet::NAMESPACE, namespace(space))]);
    let dns = || vec![Peer::Endpoints(of_app(0, 0))];
    let team = || {
        let key = format!("{}team", LabelSet::NAMESPACE_LABELS);
        vec![Peer::Endpoints(selecting(vec![requirement(
            &key,
            format!("{}", space % 50),
        )]))]
    };
    let outside = || {
        let parse = |text: &str| text.parse::<IpNet>().ok();
        parse("0.0.0.0/0")
            .map(|block| {
                Peer::Cidr(CidrBlock {
                    block,
                    except: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
                        .into_iter()
                        .filter_map(parse)
                        .collect(),
                    in_cluster: true,
                })
            })
            .into_iter()
            .collect()
    };
    let partner = || {
        let block = Ipv4Addr::from(0xc612_0000 + space as u32 * 16);
        IpNet::new(block.into(), 28)
            .map(|block| {
                Peer::Cidr(CidrBlock {
                    block,
                    except: Vec::new(),
                    in_cluster: true,
                })
            })
            .into_iter()
            .collect()
    };
    (0..POLICIES)
        .map(|n| {
            let app = n % APPS;
            let peer = |step: usize| vec![Peer::Endpoints(of_app(space, (app + step) % APPS))];
            let port = 8000 + app as u16;
            let (subject, rules) = match n {
                0 => (own(), vec![]),
                1 => (own(), vec![rule(Section::Egress, 0, dns(), tcp(53))]),
                2 => (
                    own(),
                    vec![rule(
                        Section::Ingress,
                        0,
                        vec![Peer::Entity(Entity::Host)],
                        Ports::All,
                    )],
                ),
                3 | 4 => (
                    of_app(space, app),
                    vec![rule(Section::Ingress, 0, team(), tcp(8080))],
                ),
                5 | 6 => (
                    of_app(space, app),
                    vec![rule(Section::Egress, 0, outside(), tcp(443))],
                ),
                7 => (
                    of_app(space, app),
                    vec![rule(Section::Ingress, 0, partner(), tcp(443))],
                ),
                8 => (
                    of_app(space, app),
                    vec![rule(Section::IngressDeny, 0, peer(3), tcp(22))],
                ),
                _ => (
                    of_app(space, app),
                    vec![
                        rule(Section::Ingress, 0, peer(APPS - 2), tcp(port)),
                        rule(
                            Section::Egress,
                            0,
                            peer(2),
                            tcp(8000 + ((app + 2) % APPS) as u16),
                        ),
                    ],
                ),
            };
            Policy {
                id: PolicyId::new(
                    PolicyKind::CiliumNetworkPolicy,
                    namespace(space),
                    format!("policy-{n}"),
                ),
                tier: Tier::Normal,
                priority: 0,
                specs: vec![PolicySpec {
                    position: None,
                    subject,
                    isolates: Isolation {
                        ingress: true,
                        egress: n % 2 == 0 || n > 8,
                    },
                    rules,
                }],
            }
        })
        .collect()
}
