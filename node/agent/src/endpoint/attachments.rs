//! What the requests of the container runtime share: an attachment's turn, its record on the disk and its addresses.

use super::addresses::Addresses;
use super::orphan::Orphan;
use super::record::{AttachmentKey, Record, Records};
use super::step::Step;
use crate::agent::{blocking, lock};
use heddle_rpc::ApiError;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the requests of the container runtime share.
pub(crate) struct Attachments {
    state_dir: PathBuf,
    pub(crate) records: Records,
    pub(crate) addresses: Addresses,
    /// What the kernel or a damaged file holds without a record.
    pub(crate) orphans: Mutex<Vec<Orphan>>,
    turns: Mutex<HashMap<AttachmentKey, Arc<tokio::sync::Mutex<()>>>>,
    unfinished: Mutex<BTreeMap<u16, Record>>,
    #[cfg(test)]
    pub(crate) faults: crate::testing::Faults,
}

impl Attachments {
    /// Of a former run, nothing of which has been read yet.
    ///
    /// # Errors
    /// When there can be no records in the directory.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            state_dir: state_dir.to_owned(),
            records: Records::open(state_dir)?,
            addresses: Addresses::new(state_dir),
            orphans: Mutex::default(),
            turns: Mutex::default(),
            unfinished: Mutex::default(),
            #[cfg(test)]
            faults: crate::testing::Faults::default(),
        })
    }

    /// The lock of an attachment: one request at a time works on it.
    pub(crate) fn turn(&self, key: &AttachmentKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(key.clone()).or_default())
    }

    /// Writes a record to the disk.
    ///
    /// # Errors
    /// When that is full or not to be written.
    pub(crate) async fn save(&self, record: &Record) -> Result<(), ApiError> {
        let (records, saved) = (self.records.clone(), record.clone());
        blocking(move || records.write(&saved))
            .await
            .map_err(|error| {
                ApiError::new(
                    "agent/state-not-saved",
                    format!(
                        "pod {}: the endpoint cannot be written below {}: {error}",
                        record.pod,
                        self.state_dir.display()
                    ),
                )
                .object(format!("pod {}", record.pod))
                .help("free space on that file system; the runtime will try again")
            })
    }

    /// Works on the list of unfinished removals.
    pub(crate) fn removals<T>(&self, work: impl FnOnce(&mut BTreeMap<u16, Record>) -> T) -> T {
        work(&mut lock(&self.unfinished))
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
