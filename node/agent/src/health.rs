//! How the agent is: whether it serves, and what an operator should know.

use crate::agent::lock;
use heddle_rpc::{ApiError, error_codes};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How far the agent has come.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Readiness {
    /// Nothing of a former run has been taken over yet.
    Starting(String),
    /// Everything that is wished is in force.
    Ready,
}

/// How the agent is.
#[derive(Debug)]
pub(crate) struct Health {
    node: String,
    readiness: Mutex<Readiness>,
    /// What an operator should know; by subject.
    notices: Mutex<BTreeMap<&'static str, String>>,
    store_reachable: AtomicBool,
    realised_revision: Arc<AtomicU64>,
}

impl Health {
    /// Of an agent that has not begun; whoever writes the kernel counts `realised_revision` up.
    pub(crate) fn new(node: &str, realised_revision: Arc<AtomicU64>) -> Self {
        Self {
            node: node.to_owned(),
            readiness: Mutex::new(Readiness::Starting(
                "waiting for the store's first complete answer".to_owned(),
            )),
            notices: Mutex::default(),
            store_reachable: AtomicBool::new(true),
            realised_revision,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        *lock(&self.readiness) == Readiness::Ready
    }

    /// Why it is not ready; `None` when it is.
    pub(crate) fn unready(&self) -> Option<String> {
        match &*lock(&self.readiness) {
            Readiness::Ready => None,
            Readiness::Starting(reason) => Some(reason.clone()),
        }
    }

    pub(crate) fn must_be_ready(&self) -> Result<(), ApiError> {
        self.unready().map_or(Ok(()), |reason| {
            Err(ApiError::new(
                error_codes::NOT_READY,
                format!("the agent of node {} is not ready: {reason}", self.node),
            )
            .help("pods that run keep their network; new ones are attached as soon as it is ready"))
        })
    }

    /// What the start waits for. True when that is new.
    pub(crate) fn waits_for(&self, reason: &str) -> bool {
        let mut readiness = lock(&self.readiness);
        let waiting = Readiness::Starting(reason.to_owned());
        let is_new = *readiness != waiting;
        *readiness = waiting;
        is_new
    }

    /// Everything of a former run has been taken over.
    pub(crate) fn started(&self) {
        *lock(&self.readiness) = Readiness::Ready;
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

    /// What an operator should know, in the order of the subjects.
    pub(crate) fn notices(&self) -> Vec<String> {
        lock(&self.notices).values().cloned().collect()
    }

    #[cfg(test)]
    pub(crate) fn notice_about(&self, subject: &str) -> Option<String> {
        lock(&self.notices).get(subject).cloned()
    }

    /// False while the store cannot be reached.
    pub(crate) fn is_store_reachable(&self) -> bool {
        self.store_reachable.load(Ordering::SeqCst)
    }

    pub(crate) fn set_store_reachable(&self, reachable: bool) {
        self.store_reachable.store(reachable, Ordering::SeqCst);
    }

    /// Store revision up to which everything is in force.
    pub(crate) fn realised_revision(&self) -> u64 {
        self.realised_revision.load(Ordering::SeqCst)
    }
}
