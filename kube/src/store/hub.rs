//! The objects in memory and those who watch them: what both stores share.

use super::objects::{Change, Outcome, Stored, Surroundings, Write, plan};
use super::scope::{Scopes, last_state};
use super::{Kind, Object, Scope, StoreError};
use heddle_model::NamespacedName;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// Changes that may wait for one watcher; a watcher that is further behind starts over.
pub(crate) const WATCH_QUEUE: usize = 1024;
/// How long progress that carries no change may wait, so that many such revisions are said at once.
const PROGRESS_DELAY: Duration = Duration::from_millis(20);

/// Every object, by kind and name, and the revision of the last write.
#[derive(Default)]
pub(crate) struct Tables {
    objects: BTreeMap<(Kind, NamespacedName), Stored>,
    revision: u64,
}

impl Tables {
    pub(crate) fn new(objects: impl IntoIterator<Item = Stored>, revision: u64) -> Self {
        Self {
            objects: objects
                .into_iter()
                .map(|stored| ((stored.object.kind, stored.object.name.clone()), stored))
                .collect(),
            revision,
        }
    }

    fn of_kind(&self, kind: Kind, namespace: Option<&str>) -> impl Iterator<Item = &Arc<Object>> {
        let first = NamespacedName::new(namespace.unwrap_or_default(), "");
        self.objects
            .range((kind, first)..)
            .take_while(move |((found, name), _)| {
                *found == kind && namespace.is_none_or(|wanted| name.namespace == wanted)
            })
            .map(|(_, stored)| &stored.object)
    }

    /// Takes a change in; what the object was before.
    fn apply(&mut self, change: &Change) -> Option<Stored> {
        let object = change.object();
        let key = (object.kind, object.name.clone());
        self.revision = self.revision.max(change.revision);
        if change.deleted {
            self.objects.remove(&key)
        } else {
            self.objects.insert(key, change.stored.clone())
        }
    }
}

/// What a watcher hears of one change.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    object: Arc<Object>,
    deleted: bool,
}

struct Watcher {
    scopes: Arc<Scopes>,
    queue: mpsc::Sender<Told>,
}

impl Watcher {
    /// What this watcher hears of a change, if anything: what leaves its scopes is gone to it.
    fn hears(&self, before: Option<&Stored>, change: &Change) -> Option<Told> {
        let object = change.object();
        if !change.deleted
            && let Some(object) = self.scopes.view(object)
        {
            return Some(Told {
                object,
                deleted: false,
            });
        }
        let last = self.scopes.view(&before?.object)?;
        Some(Told {
            object: Arc::new(last_state(&last, &object.version)),
            deleted: true,
        })
    }
}

#[derive(Default)]
struct Inner {
    tables: Tables,
    watchers: Vec<Watcher>,
}

/// The committed state and its watchers.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    /// Revision up to which every watcher's queue has been filled.
    revision: watch::Sender<u64>,
}

/// A watcher's list, the revision it was made at, and the changes since.
type Subscription = (Vec<Arc<Object>>, u64, mpsc::Receiver<Told>);

impl Hub {
    pub(crate) fn new(tables: Tables) -> Self {
        Self {
            revision: watch::Sender::new(tables.revision),
            inner: Mutex::new(Inner {
                tables,
                watchers: Vec::new(),
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can be left half done: a panic elsewhere does not make the data wrong.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.inner().tables.revision
    }

    pub(crate) fn list(&self, scope: &Scope) -> Vec<Arc<Object>> {
        let scopes = Scopes::new(std::slice::from_ref(scope));
        let inner = self.inner();
        let of_kind = inner.tables.of_kind(scope.kind(), scope.namespace());
        of_kind.filter_map(|object| scopes.view(object)).collect()
    }

    pub(crate) fn lookup(&self, kind: Kind, name: &NamespacedName) -> Option<Stored> {
        let inner = self.inner();
        inner.tables.objects.get(&(kind, name.clone())).cloned()
    }

    pub(crate) fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Arc<Object>, StoreError> {
        let stored = self.lookup(kind, name);
        stored
            .map(|stored| stored.object)
            .ok_or_else(|| StoreError::NotFound {
                kind,
                name: name.clone(),
            })
    }

    /// Makes changes visible and tells the watchers. Whoever cannot keep up is let go and starts over.
    pub(crate) fn commit(&self, changes: &[Change]) {
        let mut inner = self.inner();
        for change in changes {
            let before = inner.tables.apply(change);
            inner.watchers.retain(|watcher| {
                watcher
                    .hears(before.as_ref(), change)
                    .is_none_or(|told| watcher.queue.try_send(told).is_ok())
            });
        }
        // Last: who reads this revision finds everything up to it in its queue.
        self.revision.send_replace(inner.tables.revision);
    }

    fn subscribe(&self, scopes: &Arc<Scopes>) -> Subscription {
        let (queue, changes) = mpsc::channel(WATCH_QUEUE);
        let mut inner = self.inner();
        inner.watchers.retain(|watcher| !watcher.queue.is_closed());
        inner.watchers.push(Watcher {
            scopes: Arc::clone(scopes),
            queue,
        });
        let kinds = scopes.kinds();
        let all = kinds
            .iter()
            .flat_map(|kind| inner.tables.of_kind(*kind, None));
        let list = all.filter_map(|object| scopes.view(object)).collect();
        (list, inner.tables.revision, changes)
    }

    /// Follows these scopes from now on.
    pub(crate) fn follow(self: &Arc<Self>, scopes: &[Scope]) -> Follower {
        let scopes = Arc::new(Scopes::new(scopes));
        let (list, listed, changes) = self.subscribe(&scopes);
        Follower {
            hub: Arc::clone(self),
            revision: self.revision.subscribe(),
            scopes,
            list: list.into_iter(),
            listed: Some(listed),
            changes,
            said: 0,
            heard: false,
            target: None,
        }
    }
}

/// Writes that are planned on top of the committed state and not committed yet.
pub(crate) struct Batch<'a> {
    hub: &'a Hub,
    revision: u64,
    staged: HashMap<(Kind, NamespacedName), Option<Stored>>,
    pub(crate) changes: Vec<Change>,
}

impl<'a> Batch<'a> {
    /// An empty batch; only one batch of a hub may be open at a time.
    pub(crate) fn new(hub: &'a Hub) -> Self {
        Self {
            hub,
            revision: hub.revision(),
            staged: HashMap::new(),
            changes: Vec::new(),
        }
    }

    /// Adds a write; its answer holds once the batch is committed.
    pub(crate) fn add(&mut self, write: Write) -> Result<Arc<Object>, StoreError> {
        let lookup =
            |kind: Kind, name: &NamespacedName| match self.staged.get(&(kind, name.clone())) {
                Some(staged) => staged.clone(),
                None => self.hub.lookup(kind, name),
            };
        match plan(write, lookup, self.revision + 1, &surroundings()?)? {
            Outcome::Unchanged(object) => Ok(object),
            Outcome::Changed(change) => {
                self.revision += 1;
                let object = Arc::clone(change.object());
                let now = (!change.deleted).then(|| change.stored.clone());
                self.staged.insert((object.kind, object.name.clone()), now);
                self.changes.push(change);
                Ok(object)
            }
        }
    }
}

fn surroundings() -> Result<Surroundings, StoreError> {
    let mut entropy = [0; 16];
    getrandom::fill(&mut entropy).map_err(|error| StoreError::NotSaved {
        what: "a new object".into(),
        reason: format!("the kernel gives no random bytes for its uid: {error}"),
    })?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    Ok(Surroundings { now, entropy })
}

/// What a watcher hears, with the object still shared.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Change(Told),
    Synced(u64),
    Restarted,
}

impl From<Said> for super::Event {
    fn from(said: Said) -> Self {
        match said {
            Said::Change(Told { object, deleted }) => {
                let object = Arc::unwrap_or_clone(object);
                if deleted {
                    Self::Deleted(object)
                } else {
                    Self::Applied(object)
                }
            }
            Said::Synced(revision) => Self::Synced { revision },
            Said::Restarted => Self::Restarted,
        }
    }
}

/// One watcher's place in the stream of changes.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    scopes: Arc<Scopes>,
    /// What is left of the list.
    list: std::vec::IntoIter<Arc<Object>>,
    /// Revision of the list while it is being said.
    listed: Option<u64>,
    changes: mpsc::Receiver<Told>,
    revision: watch::Receiver<u64>,
    /// Last revision said as synced.
    said: u64,
    /// A change was said after `said`.
    heard: bool,
    /// Revision to say as soon as the queue, looked at after reading it, is empty.
    target: Option<u64>,
}

impl Follower {
    /// The next thing to say. Dropping the future before it is ready loses nothing.
    pub(crate) async fn next(&mut self) -> Said {
        if let Some(object) = self.list.next() {
            return Said::Change(Told {
                object,
                deleted: false,
            });
        }
        if let Some(revision) = self.listed.take() {
            self.said = revision;
            return Said::Synced(revision);
        }
        loop {
            match self.changes.try_recv() {
                Ok(change) => return self.hear(change),
                Err(mpsc::error::TryRecvError::Disconnected) => return self.restart(),
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            if let Some(revision) = self.target.take() {
                self.said = revision;
                self.heard = false;
                return Said::Synced(revision);
            }
            let revision = *self.revision.borrow_and_update();
            let change = if revision <= self.said {
                tokio::select! {
                    biased;
                    change = self.changes.recv() => change,
                    // The hub lives as long as this follower, so its sender does too.
                    _ = self.revision.changed() => continue,
                }
            } else if self.heard {
                self.target = Some(revision);
                continue;
            } else {
                match tokio::time::timeout(PROGRESS_DELAY, self.changes.recv()).await {
                    Ok(change) => change,
                    Err(_) => {
                        self.target = Some(*self.revision.borrow_and_update());
                        continue;
                    }
                }
            };
            return match change {
                Some(change) => self.hear(change),
                None => self.restart(),
            };
        }
    }

    fn hear(&mut self, change: Told) -> Said {
        self.heard = true;
        Said::Change(change)
    }

    /// The hub let this watcher go because it was too far behind: it starts over.
    fn restart(&mut self) -> Said {
        let (list, listed, changes) = self.hub.subscribe(&self.scopes);
        self.list = list.into_iter();
        self.listed = Some(listed);
        self.changes = changes;
        self.heard = false;
        self.target = None;
        Said::Restarted
    }
}
