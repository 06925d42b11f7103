//! What the last reconciliation could not bring into force, by object.

use heddle_model::{Identity, NamespacedName};
use std::collections::BTreeMap;

/// What is wished and does not fit: nobody but the endpoint waits for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shortfall {
    /// What does not fit, and what to do.
    pub(crate) reason: String,
    /// Whose endpoint it is.
    pub(crate) pod: Option<NamespacedName>,
    /// Whose policies do not fit.
    pub(crate) identity: Option<Identity>,
}

/// What failed, and what did not fit. What failed is tried again, and others may wait for it.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    failed: BTreeMap<String, String>,
    short: BTreeMap<String, Shortfall>,
    /// What did not fit in the reconciliation before.
    short_before: BTreeMap<String, Shortfall>,
}

impl Failures {
    /// A reconciliation begins.
    pub(super) fn begin(&mut self) {
        self.failed.clear();
        self.short_before = std::mem::take(&mut self.short);
    }

    /// A reconciliation has ended: says what does not fit any more, and what does again. True when nothing failed.
    pub(super) fn end(&mut self) -> bool {
        let before = std::mem::take(&mut self.short_before);
        for (object, shortfall) in &self.short {
            if before.get(object) != Some(shortfall) {
                tracing::error!(%object, reason = %shortfall.reason, "not in force");
            }
        }
        for object in before.keys().filter(|it| !self.short.contains_key(*it)) {
            tracing::info!(%object, "in force again");
        }
        self.is_empty()
    }

    pub(crate) fn fail(&mut self, object: String, reason: String) {
        self.failed.insert(object, reason);
    }

    pub(crate) fn fall_short(&mut self, object: String, shortfall: Shortfall) {
        self.short.insert(object, shortfall);
    }

    /// Nothing failed.
    pub(crate) fn is_empty(&self) -> bool {
        self.failed.is_empty()
    }

    /// Why an object failed.
    pub(crate) fn of(&self, object: &str) -> Option<&String> {
        self.failed.get(object)
    }

    /// What failed, each with its reason.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.failed.iter()
    }

    /// What does not fit.
    pub(crate) const fn shortfalls(&self) -> &BTreeMap<String, Shortfall> {
        &self.short
    }
}
