//! The agent: what its parts share.

use crate::config::AgentConfig;
use crate::directory::Directory;
use crate::endpoint::Attachments;
use crate::health::Health;
use crate::identities::Identities;
use crate::ledger::{Ledger, SharedLedger};
use crate::metrics::Metrics;
use heddle_datapath::Datapath;
use heddle_kube::store::{Store, StoreError};
use heddle_rpc::{ApiError, error_codes};
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// What agents apply status as.
pub(crate) const MANAGER: &str = "heddle-agent";

/// What the agent's parts share.
pub(crate) struct Agent {
    pub(crate) config: AgentConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) datapath: Arc<dyn Datapath>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ledger: Arc<SharedLedger>,
    /// Wakes those who look at the ledger for work.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) identities: Identities,
    pub(crate) attachments: Attachments,
    pub(crate) health: Health,
}

/// A lock whose data is whole even after a panic elsewhere: every writer leaves it whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    /// Prepares an agent; nothing is written before the store has been heard.
    pub(crate) fn new(
        config: AgentConfig,
        store: Arc<dyn Store>,
        datapath: Arc<dyn Datapath>,
        directory: Arc<Directory>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        use anyhow::Context;
        let attachments = Attachments::open(&config.state_dir).with_context(|| {
            format!(
                "state directory {} cannot be used (field stateDir)",
                config.state_dir.display()
            )
        })?;
        let realised_revision = Arc::new(AtomicU64::new(0));
        let changed = watch::Sender::new(());
        let ledger = Ledger::new(
            config.clone(),
            Arc::clone(&directory),
            Arc::clone(&datapath),
            Arc::clone(&realised_revision),
            changed.clone(),
        )
        .context("the kernel's ipcache cannot be read")?;
        Ok(Self {
            identities: Identities::new(&config, Arc::clone(&store)),
            attachments,
            health: Health::new(&config.node_name, realised_revision),
            ledger: Arc::new(SharedLedger::new(ledger)),
            changed,
            config,
            store,
            datapath,
            directory,
            metrics,
        })
    }

    /// Works on the ledger where blocking is fine.
    pub(crate) async fn on_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> T {
        let ledger = Arc::clone(&self.ledger);
        blocking(move || work(&mut ledger.lock())).await
    }
}

/// Runs what blocks away from the event loop.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The work panicked, or the runtime is going down: there is nobody to answer to.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// Waits for the store until `deadline`.
pub(crate) async fn within<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout_at(deadline.into(), work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Unavailable {
            address: "its address".to_owned(),
            reason: "it did not answer in time".to_owned(),
        }),
    }
}

/// A store failure in the words of the API.
pub(crate) fn store_failure(error: &StoreError, object: &str) -> ApiError {
    let code = if error.is_retryable() {
        error_codes::TRY_AGAIN
    } else {
        "store/failed"
    };
    ApiError::new(code, format!("{object}: {error}"))
        .object(object)
        .help("see that the store runs; pods that run keep their network meanwhile")
}
