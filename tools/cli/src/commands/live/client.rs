//! Asking an agent over its socket, or what a dump has of its answers.

use super::agents::{Agent, Source};
use crate::failure::{Failure, NO_DATA};
use heddle_rpc::node::OBSERVE;
use heddle_rpc::{ApiError, Call, CallError, Client};
use serde_json::Value;
use std::io::ErrorKind;
use std::time::Duration;

/// Time an agent has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A request that is being answered.
pub(in crate::commands) struct Answers {
    agent: Agent,
    lines: Lines,
    note: Option<String>,
}

enum Lines {
    /// From a running agent.
    Socket(heddle_rpc::Answers),
    /// From a dump.
    Recorded(std::vec::IntoIter<Value>),
}

/// Asks for one answer, and gives it as it came.
pub(in crate::commands) fn ask(
    agent: &Agent,
    method: &str,
    params: &Value,
) -> Result<Value, Failure> {
    Answers::begin(agent, method, params)?
        .next()?
        .ok_or_else(|| broken(agent, "it ended without a result"))
}

/// Asks for one answer.
pub(in crate::commands) fn call<C: Call>(agent: &Agent, call: &C) -> Result<C::Answer, Failure> {
    let params = serde_json::to_value(call).map_err(|error| broken(agent, &error.to_string()))?;
    let answer = ask(agent, C::METHOD, &params)?;
    serde_json::from_value(answer).map_err(|error| broken(agent, &error.to_string()))
}

impl Answers {
    /// Sends a request.
    pub(in crate::commands) fn begin(
        agent: &Agent,
        method: &str,
        params: &Value,
    ) -> Result<Self, Failure> {
        let mut note = None;
        let lines = match &agent.source {
            Source::Dump(dump, node) => {
                let lines = match method {
                    OBSERVE => {
                        let flows = dump.flows(*node, params)?;
                        note = flows.note;
                        flows.lines
                    }
                    _ => vec![dump.answer(*node, method, params)?],
                };
                Lines::Recorded(lines.into_iter())
            }
            Source::Socket(socket) => Client::new(socket, ANSWER_TIMEOUT)
                .begin(method, params.clone())
                .map(Lines::Socket)
                .map_err(|error| failure(agent, error))?,
        };
        Ok(Self {
            agent: agent.clone(),
            lines,
            note,
        })
    }

    /// That the answer may lack something, although nothing failed.
    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// From now on the next answer may take as long as it wants.
    pub(super) fn wait_forever(&mut self) {
        match &mut self.lines {
            Lines::Recorded(_) => {}
            Lines::Socket(lines) => lines.wait_forever(),
        }
    }

    /// The next answer; `None` at the end of a stream.
    pub(in crate::commands) fn next(&mut self) -> Result<Option<Value>, Failure> {
        match &mut self.lines {
            Lines::Recorded(lines) => Ok(lines.next()),
            Lines::Socket(lines) => {
                let next = lines.next_line();
                next.map_err(|error| failure(&self.agent, error))
            }
        }
    }
}

fn broken(agent: &Agent, why: &str) -> Failure {
    Failure::new(
        "agent/broken-answer",
        format!("{agent} gave an answer that cannot be understood: {why}"),
    )
    .help("is it of the same version as this command?")
    .exit(NO_DATA)
    // It may quote the answer.
    .in_one_line()
}

fn failure(agent: &Agent, error: CallError) -> Failure {
    let (why, help) = match error {
        CallError::Refused(error) => return refused(agent, error),
        CallError::Malformed(why) => return broken(agent, &why),
        CallError::Unreachable(error) => (
            format!("does not answer: {error}"),
            match error.kind() {
                ErrorKind::PermissionDenied => "agents only talk to root: try with sudo",
                ErrorKind::NotFound => {
                    "the agent has not started or is stopped: `heddle lab agent start NODE`, or name another socket with --socket"
                }
                _ => "is the agent running? `heddle lab status` shows the agents of a lab",
            },
        ),
        CallError::Deadline(deadline) => (
            format!("did not answer within {} seconds", deadline.as_secs()),
            "the agent's log says what it is busy with",
        ),
        CallError::HungUp => (
            "hung up before its answer was complete".to_owned(),
            "has the agent been stopped?",
        ),
    };
    let failure = Failure::new("agent/unreachable", format!("{agent} {why}"))
        .help(help)
        .exit(NO_DATA);
    match &agent.node {
        Some(node) => failure.object(node.as_str()),
        None => failure.object(agent.source.to_string()),
    }
}

/// What the agent itself said is wrong.
fn refused(agent: &Agent, error: ApiError) -> Failure {
    let or = |text: String, otherwise: &dyn Fn() -> String| match text {
        text if text.is_empty() => otherwise(),
        text => text,
    };
    let code = or(error.code, &|| "agent/failed".to_owned());
    let message = or(error.message, &|| format!("{agent} refused"));
    let failure = Failure::new(code.as_str(), message)
        .object(error.object)
        .field(error.field)
        .help(error.help);
    if code == "agent/not-ready" {
        failure.exit(NO_DATA)
    } else {
        failure
    }
}
