//! Talking to a lab's daemon.

use crate::LabError;
use crate::daemon::processes::{Order, Standing};
use crate::paths::Lab;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long an order may take: a process may take 10 s to stop.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a started agent may take to be ready: with the order before it, less than a minute.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the daemon can be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
pub enum Request {
    /// How the processes stand.
    Status,
    /// An order for a process.
    Process {
        /// `store`, `operator` or a node's name.
        name: String,
        /// The order.
        order: Order,
    },
}

/// What the daemon answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// How the processes stand.
    Processes(BTreeMap<String, Standing>),
    /// The order is carried out.
    Done,
    /// It is not.
    Failed(String),
}

/// Asks a lab's daemon.
pub async fn ask(lab: &Lab, request: &Request) -> Result<Response, LabError> {
    let failed = |reason: String| LabError::Daemon {
        lab: lab.name().to_owned(),
        reason,
    };
    let exchange = async {
        let mut stream = UnixStream::connect(lab.daemon_socket()).await?;
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        stream.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(DEADLINE, exchange)
        .await
        .map_err(|_| failed(format!("no answer in {} s", DEADLINE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    serde_json::from_str(&answer).map_err(|error| failed(error.to_string()))
}

/// How the lab's processes stand.
pub async fn standings(lab: &Lab) -> Result<BTreeMap<String, Standing>, LabError> {
    match ask(lab, &Request::Status).await? {
        Response::Processes(standings) => Ok(standings),
        other => Err(LabError::Daemon {
            lab: lab.name().to_owned(),
            reason: format!("it answered {other:?}"),
        }),
    }
}

/// Gives an order for a node's agent, and waits until a started agent is ready.
pub async fn order_agent(lab: &Lab, node: &str, order: Order) -> Result<(), LabError> {
    crate::config::record(lab)?;
    if !crate::config::record(lab)?
        .nodes
        .iter()
        .any(|known| known == node)
    {
        return Err(LabError::NotFound {
            what: format!("node/{node}"),
            lab: lab.name().to_owned(),
            help: "`heddle lab get nodes` lists the nodes".into(),
        });
    }
    let request = Request::Process {
        name: node.to_owned(),
        order,
    };
    match ask(lab, &request).await? {
        Response::Failed(reason) => {
            return Err(LabError::Agent {
                node: node.to_owned(),
                reason,
            });
        }
        Response::Done | Response::Processes(_) => {}
    }
    if matches!(order, Order::Start | Order::Restart) {
        crate::wait::agents_ready(lab, &[node.to_owned()], READY_TIMEOUT).await?;
    }
    Ok(())
}
