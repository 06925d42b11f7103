//! The agent: what its parts share.

use crate::config::AgentConfig;
use crate::directory::Directory;
use crate::endpoint::addresses::Addresses;
use crate::endpoint::orphan::Orphan;
use crate::endpoint::record::{AttachmentKey, Record, Records};
use crate::endpoint::step::Step;
use crate::ledger::{Ledger, SharedLedger};
use crate::metrics::Metrics;
use heddle_datapath::Datapath;
use heddle_kube::identity::{IdentityAllocator, IdentityLimits};
use heddle_kube::store::{Store, StoreError};
use heddle_model::LabelFilter;
use heddle_rpc::{ApiError, error_codes};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// What agents apply status as.
pub(crate) const MANAGER: &str = "heddle-agent";

/// How far the agent has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Readiness {
    /// Nothing of a former run has been taken over yet.
    Starting(String),
    /// Everything that is wished is in force.
    Ready,
}

/// What the agent's parts share.
pub(crate) struct Agent {
    pub(crate) config: AgentConfig,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) datapath: Arc<dyn Datapath>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) ledger: Arc<SharedLedger>,
    pub(crate) identities: IdentityAllocator,
    pub(crate) label_filter: LabelFilter,
    pub(crate) records: Records,
    pub(crate) addresses: Addresses,
    pub(crate) readiness: Mutex<Readiness>,
    /// What an operator should know; by subject.
    pub(crate) notices: Mutex<BTreeMap<&'static str, String>>,
    /// Store revision up to which everything is in force.
    pub(crate) realised_revision: Arc<AtomicU64>,
    /// Wakes those who look at the ledger for work.
    pub(crate) changed: watch::Sender<()>,
    /// False while the store cannot be reached.
    pub(crate) store_reachable: AtomicBool,
    turns: Mutex<HashMap<AttachmentKey, Arc<tokio::sync::Mutex<()>>>>,
    unfinished: Mutex<BTreeMap<u16, Record>>,
    /// What the kernel or a damaged file holds without a record.
    pub(crate) orphans: Mutex<Vec<Orphan>>,
    #[cfg(test)]
    pub(crate) faults: crate::testing::Faults,
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
        let records = Records::open(&config.state_dir).with_context(|| {
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
        let ledger = Arc::new(SharedLedger::new(ledger));
        let limits = IdentityLimits {
            per_namespace: config.max_identities_per_namespace as usize,
            new_per_minute: config.new_identities_per_minute,
        };
        Ok(Self {
            identities: IdentityAllocator::new(Arc::clone(&store)).limited(limits),
            label_filter: config
                .excluded_labels
                .as_ref()
                .map_or_else(LabelFilter::default, |keys| {
                    LabelFilter::excluding(keys.iter().map(String::as_str))
                }),
            records,
            addresses: Addresses::new(&config.state_dir),
            readiness: Mutex::new(Readiness::Starting(
                "waiting for the store's first complete answer".to_owned(),
            )),
            notices: Mutex::default(),
            realised_revision,
            changed,
            store_reachable: AtomicBool::new(true),
            turns: Mutex::default(),
            unfinished: Mutex::default(),
            orphans: Mutex::default(),
            ledger,
            config,
            store,
            datapath,
            directory,
            metrics,
            #[cfg(test)]
            faults: crate::testing::Faults::default(),
        })
    }

    pub(crate) fn is_ready(&self) -> bool {
        *lock(&self.readiness) == Readiness::Ready
    }

    pub(crate) fn must_be_ready(&self) -> Result<(), ApiError> {
        match &*lock(&self.readiness) {
            Readiness::Ready => Ok(()),
            Readiness::Starting(reason) => Err(ApiError::new(
                error_codes::NOT_READY,
                format!(
                    "the agent of node {} is not ready: {reason}",
                    self.config.node_name
                ),
            )
            .help(
                "pods that run keep their network; new ones are attached as soon as it is ready",
            )),
        }
    }

    /// Before the former run's endpoints are known nothing can be said of them.
    pub(crate) fn must_be_restored(&self) -> Result<(), ApiError> {
        self.must_be_ready()
    }

    /// The lock of an attachment: one request at a time works on it.
    pub(crate) fn turn(&self, key: &AttachmentKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    /// Works on the list of unfinished removals.
    pub(crate) fn removals<T>(&self, work: impl FnOnce(&mut BTreeMap<u16, Record>) -> T) -> T {
        work(&mut lock(&self.unfinished))
    }

    /// Sets or clears what an operator should know about a subject.
    pub(crate) fn notice(&self, subject: &'static str, text: Option<String>) {
        let mut notices = lock(&self.notices);
        match text {
            Some(text) => {
                if notices.get(subject) != Some(&text) {
                    tracing::warn!(subject, "{text}");
                }
                notices.insert(subject, text);
            }
            None => {
                if notices.remove(subject).is_some() {
                    tracing::info!(subject, "back to normal");
                }
            }
        }
    }

    /// Works on the ledger where blocking is fine.
    pub(crate) async fn on_ledger<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> T {
        let ledger = Arc::clone(&self.ledger);
        blocking(move || work(&mut ledger.lock())).await
    }

    /// A step of an ADD has been done: the place where tests cut it short.
    #[cfg(not(test))]
    #[allow(clippy::unused_async)]
    pub(crate) async fn reach(&self, _step: Step) -> Result<(), ApiError> {
        Ok(())
    }

    /// A step of an ADD has been done: the place where tests cut it short.
    #[cfg(test)]
    pub(crate) async fn reach(&self, step: Step) -> Result<(), ApiError> {
        self.faults.reach(step).await
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
