//! A container's output: one file, bounded in size.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Bytes of a log before it is set aside as `.1`; so a container keeps at most twice this.
const LOG_BYTES: u64 = 2 << 20;

/// A log file that is set aside when it is full.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    size: u64,
}

impl BoundedLog {
    /// Opens a log to write at its end.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
        })
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.size >= LOG_BYTES {
            std::fs::rename(&self.path, set_aside(&self.path))?;
            *self = Self::open(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

/// Where a full log goes.
pub fn set_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// Copies what comes through a pipe into a log until the pipe's other ends are closed.
pub async fn copy(pipe: OwnedFd, path: PathBuf) {
    let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) else {
        return;
    };
    let mut log = match BoundedLog::open(&path) {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "output is not kept");
            None
        }
    };
    let mut buffer = vec![0; 16 * 1024];
    // The pipe is read to its end even when the log cannot be written: a container never blocks on it.
    while let Ok(read) = pipe.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        if let Some(Err(error)) = log.as_mut().map(|log| log.write(&buffer[..read])) {
            tracing::warn!(path = %path.display(), %error, "output is lost from here on");
            log = None;
        }
    }
}

/// Keeps a log that a process writes by itself within bounds: its content is set aside and the file
/// emptied. The writer must append.
pub fn bound(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|data| data.len() >= 4 * LOG_BYTES)
        && std::fs::copy(path, set_aside(path)).is_ok()
        && let Ok(file) = std::fs::OpenOptions::new().write(true).open(path)
        && let Err(error) = file.set_len(0)
    {
        tracing::warn!(path = %path.display(), %error, "a log could not be shortened");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_holds_more_than_twice_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.log");
        let mut log = BoundedLog::open(&path).unwrap();
        for _ in 0..200 {
            log.write(&[b'x'; 64 * 1024]).unwrap();
        }
        let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(bytes(&path) <= LOG_BYTES + 65_536);
        assert!(bytes(&set_aside(&path)) <= LOG_BYTES + 65_536);
    }
}
