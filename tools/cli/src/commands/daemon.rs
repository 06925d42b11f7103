//! The daemons: the agent of a node, the operator of a cluster, the embedded store.

mod downgrade;

use super::log_filter;
use crate::failure::{Failure, USAGE};
use crate::output::is_colored;
use clap::{Args, Subcommand, ValueEnum};
use heddle_agent::config::{AgentConfig, Fabric};
use heddle_datapath::{DatapathError, KernelDatapath, Settings};
use heddle_kube::configuration::load;
use heddle_kube::store::Store;
use heddle_kube::store::embedded::{self, Client};
use heddle_model::setting::Configuration;
use heddle_operator::OperatorConfig;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Seconds that an older version may take to take over at most: a week.
const MAX_WAIT: u64 = 7 * 24 * 60 * 60;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How a daemon logs; lines go to stderr.
#[derive(Args, Debug)]
pub struct Logging {
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace or off, and `target=level` pairs between commas.
    #[arg(long, env = "HEDDLE_LOG", default_value = log_filter::DEFAULT, value_name = "LEVEL")]
    log_level: String,
}

/// The daemons.
#[derive(Subcommand)]
pub enum Command {
    /// The agent of one node: attaches pods, enforces policy, reports flows.
    Agent {
        /// Its configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Do not run: prepare the node's datapath for an older version, and keep it prepared until an agent of
        /// that version has taken over.
        #[arg(long, value_name = "VERSION")]
        prepare_downgrade: Option<u32>,
        /// Seconds after which the older version must have taken over.
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 600,
            value_parser = clap::value_parser!(u64).range(..=MAX_WAIT),
            requires = "prepare_downgrade"
        )]
        time_limit: u64,
        #[command(flatten)]
        logging: Logging,
    },
    /// The operator of one cluster: gives nodes their pod ranges, collects unused identities.
    Operator {
        /// Its configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[command(flatten)]
        logging: Logging,
    },
    /// The embedded store: keeps a cluster's objects where there is no Kubernetes API server.
    Store {
        /// Directory that holds its files.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Unix socket that it listens on.
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        #[command(flatten)]
        logging: Logging,
    },
}

/// Runs a daemon until it is told to stop.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Agent {
            config,
            prepare_downgrade: Some(version),
            time_limit,
            logging,
        } => {
            logging.begin()?;
            let config: AgentConfig = read(&config)?;
            downgrade::run(&config, version, Duration::from_secs(time_limit))
        }
        Command::Agent {
            config, logging, ..
        } => {
            logging.begin()?;
            let config: AgentConfig = read(&config)?;
            let datapath =
                KernelDatapath::open(settings(&config)).map_err(|error| refusal(&config, error))?;
            on_runtime("agent", |shutdown| async move {
                let store: Arc<dyn Store> = Arc::new(Client::new(config.store.clone()));
                heddle_agent::run(config, store, Arc::new(datapath), shutdown)
                    .await
                    .map_err(|error| {
                        Failure::new("agent/failed", format!("{error:#}"))
                            .help("the datapath stays as it was")
                    })
            })
        }
        Command::Operator { config, logging } => {
            logging.begin()?;
            let config: OperatorConfig = read(&config)?;
            on_runtime("operator", |shutdown| async move {
                let store: Arc<dyn Store> = Arc::new(Client::new(config.store.clone()));
                heddle_operator::run(config, store, shutdown)
                    .await
                    .map_err(|error| Failure::new("operator/failed", format!("{error:#}")))
            })
        }
        Command::Store {
            dir,
            socket,
            logging,
        } => {
            logging.begin()?;
            on_runtime("store", |shutdown| async move {
                embedded::serve(&dir, &socket, shutdown)
                    .await
                    .map_err(|error| {
                        Failure::new(error.code(), error.to_string()).help(error.help())
                    })
            })
        }
    }
}

/// What the kernel's side refused.
fn refusal(config: &AgentConfig, error: DatapathError) -> Failure {
    let message = error.to_string();
    let (code, help) = match error {
        DatapathError::OtherVersion { help, .. } => ("datapath/other-version", help),
        _ => (
            "datapath/failed",
            "the agent needs root, a bpffs at pinDir and Linux 6.1 or newer; see the log lines above".to_owned(),
        ),
    };
    Failure::new(code, message)
        .object(config.node_name.clone())
        .help(help)
}

/// What of the agent's configuration the kernel's side needs.
fn settings(config: &AgentConfig) -> Settings {
    Settings {
        overlay: config.fabric == Fabric::Vxlan,
        host_routing: config.host_routing,
        quick_attach: config.quick_attach,
        max_connections: config.max_connections,
        max_policy_entries: config.max_policy_entries,
        max_ipcache_entries: config.max_ipcache_entries,
        report_interval: config.flow_report_seconds,
        drop_event_rate: config.drop_events_per_second,
        trace_event_rate: config.trace_events_per_second,
        established_share: config.established_per_endpoint,
        ..Settings::new(&config.pin_dir, &config.uplink)
    }
}

fn read<C: Configuration>(path: &Path) -> Result<C, Failure> {
    load(path).map_err(|error| {
        Failure::new(error.code(), error.to_string())
            .object(path.display().to_string())
            .field(error.field())
            .help(error.help())
            .exit(USAGE)
    })
}

impl Logging {
    fn begin(&self) -> Result<(), Failure> {
        let filter = log_filter::read(&self.log_level)?;
        let to_people = is_colored(&std::io::stderr());
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr);
        let begun = match self.log_format {
            LogFormat::Text => builder.with_ansi(to_people).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        begun.map_err(|error| Failure::new("log/failed", error.to_string()))
    }
}

/// Runs `daemon` until it ends by itself, or until SIGTERM or SIGINT asks it to.
fn on_runtime<F, Fut>(name: &'static str, daemon: F) -> Result<ExitCode, Failure>
where
    F: FnOnce(watch::Receiver<bool>) -> Fut,
    Fut: Future<Output = Result<(), Failure>>,
{
    let failed = |error: std::io::Error| {
        Failure::new(
            "daemon/failed",
            format!("{name} cannot be started: {error}"),
        )
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (stop, shutdown) = watch::channel(false);
        let mut daemon = std::pin::pin!(daemon(shutdown));
        tokio::select! {
            ended = &mut daemon => return ended,
            _ = terminate.recv() => tracing::info!(daemon = name, "asked to stop (SIGTERM)"),
            _ = interrupt.recv() => tracing::info!(daemon = name, "asked to stop (SIGINT)"),
        }
        stop.send_replace(true);
        // A second signal does not wait for what hangs.
        tokio::select! {
            ended = daemon => ended,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })?;
    // What blocks in the kernel is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
