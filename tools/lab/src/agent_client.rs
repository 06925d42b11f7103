//! Talking to a node's agent: newline-delimited JSON on its socket.

use crate::LabError;
use crate::paths::Lab;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long an agent may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks one question with one answer.
pub async fn ask(lab: &Lab, node: &str, method: &str, params: Value) -> Result<Value, LabError> {
    let failed = |reason: String| LabError::Agent {
        node: node.to_owned(),
        reason,
    };
    let exchange = async {
        let mut stream = UnixStream::connect(lab.agent_socket(node)).await?;
        let mut request = json!({"method": method, "params": params}).to_string();
        request.push('\n');
        stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    let line = tokio::time::timeout(DEADLINE, exchange)
        .await
        .map_err(|_| failed(format!("no answer in {} s", DEADLINE.as_secs())))?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                failed("it does not run".into())
            }
            _ => failed(error.to_string()),
        })?;
    let mut answer: Value = serde_json::from_str(&line)
        .map_err(|error| failed(format!("its answer is not understood: {error}")))?;
    match answer.get_mut("error") {
        Some(error) => Err(failed(
            error["message"].as_str().unwrap_or("it refused").to_owned(),
        )),
        None => Ok(answer["result"].take()),
    }
}

/// An agent's `status`.
pub async fn status(lab: &Lab, node: &str) -> Result<Value, LabError> {
    ask(lab, node, "status", json!({})).await
}
