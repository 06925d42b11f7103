//! The cluster's control loop: pod ranges for nodes, identity garbage collection, policies' status.
#![forbid(unsafe_code)]

mod blocks;
mod cluster;
mod collect;
mod config;
mod enforcement;
mod http;
mod instance;
mod metrics;
mod policies;

#[cfg(test)]
mod tests;

pub use config::OperatorConfig;

use anyhow::Context;
use blocks::BlockController;
use cluster::{Change, Cluster};
use collect::Collector;
use heddle_kube::lease::{Candidate, Election, LeaderStore, Leadership, Term, Timing};
use heddle_kube::store::{Kind, Scope, Store};
use heddle_model::NamespacedName;
use heddle_model::setting::Configuration;
use instance::Instance;
use metrics::Metrics;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// How often policies' status is brought up to date, at most.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// Wait before nodes whose update failed are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What the operator applies status as.
pub(crate) const MANAGER: &str = "heddle-operator";
/// The lease that the operator which works holds.
const LEASE: (&str, &str) = ("kube-system", "heddle-operator");

/// What the operator watches.
const KINDS: [Kind; 11] = [
    Kind::Node,
    Kind::Pod,
    Kind::CiliumIdentity,
    Kind::CiliumEndpoint,
    Kind::IdentityClaim,
    Kind::CiliumCIDRGroup,
    Kind::NetworkPolicy,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::NodePolicyReport,
];

/// Runs the operator until `shutdown` turns true.
///
/// Of several operators on one store one works, the others wait for its lease. It does nothing to any object
/// before it has read all of them: blocks are given only when every node's block is known.
///
/// # Errors
///
/// A configuration that makes no sense, a metrics address that cannot be bound, or a state directory that cannot
/// be used. A lost store is not an error: it waits for it.
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
    let instance = Instance::take(&config.state_dir)?;
    let identity = instance.identity().to_owned();
    run_as(&identity, config, store, listener, shutdown).await
}

/// [`run`] under a name of its own, with the metrics' listener.
async fn run_as(
    identity: &str,
    config: OperatorConfig,
    store: Arc<dyn Store>,
    listener: Option<TcpListener>,
    shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::new());
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        tasks.spawn(http::serve(listener, Arc::clone(&metrics)));
    }
    let election = Election::new(identity, Timing::of_seconds(config.lease_seconds));
    let lease = NamespacedName::new(LEASE.0, LEASE.1);
    let (candidate, leadership) = Candidate::new(Arc::clone(&store), lease, election);
    let (resign, resigned) = watch::channel(false);
    let candidate = tokio::spawn(candidate.run(resigned));
    // Whatever ends this function, the candidate does not outlive it.
    let ended = AbortOnDrop(candidate);
    tracing::info!(cluster = config.cluster, identity, "operator started");
    let outcome = follow(&config, store, &leadership, &metrics, shutdown).await;
    tasks.shutdown().await;
    // Only now that nothing is written any more may another one begin.
    resign.send_replace(true);
    ended.wait().await;
    tracing::info!("operator stopped");
    outcome
}

struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    async fn wait(mut self) {
        if let Err(error) = (&mut self.0).await {
            tracing::error!(%error, "the candidate failed");
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the store, and works while this operator leads.
async fn follow(
    config: &OperatorConfig,
    store: Arc<dyn Store>,
    leadership: &Leadership,
    metrics: &Metrics,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut events = store.watch(&Scope::each(&KINDS));
    let mut cluster = Cluster::new(config.cidr_limits());
    let leaders: Arc<dyn Store> = Arc::new(LeaderStore::new(store, leadership.clone()));
    let mut leadership = leadership.clone();
    let mut term: Option<Term> = None;
    let mut work = Work::new(config, &leaders)?;
    let mut observations = interval(Duration::from_secs(config.identity_gc_seconds));
    let mut sums = interval(STATUS_INTERVAL);
    let mut retries = interval(RETRY);
    loop {
        let stop = async {
            // An error means that whoever could stop the operator is gone: then it stops too.
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        let works = term.is_some() && cluster.is_synced();
        tokio::select! {
            () = stop => break,
            () = leadership.changed(term.as_ref()) => {
                // What another one did meanwhile, or what is still on its way, is not known: it begins anew.
                work.end().await;
                work = Work::new(config, &leaders)?;
                term = leadership.term();
                match &term {
                    Some(term) => tracing::info!(transitions = term.transitions, "this operator leads"),
                    None => tracing::info!("this operator does not lead any more"),
                }
                if cluster.is_synced() && let Some(term) = &term {
                    work.begin(&mut cluster, term, metrics).await;
                }
            }
            event = events.recv() => {
                let Some(event) = event else {
                    anyhow::bail!("the store's watch ended");
                };
                work.untold |= enforcement::concerns(&event);
                let change = cluster.apply(event);
                metrics.set_synced(cluster.is_synced());
                if let Some(term) = &term {
                    match change {
                        Change::Everything => work.begin(&mut cluster, term, metrics).await,
                        Change::Node(name) if work.begun => {
                            work.blocks.reconcile(&cluster, &name).await;
                            work.blocks.report(metrics);
                        }
                        Change::Node(_) | Change::Nothing => {}
                    }
                }
            }
            _ = retries.tick(), if works && (!work.begun || work.blocks.must_retry()) => {
                match &term {
                    Some(term) if !work.begun => work.begin(&mut cluster, term, metrics).await,
                    _ => {
                        work.blocks.retry(&cluster).await;
                        work.blocks.report(metrics);
                    }
                }
            }
            _ = observations.tick(), if works && work.collection.is_empty() => {
                let actions = work.collector.observe(&cluster);
                work.collection.spawn(collect::execute(Arc::clone(&leaders), actions, Instant::now()));
            }
            _ = sums.tick(), if works && work.untold && work.telling.is_empty() => {
                let (writes, all) = enforcement::writes(&cluster);
                work.untold = !all;
                if !writes.is_empty() {
                    work.telling.spawn(enforcement::execute(Arc::clone(&leaders), writes));
                }
            }
            Some(done) = work.telling.join_next() => work.untold |= !matches!(done, Ok(true)),
            Some(outcome) = work.collection.join_next() => {
                // What was marked last is to be unused for a whole interval, too.
                observations.reset();
                match outcome {
                    Ok(outcome) => {
                        work.collector.learn(&outcome);
                        metrics.collected(&outcome, cluster.identities.len());
                    }
                    Err(error) => tracing::error!(%error, "a collection failed"),
                }
            },
        }
    }
    work.end().await;
    Ok(())
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What an operator knows and does during one term.
struct Work {
    blocks: BlockController,
    collector: Collector,
    collection: JoinSet<collect::Outcome>,
    telling: JoinSet<bool>,
    /// Policies' status may not be as it should.
    untold: bool,
    /// Every node's block is known, and no former leader can give one any more.
    begun: bool,
}

impl Work {
    fn new(config: &OperatorConfig, store: &Arc<dyn Store>) -> anyhow::Result<Self> {
        Ok(Self {
            blocks: BlockController::new(config, Arc::clone(store))?,
            collector: Collector::default(),
            collection: JoinSet::new(),
            telling: JoinSet::new(),
            untold: true,
            begun: false,
        })
    }

    /// After a whole list, or at the beginning of a term.
    async fn begin(&mut self, cluster: &mut Cluster, term: &Term, metrics: &Metrics) {
        if !self.begun {
            match self.blocks.fence(cluster, term).await {
                Ok(()) => self.begun = true,
                Err(error) => {
                    tracing::warn!(%error, "no blocks are given before former leaders are shut out; trying again");
                    return;
                }
            }
        }
        self.blocks.reconcile_all(cluster).await;
        self.blocks.report(metrics);
    }

    async fn end(&mut self) {
        self.collection.shutdown().await;
        self.telling.shutdown().await;
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
