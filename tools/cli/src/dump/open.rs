//! Opening a dump: whoever sent it may have sent anything.

use super::tar::{Reader, TarError};
use super::{
    DumpedNode, FORMAT, FORMAT_VERSION, LAB_EVENTS, LAB_RECORD, LAB_STATUS, MANIFEST, Manifest,
};
use super::{
    MAX_BYTES, MAX_FILE_BYTES, MAX_FILES, MAX_VALUES, control, is_json, objects_file, values_of,
};
use crate::failure::{Failure, NO_DATA, USAGE};
use crate::output::{one_line, tell};
use heddle_flow::Timestamp;
use heddle_kube::store::{Kind, Object, Version, memory::MemoryStore};
use heddle_lab::{config::LabRecord, paths::Lab};
use heddle_model::NamespacedName;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Once};

/// Why a file is not opened as a dump.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DumpError {
    /// It cannot be read.
    #[error("the dump {path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// It is compressed.
    #[error("the dump {path} is compressed")]
    Compressed {
        /// The file.
        path: String,
    },
    /// It is none, or a damaged one.
    #[error("{path} is no dump, or a damaged one: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is larger than a dump can be.
    #[error("the dump {path} is not read: {what}")]
    TooLarge {
        /// The file.
        path: String,
        /// What there is too much of.
        what: String,
    },
    /// It is laid out in another way.
    #[error("the dump {path} has format version {version}; this command (heddle {}) reads version {FORMAT_VERSION}", env!("CARGO_PKG_VERSION"))]
    WrongVersion {
        /// The file.
        path: String,
        /// Its version.
        version: u64,
    },
}

impl DumpError {
    const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "sysdump/unreadable",
            Self::Compressed { .. } => "sysdump/compressed",
            Self::Malformed { .. } => "sysdump/malformed",
            Self::TooLarge { .. } => "sysdump/too-large",
            Self::WrongVersion { .. } => "sysdump/wrong-version",
        }
    }

    const fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "name a file that `heddle sysdump` wrote; it is readable by its owner only"
            }
            Self::Compressed { .. } => "unpack it first: `gunzip FILE`, `unzstd FILE`",
            Self::Malformed { .. } => "name a file that `heddle sysdump` wrote, as it wrote it",
            Self::TooLarge { .. } => {
                "a dump that this version of `heddle sysdump` writes is smaller: is it one, or of another version?"
            }
            Self::WrongVersion { .. } => {
                "read it with the version of heddle that made it (`heddle` in its manifest.json)"
            }
        }
    }
}

impl From<DumpError> for Failure {
    fn from(error: DumpError) -> Self {
        let (DumpError::Unreadable { path, .. }
        | DumpError::Compressed { path }
        | DumpError::Malformed { path, .. }
        | DumpError::TooLarge { path, .. }
        | DumpError::WrongVersion { path, .. }) = &error;
        Self::new(error.code(), error.to_string())
            .object(path.as_str())
            .help(error.help())
            .exit(USAGE)
            .in_one_line()
    }
}

/// What every version of the manifest says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version1 {
    format: String,
    format_version: u64,
}

/// An opened dump.
pub(crate) struct Dump {
    path: String,
    manifest: Manifest,
    time: Timestamp,
    files: BTreeMap<String, Vec<u8>>,
}

impl Dump {
    /// Opens a file. Nothing is unpacked, and memory is bounded whatever the file holds.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>, Failure> {
        let shown = path.display().to_string();
        let unreadable = |reason: String| DumpError::Unreadable {
            path: shown.clone(),
            reason,
        };
        let about = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if !about.is_file() {
            return Err(unreadable("it is no regular file".to_owned()).into());
        }
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let dump = Self::read(shown, BufReader::new(file))?;
        dump.warn_when_partial();
        Ok(Arc::new(dump))
    }

    /// Says once that something is not in the dump: which answers that touches, they say themselves.
    fn warn_when_partial(&self) {
        static SAID: Once = Once::new();
        if self.manifest.complete {
            return;
        }
        SAID.call_once(|| {
            let unheard = self.manifest.nodes.iter().filter(|node| !node.heard);
            let names: Vec<&str> = unheard.map(DumpedNode::shown).collect();
            let nodes = match names.as_slice() {
                [] => String::new(),
                names => format!("; not heard: {}", names.join(", ")),
            };
            tell(&one_line(&format!(
                "warning: the dump {} of {} is partial{nodes}; its {MANIFEST} says what it lacks",
                self.path, self.manifest.time
            )));
        });
    }

    /// Reads an archive.
    pub(super) fn read(path: String, from: impl Read) -> Result<Self, DumpError> {
        let malformed = |reason: String| DumpError::Malformed {
            path: path.clone(),
            reason,
        };
        let files = read_files(&path, from)?;
        let Some(text) = files.get(MANIFEST) else {
            return Err(malformed(format!("it has no {MANIFEST}")));
        };
        let wrong = |error: serde_json::Error| malformed(format!("{MANIFEST}: {error}"));
        let version: Version1 = serde_json::from_slice(text).map_err(wrong)?;
        if version.format != FORMAT {
            return Err(malformed(format!(
                "{MANIFEST}: format: {:?}, not {FORMAT:?}",
                version.format
            )));
        }
        if version.format_version != FORMAT_VERSION {
            return Err(DumpError::WrongVersion {
                path,
                version: version.format_version,
            });
        }
        let mut manifest: Value = serde_json::from_slice(text).map_err(wrong)?;
        in_one_line(&mut manifest);
        let manifest: Manifest = serde_json::from_value(manifest).map_err(wrong)?;
        let time = manifest.time.parse();
        let time = time.map_err(|error| malformed(format!("{MANIFEST}: time: {error}")))?;
        Ok(Self {
            path,
            manifest,
            time,
            files,
        })
    }

    /// Its file.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What it says of itself.
    pub(crate) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// When it was begun: what its answers call now.
    pub(crate) const fn time(&self) -> Timestamp {
        self.time
    }

    /// The content of a file, if it has it.
    pub(super) fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// A JSON file.
    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, Failure> {
        let Some(text) = self.file(name) else {
            return Err(self.lacks(name));
        };
        serde_json::from_slice(text).map_err(|error| {
            let (path, reason) = (self.path.clone(), format!("{name}: {error}"));
            DumpError::Malformed { path, reason }.into()
        })
    }

    /// The failure of a question whose answer is not in the dump, with the reason that the dump gives.
    pub(super) fn lacks(&self, name: &str) -> Failure {
        let manifest = &self.manifest;
        let missing = manifest.missing.iter().find(|it| it.file == name);
        let cut = manifest.cut.iter().find(|it| it.file == name);
        let reason = missing
            .map(|it| it.reason.clone())
            .or_else(|| cut.map(|it| format!("{} ({})", it.what, it.limit)));
        let because = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        Failure::new(
            "sysdump/not-in-dump",
            format!("the dump {} has no {name}{because}", self.path),
        )
        .object(name)
        .help("its manifest.json says what is missing and what limits cut; ask what runs, or make another dump")
        .exit(NO_DATA)
    }

    /// The lab that was dumped.
    pub(crate) fn lab(&self) -> Result<Lab, Failure> {
        let Some(name) = &self.manifest.lab else {
            return Err(Failure::new(
                "sysdump/no-lab",
                format!(
                    "the dump {} is of one agent, not of a lab: it has no objects",
                    self.path
                ),
            )
            .object(self.path.as_str())
            .help("a dump of a lab has them: `heddle sysdump --lab NAME`")
            .exit(NO_DATA));
        };
        Lab::named(name).map_err(|error| {
            let (path, reason) = (self.path.clone(), format!("{MANIFEST}: lab: {error}"));
            DumpError::Malformed { path, reason }.into()
        })
    }

    /// What the lab was made as.
    pub(crate) fn record(&self) -> Result<LabRecord, Failure> {
        self.json(LAB_RECORD)
    }

    /// The lab's status, as `lab status -o json` prints it.
    pub(crate) fn lab_status(&self) -> Result<Value, Failure> {
        self.json(LAB_STATUS)
    }

    /// The lab's events.
    pub(crate) fn events(&self) -> Result<Vec<Value>, Failure> {
        self.json(LAB_EVENTS)
    }

    /// The objects of these kinds, in the order of kinds, namespaces and names.
    pub(crate) fn objects(&self, kinds: &[Kind]) -> Result<Vec<Object>, Failure> {
        #[derive(Deserialize)]
        struct List {
            items: Vec<Value>,
        }
        self.lab()?;
        let mut objects = Vec::new();
        for kind in kinds {
            let file = objects_file(*kind);
            let list: List = self.json(&file)?;
            for value in list.items {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let metadata = &value["metadata"];
                let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
                let is_plain = |text: &str| !text.contains(char::is_control);
                let is_named = !name.is_empty() && is_plain(&name) && is_plain(&namespace);
                if !is_named || value["kind"] != kind.name() {
                    let reason = format!("{file}: an item is no {kind} with a name");
                    let path = self.path.clone();
                    return Err(DumpError::Malformed { path, reason }.into());
                }
                objects.push(Object {
                    kind: *kind,
                    name: NamespacedName::new(namespace, name),
                    version: Version::new(text(&metadata["resourceVersion"])),
                    value,
                });
            }
        }
        Ok(objects)
    }

    /// A store that holds the objects of these kinds.
    pub(crate) fn store(&self, kinds: &[Kind]) -> Result<MemoryStore, Failure> {
        let revision = self.manifest.revision.unwrap_or(0);
        Ok(MemoryStore::holding(self.objects(kinds)?, revision))
    }
}

/// Every text in one line: what a manifest names and says is printed beside the command's own lines.
fn in_one_line(value: &mut Value) {
    match value {
        Value::String(text) => *text = one_line(text),
        Value::Array(items) => items.iter_mut().for_each(in_one_line),
        Value::Object(fields) => fields.values_mut().for_each(in_one_line),
        _ => {}
    }
}

/// The files of an archive, within the limits.
fn read_files(path: &str, from: impl Read) -> Result<BTreeMap<String, Vec<u8>>, DumpError> {
    let path = path.to_owned();
    let refused = |error: TarError| match error {
        TarError::Io(error) => DumpError::Unreadable {
            path: path.clone(),
            reason: error.to_string(),
        },
        TarError::Malformed(reason) => DumpError::Malformed {
            path: path.clone(),
            reason,
        },
    };
    let too_large = |what: String| DumpError::TooLarge {
        path: path.clone(),
        what,
    };
    let mut start = Vec::new();
    let mut from = from;
    let magic = (&mut from).take(4).read_to_end(&mut start);
    magic.map_err(|error| refused(error.into()))?;
    if start.starts_with(&[0x1f, 0x8b]) || start == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(DumpError::Compressed { path });
    }
    let mut reader = Reader::new(start.as_slice().chain(from));
    let mut files = BTreeMap::new();
    let (mut bytes, mut values) = (0_u64, 0_u64);
    while let Some(entry) = reader.next().map_err(refused)? {
        bytes = bytes.saturating_add(entry.size);
        if entry.size > MAX_FILE_BYTES || bytes > MAX_BYTES {
            return Err(too_large(format!(
                "with {} it has more than {} MiB, or more than {} MiB in one file",
                entry.name,
                MAX_BYTES >> 20,
                MAX_FILE_BYTES >> 20
            )));
        }
        if files.len() == MAX_FILES {
            return Err(too_large(format!("it has more than {MAX_FILES} files")));
        }
        let mut content = reader.content(&entry).map_err(refused)?;
        if is_json(&entry.name) {
            values += values_of(&content);
            control::replace(&mut content);
        }
        if values > MAX_VALUES {
            return Err(too_large(format!(
                "with {} its JSON files have more than {MAX_VALUES} values",
                entry.name
            )));
        }
        if files.insert(entry.name.clone(), content).is_some() {
            return Err(DumpError::Malformed {
                path,
                reason: format!("it has {} twice", entry.name),
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
