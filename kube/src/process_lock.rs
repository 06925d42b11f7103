//! A lock that one process holds on a file: of two processes with one state directory, the second is refused.
//!
//! The lock (`flock`) belongs to the open file, and a child shares that from `fork` until it executes another
//! program. A holder that merely closed its descriptor would keep the lock for as long as such a child takes,
//! and whoever came next would be told that another process holds it. An explicit unlock ends it for all
//! descriptors of the open file at once, so that is what giving back does. (A POSIX record lock is not shared with
//! children either, but it does not keep apart two holders in one process, and it is lost when the process closes
//! any other descriptor of the file.)

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A held lock; dropping it gives it back.
#[derive(Debug)]
pub struct ProcessLock {
    file: File,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum ProcessLockError {
    /// Another holder has it.
    #[error("another process holds {path}")]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or locked.
    #[error("lock file {path} cannot be used: {source}")]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ProcessLock {
    /// Takes the lock on a file, which is made when it is not there.
    ///
    /// # Errors
    /// [`ProcessLockError::Held`] at once when somebody has it, in this process or another.
    pub fn take(path: &Path) -> Result<Self, ProcessLockError> {
        let failed = |source| ProcessLockError::Failed {
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(ProcessLockError::Held {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            // It goes with the last descriptor then.
            tracing::warn!(%error, "a lock file could not be unlocked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = ProcessLock::take(&path).unwrap();
        let second = ProcessLock::take(&path).unwrap_err();
        assert!(matches!(second, ProcessLockError::Held { .. }), "{second}");
        drop(first);
        ProcessLock::take(&path).unwrap();
    }

    #[test]
    fn what_a_child_holds_between_fork_and_exec_does_not_keep_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = ProcessLock::take(&path).unwrap();
        // The same open file by another descriptor: that is what a forked child has.
        let of_child = first.file.try_clone().unwrap();
        drop(first);
        let second = ProcessLock::take(&path).unwrap();
        drop(of_child);
        let third = ProcessLock::take(&path).unwrap_err();
        assert!(matches!(third, ProcessLockError::Held { .. }), "{third}");
        drop(second);
    }
}
