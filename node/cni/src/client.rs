//! Asking the agent one question.

use crate::protocol::{ApiError, Request};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of an answer read at most.
const ANSWER_LIMIT: u64 = 16 * 1024 * 1024;

/// No answer, or a refusal.
#[derive(Debug)]
pub enum AskError {
    /// Nobody listens, or the connection broke.
    Unreachable(String),
    /// The agent did not answer in time.
    Deadline(Duration),
    /// The answer is not one.
    Malformed(String),
    /// The agent refused.
    Refused(ApiError),
}

/// Asks the agent at `socket` and waits for its answer until `deadline` has passed.
///
/// # Errors
/// See [`AskError`].
pub fn ask(
    socket: &Path,
    method: &str,
    params: Value,
    deadline: Duration,
) -> Result<Value, AskError> {
    let started = Instant::now();
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AskError::Deadline(deadline),
        _ => AskError::Unreachable(error.to_string()),
    };
    let stream = UnixStream::connect(socket).map_err(io)?;
    stream.set_write_timeout(Some(deadline)).map_err(io)?;
    let request = Request {
        method: method.to_owned(),
        params,
    };
    let mut line =
        serde_json::to_vec(&request).map_err(|error| AskError::Malformed(error.to_string()))?;
    line.push(b'\n');
    (&stream).write_all(&line).map_err(io)?;

    // The answer may trickle in; each read gets only what is left of the deadline.
    let mut answer = Vec::new();
    let mut reader = BufReader::new(&stream);
    loop {
        let left = deadline
            .checked_sub(started.elapsed())
            .filter(|left| !left.is_zero())
            .ok_or(AskError::Deadline(deadline))?;
        stream.set_read_timeout(Some(left)).map_err(io)?;
        let chunk = reader.fill_buf().map_err(io)?;
        if chunk.is_empty() {
            return Err(AskError::Unreachable(
                "the agent closed the connection without an answer".into(),
            ));
        }
        let (used, done) = match chunk.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (chunk.len(), false),
        };
        answer.extend_from_slice(&chunk[..used]);
        reader.consume(used);
        if done {
            break;
        }
        if answer.len() as u64 > ANSWER_LIMIT {
            return Err(AskError::Malformed("the agent's answer has no end".into()));
        }
    }
    let mut answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| AskError::Malformed(format!("the agent's answer is not JSON: {error}")))?;
    if let Some(error) = answer.get_mut("error") {
        return Err(
            match serde_json::from_value::<ApiError>(std::mem::take(error)) {
                Ok(error) => AskError::Refused(error),
                Err(error) => AskError::Malformed(format!("the agent's error: {error}")),
            },
        );
    }
    answer
        .get_mut("result")
        .map(std::mem::take)
        .ok_or_else(|| AskError::Malformed("the agent's answer has no result".into()))
}
