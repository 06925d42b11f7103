//! The store's file: opened only when it is sound, written with one durable transaction per batch.

use super::FILE_NAME;
use super::overlay::Overlay;
use crate::process_lock::{ProcessLock, ProcessLockError};
use crate::store::hub::{Hub, Tables};
use crate::store::managed::Owners;
use crate::store::objects::{Change, Stored, revision_of};
use crate::store::{Kind, Object, StoreError, Version};
use heddle_model::NamespacedName;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Kind, namespace and name to the object's JSON.
const OBJECTS: TableDefinition<'static, (&str, &str, &str), &[u8]> =
    TableDefinition::new("objects");
/// Numbers about the store.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Field of an object's metadata that says who owns what of its status.
const OWNERS: &str = "managedFields";
/// Layout of the tables; a file with another number is refused.
const FORMAT_NOW: u64 = 1;
/// Everything is in memory anyway, so the file needs little cache.
const CACHE_BYTES: usize = 8 << 20;

/// Opens the file again after a failed write; tests put a full disk here.
type Open = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send>;

/// The store's file.
pub(super) struct Disk {
    path: PathBuf,
    open: Open,
    /// None after a failed write, until it can be opened again.
    database: Option<Database>,
    /// Rows that a failed commit may have left in the file; they are put right with the next batch.
    suspect: BTreeSet<(Kind, NamespacedName)>,
    /// Held as long as this store runs.
    _lock: ProcessLock,
}

impl Disk {
    /// Opens the file in `dir` and reads it whole; makes it when there is none.
    ///
    /// A file that is damaged in any place is refused and left as it is.
    pub(super) fn open(dir: &Path) -> Result<(Self, Tables), StoreError> {
        Self::open_with(dir, Box::new(open_file))
    }

    /// [`Disk::open`] with another way to open the database.
    pub(super) fn open_with(dir: &Path, open: Open) -> Result<(Self, Tables), StoreError> {
        let unavailable = |what: &Path, error: io::Error| StoreError::Unavailable {
            address: what.display().to_string(),
            reason: error.to_string(),
        };
        make_private_dir(dir).map_err(|error| unavailable(dir, error))?;
        let lock = lock(dir)?;
        let path = dir.join(FILE_NAME);
        if !path
            .try_exists()
            .map_err(|error| unavailable(&path, error))?
        {
            create(dir, &path).map_err(|reason| StoreError::NotSaved {
                what: format!("a new file {}", path.display()),
                reason,
            })?;
        }
        let tables = inspect(&path)?;
        let database = open(&path).map_err(|error| match error {
            DatabaseError::Storage(redb::StorageError::Corrupted(reason)) => StoreError::Corrupt {
                path: path.display().to_string(),
                reason,
            },
            other => StoreError::Unavailable {
                address: path.display().to_string(),
                reason: other.to_string(),
            },
        })?;
        Ok((
            Self {
                path,
                open,
                database: Some(database),
                suspect: BTreeSet::new(),
                _lock: lock,
            },
            tables,
        ))
    }

    /// Writes changes in one transaction that is on disk when this returns.
    ///
    /// On an error nothing of it is kept: what part of it the file may have is taken back before the
    /// next batch is acknowledged.
    pub(super) fn save(&mut self, changes: &[Change], hub: &Hub) -> Result<(), String> {
        self.write(changes, hub).map_err(|error| {
            // After an I/O error the database refuses everything until it is opened again.
            self.database = None;
            self.suspect.extend(
                changes
                    .iter()
                    .map(|change| (change.object().kind, change.object().name.clone())),
            );
            format!("{}: {error}", self.path.display())
        })
    }

    fn write(&mut self, changes: &[Change], hub: &Hub) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)(&self.path)?,
        };
        let database = self.database.insert(database);
        let transaction = database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            for (kind, name) in &self.suspect {
                let key = (kind.name(), name.namespace.as_str(), name.name.as_str());
                match hub.lookup(*kind, name) {
                    Some(stored) => {
                        objects.insert(key, written(&stored).as_bytes())?;
                    }
                    None => {
                        objects.remove(key)?;
                    }
                }
            }
            let mut revision = hub.revision();
            for change in changes {
                let object = change.object();
                let name = &object.name;
                let key = (
                    object.kind.name(),
                    name.namespace.as_str(),
                    name.name.as_str(),
                );
                if change.deleted {
                    objects.remove(key)?;
                } else {
                    objects.insert(key, written(&change.stored).as_bytes())?;
                }
                revision = revision.max(change.revision);
            }
            transaction.open_table(META)?.insert(REVISION, revision)?;
        }
        transaction.commit()?;
        self.suspect.clear();
        Ok(())
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    builder().open(path)
}

/// Makes a directory that only its owner may enter, unless there is one.
pub(super) fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// Two processes with one file would each lose the other's writes.
fn lock(dir: &Path) -> Result<ProcessLock, StoreError> {
    ProcessLock::take(&dir.join("store.lock")).map_err(|error| {
        let reason = match &error {
            ProcessLockError::Held { path } => format!(
                "another store process holds {}; stop it or choose another directory",
                path.display()
            ),
            ProcessLockError::Failed { .. } => error.to_string(),
        };
        StoreError::Unavailable {
            address: dir.display().to_string(),
            reason,
        }
    })
}

/// Makes the file under another name first: a file with the final name is always whole.
fn create(dir: &Path, path: &Path) -> Result<(), String> {
    let fresh = dir.join(format!("{FILE_NAME}.new"));
    let fill = || -> Result<(), redb::Error> {
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = builder().create(&fresh)?;
        let transaction = database.begin_write()?;
        transaction.open_table(OBJECTS)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORMAT, FORMAT_NOW)?;
            meta.insert(REVISION, 0)?;
        }
        transaction.commit()?;
        drop(database);
        File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(dir)?.sync_all()?;
        Ok(())
    };
    fill().map_err(|error| error.to_string())
}

/// Reads the whole file through an overlay, so that looking at a damaged file does not change it.
fn inspect(path: &Path) -> Result<Tables, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt {
        path: path.display().to_string(),
        reason,
    };
    let file = File::open(path).map_err(|error| StoreError::Unavailable {
        address: path.display().to_string(),
        reason: error.to_string(),
    })?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    if size == 0 {
        return Err(corrupt("the file is empty".into()));
    }
    let look = || {
        let overlay = Overlay::new(file).map_err(|error| error.to_string())?;
        let mut database = builder()
            .create_with_backend(overlay)
            .map_err(|error| error.to_string())?;
        match database.check_integrity() {
            Ok(true) => read(&database),
            Ok(false) => Err("checksums of its last transaction do not match".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    said_when_panicking(path, look).map_err(corrupt)
}

/// The database's code may panic on bytes that no database ever wrote. That is the same finding as a
/// checksum that does not match, and must be said as clearly, even where a panic ends the process.
fn said_when_panicking<T>(
    path: &Path,
    look: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    /// The hook belongs to the whole process: one look at a time.
    static LOOKING: Mutex<()> = Mutex::new(());
    let _alone = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    let others = Arc::new(panic::take_hook());
    let (path, thread) = (path.to_owned(), std::thread::current().id());
    panic::set_hook(Box::new({
        let others = Arc::clone(&others);
        move |panic| {
            if std::thread::current().id() == thread {
                let error = StoreError::Corrupt {
                    path: path.display().to_string(),
                    reason: panic.to_string(),
                };
                tracing::error!(code = error.code(), help = error.help(), "{error}");
            } else {
                others(panic);
            }
        }
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(look));
    drop(panic::take_hook());
    if let Ok(before) = Arc::try_unwrap(others) {
        panic::set_hook(before);
    }
    outcome.unwrap_or_else(|_| Err("its pages make no sense".to_owned()))
}

/// Every row of a database.
fn read(database: &Database) -> Result<Tables, String> {
    let rows = || -> Result<(u64, u64, Vec<Row>), redb::Error> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let number = |key| -> Result<u64, redb::Error> {
            Ok(meta.get(key)?.map_or(0, |number| number.value()))
        };
        let mut rows = Vec::new();
        for row in transaction.open_table(OBJECTS)?.iter()? {
            let (key, value) = row?;
            let (kind, namespace, name) = key.value();
            rows.push((
                kind.to_owned(),
                NamespacedName::new(namespace, name),
                value.value().to_vec(),
            ));
        }
        Ok((number(FORMAT)?, number(REVISION)?, rows))
    };
    let (format, revision, rows) = rows().map_err(|error| error.to_string())?;
    if format != FORMAT_NOW {
        return Err(format!(
            "its format is {format}, this version reads {FORMAT_NOW}"
        ));
    }
    let mut objects = Vec::with_capacity(rows.len());
    for (kind, name, json) in rows {
        let wrong = |reason: String| format!("{kind} {name}: {reason}");
        let known = Kind::from_name(&kind).ok_or_else(|| wrong("unknown kind".into()))?;
        let mut value: Value =
            serde_json::from_slice(&json).map_err(|error| wrong(error.to_string()))?;
        let owners = owners_in(&mut value).map_err(wrong)?;
        let version = value["metadata"]["resourceVersion"]
            .as_str()
            .map(Version::new)
            .filter(|version| revision_of(version).is_some())
            .ok_or_else(|| wrong("metadata.resourceVersion is not a number".into()))?;
        objects.push(Stored {
            object: Arc::new(Object {
                kind: known,
                name,
                version,
                value,
            }),
            owners,
        });
    }
    Ok(Tables::new(objects, revision))
}

/// The JSON of an object in the file: with `metadata.managedFields`, which nobody else sees.
fn written(stored: &Stored) -> String {
    if stored.owners.is_empty() {
        return stored.object.value.to_string();
    }
    let mut value = stored.object.value.clone();
    value["metadata"][OWNERS] = json!(stored.owners);
    value.to_string()
}

/// Takes the owners out of an object of the file.
fn owners_in(value: &mut Value) -> Result<Arc<Owners>, String> {
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut);
    match metadata.and_then(|metadata| metadata.remove(OWNERS)) {
        Some(owners) => serde_json::from_value(owners)
            .map(Arc::new)
            .map_err(|error| format!("metadata.{OWNERS}: {error}")),
        None => Ok(Arc::default()),
    }
}

/// Kind, name and JSON of one object.
type Row = (String, NamespacedName, Vec<u8>);
