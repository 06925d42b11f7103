//! Asking a node's agent, and the lab's own daemon: the calls of their sockets.

use crate::LabError;
use crate::paths::Lab;
use heddle_rpc::node::{NodeStatus, ReadStatus};
use heddle_rpc::{Call, CallError, Client};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// How long an agent may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks at a socket, whose client blocks.
pub(crate) async fn call<C>(
    socket: PathBuf,
    call: C,
    deadline: Duration,
) -> Result<C::Answer, CallError>
where
    C: Call + Send + 'static,
    C::Answer: Send + 'static,
{
    tokio::task::spawn_blocking(move || Client::new(&socket, deadline).call(&call))
        .await
        .map_err(|error| CallError::Malformed(error.to_string()))?
}

/// An agent's `status`.
pub async fn status(lab: &Lab, node: &str) -> Result<NodeStatus, LabError> {
    let asked = ask_status(lab, node).await;
    asked.map_err(|error| unanswered(node, error))
}

/// The same for who tells apart why there is none.
pub(crate) async fn ask_status(lab: &Lab, node: &str) -> Result<NodeStatus, CallError> {
    call(lab.agent_socket(node), ReadStatus {}, DEADLINE).await
}

/// Whether nobody listens at a socket, so that who listens there does not run.
pub(crate) fn nobody_listens(error: &CallError) -> bool {
    matches!(error, CallError::Unreachable(error)
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused))
}

/// Why an agent gave no answer, in the operator's words.
pub(crate) fn unanswered(node: &str, error: CallError) -> LabError {
    let reason = if nobody_listens(&error) {
        "it does not run".into()
    } else {
        match error {
            CallError::Refused(error) => error.message,
            error => error.to_string(),
        }
    };
    LabError::Agent {
        node: node.to_owned(),
        reason,
    }
}
