//! `heddle connectivity test`: real probes between test pods, nodes and the host outside, under policies that come and go.
//!
//! The plan is pure; the rest makes pods in a namespace of the test's own, sends the plan's probes from inside the
//! namespaces of those who are to send them, and removes everything again.

mod listen;
pub mod plan;
pub mod probe;
pub mod report;
mod scene;
mod writes;

use crate::LabError;
use crate::apply;
use crate::config::LabRecord;
use crate::delete::Deletion;
use crate::manifests::Checked;
use crate::paths::Lab;
use crate::topology::{self, WORLD};
use heddle_agent::config::Fabric;
use heddle_kube::store::{Kind, Object, Store};
use heddle_model::Family;
use heddle_model::NamespacedName;
use plan::{Case, End, Role, Scenario, Setting, Skipped};
use report::{ProbeReport, Report, ScenarioReport};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// How long what the test made may take to go.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// How a test is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long all of it may take, but for the removal of what it made.
    pub timeout: Duration,
    /// Leave the namespace, its pods, and the policies of the first scenario that differed.
    pub keep: bool,
}

/// Runs the test. What it made is removed in the end, also after a failure or when `interrupted` comes first.
///
/// # Errors
///
/// When nothing could be tried: there is no such lab, it enforces policy in a mode that the expectations are not about,
/// pods do not become ready, or it was interrupted.
pub async fn run(
    lab: &Lab,
    store: &dyn Store,
    options: Options,
    interrupted: impl Future<Output = ()>,
    progress: &dyn Fn(&str),
) -> Result<Report, LabError> {
    let record = crate::config::record(lab)?;
    check_modes(&record)?;
    raise_file_limit();
    let start = Instant::now();
    let end = start + options.timeout;
    let namespace = format!("connectivity-test-{}", std::process::id());
    let mut report = Report {
        lab: lab.name().to_owned(),
        namespace: namespace.clone(),
        kept: options.keep,
        ..Report::default()
    };
    let test = Test {
        lab,
        store,
        record: &record,
        namespace,
        end,
        timeout: options.timeout,
        writes: writes::Writes::default(),
        progress,
    };
    let outcome = {
        let mut run = std::pin::pin!(test.run(&mut report, options.keep));
        let cut = tokio::select! {
            outcome = &mut run => Ok(outcome),
            () = tokio::time::sleep_until(end) => Err(test.too_late("it is not through")),
            () = interrupted => Err(LabError::Interrupted { what: "the connectivity test".into() }),
        };
        match cut {
            Ok(outcome) => outcome,
            Err(error) => {
                tokio::select! {
                    _ = &mut run => {}
                    () = test.writes.stop() => {}
                    () = tokio::time::sleep(REMOVAL_TIMEOUT) => {}
                }
                Err(error)
            }
        }
    };
    if !options.keep {
        progress(&format!("removing namespace {}", test.namespace));
        if let Err(error) = test.remove().await {
            progress(&format!(
                "namespace {} is not wholly removed: {error}; `heddle lab delete namespace {}` tries again",
                test.namespace, test.namespace
            ));
        }
    }
    report.milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        // Whoever interrupts wants no report.
        Err(error @ LabError::Interrupted { .. }) => Err(error),
        Err(error) if report.scenarios.is_empty() => Err(error),
        Err(error) => {
            report.not_run.push(Skipped {
                what: "the scenarios after those above".into(),
                reason: error.to_string(),
            });
            Ok(report)
        }
        Ok(()) => Ok(report),
    }
}

/// The expectations are about a cluster that enforces what policies say, and nothing else.
fn check_modes(record: &LabRecord) -> Result<(), LabError> {
    for (key, usual) in [("policyEnforcement", "default"), ("policyAudit", "none")] {
        let set = record.agent.get(key).and_then(Value::as_str);
        if let Some(set) = set.filter(|set| *set != usual) {
            return Err(LabError::Untestable {
                reason: format!(
                    "its agents run with {key}: {set}; what is expected holds for {key}: {usual}"
                ),
            });
        }
    }
    Ok(())
}

/// Sockets that a scenario may need at once: one per probe.
const MOST_SOCKETS: nix::libc::rlim_t = 65_536;

/// Lets this process open a socket per probe, all at once. Without it a lab of many nodes runs out of sockets, and says so.
fn raise_file_limit() {
    let mut limit = nix::libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit`, to which the pointer leads.
    if unsafe { nix::libc::getrlimit(nix::libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(MOST_SOCKETS));
    // SAFETY: the kernel reads one `rlimit`.
    unsafe { nix::libc::setrlimit(nix::libc::RLIMIT_NOFILE, &raw const limit) };
}

struct Test<'a> {
    lab: &'a Lab,
    store: &'a dyn Store,
    record: &'a LabRecord,
    namespace: String,
    end: Instant,
    timeout: Duration,
    writes: writes::Writes,
    progress: &'a dyn Fn(&str),
}

/// Where the ends of probes are.
struct Places {
    addresses: BTreeMap<(End, Family), IpAddr>,
    namespaces: BTreeMap<End, String>,
}

impl Test<'_> {
    fn too_late(&self, state: &str) -> LabError {
        LabError::Timeout {
            what: "the connectivity test has not ended".into(),
            seconds: self.timeout.as_secs(),
            state: state.into(),
            help: "`heddle lab status` and `heddle status` show how the lab is; --timeout gives it longer".into(),
        }
    }

    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn name(&self, name: &str) -> NamespacedName {
        NamespacedName::new(&self.namespace, name)
    }

    async fn run(&self, report: &mut Report, keep: bool) -> Result<(), LabError> {
        (self.progress)(&format!(
            "namespace {}: {} pods on {} node(s)",
            self.namespace,
            self.record.nodes.len() * Role::ALL.len(),
            self.record.nodes.len()
        ));
        let places = self.make_pods().await?;
        let mut listening = Vec::new();
        let mut node_ports = BTreeMap::new();
        for node in &self.record.nodes {
            let one = listen::start(&self.lab.host_namespace(node), &self.host_addresses(node))?;
            node_ports.insert(node.clone(), one.tcp);
            listening.push(one);
        }
        let addresses = self.host_addresses(WORLD);
        let outside = listen::start(&self.lab.host_namespace(WORLD), &addresses)?;
        let setting = Setting {
            namespace: self.namespace.clone(),
            nodes: self.record.nodes.clone(),
            families: self
                .record
                .families
                .iter()
                .filter_map(|version| Family::of_version(*version))
                .collect(),
            node_ports,
            world: plan::World {
                addresses,
                tcp: outside.tcp,
                udp: outside.udp,
                unreachable: (self.record.fabric == Fabric::Vxlan).then_some(
                    "with --fabric vxlan the network outside does not know the pods' addresses",
                ),
            },
            own_node_passes: self
                .record
                .agent
                .get("allowLocalhost")
                .and_then(Value::as_str)
                != Some("policy"),
        };
        let scenarios = plan::scenarios(&setting);
        for scenario in &scenarios {
            (self.progress)(&format!(
                "{}: {} probes",
                scenario.name,
                scenario.cases.len()
            ));
            report.add(self.run_scenario(scenario, &places).await?);
        }
        let failed = report.scenarios.iter().position(|one| one.failed > 0);
        if let Some(scenario) = failed.filter(|_| keep).map(|index| &scenarios[index]) {
            self.put_in_force(&scenario.policies).await?;
        }
        Ok(())
    }

    fn host_addresses(&self, host: &str) -> Vec<IpAddr> {
        let attachment = topology::attachment(self.record, host);
        let addresses = attachment
            .map(|found| found.host_addresses)
            .unwrap_or_default();
        addresses.iter().map(ipnet::IpNet::addr).collect()
    }

    /// Makes the namespace and its pods, and waits until they are ready and known everywhere.
    async fn make_pods(&self) -> Result<Places, LabError> {
        let mut applied = Vec::new();
        let namespace = scene::namespace(&self.namespace, std::process::id());
        let name = NamespacedName::new("", &self.namespace);
        applied.push(self.create(Kind::Namespace, name, namespace).await?);
        for pod in scene::pods(&self.namespace, &self.record.nodes) {
            let name = self.name(pod["metadata"]["name"].as_str().unwrap_or_default());
            applied.push(self.create(Kind::Pod, name, pod).await?);
        }
        apply::wait_until_in_force(self.lab, self.store, &applied, self.left()).await?;
        let mut places = Places {
            addresses: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        };
        let hosts = self
            .record
            .nodes
            .iter()
            .map(|node| (End::Node(node.clone()), node.as_str()));
        for (end, host) in hosts.chain([(End::World, WORLD)]) {
            places.add(
                &end,
                self.lab.host_namespace(host),
                self.host_addresses(host),
            );
        }
        for node in &self.record.nodes {
            for role in Role::ALL {
                let name = role.pod(node);
                let pod = self.store.get(Kind::Pod, &self.name(&name)).await?;
                let addresses = pod.value["status"]["podIPs"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let addresses = addresses.filter_map(|one| one["ip"].as_str()?.parse().ok());
                let end = End::Pod {
                    role,
                    node: node.clone(),
                };
                let namespace = self.lab.pod_namespace(&self.namespace, &name);
                places.add(&end, namespace, addresses.collect());
            }
        }
        Ok(places)
    }

    async fn create(
        &self,
        kind: Kind,
        name: NamespacedName,
        value: Value,
    ) -> Result<Object, LabError> {
        let object = Checked {
            kind,
            name,
            value,
            manifest: ("the connectivity test".into(), 0),
            warnings: Vec::new(),
        };
        let _under_way = self.writes.begin()?;
        Ok(apply::apply_one(self.store, &object).await?.1)
    }

    async fn put_in_force(&self, policies: &[(Kind, Value)]) -> Result<(), LabError> {
        let mut applied = Vec::new();
        for (kind, policy) in policies {
            let name = self.name(policy["metadata"]["name"].as_str().unwrap_or_default());
            applied.push(self.create(*kind, name, policy.clone()).await?);
        }
        if applied.is_empty() {
            return Ok(());
        }
        apply::wait_until_in_force(self.lab, self.store, &applied, self.left()).await
    }

    async fn take_away(&self, policies: &[(Kind, Value)]) -> Result<(), LabError> {
        if policies.is_empty() {
            return Ok(());
        }
        let mut deletion = Deletion::new(self.store, self.left()).await?;
        for (kind, policy) in policies {
            let name = self.name(policy["metadata"]["name"].as_str().unwrap_or_default());
            deletion.delete(self.store, *kind, &name).await?;
        }
        deletion.finish(self.lab, self.left()).await
    }

    async fn remove(&self) -> Result<(), LabError> {
        let mut deletion = Deletion::new(self.store, REMOVAL_TIMEOUT).await?;
        let name = NamespacedName::new("", &self.namespace);
        deletion.delete(self.store, Kind::Namespace, &name).await?;
        deletion.finish(self.lab, REMOVAL_TIMEOUT).await
    }

    async fn run_scenario(
        &self,
        scenario: &Scenario,
        places: &Places,
    ) -> Result<ScenarioReport, LabError> {
        let start = Instant::now();
        let mut seen: Vec<Option<probe::Seen>> = vec![None; scenario.cases.len()];
        let connections = open_connections(&scenario.cases, places, &mut seen).await?;
        self.put_in_force(&scenario.policies).await?;
        send(&scenario.cases, places, connections, &mut seen).await?;
        self.take_away(&scenario.policies).await?;
        let mut probes = Vec::new();
        for (case, seen) in scenario.cases.iter().zip(seen) {
            let address = |end: &End| {
                places
                    .address(end, case.family)
                    .map_or_else(String::new, |it| it.to_string())
            };
            let seen = seen.unwrap_or(probe::Seen {
                outcome: plan::Outcome::Unreachable,
                took: Duration::ZERO,
                detail: Some(format!("an end has no {} address", case.family)),
            });
            let ends = (address(&case.from), address(&case.to));
            probes.push(ProbeReport::new(
                &self.namespace,
                self.lab.name(),
                case,
                ends,
                seen,
            ));
        }
        Ok(ScenarioReport {
            name: scenario.name.to_owned(),
            about: scenario.about.to_owned(),
            probes,
            skipped: scenario.skipped.clone(),
            milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            ..ScenarioReport::default()
        })
    }
}

impl Places {
    fn add(&mut self, end: &End, namespace: String, addresses: Vec<IpAddr>) {
        for address in addresses {
            self.addresses
                .insert((end.clone(), Family::of(address)), address);
        }
        self.namespaces.insert(end.clone(), namespace);
    }

    fn address(&self, end: &End, family: Family) -> Option<IpAddr> {
        self.addresses.get(&(end.clone(), family)).copied()
    }

    /// The cases that fit, with their destinations' addresses, by the network namespace that they are sent from.
    fn by_source<'a>(
        &self,
        cases: &'a [Case],
        fits: impl Fn(&Case) -> bool,
    ) -> BTreeMap<String, Vec<(usize, IpAddr, &'a Case)>> {
        let mut by_source: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| fits(case)) {
            let address = self.address(&case.to, case.family);
            if let Some((namespace, address)) = self.namespaces.get(&case.from).zip(address) {
                by_source
                    .entry(namespace.clone())
                    .or_default()
                    .push((index, address, case));
            }
        }
        by_source
    }
}

/// Runs blocking work without holding up the runtime, on which the test's own listeners answer.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
) -> Result<T, LabError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| LabError::system("send probes", std::io::Error::other(error)))?
}

type Connections = Vec<(usize, std::net::TcpStream)>;

/// Opens the connections that must stand before the policies; what does not open is seen already.
async fn open_connections(
    cases: &[Case],
    places: &Places,
    seen: &mut [Option<probe::Seen>],
) -> Result<Connections, LabError> {
    let mut tasks = Vec::new();
    for (namespace, batch) in places.by_source(cases, |case| report::is_established(case.probe)) {
        let targets: Vec<SocketAddr> = batch
            .iter()
            .filter_map(|(_, address, case)| match case.probe {
                plan::Probe::Established(port) => Some((*address, port).into()),
                _ => None,
            })
            .collect();
        let indices: Vec<usize> = batch.iter().map(|(index, _, _)| *index).collect();
        let opened = tokio::spawn(apart(move || probe::open(&namespace, &targets)));
        tasks.push((indices, opened));
    }
    let mut connections = Vec::new();
    for (indices, opened) in tasks {
        for (index, one) in indices.into_iter().zip(joined(opened.await)?) {
            match one {
                Ok(stream) => connections.push((index, stream)),
                Err(mut before) => {
                    let detail = format!("it did not open before the policy: {}", before.outcome);
                    before.detail = Some(detail);
                    // What never stood was not cut.
                    before.outcome = plan::Outcome::Unreachable;
                    seen[index] = Some(before);
                }
            }
        }
    }
    Ok(connections)
}

/// Sends all probes of a scenario at once.
async fn send(
    cases: &[Case],
    places: &Places,
    connections: Connections,
    seen: &mut [Option<probe::Seen>],
) -> Result<(), LabError> {
    let mut tasks = Vec::new();
    for (namespace, batch) in places.by_source(cases, |case| !report::is_established(case.probe)) {
        let targets: Vec<probe::Target> = batch
            .iter()
            .map(|(_, address, case)| probe::Target::new(*address, case.probe, case.expected))
            .collect();
        let indices: Vec<usize> = batch.iter().map(|(index, _, _)| *index).collect();
        tasks.push((
            indices,
            tokio::spawn(apart(move || probe::run(&namespace, &targets))),
        ));
    }
    for (index, stream) in connections {
        let patience = probe::Target::new(
            IpAddr::from([0; 4]),
            cases[index].probe,
            cases[index].expected,
        )
        .patience;
        let exchange = apart(move || Ok(vec![probe::exchange(&stream, patience)]));
        tasks.push((vec![index], tokio::spawn(exchange)));
    }
    for (indices, outcome) in tasks {
        for (index, one) in indices.into_iter().zip(joined(outcome.await)?) {
            seen[index] = Some(one);
        }
    }
    Ok(())
}

fn joined<T>(outcome: Result<Result<T, LabError>, tokio::task::JoinError>) -> Result<T, LabError> {
    outcome.map_err(|error| LabError::system("send probes", std::io::Error::other(error)))?
}
