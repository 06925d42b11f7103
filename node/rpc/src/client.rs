//! The asking side.

use crate::error::ApiError;
use crate::message::{Call, Line, Request, push_line};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a line of an answer at most: a full connection table fits several times.
const MAX_LINE: usize = 256 << 20;

/// No answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens, or the connection broke.
    #[error("{0}")]
    Unreachable(#[source] io::Error),
    /// The other side hung up.
    #[error("it hung up before its answer was complete")]
    HungUp,
    /// It did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// What came is no answer to the question.
    #[error("the answer cannot be understood: {0}")]
    Malformed(String),
    /// It refused.
    #[error("{0}")]
    Refused(ApiError),
}

/// Who asks at one socket. It blocks; every call has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
}

impl Client {
    /// Asks at `socket`; each line of an answer has to come within `deadline`.
    pub fn new(socket: &Path, deadline: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            deadline,
        }
    }

    /// Asks one question with one answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call<C: Call>(&self, call: &C) -> Result<C::Answer, CallError> {
        let params =
            serde_json::to_value(call).map_err(|error| CallError::Malformed(error.to_string()))?;
        let answer = self.ask(C::METHOD, params)?;
        serde_json::from_value(answer)
            .map_err(|error| CallError::Malformed(format!("{}: {error}", C::METHOD)))
    }

    /// The same for who hands the answer on as it is.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn ask(&self, method: &str, params: Value) -> Result<Value, CallError> {
        self.begin(method, params)?
            .next_line()?
            .ok_or_else(|| CallError::Malformed("it ended without a result".into()))
    }

    /// Asks a question that may have many answers.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn begin(&self, method: &str, params: Value) -> Result<Answers, CallError> {
        let request = Request {
            method: method.to_owned(),
            params,
        };
        let mut line = Vec::new();
        push_line(&mut line, &request).map_err(|error| CallError::Malformed(error.to_string()))?;
        let until = Instant::now() + self.deadline;
        let failed = |error| failure(error, self.deadline);
        let stream = connect(&self.socket, self.deadline).map_err(failed)?;
        let mut answers = Answers {
            reader: BufReader::new(stream),
            deadline: Some(self.deadline),
            until: Some(until),
        };
        match answers.reader.get_mut().write_all(&line) {
            Ok(()) => Ok(answers),
            Err(error) => Err(answers.cut_off(error, self.deadline)),
        }
    }
}

/// Connects within the deadline: with a full queue a server that hangs would be waited for without end. What is
/// written has the same time.
fn connect(socket: &Path, deadline: Duration) -> io::Result<UnixStream> {
    let unconnected = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let stream = UnixStream::from(unconnected);
    // SO_SNDTIMEO bounds connect(2) too (socket(7)).
    stream.set_write_timeout(Some(deadline))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(socket)?)?;
    Ok(stream)
}

fn failure(error: io::Error, deadline: Duration) -> CallError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => CallError::Deadline(deadline),
        _ => CallError::Unreachable(error),
    }
}

/// The answers to one question.
#[derive(Debug)]
pub struct Answers {
    reader: BufReader<UnixStream>,
    /// What each line may take; `None`: as long as it wants.
    deadline: Option<Duration>,
    /// When the next line is late, where its time began before it was asked for.
    until: Option<Instant>,
}

impl Answers {
    /// From now on the next answer may take as long as it wants.
    pub fn wait_forever(&mut self) {
        self.deadline = None;
    }

    /// The next answer; `None` at the end of many.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn next_line(&mut self) -> Result<Option<Value>, CallError> {
        let line = self.read()?;
        let line: Line = serde_json::from_slice(&line)
            .map_err(|error| CallError::Malformed(error.to_string()))?;
        match line {
            Line {
                error: Some(error), ..
            } => Err(CallError::Refused(error)),
            Line { end: true, .. } => Ok(None),
            Line {
                result: Some(result),
                ..
            } => Ok(Some(result)),
            _ => Err(CallError::Malformed(
                "there is neither result nor error".into(),
            )),
        }
    }

    /// Why the question could not be written to its end: who hangs up in the middle of it may have said why.
    fn cut_off(&mut self, error: io::Error, deadline: Duration) -> CallError {
        let hung_up = matches!(
            error.kind(),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
        );
        match hung_up.then(|| self.next_line()) {
            Some(Err(refusal @ CallError::Refused(_))) => refusal,
            _ => failure(error, deadline),
        }
    }

    /// A line may trickle in: each read gets only what is left of its time.
    fn read(&mut self) -> Result<Vec<u8>, CallError> {
        let until = self.until.take();
        let until = self
            .deadline
            .map(|deadline| (until.unwrap_or_else(|| Instant::now() + deadline), deadline));
        let mut line = Vec::new();
        loop {
            let left = match until {
                None => None,
                Some((until, deadline)) => match until.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return Err(CallError::Deadline(deadline)),
                },
            };
            let failed = |error| failure(error, until.map_or(Duration::ZERO, |(_, it)| it));
            self.reader
                .get_ref()
                .set_read_timeout(left)
                .map_err(failed)?;
            let chunk = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                chunk => chunk.map_err(failed)?,
            };
            if chunk.is_empty() {
                return Err(CallError::HungUp);
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(chunk.len(), |end| end + 1);
            line.extend_from_slice(&chunk[..used]);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(line);
            }
            if line.len() > MAX_LINE {
                return Err(CallError::Malformed(format!(
                    "a line is longer than {MAX_LINE} bytes"
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests;
