//! Policy in force: from the store to every endpoint's kernel map, what many policies cost a packet, and
//! changes under load. All with real agents and real kernel maps.

use crate::RunArguments;
use crate::compare::{Arm, Report, Rounds, quantile};
use crate::lab::{Lab, idle_pod};
use crate::load::Kind as Load;
use crate::policy::{NAMESPACES, labels, namespace};
use crate::process::{Server, measure};
use crate::serve::{PORT_CRR, PORT_RR};
use anyhow::{Context, Result, ensure};
use heddle_datapath::Bindings;
use heddle_kube::identity::identity_object;
use heddle_kube::store::{Kind, Store, StoreError, embedded::Client};
use heddle_model::Identity;
use heddle_netns::churn::{Bed, standing_policies};
use heddle_netns::load::Place;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Endpoints of the node that a policy is applied to.
const ENDPOINTS: usize = 100;
/// Kinds of pods among them: as many different policies are in force.
const APPS: usize = 20;
/// Identities of the cluster.
const IDENTITIES: usize = 10_000;
/// Changes that one round measures.
const CHANGES: usize = 200;
/// How long one change may take.
const ENFORCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks into the kernel.
const CHECK_INTERVAL: Duration = Duration::from_micros(200);
/// Policies on the endpoint with many.
const MANY: usize = 1_000;

/// Promised, milliseconds (issue 4, section 6).
const ENFORCED: f64 = 50.0;
/// Promised: changes, and the seconds that they are spread over.
const CHURN: (u64, u64) = (10_000, 60);
/// Seconds over which changes may come late.
const LATE: f64 = 1.0;
/// What both agents may grow by between the first third of the changes and their end, megabytes.
const GROWTH: f64 = 4.0;

const P50: &str = "policy/applied-to-enforced/p50";
const P99: &str = "policy/applied-to-enforced/p99";
const RR: &str = "policy/tcp-rr-1000-policies";
const CRR: &str = "policy/tcp-crr-1000-policies";
const CHANGED: &str = "policy/10000-changes-under-load";
const GROWN: &str = "policy/10000-changes-under-load/growth";

/// Runs them.
pub(crate) fn run(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    if arguments.baselines_only {
        return Ok(());
    }
    if arguments.wants_any([P50, P99]) {
        enforced(arguments, report)?;
    }
    if arguments.wants_any([RR, CRR]) {
        many_policies(arguments, report)?;
    }
    if arguments.wants_any([CHANGED, GROWN]) {
        under_load(arguments, report)?;
    }
    Ok(())
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")
}

fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Numbers as clusters have them, all over the range: a solid block of them would make every allocation
/// that meets it search long.
const fn spread(n: usize) -> Identity {
    Identity(Identity::CLUSTER_FIRST.0 + 6 * n as u32)
}

/// A pod with the label `app`.
fn pod(name: &str, node: &str, app: &str) -> Value {
    let mut pod = idle_pod(name, node, "policy");
    pod["metadata"]["labels"]["app"] = json!(app);
    pod
}

// ---- from the store to the kernel ----

/// From the write to the store until every endpoint has the new policy in the kernel.
fn enforced(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    let lab = Lab::up(arguments)?;
    let runtime = runtime()?;
    let store = Client::new(lab.store_socket());
    eprintln!("{IDENTITIES} identities and {ENDPOINTS} pods");
    runtime.block_on(async {
        for n in 0..IDENTITIES {
            let (space, app) = (n / APPS, n % APPS);
            let object = identity_object(spread(n), &labels(space, app, "v1"));
            match store.create(Kind::CiliumIdentity, object).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })?;
    let mut objects: Vec<Value> = (0..ENDPOINTS)
        .map(|n| {
            pod(
                &format!("pod-{n}"),
                "node-1",
                &format!("local-{}", n % APPS),
            )
        })
        .collect();
    objects.extend((0..APPS).map(own_policy));
    objects.push(changing_policy(0));
    lab.apply(&list(objects))?;

    let pinned = lab.pinned("node-1")?;
    let endpoints: Vec<u16> = pinned.endpoints()?.iter().map(|it| it.endpoint).collect();
    ensure!(
        endpoints.len() == ENDPOINTS,
        "node-1 has {} endpoints",
        endpoints.len()
    );
    let rows = pinned
        .policy(endpoints[0])?
        .entries
        .map_or(0, |it| it.len());
    eprintln!("an endpoint's policy has {rows} rows");
    let bindings = pinned.bindings()?;
    let mut version = 0;
    let mut measure = || {
        let mut milliseconds = Vec::new();
        for _ in 0..CHANGES {
            version += 1;
            let took = runtime.block_on(change(&store, &bindings, &endpoints, version))?;
            milliseconds.push(took.as_secs_f64() * 1e3);
        }
        Ok(vec![
            quantile(&milliseconds, 0.5),
            quantile(&milliseconds, 0.99),
        ])
    };
    // The first changes find caches and spare maps cold.
    measure()?;
    let arms = vec![
        Arm {
            name: "budget",
            measure: Box::new(|| Ok(vec![ENFORCED, ENFORCED])),
        },
        Arm {
            name: "heddle",
            measure: Box::new(measure),
        },
    ];
    let rounds = Rounds::run(arms, arguments.rounds)?;
    for (index, name) in [P50, P99].into_iter().enumerate() {
        if let Some(line) = rounds.compare(name, "ms", index, ("budget", "heddle")) {
            report.add(line)?;
        }
    }
    Ok(())
}

async fn change(
    store: &Client,
    bindings: &Bindings,
    endpoints: &[u16],
    version: usize,
) -> Result<Duration> {
    let generations = || -> Result<Vec<u32>> {
        let each = endpoints.iter();
        Ok(each
            .map(|id| bindings.generation(*id))
            .collect::<Result<_, _>>()?)
    };
    let before = generations()?;
    let policy = changing_policy(version);
    let start = Instant::now();
    store.update(Kind::NetworkPolicy, policy).await?;
    loop {
        let now = generations()?;
        if now.iter().zip(&before).all(|(now, before)| now != before) {
            return Ok(start.elapsed());
        }
        ensure!(
            start.elapsed() < ENFORCE_TIMEOUT,
            "version {version} of the policy is not in force everywhere after {} s",
            ENFORCE_TIMEOUT.as_secs()
        );
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// What one kind of pods has for itself, so that their maps are their own.
fn own_policy(app: usize) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("own-{app}"), "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("local-{app}")}},
            "ingress": [{
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": format!("app-{app}")}}}],
                "ports": [{"protocol": "TCP", "port": 8000 + app}],
            }],
        },
    })
}

/// The policy that is changed: it selects every pod, and allows another kind of peers in each version.
fn changing_policy(version: usize) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "changing", "namespace": "default"},
        "spec": {
            "podSelector": {},
            "ingress": [{
                "from": [{
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace(version % NAMESPACES)}},
                }],
                "ports": [{"protocol": "TCP", "port": 9000}],
            }],
        },
    })
}

// ---- many policies on one endpoint ----

fn many_policies(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    let lab = Lab::up(arguments)?;
    let mut objects = Vec::new();
    for (app, policies) in [("one", 1), ("many", MANY)] {
        objects.push(pod(&format!("{app}-client"), "node-1", app));
        objects.push(pod(&format!("{app}-server"), "node-1", app));
        objects.extend((0..policies).map(|n| isolating_policy(app, n)));
    }
    lab.apply(&list(objects))?;
    let ways = ["one", "many"].map(|app| -> Result<_> {
        let server = format!("{app}-server");
        let running = Server::start(&lab.pod_netns(&server), arguments.placement)?;
        let client = lab.pod_netns(&format!("{app}-client"));
        Ok((running, client, lab.pod_addresses(&server)?[0]))
    });
    let [one, many] = ways;
    let (one, many) = (one?, many?);
    for (name, kind) in [(RR, Load::TcpRr), (CRR, Load::TcpCrr)] {
        if !arguments.wants(name) {
            continue;
        }
        let arm = |name, (_, client, address): &(Server, std::path::PathBuf, std::net::IpAddr)| {
            let (client, address) = (client.clone(), *address);
            Arm {
                name,
                measure: Box::new(move || {
                    let seconds = arguments.seconds;
                    let rate = measure(&client, kind, address, seconds, arguments.placement)?;
                    Ok(vec![rate])
                }),
            }
        };
        let pair = ("1 policy", "1,000 policies");
        let arms = vec![arm(pair.0, &one), arm(pair.1, &many)];
        let rounds = Rounds::run(arms, arguments.rounds)?;
        if let Some(line) = rounds.compare(name, kind.unit(), 0, pair) {
            report.add(line)?;
        }
    }
    Ok(())
}

/// Isolates the pods of a kind in both directions; the first lets them talk, the others let others in and out.
fn isolating_policy(app: &str, number: usize) -> Value {
    let own = json!({"matchLabels": {"app": app}});
    let (peer, ports) = if number == 0 {
        (json!({"podSelector": own}), vec![PORT_RR, PORT_CRR])
    } else {
        let block = format!("198.51.{}.{}/32", number / 250, number % 250);
        (json!({"ipBlock": {"cidr": block}}), vec![8080])
    };
    let ports: Vec<Value> = ports
        .into_iter()
        .map(|port| json!({"protocol": "TCP", "port": port}))
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("{app}-{number}"), "namespace": "default"},
        "spec": {
            "podSelector": own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [peer], "ports": ports}],
            "egress": [{"to": [peer], "ports": ports}],
        },
    })
}

// ---- changes under load ----

fn under_load(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    // Few flows are remembered, so that what they take is there before memory is looked at.
    let lab = Lab::with(arguments, "agent: {flowCapacity: 255}\n")?;
    lab.apply(&list(vec![
        pod("client", "node-1", "client"),
        pod("server", "node-2", "server"),
        pod("stranger", "node-2", "stranger"),
    ]))?;
    lab.apply(&list(standing_policies()))?;
    let place = |name: &str| -> Result<Place> {
        Ok(Place {
            netns: lab.pod_netns(name),
            addresses: lab.pod_addresses(name)?.to_vec(),
        })
    };
    let bed = Bed {
        client: place("client")?,
        server: place("server")?,
        stranger: place("stranger")?,
        store: lab.store_socket(),
        agents: lab.agents()?.into_iter().map(|(_, it)| it).collect(),
    };
    let (changes, seconds) = CHURN;
    eprintln!("{changes} changes in {seconds} s");
    let outcome = bed.churn(changes, Duration::from_secs(seconds))?;
    eprintln!("{outcome:?}");
    ensure!(
        outcome.allowed.lost == 0,
        "{} allowed requests were lost",
        outcome.allowed.lost
    );
    ensure!(
        outcome.passed == 0,
        "{} denied packets passed",
        outcome.passed
    );
    let [third, _, end] = outcome.resident;
    let grown = (end as f64 - third as f64) / 1e6;
    let took = outcome.took.as_secs_f64();
    let lines = [
        (CHANGED, "s", seconds as f64 + LATE, took),
        (GROWN, "MB", GROWTH, grown),
    ];
    for (name, unit, budget, measured) in lines {
        let arms = vec![
            Arm {
                name: "budget",
                measure: Box::new(move || Ok(vec![budget])),
            },
            Arm {
                name: "heddle",
                measure: Box::new(move || Ok(vec![measured])),
            },
        ];
        let rounds = Rounds::run(arms, 1)?;
        if let Some(line) = rounds.compare(name, unit, 0, ("budget", "heddle")) {
            report.add(line)?;
        }
    }
    Ok(())
}
