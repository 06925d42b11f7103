//! The client's side of the embedded store's socket.

use super::wire::{self, MAX_LINE_BYTES, Reply, Request};
use crate::store::objects::revision_of;
use crate::store::{Event, Kind, Object, Scope, Store, StoreError, Version, Watch};
use async_trait::async_trait;
use heddle_model::NamespacedName;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufStream};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// Idle connections kept for the next call.
const MAX_IDLE: usize = 8;
/// How long one line of an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// First and longest wait between two attempts to reach a lost store.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Events that may wait for a watcher before the socket is read no further.
const WATCH_QUEUE: usize = 256;

type Connection = BufStream<UnixStream>;

/// A [`Store`] behind a unix socket. Clones share connections.
///
/// Calls on a store that cannot be reached fail at once with [`StoreError::Unavailable`]; a write whose
/// answer was lost on the way may have been done. Watches reconnect by themselves.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Closed when the last clone is dropped: watches end.
    life: Arc<watch::Sender<()>>,
}

struct Shared {
    socket: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    /// A client of the store that serves this socket; connects when it is first used.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                socket: socket.into(),
                idle: Mutex::default(),
            }),
            life: Arc::new(watch::Sender::new(())),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Asks and takes the one object of the answer.
    async fn call(&self, request: Request) -> Result<Object, StoreError> {
        let mut objects = self.shared.ask(&request).await?;
        objects
            .pop()
            .ok_or_else(|| self.shared.lost("the answer has no object"))
    }
}

impl Shared {
    /// Asks; a question that changes nothing is asked again when an idle connection turns out closed.
    async fn ask(&self, request: &Request) -> Result<Vec<Object>, StoreError> {
        let reads = matches!(request, Request::List { .. } | Request::Get { .. });
        let idle = self.take_idle();
        let was_idle = idle.is_some();
        match self.exchange(request, idle).await {
            Err(StoreError::Unavailable { .. }) if reads && was_idle => {
                self.exchange(request, None).await
            }
            outcome => outcome,
        }
    }

    /// Sends a request on this or a new connection and reads its whole answer.
    async fn exchange(
        &self,
        request: &Request,
        connection: Option<Connection>,
    ) -> Result<Vec<Object>, StoreError> {
        let mut line = Vec::new();
        wire::push_line(&mut line, request).map_err(|error| self.lost(error))?;
        if line.len() > MAX_LINE_BYTES {
            return Err(too_large(request, line.len()));
        }
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let exchange = async {
            connection.write_all(&line).await?;
            connection.flush().await?;
            let is_list = matches!(request, Request::List { .. });
            let mut objects = Vec::new();
            loop {
                match self.read(&mut connection, &mut line).await? {
                    Reply::Object(object) => {
                        objects.push(object.into());
                        if !is_list {
                            return Ok(Ok(objects));
                        }
                    }
                    Reply::End => return Ok(Ok(objects)),
                    Reply::Error(error) => return Ok(Err(StoreError::from(error))),
                    other => {
                        let text = format!("unexpected answer {other:?}");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                    }
                }
            }
        };
        match exchange.await {
            Ok(Err(StoreError::Unavailable { reason, .. })) => Err(self.lost(reason)),
            Ok(answer) => {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < MAX_IDLE {
                    idle.push(connection);
                }
                answer
            }
            Err(error) => Err(self.lost(error)),
        }
    }

    async fn read(&self, connection: &mut Connection, line: &mut Vec<u8>) -> io::Result<Reply> {
        match tokio::time::timeout(ANSWER_TIMEOUT, wire::read_line(connection, line)).await {
            Ok(Ok(true)) => wire::parse(line),
            Ok(Ok(false)) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the store closed the connection before it answered",
            )),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            )),
        }
    }

    /// A connection that the store has not closed since it was last used.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(connection) = idle.pop() {
            let mut byte = [0];
            match connection.get_ref().try_read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Some(connection);
                }
                // Closed, broken, or an answer that nobody asked for.
                _ => {}
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, StoreError> {
        UnixStream::connect(&self.socket)
            .await
            .map(BufStream::new)
            .map_err(|error| self.lost(error))
    }

    fn lost(&self, reason: impl std::fmt::Display) -> StoreError {
        StoreError::Unavailable {
            address: self.socket.display().to_string(),
            reason: format!(
                "{reason}; check that `heddle store` runs and that this user may open the socket"
            ),
        }
    }

    /// One connection's worth of a watch; ends with the reason why the connection ended.
    async fn follow(
        &self,
        scopes: &[Scope],
        events: &mpsc::Sender<Event>,
        attempt: &mut Attempt,
    ) -> Result<(), StoreError> {
        let mut connection = self.connect().await?;
        let scopes = scopes.to_vec();
        let mut line = Vec::new();
        wire::push_line(&mut line, &Request::Watch { scopes }).map_err(|error| self.lost(error))?;
        let sent = async {
            connection.write_all(&line).await?;
            connection.flush().await
        };
        sent.await.map_err(|error| self.lost(error))?;
        loop {
            // No time limit: a store where nothing happens says nothing.
            match wire::read_line(&mut connection, &mut line).await {
                Ok(true) => {}
                Ok(false) => return Err(self.lost("the store closed the connection")),
                Err(error) => return Err(self.lost(error)),
            }
            let reply: Reply = wire::parse(&line).map_err(|error| self.lost(error))?;
            let event = match reply {
                Reply::Error(error) => return Err(self.lost(StoreError::from(error))),
                other => other
                    .into_event()
                    .ok_or_else(|| self.lost("an answer that is no event"))?,
            };
            if std::mem::take(&mut attempt.announce_restart)
                && events.send(Event::Restarted).await.is_err()
            {
                return Ok(());
            }
            if matches!(event, Event::Synced { .. }) {
                attempt.wait = BACKOFF.0;
                attempt.warned = false;
            }
            attempt.said_something = true;
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Where a watch stands between two connections.
struct Attempt {
    wait: Duration,
    /// The watcher has heard something that a new list must replace.
    said_something: bool,
    /// Say [`Event::Restarted`] before anything else.
    announce_restart: bool,
    warned: bool,
}

fn too_large(request: &Request, size: usize) -> StoreError {
    let (kind, name) = match request {
        Request::Create { kind, value } | Request::Update { kind, value } => {
            let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
            (*kind, NamespacedName::new(text("namespace"), text("name")))
        }
        Request::List { scope } => (scope.kind(), NamespacedName::default()),
        Request::Get { kind, name }
        | Request::ApplyStatus { kind, name, .. }
        | Request::Delete { kind, name, .. } => (*kind, name.clone()),
        Request::Watch { .. } => (Kind::Namespace, NamespacedName::default()),
    };
    StoreError::Invalid {
        kind,
        name,
        field: "(the whole object)".into(),
        reason: format!("the request has {size} bytes, at most {MAX_LINE_BYTES} can be sent"),
    }
}

#[async_trait]
impl Store for Client {
    async fn list(&self, scope: &Scope) -> Result<Vec<Object>, StoreError> {
        let scope = scope.clone();
        self.shared.ask(&Request::List { scope }).await
    }

    async fn get(&self, kind: Kind, name: &NamespacedName) -> Result<Object, StoreError> {
        self.call(Request::Get {
            kind,
            name: name.clone(),
        })
        .await
    }

    async fn create(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.call(Request::Create { kind, value }).await
    }

    async fn update(&self, kind: Kind, value: Value) -> Result<Object, StoreError> {
        self.call(Request::Update { kind, value }).await
    }

    async fn apply_status(
        &self,
        kind: Kind,
        name: &NamespacedName,
        manager: &str,
        status: Value,
    ) -> Result<Object, StoreError> {
        self.call(Request::ApplyStatus {
            kind,
            name: name.clone(),
            manager: manager.to_owned(),
            status,
        })
        .await
    }

    async fn delete(
        &self,
        kind: Kind,
        name: &NamespacedName,
        version: Option<&Version>,
    ) -> Result<(), StoreError> {
        self.call(Request::Delete {
            kind,
            name: name.clone(),
            version: version.cloned(),
        })
        .await
        .map(|_| ())
    }

    fn watch(&self, scopes: &[Scope]) -> Watch {
        let (events, receiver) = mpsc::channel(WATCH_QUEUE);
        let scopes = scopes.to_vec();
        let shared = Arc::clone(&self.shared);
        let mut life = self.life.subscribe();
        tokio::spawn(async move {
            let run = async {
                let mut attempt = Attempt {
                    wait: BACKOFF.0,
                    said_something: false,
                    announce_restart: false,
                    warned: false,
                };
                while let Err(error) = shared.follow(&scopes, &events, &mut attempt).await {
                    if !std::mem::replace(&mut attempt.warned, true) {
                        tracing::warn!(%error, "a watch lost its store; it tries again");
                    }
                    attempt.announce_restart = attempt.said_something;
                    tokio::time::sleep(attempt.wait).await;
                    attempt.wait = (attempt.wait * 2).min(BACKOFF.1);
                }
            };
            tokio::select! {
                () = run => {}
                () = events.closed() => {}
                _ = life.changed() => {}
            }
        });
        receiver
    }

    fn position(&self, version: &Version) -> Option<u64> {
        revision_of(version)
    }
}
