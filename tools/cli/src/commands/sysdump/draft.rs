//! A dump in the making: its files within the limits, and what is told of those that are not in it.

use crate::dump::{
    self, Cut, MANIFEST, MANIFEST_VALUES, MAX_FILE_BYTES, MAX_FILES, MAX_VALUES, Manifest, Missing,
    strip::Stripper, tar,
};
use crate::failure::{Failure, USAGE};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Values of a dump's JSON files beside its manifest at most.
const DRAFT_VALUES: u64 = MAX_VALUES - MANIFEST_VALUES;

/// A dump in the making.
pub(super) struct Draft {
    files: BTreeMap<String, Vec<u8>>,
    max_bytes: u64,
    bytes: u64,
    values: u64,
    /// What could not be had.
    pub(super) missing: Vec<Missing>,
    /// What limits left out or shortened.
    pub(super) cut: Vec<Cut>,
    /// Takes secrets out.
    pub(super) stripper: Stripper,
}

impl Draft {
    /// An empty one, for at most this many bytes.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            max_bytes,
            bytes: 0,
            values: 0,
            missing: Vec::new(),
            cut: Vec::new(),
            stripper: Stripper::default(),
        }
    }

    /// Bytes so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether everything that was asked for is in it.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.cut.iter().all(|cut| cut.asked_for)
    }

    /// Adds a file, or says which limit left it out.
    pub(super) fn add(&mut self, name: impl Into<String>, content: Vec<u8>) {
        let name = name.into();
        let size = content.len() as u64;
        let values = match dump::is_json(&name) {
            true => dump::values_of(&content),
            false => 0,
        };
        let (limit, what) = if self.bytes + size > self.max_bytes {
            let left = self.max_bytes - self.bytes;
            (
                "--max-size",
                format!("left out: it has {size} bytes, and {left} were left"),
            )
        } else if size > MAX_FILE_BYTES {
            (
                "file size",
                format!("left out: it has {size} bytes, {MAX_FILE_BYTES} are possible"),
            )
        } else if self.values + values > DRAFT_VALUES {
            (
                "JSON values",
                format!("left out: with it there were more than {DRAFT_VALUES} values"),
            )
        } else if self.files.len() + 1 >= MAX_FILES {
            (
                "files",
                format!("left out: a dump has at most {MAX_FILES} files"),
            )
        } else {
            self.bytes += size;
            self.values += values;
            self.files.insert(name, content);
            return;
        };
        self.cut.push(Cut {
            file: name,
            limit: limit.to_owned(),
            what,
            asked_for: false,
        });
    }

    /// Adds a JSON file.
    pub(super) fn add_json(&mut self, name: impl Into<String>, value: &Value) {
        let mut text = value.to_string().into_bytes();
        text.push(b'\n');
        self.add(name, text);
    }

    /// Says that something could not be had.
    pub(super) fn lacks(&mut self, file: impl Into<String>, reason: impl Into<String>) {
        self.missing.push(Missing {
            file: file.into(),
            reason: reason.into(),
        });
    }

    /// Says that an agent's answer left rows out.
    pub(super) fn lacks_rows(&mut self, file: &str, rows: u64) {
        self.cut.push(Cut {
            file: file.to_owned(),
            limit: "rows of an answer".to_owned(),
            what: format!("{rows} rows left out"),
            asked_for: false,
        });
    }

    /// Says that only the end was asked for.
    pub(super) fn only_the_end(&mut self, file: &str, limit: &str, what: String) {
        self.cut.push(Cut {
            file: file.to_owned(),
            limit: limit.to_owned(),
            what,
            asked_for: true,
        });
    }

    /// Writes the archive, whole or not at all, readable by its owner only.
    pub(super) fn write(&self, path: &Path, manifest: &Manifest) -> Result<(), Failure> {
        // `/dev/stdout` is a link, and `/dev/null` a device: the dump would take the place of either.
        if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(Failure::new(
                "sysdump/unwritable",
                format!(
                    "the dump cannot be written to {}, which is there and no file",
                    path.display()
                ),
            )
            .object(path.display().to_string())
            .help("name a file that is not there: `heddle sysdump FILE`")
            .exit(USAGE));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".new-{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = self
            .write_beside(&beside, manifest)
            .and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|error| {
            // The half-written file is of no use to anybody; the first error is what matters.
            let _ = std::fs::remove_file(&beside);
            Failure::new(
                "sysdump/unwritable",
                format!("the dump {} cannot be written: {error}", path.display()),
            )
            .object(path.display().to_string())
            .help("name a file in a folder that exists and has room: `heddle sysdump FILE`")
        })
    }

    fn write_beside(&self, path: &Path, manifest: &Manifest) -> io::Result<()> {
        // What a former run left there; a link is removed and not followed.
        let _ = std::fs::remove_file(path);
        let file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut to = BufWriter::new(file);
        let failed = |error: tar::TarError| match error {
            tar::TarError::Io(error) => error,
            tar::TarError::Malformed(reason) => io::Error::other(reason),
        };
        let now = heddle_lab::time::now();
        let mut text = serde_json::to_vec_pretty(manifest)?;
        text.push(b'\n');
        tar::append(&mut to, MANIFEST, &text, now).map_err(failed)?;
        for (name, content) in &self.files {
            tar::append(&mut to, name, content, now).map_err(failed)?;
        }
        tar::finish(&mut to).map_err(failed)?;
        to.flush()?;
        to.get_ref().sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::testing::manifest;

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let manifest: Manifest = serde_json::from_value(manifest()).unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "before").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("socket")).unwrap());
        let draft = Draft::new(1 << 20);
        for name in ["link", "folder", "socket"] {
            let before = std::fs::symlink_metadata(path(name)).unwrap().file_type();
            let failure = draft.write(&path(name), &manifest).unwrap_err();
            assert_eq!(
                (failure.code.as_str(), failure.exit),
                ("sysdump/unwritable", USAGE),
                "{name}"
            );
            let after = std::fs::symlink_metadata(path(name)).unwrap().file_type();
            assert_eq!(after, before, "{name}");
        }
        assert_eq!(std::fs::read(path("file")).unwrap(), b"before");
        for name in ["file", "fresh"] {
            draft.write(&path(name), &manifest).unwrap();
            assert!(std::fs::read(path(name)).unwrap().len() > 512, "{name}");
        }
    }
}
