//! Following the store: every change is taken in and brought into the kernel. This waits for nothing but the ledger:
//! what needs the store afterwards is done by controllers (`controller.rs`).

use crate::agent::{Agent, blocking, within};
use crate::controller::{RETRY_INTERVAL, STORE_TIMEOUT, stopped};
use crate::ledger::falls_short;
use heddle_kube::store::{Event, Kind, Scope, StoreError};
use heddle_model::{Identity, NamespacedName};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Events taken in before the kernel is brought up to date.
const BATCH: usize = 4_096;
/// How often the store is asked whether it is there.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time between two looks at this node's addresses; changes are told before.
const ADDRESSES_INTERVAL: Duration = Duration::from_secs(5);
/// How often dead connections are removed.
const COLLECTION_INTERVAL: Duration = Duration::from_secs(10);

/// Follows the store until `shutdown`.
pub(crate) async fn follow(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    let mut events = agent.store.watch(&Scope::each(&Kind::OF_VERDICTS));
    let mut retry = tokio::time::interval(RETRY_INTERVAL);
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
                    take_in(&agent, batch).await;
                }
                None => {
                    agent.health.notice("watch", Some("the store's watch ended; it is begun again".to_owned()));
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    events = agent.store.watch(&Scope::each(&Kind::OF_VERDICTS));
                    // What the new watch does not repeat is gone.
                    take_in(&agent, vec![Event::Restarted]).await;
                }
            },
            _ = retry.tick() => catch_up(&agent).await,
        }
    }
}

async fn take_in(agent: &Arc<Agent>, batch: Vec<Event>) {
    for event in &batch {
        match event {
            Event::Applied(object) if object.kind == Kind::CiliumIdentity => {
                if let Ok(number) = object.name.name.parse() {
                    let parsed = heddle_kube::identity::parse_identity(&object.value);
                    let labels = parsed.as_ref().map(|(_, labels)| labels);
                    agent.identities.allocator.observe(Identity(number), labels);
                }
            }
            Event::Deleted(object) if object.kind == Kind::CiliumIdentity => {
                if let Ok(number) = object.name.name.parse() {
                    agent.identities.allocator.forget(Identity(number));
                }
            }
            // What was deleted meanwhile is not reported.
            Event::Restarted => agent.identities.allocator.clear(),
            Event::Applied(_) | Event::Deleted(_) | Event::Synced { .. } => {}
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
            ledger.peers.nodes.own().map(|node| node.pod_cidrs.clone())
        })
        .await;
    if agent.health.is_ready() {
        agent
            .attachments
            .addresses
            .set_blocks(&blocks.unwrap_or_default());
    }
}

/// Tries again what failed.
async fn catch_up(agent: &Arc<Agent>) {
    if agent.health.is_ready() {
        agent
            .on_ledger(|ledger| {
                if ledger.is_behind() || falls_short(ledger) {
                    ledger.reconcile();
                }
                ledger.writer.directory.prune_cookies();
            })
            .await;
    }
}

/// Asks the store whether it is there, and says when it is not.
pub(crate) async fn probe_store(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    let name = NamespacedName::new("", &agent.config.node_name);
    let mut beat = tokio::time::interval(PROBE_INTERVAL);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = beat.tick() => {}
        }
        let answer = within(
            Instant::now() + STORE_TIMEOUT,
            agent.store.get(Kind::Node, &name),
        )
        .await;
        let trouble = match answer {
            Ok(_) | Err(StoreError::NotFound { .. }) => None,
            Err(error) => Some(error.to_string()),
        };
        agent.health.set_store_reachable(trouble.is_none());
        agent.health.notice(
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
            addresses = blocking(move || datapath.node_addresses(ADDRESSES_INTERVAL)) => addresses,
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
                agent.health.notice("node-addresses", None);
            }
            Err(error) => {
                let trouble =
                    format!("policy does not see changes of this node's addresses: {error}");
                agent.health.notice("node-addresses", Some(trouble));
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

/// Removes dead connections now and then.
pub(crate) async fn collect_connections(agent: Arc<Agent>, mut shutdown: watch::Receiver<bool>) {
    let mut beat = tokio::time::interval(COLLECTION_INTERVAL);
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
                agent.health.notice("connections", None);
            }
            Err(error) => agent.health.notice(
                "connections",
                Some(format!("dead connections cannot be removed: {error}")),
            ),
        }
    }
}
