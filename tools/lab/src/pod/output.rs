//! A container's output: one file, bounded in size, with the time at the beginning of each line.

use crate::time;
use heddle_kube::timestamp::{rfc3339, seconds_of};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// Bytes of a log before it is set aside as `.1`; so a container keeps at most twice this.
const LOG_BYTES: u64 = 2 << 20;
/// Bytes of the time at the beginning of a line: `2026-11-21T06:49:36Z `.
const STAMP_BYTES: usize = 21;

/// A log file that is set aside when it is full.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    size: u64,
    /// What comes next begins a line.
    at_line_start: bool,
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
            at_line_start: ends_a_line(path).unwrap_or(true),
        })
    }

    /// Adds bytes that were written at this time (in seconds since 1970).
    pub fn write(&mut self, bytes: &[u8], now: u64) -> std::io::Result<()> {
        if self.size >= LOG_BYTES {
            let at_line_start = self.at_line_start;
            std::fs::rename(&self.path, set_aside(&self.path))?;
            *self = Self::open(&self.path)?;
            self.at_line_start = at_line_start;
        }
        let stamp = format!("{} ", rfc3339(now));
        let mut stamped = Vec::with_capacity(bytes.len() + stamp.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.at_line_start {
                stamped.extend_from_slice(stamp.as_bytes());
            }
            stamped.extend_from_slice(line);
            self.at_line_start = line.ends_with(b"\n");
        }
        self.file.write_all(&stamped)?;
        self.size += stamped.len() as u64;
        Ok(())
    }
}

/// Whether the last line of a file is a whole one; an empty file has none that is not.
fn ends_a_line(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Writes the lines of a log without their times, and of a certain age at most.
#[derive(Debug)]
pub struct Unstamped<W> {
    output: W,
    /// Seconds since 1970 from which on lines are shown.
    since: u64,
    /// The beginning of a line that may yet be a time.
    begun: Vec<u8>,
    in_line: bool,
    shown: bool,
}

impl<W: Write> Unstamped<W> {
    /// Lines that were written at this time (in seconds since 1970) or later.
    pub const fn new(output: W, since: u64) -> Self {
        Self {
            output,
            since,
            begun: Vec::new(),
            in_line: false,
            shown: since == 0,
        }
    }

    /// Writes what has come of a line that may not have its end yet.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn finish(&mut self) -> std::io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        self.pass(&begun)?;
        self.output.flush()
    }

    fn pass(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.shown {
            self.output.write_all(bytes)?;
        }
        Ok(())
    }

    /// The beginning of a line is whole: a time, or what was written without one, which is as old as the line before.
    fn begin_line(&mut self) -> std::io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        let text = std::str::from_utf8(&begun).unwrap_or_default();
        self.in_line = true;
        match text.strip_suffix(' ').and_then(seconds_of) {
            Some(at) => self.shown = at >= self.since,
            None => self.pass(&begun)?,
        }
        Ok(())
    }
}

impl<W: Write> Write for Unstamped<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut rest = line;
            if !self.in_line {
                let missing = STAMP_BYTES - self.begun.len();
                let (begins, after) = rest.split_at(missing.min(rest.len()));
                self.begun.extend_from_slice(begins);
                rest = after;
                if self.begun.len() == STAMP_BYTES || line.ends_with(b"\n") {
                    self.begin_line()?;
                }
            }
            self.pass(rest)?;
            if line.ends_with(b"\n") {
                self.in_line = false;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.flush()
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
        if let Some(Err(error)) = log
            .as_mut()
            .map(|log| log.write(&buffer[..read], time::now()))
        {
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
            log.write(&[b'x'; 64 * 1024], 0).unwrap();
        }
        let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(bytes(&path) <= LOG_BYTES + 65_536);
        assert!(bytes(&set_aside(&path)) <= LOG_BYTES + 65_536);
    }

    /// What is shown of a log, whatever the pieces are in which it is read.
    fn shown(text: &[u8], since: u64) -> String {
        let mut found = Vec::new();
        for piece in [1, 7, 20, 21, 22, text.len().max(1)] {
            let mut output = Vec::new();
            let mut lines = Unstamped::new(&mut output, since);
            for part in text.chunks(piece) {
                lines.write_all(part).unwrap();
            }
            lines.finish().unwrap();
            found.push(String::from_utf8(output).unwrap());
        }
        assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
        found.swap_remove(0)
    }

    #[test]
    fn each_line_has_its_time_which_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.log");
        let mut log = BoundedLog::open(&path).unwrap();
        log.write(b"one\ntw", 100).unwrap();
        // The daemon began anew, in the middle of a line.
        let mut log = BoundedLog::open(&path).unwrap();
        log.write(b"o\n\nthree\n", 200).unwrap();
        log.write(b"four", 300).unwrap();
        let text = std::fs::read(&path).unwrap();
        assert!(text.starts_with(b"1970-01-01T00:01:40Z one\n1970-01-01T00:01:40Z two\n"));
        assert_eq!(shown(&text, 0), "one\ntwo\n\nthree\nfour");
        assert_eq!(shown(&text, 200), "\nthree\nfour");
        assert_eq!(shown(&text, 300), "four");
        assert_eq!(shown(&text, 301), "");
        // Lines of a version that wrote none.
        assert_eq!(
            shown(b"plain\n1970-01-01T00:05:00Z x\ny\n", 0),
            "plain\nx\ny\n"
        );
        assert_eq!(shown(b"plain\n1970-01-01T00:05:00Z x\ny\n", 1), "x\ny\n");
    }
}
