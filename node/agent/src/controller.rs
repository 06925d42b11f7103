//! Controllers: what waits for the store or for time runs in tasks of its own, so that nothing of it stands between
//! an event of the store and the kernel.

use crate::agent::Agent;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a controller rests after something failed, and how often queued work is looked for.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long one answer of the store is waited for.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// When a controller is to look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// When the ledger has changed.
    Change,
    /// When the ledger has changed, and after this long in any case.
    ChangeOrAfter(Duration),
    /// After this long, whatever changes meanwhile.
    After(Duration),
}

/// One part of the agent with its own state and failures. It finds its work in the ledger, and is woken when that
/// has changed.
#[async_trait]
pub(crate) trait Controller: Send {
    /// Does what is due. It may be dropped at any await when the agent stops.
    async fn work(&mut self, agent: &Arc<Agent>) -> Next;
}

/// Waits until the agent shall stop, or nobody is left to say so.
pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Runs a controller until `shutdown`.
pub(crate) async fn run<C: Controller>(
    mut controller: C,
    agent: Arc<Agent>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut changed = agent.changed.subscribe();
    loop {
        // What changes from here on is a reason to look again.
        changed.borrow_and_update();
        let next = tokio::select! {
            () = stopped(&mut shutdown) => return,
            next = controller.work(&agent) => next,
        };
        let time = async {
            match next {
                Next::Change => std::future::pending().await,
                Next::ChangeOrAfter(time) | Next::After(time) => tokio::time::sleep(time).await,
            }
        };
        let change = async {
            match next {
                Next::After(_) => std::future::pending().await,
                // The agent holds the sender.
                _ => drop(changed.changed().await),
            }
        };
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            () = time => {}
            () = change => {}
        }
    }
}
