//! Where wishes are written to: the kernel, the directory of those who describe flows, and the list of what failed.

use super::Failures;
use crate::directory::{Directory, PolicyListing};
use heddle_datapath::{Datapath, DatapathError};
use std::sync::Arc;

/// Writes what is wished, and remembers what failed.
pub(crate) struct Writer {
    pub(crate) datapath: Arc<dyn Datapath>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) failures: Failures,
}

impl Writer {
    pub(super) fn new(datapath: Arc<dyn Datapath>, directory: Arc<Directory>) -> Self {
        Self {
            datapath,
            directory,
            failures: Failures::default(),
        }
    }

    /// Something was not written. It is tried again.
    pub(crate) fn failed(&mut self, object: String, error: &DatapathError) {
        tracing::error!(%object, %error, "not written");
        self.failures.fail(object, error.to_string());
    }

    /// A policy is about to be in force: events may name its cookies as soon as the kernel has them.
    pub(crate) fn announce(&self, listing: Option<&Arc<PolicyListing>>) {
        if let Some(listing) = listing {
            self.directory.add_cookies(listing);
        }
    }

    /// A policy is in force. In events the node is endpoint 0.
    pub(crate) fn list(&self, endpoint: u16, listing: Arc<PolicyListing>) {
        self.directory.add_cookies(&listing);
        self.directory.set_policy(endpoint, listing);
    }
}
