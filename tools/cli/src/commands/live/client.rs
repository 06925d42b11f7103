//! Asking an agent: a request line out of its socket, result lines in; or what a dump has of its answers.

use super::agents::{Agent, Source};
use crate::failure::{Failure, NO_DATA};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Time an agent has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of one answer line at most: a full connection table fits several times.
const MAX_LINE: u64 = 256 << 20;

/// A request that is being answered.
pub(in crate::commands) struct Answer {
    agent: Agent,
    lines: Lines,
}

enum Lines {
    /// From a running agent.
    Socket(BufReader<UnixStream>),
    /// From a dump.
    Recorded(std::vec::IntoIter<Value>),
}

fn unreachable(agent: &Agent, error: &std::io::Error) -> Failure {
    let help = match error.kind() {
        ErrorKind::PermissionDenied => "agents only talk to root: try with sudo",
        ErrorKind::NotFound => {
            "the agent has not started or is stopped: `heddle lab agent start NODE`, or name another socket with --socket"
        }
        _ => "is the agent running? `heddle lab status` shows the agents of a lab",
    };
    let failure = Failure::new(
        "agent/unreachable",
        format!("{agent} does not answer: {error}"),
    )
    .help(help)
    .exit(NO_DATA);
    match &agent.node {
        Some(node) => failure.object(node.as_str()),
        None => failure.object(agent.source.to_string()),
    }
}

fn broken(agent: &Agent, why: &str) -> Failure {
    Failure::new(
        "agent/broken-answer",
        format!("{agent} gave an answer that cannot be understood: {why}"),
    )
    .help("is it of the same version as this command?")
    .exit(NO_DATA)
}

/// Asks for one result.
pub(in crate::commands) fn call(
    agent: &Agent,
    method: &str,
    params: &Value,
) -> Result<Value, Failure> {
    Answer::begin(agent, method, params)?
        .next()?
        .ok_or_else(|| broken(agent, "it ended without a result"))
}

impl Answer {
    /// Sends a request.
    pub(in crate::commands) fn begin(
        agent: &Agent,
        method: &str,
        params: &Value,
    ) -> Result<Self, Failure> {
        let lines = match &agent.source {
            Source::Dump(dump, node) => Lines::Recorded(
                match method {
                    "observe" => dump.flows(*node, params)?,
                    _ => vec![dump.answer(*node, method, params)?],
                }
                .into_iter(),
            ),
            Source::Socket(socket) => {
                let stream = connect(socket, method, params);
                let stream = stream.map_err(|error| unreachable(agent, &error))?;
                Lines::Socket(BufReader::new(stream))
            }
        };
        Ok(Self {
            agent: agent.clone(),
            lines,
        })
    }

    /// From now on the next result may take as long as it wants.
    pub(super) fn without_deadline(&self) -> Result<(), Failure> {
        match &self.lines {
            Lines::Recorded(_) => Ok(()),
            Lines::Socket(reader) => reader
                .get_ref()
                .set_read_timeout(None)
                .map_err(|error| unreachable(&self.agent, &error)),
        }
    }

    /// The next result; `None` at the end of a stream.
    pub(in crate::commands) fn next(&mut self) -> Result<Option<Value>, Failure> {
        let reader = match &mut self.lines {
            Lines::Recorded(lines) => return Ok(lines.next()),
            Lines::Socket(reader) => reader,
        };
        let mut line = Vec::new();
        let read =
            reader
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .map_err(|error| match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::new(
                        "agent/unreachable",
                        format!(
                            "{} did not answer within {} seconds",
                            self.agent,
                            ANSWER_TIMEOUT.as_secs()
                        ),
                    )
                    .help("the agent's log says what it is busy with")
                    .exit(NO_DATA),
                    _ => unreachable(&self.agent, &error),
                })?;
        if read == 0 {
            return Err(Failure::new(
                "agent/unreachable",
                format!("{} hung up before its answer was complete", self.agent),
            )
            .help("has the agent been stopped?")
            .exit(NO_DATA));
        }
        if line.last() != Some(&b'\n') && read as u64 == MAX_LINE {
            return Err(broken(&self.agent, "a line is too long"));
        }
        let mut answer: Value = serde_json::from_slice(&line)
            .map_err(|error| broken(&self.agent, &error.to_string()))?;
        if let Some(error) = answer.get("error") {
            return Err(told(&self.agent, error));
        }
        if answer["end"] == true {
            return Ok(None);
        }
        match answer.get_mut("result") {
            Some(result) => Ok(Some(result.take())),
            None => Err(broken(&self.agent, "there is neither result nor error")),
        }
    }
}

fn connect(socket: &Path, method: &str, params: &Value) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let request = json!({"method": method, "params": params});
    stream.write_all(format!("{request}\n").as_bytes())?;
    Ok(stream)
}

/// What the agent itself said is wrong.
fn told(agent: &Agent, error: &Value) -> Failure {
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let code = match text("code") {
        code if code.is_empty() => "agent/failed".to_owned(),
        code => code,
    };
    let message = match text("message") {
        message if message.is_empty() => format!("{agent} refused"),
        message => message,
    };
    let failure = Failure::new(code.as_str(), message)
        .object(text("object"))
        .field(text("field"))
        .help(text("help"));
    if code == "agent/not-ready" {
        failure.exit(NO_DATA)
    } else {
        failure
    }
}
