//! Asking a node's agent, and the lab's own daemon: the calls of their sockets.

use crate::LabError;
use crate::paths::Lab;
use heddle_rpc::node::{NodeStatus, ReadStatus};
use heddle_rpc::{Call, CallError, Client};
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
    let asked = call(lab.agent_socket(node), ReadStatus {}, DEADLINE).await;
    asked.map_err(|error| LabError::Agent {
        node: node.to_owned(),
        reason: match error {
            CallError::Unreachable(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) =>
            {
                "it does not run".into()
            }
            CallError::Refused(error) => error.message,
            error => error.to_string(),
        },
    })
}
