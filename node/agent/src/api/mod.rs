//! The agent's socket: who answers which call.

mod answers;
mod differences;
mod lookup;
mod path;
mod state;
mod tables;

pub use lookup::{
    AskedPeer, FoundPeer, Held, MOST_CONNECTIONS, Question, RecentConnections, Standing, look_up,
};
pub use path::AskedPath;
pub use state::{Known, PolicyState, ReadPolicyState};

#[cfg(test)]
pub(crate) use differences::differences;
#[cfg(test)]
pub(crate) use tables::MOST_POLICY_ROWS;

use crate::agent::Agent;
use crate::endpoint;
use crate::metrics::CniCommand;
use heddle_rpc::cni::{AddParams, CheckParams, Collected, DelParams, GcParams, StatusParams};
use heddle_rpc::node::{
    DifferenceList, EndpointList, FlowStatus, IdentityList, IpamList, IpcacheList, ListConnections,
    ListPolicies, NodeList, OBSERVE, ReadMetrics, ReadStatus,
};
use heddle_rpc::server::{Reply, Service, unknown_method};
use heddle_rpc::{ApiError, Call, Done, Request, error_codes};
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Where flows come from.
pub trait FlowSource: Send + Sync {
    /// Begins to observe; lines arrive until the end of the past, or until the receiver is dropped.
    ///
    /// # Errors
    /// When the parameters make no sense or too many observe already.
    fn observe(&self, params: Value) -> Result<mpsc::Receiver<Value>, ApiError>;

    /// Numbers about the source for `status`.
    fn status(&self) -> FlowStatus;

    /// What an operator should know about the source right now.
    fn warning(&self) -> Option<String>;
}

/// Answers in the agent's name.
pub(crate) struct Api {
    pub(crate) agent: Arc<Agent>,
    pub(crate) flows: Option<Arc<dyn FlowSource>>,
}

impl Service for Api {
    async fn answer(&self, request: Request) -> Result<Reply, ApiError> {
        let agent = &self.agent;
        let flows = self.flows.as_deref();
        if let Some(command) = cni_command(&request.method) {
            return self.serve_plugin(command, request).await;
        }
        match request.method.as_str() {
            OBSERVE => observe(flows, request.params),
            ReadStatus::METHOD => Reply::one::<ReadStatus>(&answers::status(agent, flows).await),
            EndpointList::METHOD => Reply::one::<EndpointList>(&answers::endpoints(agent).await),
            IdentityList::METHOD => Reply::one::<IdentityList>(&answers::identities(agent).await?),
            NodeList::METHOD => Reply::one::<NodeList>(&answers::nodes(agent).await),
            IpamList::METHOD => Reply::one::<IpamList>(&answers::addresses(agent)),
            ReadMetrics::METHOD => Reply::one::<ReadMetrics>(&answers::metrics(agent).await?),
            ListPolicies::METHOD => {
                let asked = request.read()?;
                tables::policies(agent, asked).await
            }
            ListConnections::METHOD => {
                let asked = request.read()?;
                tables::connections(agent, asked).await
            }
            IpcacheList::METHOD => tables::ipcache(agent).await,
            Question::METHOD => {
                let question = request.read()?;
                Reply::one::<Question>(&lookup::lookup(agent, question).await?)
            }
            ReadPolicyState::METHOD => state::state(agent).await,
            AskedPath::METHOD => {
                let asked = request.read()?;
                Reply::one::<AskedPath>(&path::look(agent, asked).await?)
            }
            DifferenceList::METHOD => {
                Reply::one::<DifferenceList>(&differences::differences(agent).await?)
            }
            method => Err(unknown_method(method)),
        }
    }
}

fn observe(flows: Option<&dyn FlowSource>, params: Value) -> Result<Reply, ApiError> {
    let flows =
        flows.ok_or_else(|| ApiError::new("observe/off", "this agent does not collect flows"))?;
    let follow = params["follow"] == true;
    Ok(Reply::stream(flows.observe(params)?, follow))
}

fn cni_command(method: &str) -> Option<CniCommand> {
    Some(match method {
        AddParams::METHOD => CniCommand::Add,
        DelParams::METHOD => CniCommand::Del,
        CheckParams::METHOD => CniCommand::Check,
        GcParams::METHOD => CniCommand::Gc,
        StatusParams::METHOD => CniCommand::Status,
        _ => return None,
    })
}

impl Api {
    async fn serve_plugin(&self, command: CniCommand, request: Request) -> Result<Reply, ApiError> {
        let started = Instant::now();
        let outcome = self.answer_plugin(command, request).await;
        self.agent
            .metrics
            .cni_request(command, outcome.is_ok(), started.elapsed());
        outcome
    }

    async fn answer_plugin(
        &self,
        command: CniCommand,
        request: Request,
    ) -> Result<Reply, ApiError> {
        let agent = &self.agent;
        match command {
            CniCommand::Add => {
                Reply::one::<AddParams>(&endpoint::add(agent, request.read()?).await?)
            }
            CniCommand::Del => {
                endpoint::delete(agent, request.read()?).await?;
                Reply::one::<DelParams>(&Done {})
            }
            CniCommand::Check => {
                endpoint::check(agent, request.read()?).await?;
                Reply::one::<CheckParams>(&Done {})
            }
            CniCommand::Gc => {
                let removed = endpoint::collect_garbage(agent, request.read()?).await?;
                Reply::one::<GcParams>(&Collected { removed })
            }
            CniCommand::Status => {
                agent.health.must_be_ready()?;
                if !agent.health.is_store_reachable() {
                    return Err(ApiError::new(
                        error_codes::NOT_READY,
                        "the store cannot be reached: new pods cannot be attached, running ones are not affected",
                    )
                    .help("see that the store runs"));
                }
                Reply::one::<StatusParams>(&Done {})
            }
        }
    }
}
