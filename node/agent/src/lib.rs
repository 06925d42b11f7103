//! The node's control loop: endpoints, identities, policy, flows.
//!
//! [`run`] follows the store, keeps the kernel as the store wishes it, attaches pods for the CNI plugin,
//! and answers questions on its socket. The kernel's part is behind [`heddle_datapath::Datapath`]: what it
//! holds stays when the agent goes, and is taken over when it comes back.
#![forbid(unsafe_code)]

mod addresses;
mod agent;
mod api;
mod audit;
pub mod config;
mod controller;
pub mod directory;
mod endpoint;
mod flow_resolver;
pub mod flows;
mod health;
mod host;
mod identities;
mod ledger;
mod lock_order;
pub mod metrics;
mod policy;
mod sessions;
mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod watch;

pub use api::{
    AskedPath, AskedPeer, FlowSource, FoundPeer, Held, Known, MOST_CONNECTIONS, PolicyState,
    Question, ReadPolicyState, RecentConnections, Standing, look_up,
};

use agent::Agent;
use anyhow::{Context, bail};
use config::AgentConfig;
use directory::Directory;
use flow_resolver::{Explanations, Names};
use flows::{Devices, FlowHub, HubOptions};
use heddle_datapath::Datapath;
use heddle_kube::process_lock::{ProcessLock, ProcessLockError};
use heddle_kube::store::Store;
use heddle_model::setting::Configuration;
use metrics::Metrics;
use std::sync::Arc;
use tokio::sync::watch as signal;

/// The agent's socket in its state directory.
pub const SOCKET: &str = "agent.sock";

/// Runs the agent until `shutdown` becomes true. The datapath stays as it is then.
///
/// # Errors
/// When the agent cannot begin: another one has its state directory, a directory, socket or port cannot
/// be used, the kernel's maps cannot be read. Later trouble is logged, shown in `status` and tried again.
pub async fn run(
    config: AgentConfig,
    store: Arc<dyn Store>,
    datapath: Arc<dyn Datapath>,
    shutdown: signal::Receiver<bool>,
) -> anyhow::Result<()> {
    config.validate()?;
    heddle_rpc::durable::make_private_directory(&config.state_dir).with_context(|| {
        format!(
            "state directory {} cannot be made (field stateDir)",
            config.state_dir.display()
        )
    })?;
    let _only_one = lock_state(&config)?;
    let directory = Arc::new(Directory::new());
    let metrics = Arc::new(Metrics::new());
    metrics.watch_datapath(Arc::clone(&datapath));

    let mut tasks = tokio::task::JoinSet::new();
    if let Some(address) = config.metrics {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("metrics cannot be served on {address} (field metrics)"))?;
        tasks.spawn(metrics::serve(
            listener,
            Arc::clone(&metrics),
            shutdown.clone(),
        ));
    }
    let socket = config.state_dir.join(SOCKET);
    let listener = heddle_rpc::server::bind(&socket)
        .with_context(|| format!("the agent's socket {} cannot be made", socket.display()))?;
    let names = Names {
        directory: Arc::clone(&directory),
        cluster: config.cluster.clone(),
        devices: Devices::new(),
    };
    let agent = agent::blocking(move || {
        Agent::new(config, store, datapath, directory, metrics).map(Arc::new)
    })
    .await?;
    let explanations = Explanations {
        ledger: Arc::clone(&agent.ledger),
    };
    let hub = FlowHub::start(
        Arc::clone(&agent.datapath),
        Arc::new(names),
        Arc::new(explanations),
        Arc::clone(&agent.metrics),
        HubOptions::new(&agent.config.node_name, agent.config.flow_capacity),
    )
    .context("the threads that read flows cannot be started")?;
    let hub = Arc::new(hub);
    let flows: Arc<dyn FlowSource> = Arc::new(Arc::clone(&hub));

    tracing::info!(node = %agent.config.node_name, socket = %socket.display(), "started");
    let api = api::Api {
        agent: Arc::clone(&agent),
        flows: Some(flows),
    };
    tasks.spawn(heddle_rpc::server::serve(
        Arc::new(api),
        listener,
        shutdown.clone(),
    ));
    start(&mut tasks, &agent, &shutdown);
    tasks.spawn(watch::probe_store(Arc::clone(&agent), shutdown.clone()));
    tasks.spawn(watch::collect_connections(Arc::clone(&agent), shutdown));
    while let Some(ended) = tasks.join_next().await {
        ended.context("a part of the agent failed")?;
    }
    // The last events may have refused a policy whose accepted version is to outlive this run.
    policy::write_kept(&agent).await;
    agent::blocking(move || hub.stop()).await;
    let _ = std::fs::remove_file(&socket);
    tracing::info!(node = %agent.config.node_name, "stopped; the datapath goes on");
    Ok(())
}

/// Starts what follows the store, and the controllers that do the rest.
fn start(
    tasks: &mut tokio::task::JoinSet<()>,
    agent: &Arc<Agent>,
    shutdown: &signal::Receiver<bool>,
) {
    tasks.spawn(watch::follow(Arc::clone(agent), shutdown.clone()));
    tasks.spawn(watch::follow_addresses(Arc::clone(agent), shutdown.clone()));
    macro_rules! controllers {
        ($($controller:expr),* $(,)?) => {
            $(tasks.spawn(controller::run($controller, Arc::clone(agent), shutdown.clone()));)*
        };
    }
    controllers![
        endpoint::Restoration,
        endpoint::Removals,
        endpoint::Publisher,
        policy::KeptWriter,
        addresses::RouteCheck,
        identities::Reasserter,
        identities::Relabeler::default(),
        status::Report::default(),
        status::Gauges,
    ];
}

/// One agent per state directory; the lock goes with the process.
fn lock_state(config: &AgentConfig) -> anyhow::Result<ProcessLock> {
    let path = config.state_dir.join("agent.lock");
    match ProcessLock::take(&path) {
        Ok(lock) => Ok(lock),
        Err(ProcessLockError::Held { .. }) => bail!(
            "another agent of node {} runs with state directory {}; stop it first, or give this one a stateDir of its own",
            config.node_name,
            config.state_dir.display()
        ),
        Err(error) => Err(error.into()),
    }
}
