//! What was accepted last of objects that are refused now, kept over a restart of the agent. It is written by a
//! controller: no policy waits for a disk.

use crate::agent::{Agent, blocking};
use crate::controller::{Controller, Next, RETRY_INTERVAL};
use async_trait::async_trait;
use heddle_rpc::durable::{file_stem, make_private_directory, write_durably};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file is to hold; `None`: it is to go.
type Content = Option<Arc<[u8]>>;

/// A directory with a file for each object that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    directory: PathBuf,
    /// What is not on the disk yet.
    due: BTreeMap<PathBuf, Content>,
}

/// A file that is to be as the ledger has it.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    path: PathBuf,
    content: Content,
}

impl Kept {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            due: BTreeMap::new(),
        }
    }

    /// The file of an object.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory
            .join(format!("{}.json", file_stem(name, "accepted")))
    }

    /// What is kept of an object.
    pub(super) fn read(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path(name);
        match self.due.get(&path) {
            Some(content) => content.as_ref().map(|content| content.to_vec()),
            None => std::fs::read(path).ok(),
        }
    }

    pub(super) fn keep(&mut self, name: &str, content: Vec<u8>) {
        self.due.insert(self.path(name), Some(content.into()));
    }

    /// Nothing is to be kept of an object any more.
    pub(super) fn forget(&mut self, name: &str) {
        let path = self.path(name);
        if self.due.contains_key(&path) || path.exists() {
            self.due.insert(path, None);
        }
    }

    /// What is to be written.
    pub(super) fn due(&self) -> impl Iterator<Item = Write> + '_ {
        self.due.iter().map(|(path, content)| Write {
            path: path.clone(),
            content: content.clone(),
        })
    }

    /// A file is as it was to be; it may have become due again meanwhile.
    pub(super) fn written(&mut self, write: &Write) {
        let is_same = match (self.due.get(&write.path), &write.content) {
            (Some(Some(due)), Some(written)) => Arc::ptr_eq(due, written),
            (Some(None), None) => true,
            _ => false,
        };
        if is_same {
            self.due.remove(&write.path);
        }
    }

    /// Everything is on the disk.
    #[cfg(test)]
    pub(super) fn is_written(&self) -> bool {
        self.due.is_empty()
    }
}

impl Write {
    fn carry_out(&self) -> io::Result<()> {
        match &self.content {
            Some(content) => {
                make_private_directory(self.path.parent().unwrap_or(Path::new("/")))?;
                write_durably(&self.path, content)
            }
            None => match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        }
    }
}

/// Writes what is to be kept.
pub(crate) struct KeptWriter;

#[async_trait]
impl Controller for KeptWriter {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        if write_kept(agent).await {
            Next::Change
        } else {
            Next::After(RETRY_INTERVAL)
        }
    }
}

/// Writes what is to be kept over a restart. False when some could not be written; that stays due.
pub(crate) async fn write_kept(agent: &Agent) -> bool {
    let due = agent.on_ledger(|ledger| ledger.policies.kept_due()).await;
    if due.is_empty() {
        return true;
    }
    let (written, failure) = blocking(move || {
        let (mut written, mut failure) = (Vec::new(), None);
        for write in due {
            match write.carry_out() {
                Ok(()) => written.push(write),
                Err(error) => failure = Some((write.path, error)),
            }
        }
        (written, failure)
    })
    .await;
    let is_done = failure.is_none();
    agent.health.notice(
        "kept-policies",
        failure.map(|(path, error)| {
            format!(
                "the last accepted version of a refused policy or CIDR group is not kept over a restart as it should be: {}: {error}",
                path.display()
            )
        }),
    );
    agent
        .on_ledger(move |ledger| ledger.policies.kept_written(&written))
        .await;
    is_done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_due_again_while_it_was_written_stays_due() {
        let directory = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(directory.path().join("policies"));
        kept.forget("a");
        assert!(kept.is_written());
        kept.keep("a", b"1".to_vec());
        let first: Vec<Write> = kept.due().collect();
        kept.keep("a", b"2".to_vec());
        first[0].carry_out().unwrap();
        kept.written(&first[0]);
        assert!(!kept.is_written());
        assert_eq!(kept.read("a").unwrap(), b"2");
        let second: Vec<Write> = kept.due().collect();
        second[0].carry_out().unwrap();
        kept.written(&second[0]);
        assert!(kept.is_written());
        assert_eq!(kept.read("a").unwrap(), b"2");
        kept.forget("a");
        assert_eq!(kept.read("a"), None);
        let last: Vec<Write> = kept.due().collect();
        last[0].carry_out().unwrap();
        last[0].carry_out().unwrap();
        kept.written(&last[0]);
        assert!(kept.is_written() && kept.read("a").is_none());
    }
}
