//! The answering side: one question a line; an answer, or a stream of them, until the next question.

use crate::error::{ApiError, error_codes};
use crate::message::{Call, Line, Request, push_line};
use serde::Serialize;
use serde_json::Value;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

/// Connections at once; one more waits.
const MAX_CONNECTIONS: usize = 512;
/// Bytes of a question at most: as many as the CNI plugin reads of what a runtime says.
const MAX_QUESTION: u64 = 4 * 1024 * 1024;
/// A reader that takes nothing for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection without a question for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a question that has begun.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the rest of a question that is too long is read, so that who asks can end it and read the refusal.
const REST_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted.
const RETRY: Duration = Duration::from_millis(200);

/// Who answers.
pub trait Service: Send + Sync + 'static {
    /// Answers a question: with [`Reply::one`], [`Reply::stream`], or [`unknown_method`].
    ///
    /// Nothing here may block. An answer that can be large is put together in a blocking task, which makes the
    /// [`Reply`], too, and gives that back: making it is what takes long, and sending it does not.
    fn answer(&self, request: Request) -> impl Future<Output = Result<Reply, ApiError>> + Send;
}

/// An answer, ready to travel.
#[derive(Debug)]
pub struct Reply(Content);

#[derive(Debug)]
enum Content {
    /// The line of the answer as it travels.
    One(Vec<u8>),
    Stream {
        lines: mpsc::Receiver<Value>,
        follow: bool,
    },
}

impl Reply {
    /// The answer to a call, written here and now: of a large one in the blocking task that it comes from.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn one<C: Call>(answer: &C::Answer) -> Result<Self, ApiError> {
        let mut line = Vec::new();
        push_line(&mut line, &Given { result: answer }).map_err(|error| {
            ApiError::new(error_codes::BAD_ANSWER, format!("{}: {error}", C::METHOD))
        })?;
        Ok(Self(Content::One(line)))
    }

    /// Answers that end when `lines` does; with `follow` also when who asked hangs up or asks something else.
    pub const fn stream(lines: mpsc::Receiver<Value>, follow: bool) -> Self {
        Self(Content::Stream { lines, follow })
    }
}

/// A [`Line`] with a result that is not copied first.
#[derive(Serialize)]
struct Given<'a, T> {
    result: &'a T,
}

/// Nobody answers this here.
pub fn unknown_method(method: &str) -> ApiError {
    ApiError::new(
        error_codes::UNKNOWN_METHOD,
        format!("there is no method {method:?}"),
    )
    .help("server and caller may be of different versions")
}

/// Binds a socket that root alone may use; a leftover of a former run is replaced.
///
/// # Errors
/// The system's.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    // Bound beside and renamed, so that nobody ever sees it with wider permissions, or half made.
    let fresh = path.with_extension("sock.new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Answers until `shutdown` becomes true.
pub async fn serve<S: Service>(
    service: Arc<S>,
    listener: UnixListener,
    mut shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: trying at once would burn a CPU.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let service = Arc::clone(&service);
        let mut shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                // A peer that hangs up is its own loss.
                _ = converse(&*service, stream) => {}
            }
            drop(place);
        });
    }
}

async fn converse(service: &impl Service, stream: UnixStream) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        // Who asks nothing, or does not end, gives its place to others.
        if timeout(IDLE_TIMEOUT, reading.fill_buf()).await??.is_empty() {
            return Ok(());
        }
        let mut line = Vec::new();
        let mut question = (&mut reading).take(MAX_QUESTION);
        let read = timeout(QUESTION_TIMEOUT, question.read_until(b'\n', &mut line)).await??;
        if line.last() != Some(&b'\n') && read as u64 == MAX_QUESTION {
            let error = ApiError::new(
                error_codes::BAD_REQUEST,
                format!("the question is longer than {} MiB", MAX_QUESTION >> 20),
            )
            .help("ask about fewer objects at once");
            tell_line(&mut writing, &refusal(error)).await?;
            return leave(reading, writing).await;
        }
        let answer = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => service.answer(request).await,
            Err(error) => Err(ApiError::new(
                error_codes::BAD_REQUEST,
                format!("not a request: {error}"),
            )
            .help("one JSON object per line: {\"method\":\"status\",\"params\":{}}")),
        };
        match answer {
            Ok(Reply(Content::One(line))) => say(&mut writing, &line).await?,
            Ok(Reply(Content::Stream { lines, follow })) => {
                tell(lines, follow, &mut reading, &mut writing).await?;
            }
            Err(error) => tell_line(&mut writing, &refusal(error)).await?,
        }
    }
}

/// Ends a connection in the middle of a question. To close it with something unread is to reset it: who asks could not
/// write the rest, and might not get to read the answer.
async fn leave(
    mut reading: impl AsyncBufRead + Unpin,
    mut writing: impl AsyncWriteExt + Unpin,
) -> io::Result<()> {
    writing.shutdown().await?;
    let mut rest = tokio::io::sink();
    match timeout(REST_TIMEOUT, tokio::io::copy_buf(&mut reading, &mut rest)).await {
        Ok(read) => read.map(drop),
        Err(_) => Ok(()),
    }
}

fn result(value: Value) -> Line {
    Line {
        result: Some(value),
        ..Line::default()
    }
}

fn refusal(error: ApiError) -> Line {
    Line {
        error: Some(error),
        ..Line::default()
    }
}

async fn tell_line(writing: &mut (impl AsyncWriteExt + Unpin), line: &Line) -> io::Result<()> {
    let mut bytes = Vec::new();
    push_line(&mut bytes, line)?;
    say(writing, &bytes).await
}

async fn say(writing: &mut (impl AsyncWriteExt + Unpin), line: &[u8]) -> io::Result<()> {
    match timeout(WRITE_TIMEOUT, writing.write_all(line)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Tells lines until they end, or until who follows hangs up or asks something else.
async fn tell(
    mut lines: mpsc::Receiver<Value>,
    follow: bool,
    reading: &mut (impl AsyncBufRead + Unpin),
    writing: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    // The past has an end by itself; a following may never have a line that would find the peer gone.
    let mut left = std::pin::pin!(async {
        if follow {
            heard(reading).await;
        } else {
            std::future::pending::<()>().await;
        }
    });
    loop {
        let line = tokio::select! {
            () = &mut left => break,
            line = lines.recv() => line,
        };
        let Some(line) = line else { break };
        tell_line(writing, &result(line)).await?;
    }
    let end = Line {
        end: true,
        ..Line::default()
    };
    tell_line(writing, &end).await
}

/// Returns when the peer has hung up, or has begun another question, which stays to be read.
async fn heard(reading: &mut (impl AsyncBufRead + Unpin)) {
    loop {
        let blank = match reading.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => bytes
                .iter()
                .take_while(|it| it.is_ascii_whitespace())
                .count(),
        };
        if blank == 0 {
            return;
        }
        reading.consume(blank);
    }
}

#[cfg(test)]
mod tests;
