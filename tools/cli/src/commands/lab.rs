//! `heddle lab`: a cluster on this machine.

mod describe;
mod events;
mod get;
mod list;
mod read;
pub(super) mod show;

use super::{log_filter, which::Which};
use crate::{
    failure::{Failure, NO_DATA, USAGE},
    output::{say, tell},
};
use clap::{Args, Subcommand, ValueEnum};
use heddle_agent::config::Fabric;
use heddle_kube::schema::Strictness;
use heddle_kube::store::{Kind, Store, embedded::Client};
use heddle_lab::config::LabConfig;
use heddle_lab::daemon::processes::Order;
use heddle_lab::images::echo;
use heddle_lab::paths::Lab;
use heddle_lab::{
    LabError, apply, control, delete, down, exec, get as objects, label, logs, manifests, status,
    up, wait,
};
use read::ReadFrom;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

impl Which {
    fn name(&self) -> Result<Lab, Failure> {
        Lab::named(self.or_default()).map_err(failure)
    }

    /// A lab that is there, with its store.
    fn existing(&self) -> Result<(Lab, Client), Failure> {
        let lab = self.name()?;
        heddle_lab::config::record(&lab).map_err(failure)?;
        let store = Client::new(lab.store_socket());
        Ok((lab, store))
    }
}

/// How objects are shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

#[derive(Clone, Copy, ValueEnum)]
enum FabricChoice {
    /// The network knows each node's pod ranges.
    Routed,
    /// The network knows nodes only; Heddle encapsulates.
    Vxlan,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    which: Which,
    /// Number of nodes (2 without a configuration that says otherwise).
    #[arg(long)]
    nodes: Option<u32>,
    /// How pods' packets cross between nodes.
    #[arg(long, value_enum)]
    fabric: Option<FabricChoice>,
    /// Address families: 4, 6 or 4,6.
    #[arg(long, value_delimiter = ',')]
    families: Option<Vec<u8>>,
    /// eBPF redirects instead of the nodes' network stack.
    #[arg(long, value_enum)]
    host_routing: Option<Switch>,
    /// Configuration file (YAML); flags come before it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Leave what was made when it fails, to look at.
    #[arg(long)]
    keep: bool,
}

#[derive(Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    which: Which,
    /// Files, folders (recursive) or `-`.
    #[arg(short, long = "filename", required = true, num_args = 1..)]
    filename: Vec<PathBuf>,
    /// Namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Do not wait until it is in force.
    #[arg(long)]
    no_wait: bool,
    /// Fields and kinds that are not known are warnings: objects of a newer version of their API.
    #[arg(long)]
    lenient: bool,
    /// How long to wait.
    #[arg(long, default_value = "30s", value_parser = timeout)]
    timeout: Duration,
}

#[derive(Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    /// Files, folders (recursive) or `-`.
    #[arg(short, long = "filename", num_args = 1.., conflicts_with = "kind")]
    filename: Vec<PathBuf>,
    /// Kind of the objects, or several: `pods,cnp`.
    #[arg(required_unless_present = "filename")]
    kind: Option<String>,
    /// Their names.
    #[arg(required_unless_present_any = ["filename", "selector"], conflicts_with = "selector")]
    names: Vec<String>,
    /// Instead of names: all with these labels, as for `get`.
    #[arg(short = 'l', long, conflicts_with = "filename", requires = "kind")]
    selector: Option<String>,
    /// With --selector, of all namespaces.
    #[arg(short = 'A', long, requires = "selector")]
    all_namespaces: bool,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Do not wait until they are gone.
    #[arg(long)]
    no_wait: bool,
    /// Objects that are not there are no error.
    #[arg(long)]
    ignore_not_found: bool,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = timeout)]
    timeout: Duration,
}

#[derive(Args)]
pub struct ExecArgs {
    #[command(flatten)]
    which: Which,
    /// Namespace of the pod.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The pod, or namespace/pod.
    pod: String,
    /// The container whose environment and folder it gets (the first).
    #[arg(short, long)]
    container: Option<String>,
    /// Pass stdin on; it always is.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal of its own: keys, job control and window size are passed on.
    #[arg(short = 't', long)]
    tty: bool,
    /// Command and arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
pub struct NodeExecArgs {
    #[command(flatten)]
    which: Which,
    /// A node, `world` or `router`.
    node: String,
    /// Command and arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args)]
pub struct LogsArgs {
    #[command(flatten)]
    which: Which,
    /// Namespace of the pod.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The pod, or namespace/pod.
    pod: String,
    /// The container (the first).
    #[arg(short, long)]
    container: Option<String>,
    /// Go on until the pod is gone.
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines, this many.
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// Only lines of this age at most: 30s, 5m, 2h.
    #[arg(long, value_parser = duration)]
    since: Option<Duration>,
}

#[derive(Args)]
pub struct LabelArgs {
    #[command(flatten)]
    which: Which,
    /// Kind of the object.
    kind: String,
    /// Its name.
    name: String,
    /// `key=value` sets, `key-` removes.
    #[arg(required = true, allow_hyphen_values = false)]
    labels: Vec<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Do not wait until it is in force.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "30s", value_parser = timeout)]
    timeout: Duration,
}

#[derive(Clone, Copy, ValueEnum)]
enum AgentOrder {
    /// End it in order.
    Stop,
    /// SIGKILL.
    Kill,
    /// Start it, and wait until it is ready.
    Start,
    /// Stop it and start it.
    Restart,
}

#[derive(Args)]
pub struct AgentArgs {
    #[command(flatten)]
    which: Which,
    /// What to do.
    #[arg(value_enum)]
    order: AgentOrder,
    /// The node.
    node: String,
}

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    from: ReadFrom,
    /// How to show it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Args)]
pub struct EchoArgs {
    /// TCP ports.
    #[arg(long)]
    tcp: Vec<u16>,
    /// UDP ports.
    #[arg(long)]
    udp: Vec<u16>,
    /// The pod, as answers name it.
    #[arg(long)]
    pod: String,
    /// The node, as answers name it.
    #[arg(long)]
    node: String,
}

#[derive(Args)]
pub struct PauseArgs {
    #[arg(long)]
    hostname: String,
    #[arg(long)]
    hosts: PathBuf,
    #[arg(long)]
    resolver: PathBuf,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a lab: nodes, a router between them, a world outside, an agent each.
    #[command(after_help = "Examples:
  heddle lab up
  heddle lab up --nodes 3 --fabric vxlan --lab second
  heddle lab up --families 6 --config lab.yaml")]
    Up(UpArgs),
    /// Remove a lab and everything that belongs to it.
    Down(Which),
    /// Create or update objects, and wait until they are in force.
    #[command(after_help = "Examples:
  heddle lab apply -f deploy/examples/hello
  heddle lab apply -f pods.yaml policy.yaml -n shop --timeout 60s
  heddle lab apply -f - < policy.yaml")]
    Apply(ApplyArgs),
    /// Delete objects, and wait until they are gone.
    #[command(after_help = "Examples:
  heddle lab delete -f deploy/examples/hello
  heddle lab delete pod web client -n shop
  heddle lab delete pods,netpol -l app=web -A")]
    Delete(DeleteArgs),
    /// Show objects.
    Get(get::GetArgs),
    /// Show the labs of this machine.
    #[command(alias = "ls")]
    List(list::ListArgs),
    /// Show all about objects: containers, conditions, addresses, the policies that select a pod, and the last events.
    Describe(describe::DescribeArgs),
    /// Show what happened to pods, nodes and policies.
    Events(events::EventsArgs),
    /// Run a command in a pod.
    #[command(after_help = "Examples:
  heddle lab exec -n hello client -- curl -s http://10.244.0.2:8080/
  heddle lab exec -it -n hello client -- bash")]
    Exec(ExecArgs),
    /// Run a command in a node's network namespace.
    #[command(after_help = "Examples:
  heddle lab node-exec node-1 -- ip route
  heddle lab node-exec world -- ping -c1 172.31.1.2")]
    NodeExec(NodeExecArgs),
    /// Show what a pod wrote.
    #[command(after_help = "Examples:
  heddle lab logs -n hello client -f
  heddle lab logs web -c side --tail 20
  heddle lab logs web --since 5m")]
    Logs(LogsArgs),
    /// Change labels.
    #[command(after_help = "Examples:
  heddle lab label pod client app=other -n hello
  heddle lab label node node-1 zone=a old-")]
    Label(LabelArgs),
    /// Stop, kill, start or restart a node's agent; the datapath stays.
    #[command(after_help = "Examples:
  heddle lab agent kill node-1
  heddle lab agent start node-1")]
    Agent(AgentArgs),
    /// Show the lab.
    Status(StatusArgs),
    /// The lab's own control plane.
    #[command(hide = true)]
    Daemon(Which),
    /// Holds a pod's namespaces.
    #[command(hide = true)]
    Pause(PauseArgs),
    /// The image heddle/echo.
    #[command(hide = true)]
    Echo(EchoArgs),
    /// The image heddle/idle.
    #[command(hide = true)]
    Idle,
}

/// Seconds that a command may wait at most: a week.
const MAX_TIMEOUT: u64 = 7 * 24 * 60 * 60;

/// A time to wait: 30s, 500ms, 2m, 1h; a week at most.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout > Duration::from_secs(MAX_TIMEOUT) {
        let hours = MAX_TIMEOUT / 3_600;
        return Err(format!("it is longer than a week ({hours}h)"));
    }
    Ok(timeout)
}

/// An age or a time: 30s, 500ms, 2m, 1h. Nothing bounds it: adding it to a time may be too much.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_| "write it as 30s, 500ms or 2m".to_owned())?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1_000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        unit => return Err(format!("{unit:?} is no unit: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

pub(super) fn failure(error: LabError) -> Failure {
    let exit = match &error {
        error if error.is_usage() => USAGE,
        LabError::Daemon { .. } => NO_DATA,
        _ => crate::failure::FINDINGS,
    };
    Failure::new(error.code(), error.to_string())
        .help(error.help())
        .object(error.object())
        .field(error.field())
        .exit(exit)
}

/// The failure of a question, not of a deed: without its lab there is nothing to answer from.
fn unanswered(failure: Failure) -> Failure {
    if ["lab/unknown-lab", "lab/not-root"].contains(&failure.code.as_str()) {
        return failure.exit(NO_DATA);
    }
    failure
}

/// Prints all but the last problem; the last is the command's failure.
fn failures(mut problems: Vec<LabError>) -> Failure {
    let last = problems.pop();
    for problem in problems {
        failure(problem).report();
    }
    last.map_or_else(
        || Failure::new("lab/no-objects", "there is nothing to do").help("name a manifest"),
        failure,
    )
}

/// Runs a command of the family.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        // These two fork, which only a process with one thread may do.
        Command::Exec(args) => {
            let (namespace, pod) = pod_name(&args.namespace, &args.pod);
            let lab = args.which.name()?;
            exec::in_pod(
                &lab,
                namespace,
                pod,
                args.container.as_deref(),
                args.tty,
                &args.command,
            )
            .map(ExitCode::from)
            .map_err(exec_failure)
        }
        Command::NodeExec(args) => exec::on_host(&args.which.name()?, &args.node, &args.command)
            .map(ExitCode::from)
            .map_err(exec_failure),
        Command::Pause(args) => done(heddle_lab::pod::sandbox::hold(
            &args.hostname,
            &args.hosts,
            &args.resolver,
        )),
        Command::Idle => done(heddle_lab::images::idle()),
        Command::Logs(args) => show_logs(&args),
        Command::Down(which) => {
            let lab = which.name()?;
            if down::down(&lab).map_err(failure)? {
                say(&format!("lab/{} removed", lab.name()))?;
            } else {
                tell(&format!("there was no lab {}", lab.name()));
            }
            Ok(ExitCode::SUCCESS)
        }
        other => {
            let many = matches!(other, Command::Daemon(_));
            let mut builder = if many {
                let mut builder = tokio::runtime::Builder::new_multi_thread();
                builder.worker_threads(2);
                builder
            } else {
                tokio::runtime::Builder::new_current_thread()
            };
            let runtime = builder.enable_all().build().map_err(|error| {
                Failure::new("lab/runtime", format!("the runtime cannot start: {error}"))
            })?;
            let outcome = runtime.block_on(run_async(other));
            // A call that nobody waits for any more ends by its own deadline.
            runtime.shutdown_background();
            outcome
        }
    }
}

fn done(outcome: Result<(), LabError>) -> Result<ExitCode, Failure> {
    outcome.map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// A command that cannot be started exits as a shell says it: 127 not found, 126 not startable.
fn exec_failure(error: LabError) -> Failure {
    let exit = match &error {
        LabError::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
        LabError::Start { .. } => 126,
        _ => return failure(error),
    };
    failure(error).exit(exit)
}

fn pod_name<'a>(namespace: &'a str, pod: &'a str) -> (&'a str, &'a str) {
    let pod = pod.strip_prefix("pod/").unwrap_or(pod);
    pod.split_once('/').unwrap_or((namespace, pod))
}

async fn run_async(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(args) => run_up(args).await,
        Command::Apply(args) => run_apply(args).await,
        Command::Delete(args) => run_delete(args).await,
        Command::Get(args) => get::run(args).await,
        Command::List(args) => list::run(&args).await,
        Command::Describe(args) => describe::run(&args).await,
        Command::Events(args) => events::run(&args).await,
        Command::Label(args) => run_label(args).await,
        Command::Agent(args) => {
            let order = match args.order {
                AgentOrder::Stop => Order::Stop,
                AgentOrder::Kill => Order::Kill,
                AgentOrder::Start => Order::Start,
                AgentOrder::Restart => Order::Restart,
            };
            let lab = args.which.name()?;
            control::order_agent(&lab, &args.node, order)
                .await
                .map_err(failure)?;
            let outcome = match args.order {
                AgentOrder::Stop => "stopped",
                AgentOrder::Kill => "killed",
                AgentOrder::Start => "started and ready",
                AgentOrder::Restart => "restarted and ready",
            };
            say(&format!("agent/{} {outcome}", args.node))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => run_status(args).await,
        Command::Daemon(which) => {
            let lab = which.name()?;
            let filter = log_filter::of_environment()?;
            let started = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .try_init();
            started.map_err(|error| Failure::new("lab/log", error.to_string()))?;
            done(heddle_lab::daemon::run(lab).await)
        }
        Command::Echo(args) => {
            let identity = echo::Identity {
                pod: args.pod,
                node: args.node,
            };
            done(echo::serve(identity, &args.tcp, &args.udp, echo::say_listening).await)
        }
        // Run without a runtime, above.
        Command::Exec(_)
        | Command::NodeExec(_)
        | Command::Pause(_)
        | Command::Idle
        | Command::Logs(_)
        | Command::Down(_) => Ok(ExitCode::SUCCESS),
    }
}

async fn run_up(args: UpArgs) -> Result<ExitCode, Failure> {
    // What is started inherits it, and would say so in its log only.
    log_filter::of_environment()?;
    let lab = args.which.name()?;
    let (mut config, origin) = match &args.config {
        Some(path) => (
            LabConfig::read(path).map_err(|error| failure(error).exit(USAGE))?,
            path.display().to_string(),
        ),
        None => (LabConfig::default(), "command line".to_owned()),
    };
    config.nodes = args.nodes.or(config.nodes);
    config.families = args.families.or(config.families);
    config.host_routing = args
        .host_routing
        .map(|on| on == Switch::On)
        .or(config.host_routing);
    config.fabric = args.fabric.map_or(config.fabric, |fabric| {
        Some(match fabric {
            FabricChoice::Routed => Fabric::Routed,
            FabricChoice::Vxlan => Fabric::Vxlan,
        })
    });
    let name = lab.name().to_owned();
    let progress = move |what: &str| tell(&format!("lab {name}: {what}"));
    up::up(&lab, config, &origin, args.keep, &progress)
        .await
        .map_err(failure)?;
    let store = Client::new(lab.store_socket());
    let report = status::look(&lab, &store).await.map_err(failure)?;
    show::status(&report, Output::Table)?;
    Ok(ExitCode::SUCCESS)
}

async fn run_apply(args: ApplyArgs) -> Result<ExitCode, Failure> {
    let (lab, store) = args.which.existing()?;
    let plugins = heddle_lab::config::record(&lab).map_err(failure)?.cni;
    let strictness = if args.lenient {
        Strictness::Lenient
    } else {
        Strictness::Strict
    };
    let read = manifests::read(&args.filename, &args.namespace, &plugins, strictness);
    let manifests::Manifests { objects, warnings } = read.map_err(failures)?;
    if objects.is_empty() {
        return Err(
            Failure::new("lab/no-objects", "the manifests hold no object")
                .help("each document is a mapping that starts with apiVersion and kind"),
        );
    }
    for warning in &warnings {
        tell(&format!("warning: {warning}"));
    }
    apply::check_namespaces(&lab, &store, &objects)
        .await
        .map_err(failure)?;
    let mut applied = Vec::new();
    for object in &objects {
        let (change, stored) = apply::apply_one(&store, object).await.map_err(|error| {
            let object = apply::label(object.kind, &object.name);
            failure(error).object(object)
        })?;
        say(&format!(
            "{} {change}",
            apply::label(object.kind, &object.name)
        ))?;
        applied.push(stored);
    }
    if !args.no_wait {
        apply::wait_until_in_force(&lab, &store, &applied, args.timeout)
            .await
            .map_err(failure)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_delete(args: DeleteArgs) -> Result<ExitCode, Failure> {
    let (lab, store) = args.which.existing()?;
    let mut targets = targets(&args, &store).await?;
    if targets.is_empty() {
        // An empty list may be what `get -o json` found.
        tell(if args.filename.is_empty() {
            "nothing has these labels"
        } else {
            "the manifests hold no object"
        });
        return Ok(ExitCode::SUCCESS);
    }
    // The last applied goes first: a namespace after what is in it.
    targets.sort_by_key(|(kind, _)| {
        std::cmp::Reverse(manifests::APPLIED.iter().position(|known| known == kind))
    });
    // Before anything is deleted.
    for (kind, name) in &targets {
        delete::check_deletable(*kind, name).map_err(failure)?;
    }
    let mut deletion = delete::Deletion::new(&store, args.timeout)
        .await
        .map_err(failure)?;
    let mut missing = Vec::new();
    for (kind, name) in &targets {
        let label = apply::label(*kind, name);
        if deletion
            .delete(&store, *kind, name)
            .await
            .map_err(failure)?
        {
            say(&format!("{label} deleted"))?;
        } else {
            missing.push(label);
        }
    }
    if !args.no_wait && missing.len() < targets.len() {
        deletion.finish(&lab, args.timeout).await.map_err(failure)?;
    }
    if missing.is_empty() || args.ignore_not_found {
        return Ok(ExitCode::SUCCESS);
    }
    Err(failure(LabError::NotFound {
        what: missing.join(", "),
        lab: lab.name().to_owned(),
        help: "--ignore-not-found makes this no error".into(),
    }))
}

/// What is to be deleted: what manifests name, what the command line names, or what has the labels.
async fn targets(
    args: &DeleteArgs,
    store: &Client,
) -> Result<Vec<(Kind, heddle_model::NamespacedName)>, Failure> {
    if !args.filename.is_empty() {
        return manifests::read_names(&args.filename, &args.namespace).map_err(failures);
    }
    let kinds = objects::kinds(args.kind.as_deref().unwrap_or_default()).map_err(failure)?;
    let mut targets = Vec::new();
    for kind in kinds {
        if let Some(selector) = &args.selector {
            let labels = objects::Labels::parse(selector).map_err(failure)?;
            let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
            let found = objects::many(store, kind, namespace, &labels).await;
            targets.extend(
                found
                    .map_err(failure)?
                    .into_iter()
                    .map(|found| (kind, found.name)),
            );
        }
        targets.extend(args.names.iter().map(|name| {
            let (namespace, name) = match name.split_once('/') {
                Some((namespace, name)) if kind.is_namespaced() => (namespace, name),
                _ => (args.namespace.as_str(), name.as_str()),
            };
            let namespace = if kind.is_namespaced() { namespace } else { "" };
            (kind, heddle_model::NamespacedName::new(namespace, name))
        }));
    }
    Ok(targets)
}

async fn run_label(args: LabelArgs) -> Result<ExitCode, Failure> {
    let (lab, store) = args.which.existing()?;
    let kind = objects::kind(&args.kind).map_err(failure)?;
    let edits: Result<Vec<_>, _> = args.labels.iter().map(|text| label::parse(text)).collect();
    let edits = edits.map_err(failure)?;
    let (object, changed) = label::edit(&lab, &store, kind, &args.namespace, &args.name, &edits)
        .await
        .map_err(failure)?;
    let word = if changed { "labeled" } else { "unchanged" };
    say(&format!("{} {word}", apply::label(kind, &object.name)))?;
    if changed && !args.no_wait && matches!(kind, Kind::Pod | Kind::Namespace | Kind::Node) {
        let end = tokio::time::Instant::now() + args.timeout;
        let store: &dyn Store = &store;
        let revision = store.position(&object.version).unwrap_or(0);
        wait::realised_everywhere(&lab, store, revision, end, args.timeout)
            .await
            .map_err(failure)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_status(args: StatusArgs) -> Result<ExitCode, Failure> {
    let report = args.from.open()?.status().await?;
    show::status(&report, args.output)?;
    Ok(ExitCode::SUCCESS)
}

fn show_logs(args: &LogsArgs) -> Result<ExitCode, Failure> {
    let lab = args.which.name()?;
    let (namespace, pod) = pod_name(&args.namespace, &args.pod);
    let mut output = std::io::stdout().lock();
    let copied = logs::copy(
        &lab,
        namespace,
        pod,
        args.container.as_deref(),
        logs::Shown {
            follow: args.follow,
            tail: args.tail,
            since: args.since,
        },
        &mut output,
    );
    match copied {
        // Whoever read has read enough.
        Err(LabError::System { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        other => done(other).map_err(unanswered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units_and_what_is_waited_for_has_a_bound() {
        let week = Duration::from_secs(MAX_TIMEOUT);
        for (text, age, wait) in [
            ("500ms", Some(Duration::from_millis(500)), true),
            ("0s", Some(Duration::ZERO), true),
            ("1.5m", Some(Duration::from_secs(90)), true),
            ("168h", Some(week), true),
            ("169h", Some(week + Duration::from_secs(3_600)), false),
            ("-1s", None, false),
            ("1w", None, false),
            ("", None, false),
            ("1e30h", None, false),
        ] {
            assert_eq!(duration(text).ok(), age, "{text}");
            assert_eq!(timeout(text).ok(), age.filter(|_| wait), "{text}");
        }
        let refused = timeout("10000000000000000000s").unwrap_err();
        assert!(refused.contains("a week (168h)"), "{refused}");
    }
}
