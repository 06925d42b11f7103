//! The cluster's control loop: pod ranges for nodes, identity garbage collection, policies' status.
#![forbid(unsafe_code)]

mod blocks;
mod cluster;
mod collect;
mod config;
mod enforcement;
mod http;
mod metrics;

#[cfg(test)]
mod tests;

pub use config::{ConfigError, OperatorConfig};

use anyhow::Context;
use blocks::BlockController;
use cluster::{Change, Cluster};
use collect::Collector;
use heddle_kube::store::{Kind, Store};
use metrics::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// How often policies' status is brought up to date, at most.
const SUM: Duration = Duration::from_millis(500);
/// Wait before nodes whose update failed are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the operator until `shutdown` turns true.
///
/// It does nothing to any object before it has read all of them: blocks are given only when every
/// node's block is known.
///
/// # Errors
///
/// A configuration that makes no sense, or a metrics address that cannot be bound. A lost store is not
/// an error: it waits for it.
pub async fn run(
    config: OperatorConfig,
    store: Arc<dyn Store>,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    config.validate()?;
    let listener = match config.metrics {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("metrics: cannot listen on {address}; choose another address")
        })?),
        None => None,
    };
    run_with(config, store, listener, shutdown).await
}

/// [`run`] with the metrics' listener.
async fn run_with(
    config: OperatorConfig,
    store: Arc<dyn Store>,
    listener: Option<TcpListener>,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let mut blocks = BlockController::new(&config, Arc::clone(&store))?;
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        tasks.spawn(http::serve(listener, Arc::clone(&metrics)));
    }
    let mut watch = store.watch(&[
        Kind::Node,
        Kind::Pod,
        Kind::CiliumIdentity,
        Kind::CiliumEndpoint,
        Kind::IdentityClaim,
        Kind::NetworkPolicy,
        Kind::CiliumNetworkPolicy,
        Kind::CiliumClusterwideNetworkPolicy,
        Kind::ClusterNetworkPolicy,
        Kind::NodePolicyReport,
    ]);
    let mut cluster = Cluster::default();
    let mut collector = Collector::default();
    let mut collection: JoinSet<collect::Outcome> = JoinSet::new();
    let interval = Duration::from_secs(config.identity_gc_seconds);
    let mut observations = tokio::time::interval(interval);
    observations.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sums = tokio::time::interval(SUM);
    sums.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut telling: JoinSet<bool> = JoinSet::new();
    let mut untold = true;
    let mut retries = tokio::time::interval(RETRY);
    retries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tracing::info!(cluster = config.cluster, "operator started");
    loop {
        let stop = async {
            // An error means that whoever could stop the operator is gone: then it stops too.
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stop => break,
            event = watch.recv() => {
                let Some(event) = event else {
                    anyhow::bail!("the store's watch ended");
                };
                untold |= enforcement::concerns(&event);
                let change = cluster.apply(event);
                metrics.set_synced(cluster.is_synced());
                match change {
                    Change::Everything => blocks.reconcile_all(&cluster).await,
                    Change::Node(name) => blocks.reconcile(&cluster, &name).await,
                    Change::Nothing => continue,
                }
                blocks.report(&metrics);
            }
            _ = retries.tick(), if blocks.must_retry() => {
                blocks.retry(&cluster).await;
                blocks.report(&metrics);
            }
            _ = observations.tick(), if cluster.is_synced() && collection.is_empty() => {
                let actions = collector.observe(&cluster);
                collection.spawn(collect::execute(Arc::clone(&store), actions, Instant::now()));
            }
            _ = sums.tick(), if untold && cluster.is_synced() && telling.is_empty() => {
                let (writes, all) = enforcement::writes(&cluster);
                untold = !all;
                if !writes.is_empty() {
                    telling.spawn(enforcement::execute(Arc::clone(&store), writes));
                }
            }
            Some(done) = telling.join_next() => untold |= !matches!(done, Ok(true)),
            Some(outcome) = collection.join_next() => {
                // What was marked last is to be unused for a whole interval, too.
                observations.reset();
                match outcome {
                    Ok(outcome) => {
                        collector.learn(&outcome);
                        metrics.collected(&outcome, cluster.identities.len());
                    }
                    Err(error) => tracing::error!(%error, "a collection failed"),
                }
            },
        }
    }
    tasks.shutdown().await;
    collection.shutdown().await;
    telling.shutdown().await;
    tracing::info!("operator stopped");
    Ok(())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
