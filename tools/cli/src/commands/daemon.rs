//! The daemons: agent, operator, store.

use crate::failure::Failure;
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use heddle_agent::config::{AgentConfig, Fabric};
use heddle_datapath::{KernelDatapath, Settings};
use heddle_kube::store::{Store, embedded};
use heddle_operator::OperatorConfig;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Subcommand)]
pub enum Command {
    /// The node's control loop: endpoints, identities, policy, flows.
    Agent(WithConfig),
    /// The cluster's control loop: pod ranges for nodes, identity garbage collection.
    Operator(WithConfig),
    /// The embedded store: objects on disk, served on a unix socket.
    Store(StoreArgs),
}

#[derive(Args)]
pub struct WithConfig {
    /// Configuration file (YAML).
    #[arg(long)]
    config: PathBuf,
    #[command(flatten)]
    log: Log,
}

#[derive(Args)]
pub struct StoreArgs {
    /// Directory of the store's file.
    #[arg(long)]
    dir: PathBuf,
    /// Unix socket to serve on (root-only).
    #[arg(long)]
    socket: PathBuf,
    #[command(flatten)]
    log: Log,
}

#[derive(Args)]
struct Log {
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What is logged: a level, or `target=level,...`.
    #[arg(long, env = "HEDDLE_LOG", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Log {
    fn start(&self) -> anyhow::Result<()> {
        let filter =
            tracing_subscriber::EnvFilter::try_new(&self.log_level).with_context(|| {
                format!(
                    "--log-level {:?} is not a level or a filter",
                    self.log_level
                )
            })?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        let started = match self.log_format {
            LogFormat::Text => builder.with_ansi(false).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
    }
}

pub fn run(command: Command) -> Result<ExitCode, Failure> {
    let (code, outcome) = match command {
        Command::Agent(args) => ("agent/failed", run_agent(&args)),
        Command::Operator(args) => ("operator/failed", run_operator(&args)),
        Command::Store(args) => ("store/failed", run_store(&args)),
    };
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(code, format!("{error:#}"))
            .help("see the log lines above; the datapath stays as it was")),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("configuration file {} cannot be read", path.display()))?;
    serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("configuration file {}: {error}", path.display()))
}

/// Runs a daemon's future; the receiver turns true on SIGTERM and SIGINT.
fn block_on<F: Future<Output = anyhow::Result<()>>>(
    daemon: impl FnOnce(watch::Receiver<bool>) -> F,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Nobody listens any more when the daemon has ended by itself.
            let _ = stop.send(true);
        });
        daemon(stopped).await
    })
}

fn settings(config: &AgentConfig) -> Settings {
    Settings {
        overlay: config.fabric == Fabric::Vxlan,
        host_routing: config.host_routing,
        max_connections: config.max_connections,
        max_policy_entries: config.max_policy_entries,
        max_ipcache_entries: config.max_ipcache_entries,
        report_interval: config.flow_report_seconds,
        drop_event_rate: config.drop_events_per_second,
        ..Settings::new(&config.pin_dir, &config.uplink)
    }
}

fn run_agent(args: &WithConfig) -> anyhow::Result<()> {
    args.log.start()?;
    let config: AgentConfig = read(&args.config)?;
    let datapath = Arc::new(KernelDatapath::open(settings(&config))?);
    block_on(|shutdown| {
        let store: Arc<dyn Store> = Arc::new(embedded::Client::new(&config.store));
        heddle_agent::run(config, store, datapath, shutdown)
    })
}

fn run_operator(args: &WithConfig) -> anyhow::Result<()> {
    args.log.start()?;
    let config: OperatorConfig = read(&args.config)?;
    block_on(|shutdown| {
        let store: Arc<dyn Store> = Arc::new(embedded::Client::new(&config.store));
        heddle_operator::run(config, store, shutdown)
    })
}

fn run_store(args: &StoreArgs) -> anyhow::Result<()> {
    args.log.start()?;
    block_on(|shutdown| async move {
        embedded::serve(&args.dir, &args.socket, shutdown)
            .await
            .map_err(anyhow::Error::from)
    })
}
