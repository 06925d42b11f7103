//! One node of a lab or of a dump, for commands that ask its agent more than one thing.

use super::agents::{Agent, Agents, Target};
use super::client::{Answers, call};
use crate::commands::which::Which;
use crate::dump::Dump;
use crate::failure::Failure;
use heddle_flow::{ObserveRequest, Response};
use heddle_rpc::Call;
use heddle_rpc::node::OBSERVE;
use std::path::Path;
use std::sync::Arc;

/// A node's agent.
pub(in crate::commands) struct NodeAgent(Agent);

impl NodeAgent {
    /// The agent of a node of a lab.
    pub(in crate::commands) fn of(lab: &str, node: &str) -> Result<Self, Failure> {
        let target = Target {
            socket: None,
            node: Some(node.to_owned()),
            which: Which::of(lab),
            from: None,
        };
        Self::only(target.find(Path::new(super::RUNTIME))?, node)
    }

    /// What a dump has of a node's agent.
    pub(in crate::commands) fn in_dump(dump: &Arc<Dump>, node: &str) -> Result<Self, Failure> {
        let target = Target {
            node: Some(node.to_owned()),
            ..Target::default()
        };
        Self::only(target.in_dump(dump)?, node)
    }

    fn only(agents: Agents, node: &str) -> Result<Self, Failure> {
        match agents {
            Agents::One(agent) => Ok(Self(agent)),
            Agents::Lab(_) => Err(Failure::new(
                "node/unknown",
                format!("there is no node {node}"),
            )),
        }
    }

    /// Asks one question with one answer.
    pub(in crate::commands) fn call<C: Call>(&self, question: &C) -> Result<C::Answer, Failure> {
        call(&self.0, question)
    }

    /// Flows that it remembers, in the order of their times.
    pub(in crate::commands) fn flows(
        &self,
        request: &ObserveRequest,
    ) -> Result<Vec<Response>, Failure> {
        let params = serde_json::to_value(request).unwrap_or_default();
        let mut answers = Answers::begin(&self.0, OBSERVE, &params)?;
        let mut found = Vec::new();
        while let Some(line) = answers.next()? {
            // A line of a kind that this command does not know is none it could show.
            found.extend(serde_json::from_value(line));
        }
        Ok(found)
    }
}
