//! Talking to a lab's daemon.

use crate::LabError;
use crate::calls::call;
use crate::daemon::processes::{Order, Standing};
use crate::paths::Lab;
use heddle_rpc::{Call, CallError, Done};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an order may take: a process may take 10 s to stop.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a started agent may take to be ready: with the order before it, less than a minute.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// `lab.processes`: how the processes stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadProcesses {}

impl Call for ReadProcesses {
    const METHOD: &'static str = "lab.processes";
    type Answer = BTreeMap<String, Standing>;
}

/// `lab.order`: an order for a process; it is answered when that is carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GiveOrder {
    /// `store`, `operator` or a node's name.
    pub name: String,
    /// The order.
    pub order: Order,
}

impl Call for GiveOrder {
    const METHOD: &'static str = "lab.order";
    type Answer = Done;
}

fn unreachable(lab: &Lab, error: &CallError) -> LabError {
    LabError::Daemon {
        lab: lab.name().to_owned(),
        reason: error.to_string(),
    }
}

/// How the lab's processes stand.
pub async fn standings(lab: &Lab) -> Result<BTreeMap<String, Standing>, LabError> {
    standings_within(lab, DEADLINE).await
}

/// The same for who waits no longer than this.
pub(crate) async fn standings_within(
    lab: &Lab,
    deadline: Duration,
) -> Result<BTreeMap<String, Standing>, LabError> {
    call(lab.daemon_socket(), ReadProcesses {}, deadline)
        .await
        .map_err(|error| unreachable(lab, &error))
}

/// Whether the lab's daemon runs. One that does not answer in time, or in words of another version, is an error: what it
/// runs must not be taken for what is left of an earlier lab.
pub(crate) async fn lives(lab: &Lab) -> Result<bool, LabError> {
    match call(lab.daemon_socket(), ReadProcesses {}, DEADLINE).await {
        Ok(_) => Ok(true),
        Err(CallError::Unreachable(_) | CallError::HungUp) => Ok(false),
        Err(error) => Err(unreachable(lab, &error)),
    }
}

/// Gives an order for a node's agent, and waits until a started agent is ready.
pub async fn order_agent(lab: &Lab, node: &str, order: Order) -> Result<(), LabError> {
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
    let given = GiveOrder {
        name: node.to_owned(),
        order,
    };
    match call(lab.daemon_socket(), given, DEADLINE).await {
        Ok(Done {}) => {}
        Err(CallError::Refused(error)) => {
            return Err(LabError::Agent {
                node: node.to_owned(),
                reason: error.message,
            });
        }
        Err(error) => return Err(unreachable(lab, &error)),
    }
    if matches!(order, Order::Start | Order::Restart) {
        crate::wait::agents_ready(lab, &[node.to_owned()], READY_TIMEOUT).await?;
    }
    Ok(())
}
