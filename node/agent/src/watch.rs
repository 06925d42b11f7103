//! Following the store: every change is taken in, brought into the kernel, and reported as realised.

use crate::agent::{Agent, MANAGER, Readiness, lock, within};
use crate::endpoint::blocking;
use heddle_kube::store::{Event, Kind, Scope, StoreError};
use heddle_model::{Identity, NamespacedName};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Events taken in before the kernel is brought up to date.
const BATCH: usize = 4_096;
/// How often what failed is tried again, and queued deletions are looked for.
const RETRY: Duration = Duration::from_secs(1);
/// Least time between two reports of what is in force.
const REPORT: Duration = Duration::from_millis(900);
/// How often the store is asked whether it is there.
const PULSE: Duration = Duration::from_secs(5);
/// How long one answer of the store is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time between two looks at this node's addresses; changes are told before.
const ADDRESSES: Duration = Duration::from_secs(5);
/// How often dead connections are removed.
const COLLECTION: Duration = Duration::from_secs(10);

/// How far the store has been heard.
#[derive(Debug, Default)]
struct Progress {
    /// How far the watch was when everything up to there had been said.
    heard: u64,
    /// Everything has been heard at least once.
    complete: bool,
}

/// Waits until the agent shall stop, or nobody is left to say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Follows the store until `shutdown`.
pub(crate) async fn follow(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    let mut events = agent.store.watch(&Scope::each(&Kind::OF_VERDICTS));
    let mut progress = Progress::default();
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            first = events.recv() => match first {
                Some(first) => {
                    let mut batch = vec![first];
                    while batch.len() < BATCH && let Ok(next) = events.try_recv() {
                        batch.push(next);
                    }
                    take_in(&agent, batch, &mut progress).await;
                }
                None => {
                    agent.notice("watch", Some("the store's watch ended; it is begun again".to_owned()));
                    tokio::time::sleep(RETRY).await;
                    events = agent.store.watch(&Scope::each(&Kind::OF_VERDICTS));
                    // What the new watch does not repeat is gone.
                    take_in(&agent, vec![Event::Restarted], &mut progress).await;
                }
            },
            _ = retry.tick() => catch_up(&agent, &progress).await,
        }
    }
}

async fn take_in(agent: &Arc<Agent>, batch: Vec<Event>, progress: &mut Progress) {
    for event in &batch {
        match event {
            Event::Applied(object) => {
                if object.kind == Kind::CiliumIdentity
                    && let Ok(number) = object.name.name.parse()
                {
                    let parsed = heddle_kube::identity::parse_identity(&object.value);
                    let labels = parsed.as_ref().map(|(_, labels)| labels);
                    agent.identities.observe(Identity(number), labels);
                }
            }
            Event::Deleted(object) => {
                if object.kind == Kind::CiliumIdentity
                    && let Ok(number) = object.name.name.parse()
                {
                    agent.identities.forget(Identity(number));
                }
            }
            Event::Synced { revision } => {
                progress.heard = progress.heard.max(*revision);
                progress.complete = true;
            }
            // What was deleted meanwhile is not reported.
            Event::Restarted => agent.identities.clear(),
        }
    }
    let blocks = agent
        .on_ledger(move |ledger| {
            for event in batch {
                ledger.observe(event);
            }
            // Between a lost connection and its being made good the list is partial; what is added to it
            // counts, and nothing is missed by waiting for the rest.
            ledger.reconcile();
            ledger.own_node().map(|node| node.pod_cidrs.clone())
        })
        .await;
    if agent.is_ready() {
        agent.addresses.set_blocks(&blocks.unwrap_or_default());
    }
    settle(agent, progress).await;
}

/// What needs the store or comes after the kernel: changed labels, readiness, the revision, the report.
async fn settle(agent: &Arc<Agent>, progress: &Progress) {
    if !progress.complete {
        return;
    }
    if !agent.is_ready() {
        become_ready(agent).await;
        if !agent.is_ready() {
            return;
        }
    }
    agent.reassert_identities(Instant::now() + PATIENCE).await;
    let relabelled = agent.relabel(Instant::now() + PATIENCE).await;
    let (contested, audit) = agent
        .on_ledger(|ledger| (ledger.contested_notice(), ledger.audit_notice()))
        .await;
    agent.notice("identities", contested);
    agent.notice("policy-audit", audit);
    let (in_force, partial) = agent
        .on_ledger(|ledger| (!ledger.is_behind(), ledger.is_starting_over()))
        .await;
    if relabelled && in_force && !partial {
        agent
            .realised_revision
            .fetch_max(progress.heard, Ordering::SeqCst);
    }
    if in_force && !partial {
        tell_policies(agent).await;
    }
    agent.update_metrics().await;
}

/// Tells the operator what is in force here; not more often than [`REPORT`].
async fn tell_policies(agent: &Arc<Agent>) {
    let told = {
        let mut told = lock(&agent.told);
        if told.at.is_some_and(|at| at.elapsed() < REPORT) {
            return;
        }
        told.at = Some(Instant::now());
        told.report.clone()
    };
    let report = agent.on_ledger(|ledger| ledger.policy_report()).await;
    if told.as_ref() == Some(&report) {
        return;
    }
    let name = NamespacedName::new("", &agent.config.node_name);
    let kind = Kind::NodePolicyReport;
    let written = within(Instant::now() + PATIENCE, async {
        let apply = || {
            agent
                .store
                .apply_status(kind, &name, MANAGER, serde_json::json!(report))
        };
        match apply().await {
            Err(StoreError::NotFound { .. }) => {
                let object = serde_json::json!({
                    "apiVersion": kind.api_version(), "kind": kind.name(),
                    "metadata": { "name": name.name },
                });
                agent.store.create(kind, object).await?;
                apply().await
            }
            other => other,
        }
    })
    .await;
    match written {
        Ok(_) => lock(&agent.told).report = Some(report),
        // It is tried again at the next look.
        Err(error) => tracing::debug!(%error, "what is in force is not told yet"),
    }
}

async fn become_ready(agent: &Arc<Agent>) {
    let node = agent.config.node_name.clone();
    let missing = agent
        .on_ledger(|ledger| match ledger.own_node() {
            None => Some("waiting for its Node object in the store"),
            Some(node) if node.pod_cidrs.is_empty() => {
                Some("waiting for the operator to write spec.podCIDRs of its Node")
            }
            Some(node) if node.internal().is_empty() => {
                Some("waiting for an InternalIP in status.addresses of its Node")
            }
            Some(_) => None,
        })
        .await;
    if let Some(missing) = missing {
        let mut readiness = lock(&agent.readiness);
        let waiting = Readiness::Starting(missing.to_owned());
        if *readiness != waiting {
            tracing::info!(node = %node, "{missing}");
            *readiness = waiting;
        }
        return;
    }
    if let Err(error) = agent.take_over().await {
        tracing::error!(code = %error.code, "not ready: {}", error.message);
        *lock(&agent.readiness) = Readiness::Starting(error.message);
    }
}

/// Tries again what failed.
async fn catch_up(agent: &Arc<Agent>, progress: &Progress) {
    if !progress.complete {
        return;
    }
    if agent.is_ready() {
        agent
            .on_ledger(|ledger| {
                if ledger.is_behind() || ledger.falls_short() {
                    ledger.reconcile();
                }
                ledger.retry_identities();
                ledger.directory.prune_cookies();
            })
            .await;
        agent.delete_pending().await;
        agent.finish_removals().await;
        agent.retry_orphans().await;
    }
    settle(agent, progress).await;
}

/// Feels the store's pulse and says when it is away.
pub(crate) async fn feel_pulse(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    let name = NamespacedName::new("", &agent.config.node_name);
    let mut beat = tokio::time::interval(PULSE);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = beat.tick() => {}
        }
        let answer = within(
            Instant::now() + PATIENCE,
            agent.store.get(Kind::Node, &name),
        )
        .await;
        let trouble = match answer {
            Ok(_) | Err(StoreError::NotFound { .. }) => None,
            Err(error) => Some(error.to_string()),
        };
        agent
            .store_reachable
            .store(trouble.is_none(), Ordering::SeqCst);
        agent.notice(
            "store",
            trouble.map(|error| {
                format!("{error}; the network goes on as it is, new pods and changed policies wait")
            }),
        );
    }
}

/// Follows the addresses of this node's devices: every one of them is the node to policy.
pub(crate) async fn follow_addresses(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    loop {
        let datapath = Arc::clone(&agent.datapath);
        let addresses = tokio::select! {
            () = stopped(&mut shutdown) => return,
            addresses = blocking(move || datapath.node_addresses(ADDRESSES)) => addresses,
        };
        match addresses {
            Ok(addresses) => {
                agent
                    .on_ledger(move |ledger| {
                        if ledger.set_device_addresses(addresses) {
                            ledger.reconcile();
                        }
                    })
                    .await;
                agent.notice("node-addresses", None);
            }
            Err(error) => {
                let trouble =
                    format!("policy does not see changes of this node's addresses: {error}");
                agent.notice("node-addresses", Some(trouble));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Removes dead connections now and then.
pub(crate) async fn collect_connections(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    let mut beat = tokio::time::interval(COLLECTION);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = beat.tick() => {}
        }
        let datapath = Arc::clone(&agent.datapath);
        match blocking(move || datapath.collect_connections()).await {
            Ok((alive, removed)) => {
                agent.metrics.conntrack_collected(alive, removed);
                agent.notice("connections", None);
            }
            Err(error) => agent.notice(
                "connections",
                Some(format!("dead connections cannot be removed: {error}")),
            ),
        }
    }
}
