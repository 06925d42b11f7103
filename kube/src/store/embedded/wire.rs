//! What client and server say to each other: one JSON value per line, each line bounded.

use crate::store::{Event, Kind, Object, Scope, StoreError, Version};
use heddle_model::NamespacedName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Bytes of one line at most, its end included.
pub(super) const MAX_LINE_BYTES: usize = 8 << 20;

/// What a client asks. After [`Request::Watch`] the connection only carries replies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Request {
    List {
        scope: Scope,
    },
    Get {
        kind: Kind,
        name: NamespacedName,
    },
    Create {
        kind: Kind,
        value: Value,
    },
    Update {
        kind: Kind,
        value: Value,
    },
    ApplyStatus {
        kind: Kind,
        name: NamespacedName,
        manager: String,
        status: Value,
    },
    Delete {
        kind: Kind,
        name: NamespacedName,
        version: Option<Version>,
    },
    Watch {
        scopes: Vec<Scope>,
    },
}

/// One line of an answer. A list is many objects and an end; everything else is one line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reply {
    Object(WireObject),
    End,
    Error(WireError),
    Applied(WireObject),
    Deleted(WireObject),
    Synced(u64),
    Restarted,
}

/// An object; its name and version are those in its metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireObject {
    kind: Kind,
    value: Value,
}

impl From<Object> for WireObject {
    fn from(object: Object) -> Self {
        Self {
            kind: object.kind,
            value: object.value,
        }
    }
}

impl From<WireObject> for Object {
    fn from(wire: WireObject) -> Self {
        let text = |field: &str| wire.value["metadata"][field].as_str().unwrap_or_default();
        Self {
            name: NamespacedName::new(text("namespace"), text("name")),
            version: Version::new(text("resourceVersion")),
            kind: wire.kind,
            value: wire.value,
        }
    }
}

impl Reply {
    /// A watch's event, if this line is one.
    pub(super) fn into_event(self) -> Option<Event> {
        Some(match self {
            Self::Applied(object) => Event::Applied(object.into()),
            Self::Deleted(object) => Event::Deleted(object.into()),
            Self::Synced(revision) => Event::Synced { revision },
            Self::Restarted => Event::Restarted,
            Self::Object(_) | Self::End | Self::Error(_) => return None,
        })
    }
}

impl From<Event> for Reply {
    fn from(event: Event) -> Self {
        match event {
            Event::Applied(object) => Self::Applied(object.into()),
            Event::Deleted(object) => Self::Deleted(object.into()),
            Event::Synced { revision } => Self::Synced(revision),
            Event::Restarted => Self::Restarted,
        }
    }
}

/// [`StoreError`] on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum WireError {
    NotFound {
        kind: Kind,
        name: NamespacedName,
    },
    AlreadyExists {
        kind: Kind,
        name: NamespacedName,
    },
    Conflict {
        kind: Kind,
        name: NamespacedName,
    },
    Invalid {
        kind: Kind,
        name: NamespacedName,
        field: String,
        reason: String,
    },
    Unavailable {
        address: String,
        reason: String,
    },
    NotSaved {
        what: String,
        reason: String,
    },
    Corrupt {
        path: String,
        reason: String,
    },
}

impl From<StoreError> for WireError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { kind, name } => Self::NotFound { kind, name },
            StoreError::AlreadyExists { kind, name } => Self::AlreadyExists { kind, name },
            StoreError::Conflict { kind, name } => Self::Conflict { kind, name },
            StoreError::Invalid {
                kind,
                name,
                field,
                reason,
            } => Self::Invalid {
                kind,
                name,
                field,
                reason,
            },
            StoreError::Unavailable { address, reason } => Self::Unavailable { address, reason },
            StoreError::NotSaved { what, reason } => Self::NotSaved { what, reason },
            StoreError::Corrupt { path, reason } => Self::Corrupt { path, reason },
        }
    }
}

impl From<WireError> for StoreError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::NotFound { kind, name } => Self::NotFound { kind, name },
            WireError::AlreadyExists { kind, name } => Self::AlreadyExists { kind, name },
            WireError::Conflict { kind, name } => Self::Conflict { kind, name },
            WireError::Invalid {
                kind,
                name,
                field,
                reason,
            } => Self::Invalid {
                kind,
                name,
                field,
                reason,
            },
            WireError::Unavailable { address, reason } => Self::Unavailable { address, reason },
            WireError::NotSaved { what, reason } => Self::NotSaved { what, reason },
            WireError::Corrupt { path, reason } => Self::Corrupt { path, reason },
        }
    }
}

/// Adds a message and its line end to `buffer`.
pub(super) fn push_line(buffer: &mut Vec<u8>, message: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *buffer, message)?;
    buffer.push(b'\n');
    Ok(())
}

/// Reads one line into `line`, without its end. False when the other side has closed.
///
/// A line longer than [`MAX_LINE_BYTES`] is an error of kind [`io::ErrorKind::InvalidData`].
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<bool> {
    line.clear();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return if line.is_empty() {
                Ok(false)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        if line.len() + taken > MAX_LINE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a line has more than {MAX_LINE_BYTES} bytes"),
            ));
        }
        line.extend_from_slice(&available[..end.unwrap_or(taken)]);
        reader.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Reads a line's message.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(io::Error::from)
}
