//! The store process: accepts connections, answers from memory, writes through one writer thread.

use super::disk::{Disk, make_private_dir};
use super::wire::{self, Reply, Request};
use crate::store::hub::{Batch, Follower, Hub};
use crate::store::objects::Write;
use crate::store::{Event, Object, StoreError};
use futures_util::FutureExt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Connections at one time.
const MAX_CONNECTIONS: usize = 1024;
/// Writes that wait for the writer.
const WRITE_QUEUE: usize = 256;
/// Writes that one transaction takes: many writers at once share one wait for the disk.
const MAX_BATCH: usize = 128;
/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of events gathered before they are written.
const WATCH_CHUNK: usize = 64 << 10;

/// A write and where its answer goes.
type Job = (Write, oneshot::Sender<Result<Object, StoreError>>);

/// Serves the store in `dir` on the unix socket `socket` (mode 0600) until `shutdown` turns true.
///
/// # Errors
///
/// [`StoreError::Corrupt`] when the file is damaged (it is left as it is), [`StoreError::Unavailable`]
/// when the directory is in use by another store process or the socket cannot be made,
/// [`StoreError::NotSaved`] when a new file cannot be written.
pub async fn serve(
    dir: &Path,
    socket: &Path,
    shutdown: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let dir = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || Disk::open(&dir)).await;
    let (disk, tables) = opened.map_err(|error| StoreError::Unavailable {
        address: socket.display().to_string(),
        reason: format!("opening the file failed: {error}"),
    })??;
    serve_disk(disk, Arc::new(Hub::new(tables)), socket, shutdown).await
}

/// [`serve`] with an opened file.
pub(super) async fn serve_disk(
    disk: Disk,
    hub: Arc<Hub>,
    socket: &Path,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), StoreError> {
    let listener = listen(socket)
        .await
        .map_err(|error| StoreError::Unavailable {
            address: socket.display().to_string(),
            reason: error.to_string(),
        })?;
    let _socket = RemoveOnDrop(socket.to_owned());
    tracing::info!(socket = %socket.display(), revision = hub.revision(), "store is ready");
    let (jobs, queue) = mpsc::channel(WRITE_QUEUE);
    let writer = tokio::task::spawn_blocking({
        let hub = Arc::clone(&hub);
        move || write_all(disk, &hub, queue)
    });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let stop = async {
            // An error means that whoever could stop this store is gone: then it stops too.
            let _ = shutdown.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            () = stop => break,
            Some(_) = connections.join_next() => {}
            (accepted, permit) = accept => match accepted {
                Ok((stream, _)) => {
                    let connection = Connection::new(stream, Arc::clone(&hub), jobs.clone());
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = connection.run().await {
                            tracing::debug!(%error, "a client's connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, say: others may be freed soon.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    // First the connections, so that no request comes after the writer's last.
    connections.shutdown().await;
    drop(jobs);
    if let Err(error) = writer.await {
        tracing::error!(%error, "the writer failed");
    }
    tracing::info!(socket = %socket.display(), "store has stopped");
    Ok(())
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Only tidiness: the next store replaces a socket that nobody answers on.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds the socket so that it never exists with wider permissions than 0600.
async fn listen(socket: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let parent = match socket.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_private_dir(parent)?;
    if UnixStream::connect(socket).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another store answers on this socket; stop it or choose another socket",
        ));
    }
    // Bound in a directory that only this user may enter, then moved to its name.
    let nursery = parent.join(format!(".store-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&nursery);
    make_private_dir(&nursery)?;
    let newborn = nursery.join("s");
    let bound = UnixListener::bind(&newborn).and_then(|listener| {
        std::fs::set_permissions(&newborn, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&newborn, socket)?;
        Ok(listener)
    });
    let _ = std::fs::remove_dir_all(&nursery);
    bound
}

/// Takes what waits, works it out, saves it in one transaction, shows it, answers.
fn write_all(mut disk: Disk, hub: &Hub, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = Batch::new(hub);
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some((write, answer)) = next.take() {
            answers.push((batch.add(write), answer));
            if answers.len() < MAX_BATCH {
                next = queue.try_recv().ok();
            }
        }
        let changes = std::mem::take(&mut batch.changes);
        let saved = if changes.is_empty() {
            Ok(())
        } else {
            disk.save(&changes, hub)
        };
        match saved {
            Ok(()) => {
                hub.commit(&changes);
                for (outcome, answer) in answers {
                    // A client that has gone meanwhile needs no answer.
                    let _ = answer.send(outcome.map(Arc::unwrap_or_clone));
                }
            }
            Err(reason) => {
                tracing::error!(%reason, writes = answers.len(), "cannot save");
                for (outcome, answer) in answers {
                    // Refusals too were worked out on top of what is now taken back.
                    let what = match &outcome {
                        Ok(object) => format!("{} {}", object.kind, object.name),
                        Err(_) => "the request".to_owned(),
                    };
                    let _ = answer.send(Err(StoreError::NotSaved {
                        what,
                        reason: reason.clone(),
                    }));
                }
            }
        }
    }
}

struct Connection {
    hub: Arc<Hub>,
    jobs: mpsc::Sender<Job>,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Connection {
    fn new(stream: UnixStream, hub: Arc<Hub>, jobs: mpsc::Sender<Job>) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            hub,
            jobs,
            reader: BufReader::new(reader),
            writer,
        }
    }

    async fn run(mut self) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            match wire::read_line(&mut self.reader, &mut line).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.refuse(&error).await?;
                    return Err(error);
                }
            }
            let request = match wire::parse::<Request>(&line) {
                Ok(request) => request,
                Err(error) => {
                    self.refuse(&error).await?;
                    return Err(error);
                }
            };
            match request {
                Request::Watch { scopes } => {
                    let follower = self.hub.follow(&scopes);
                    return self.watch(follower).await;
                }
                Request::List { scope } => {
                    let objects = self.hub.list(&scope);
                    self.answer_list(objects).await?;
                }
                other => {
                    let outcome = self.unary(other).await;
                    let reply = match outcome {
                        Ok(object) => Reply::Object(object.into()),
                        Err(error) => Reply::Error(error.into()),
                    };
                    let mut buffer = Vec::new();
                    wire::push_line(&mut buffer, &reply)?;
                    self.send(&buffer).await?;
                }
            }
            // A large request does not keep its memory for as long as the connection lives.
            line.shrink_to(WATCH_CHUNK);
        }
    }

    async fn unary(&self, request: Request) -> Result<Object, StoreError> {
        let write = match request {
            Request::Get { kind, name } => {
                return self.hub.get(kind, &name).map(Arc::unwrap_or_clone);
            }
            Request::Create { kind, value } => Write::Create { kind, value },
            Request::Update { kind, value } => Write::Update { kind, value },
            Request::ApplyStatus {
                kind,
                name,
                manager,
                status,
            } => Write::ApplyStatus {
                kind,
                name,
                manager,
                status,
            },
            Request::Delete {
                kind,
                name,
                version,
            } => Write::Delete {
                kind,
                name,
                version,
            },
            Request::List { .. } | Request::Watch { .. } => return Err(stopping()),
        };
        let (answer, outcome) = oneshot::channel();
        self.jobs
            .send((write, answer))
            .await
            .map_err(|_| stopping())?;
        outcome.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn answer_list(&mut self, objects: Vec<Arc<Object>>) -> io::Result<()> {
        let mut buffer = Vec::new();
        for object in objects {
            let object = Arc::unwrap_or_clone(object);
            wire::push_line(&mut buffer, &Reply::Object(object.into()))?;
            if buffer.len() >= WATCH_CHUNK {
                self.send(&buffer).await?;
                buffer.clear();
            }
        }
        wire::push_line(&mut buffer, &Reply::End)?;
        self.send(&buffer).await
    }

    /// Says events until the client goes away. What is ready at once is written at once.
    async fn watch(mut self, mut follower: Follower) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut probe = [0; 64];
        loop {
            buffer.clear();
            let mut said = tokio::select! {
                said = follower.next() => Some(said),
                read = self.reader.read(&mut probe) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    let error = io::Error::other("a watch's connection takes no further request");
                    self.refuse(&error).await?;
                    return Err(error);
                }
            };
            while let Some(next) = said.take() {
                wire::push_line(&mut buffer, &Reply::from(Event::from(next)))?;
                if buffer.len() < WATCH_CHUNK {
                    said = follower.next().now_or_never();
                }
            }
            self.send(&buffer).await?;
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match tokio::time::timeout(WRITE_TIMEOUT, self.writer.write_all(bytes)).await {
            Ok(written) => written,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not read its answers",
            )),
        }
    }

    /// Tells a client what is wrong with its request before the connection is closed.
    async fn refuse(&mut self, error: &io::Error) -> io::Result<()> {
        tracing::warn!(%error, "refused a request");
        let reply = Reply::Error(
            StoreError::Unavailable {
                address: "this connection".into(),
                reason: format!("the request cannot be read: {error}"),
            }
            .into(),
        );
        let mut buffer = Vec::new();
        wire::push_line(&mut buffer, &reply)?;
        self.send(&buffer).await
    }
}

fn stopping() -> StoreError {
    StoreError::Unavailable {
        address: "this connection".into(),
        reason: "the store is stopping".into(),
    }
}
