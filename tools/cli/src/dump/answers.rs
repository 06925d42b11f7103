//! The nodes' answers in a dump: those that were recorded, and those that follow from them.

use super::{Dump, DumpedNode, answer_file, flows_file, maps_file};
use crate::failure::{FINDINGS, Failure, NO_DATA, USAGE};
use heddle_agent::{PolicyState, Question, ReadPolicyState};
use heddle_flow::{ObserveRequest, Response, Timestamp};
use heddle_rpc::Call;
use heddle_rpc::node::{EndpointList, ListConnections, ListPolicies, OBSERVE, TrackedConnection};
use serde::Deserialize;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// What an agent says of an endpoint that is not on its node.
const UNKNOWN_ENDPOINT: &str = "endpoint/unknown";

/// The file that says why a node was not heard.
pub(crate) fn error_file(folder: &str) -> String {
    format!("{folder}/error.json")
}

/// A failure as files hold it; every key may be missing.
#[derive(Deserialize, Default)]
#[serde(default)]
struct RecordedError {
    code: Option<String>,
    message: Option<String>,
    object: Option<String>,
    field: Option<String>,
    help: Option<String>,
}

#[derive(Deserialize)]
struct Recorded {
    result: Option<Value>,
    error: Option<RecordedError>,
    exit: Option<u8>,
}

impl Recorded {
    fn outcome(self) -> Result<Value, Failure> {
        let Some(error) = self.error else {
            return Ok(self.result.unwrap_or_default());
        };
        let code = error.code.unwrap_or_else(|| "agent/failed".to_owned());
        let exit = match self.exit {
            Some(exit @ (FINDINGS | USAGE)) => exit,
            _ => NO_DATA,
        };
        Err(Failure::new(code, error.message.unwrap_or_default())
            .object(error.object.unwrap_or_default())
            .field(error.field.unwrap_or_default())
            .help(error.help.unwrap_or_default())
            .exit(exit)
            .in_one_line())
    }
}

/// Flows of a node.
pub(crate) struct Flows {
    /// Flows and what stands between them, oldest first.
    pub(crate) lines: Vec<Value>,
    /// That the dump may lack some that were asked for.
    pub(crate) note: Option<String>,
}

impl Dump {
    /// The nodes, in the order of the dump.
    pub(crate) fn nodes(&self) -> &[DumpedNode] {
        &self.manifest().nodes
    }

    fn folder(&self, node: usize) -> &str {
        self.nodes().get(node).map_or("", |it| it.folder.as_str())
    }

    /// What a node's agent was asked without parameters, and answered.
    fn recorded(&self, node: usize, method: &str) -> Result<Value, Failure> {
        let folder = self.folder(node);
        let (file, error) = (answer_file(folder, method), error_file(folder));
        let file = match (self.file(&file), self.file(&error)) {
            (None, Some(_)) => error,
            _ => file,
        };
        self.json::<Recorded>(&file)?.outcome()
    }

    /// A node's answer.
    pub(crate) fn answer(
        &self,
        node: usize,
        method: &str,
        params: &Value,
    ) -> Result<Value, Failure> {
        if method == Question::METHOD {
            return self.lookup(node, params);
        }
        let answer = self.recorded(node, method)?;
        let endpoint = &params["endpoint"];
        match method {
            ListPolicies::METHOD if !endpoint.is_null() => {
                self.endpoint(node, endpoint)?;
                Ok(kept(answer, |row| row["endpoint"] == *endpoint))
            }
            ListConnections::METHOD if !endpoint.is_null() => {
                let addresses = self.endpoint(node, endpoint)?;
                let is_its = |side: &Value| {
                    let side = side.as_str().and_then(|it| it.parse::<SocketAddr>().ok());
                    side.is_some_and(|side| addresses.contains(&side.ip()))
                };
                Ok(kept(answer, |row| {
                    is_its(&row["source"]) || is_its(&row["destination"])
                }))
            }
            _ => Ok(answer),
        }
    }

    /// The addresses of an endpoint, as its node's agent told them.
    fn endpoint(&self, node: usize, id: &Value) -> Result<Vec<IpAddr>, Failure> {
        let endpoints = self.recorded(node, EndpointList::METHOD)?;
        let mut rows = endpoints.as_array().into_iter().flatten();
        let Some(found) = rows.find(|row| row["id"] == *id) else {
            let name = self.nodes().get(node).and_then(|it| it.name.as_deref());
            return Err(Failure::new(
                UNKNOWN_ENDPOINT,
                format!("node {} has no endpoint {id}", name.unwrap_or("?")),
            )
            .object(id.to_string())
            .help("`heddle endpoint list` shows this node's endpoints; the pod may run on another node"));
        };
        let addresses = [&found["ipv4"], &found["ipv6"]];
        Ok(addresses
            .into_iter()
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect())
    }

    fn lookup(&self, node: usize, params: &Value) -> Result<Value, Failure> {
        let question = Question::deserialize(params)
            .map_err(|error| self.misfit(Question::METHOD, &error.to_string()))?;
        let state = self.recorded(node, ReadPolicyState::METHOD)?;
        let state = PolicyState::deserialize(state)
            .map_err(|error| self.misfit(ReadPolicyState::METHOD, &error.to_string()))?;
        // Without them the answer lacks connections, and is an answer.
        let connections = match self.recorded(node, ListConnections::METHOD) {
            Ok(mut answer) => rows_of(&mut answer).map_or_else(Vec::new, |rows| {
                TrackedConnection::each_that_fits(std::mem::take(rows))
            }),
            Err(_) => Vec::new(),
        };
        state
            .answer(&question, &connections)
            .map_err(|error| self.misfit(Question::METHOD, &error.to_string()))
    }

    /// What the pinned maps of a node said whose agent did not answer.
    pub(crate) fn maps(&self, node: &str) -> Result<PolicyState, Failure> {
        let known = self.nodes().iter();
        let folder = known
            .filter(|it| it.name.as_deref() == Some(node))
            .map(|it| maps_file(&it.folder))
            .next();
        self.json(&folder.unwrap_or_else(|| maps_file(node)))
    }

    /// The flows that a node's agent remembered, and what is to be said of those that the dump left out.
    pub(crate) fn flows(&self, node: usize, params: &Value) -> Result<Flows, Failure> {
        let wrong = |error: &dyn std::fmt::Display| self.misfit(OBSERVE, &error.to_string());
        let request = ObserveRequest::deserialize(params).map_err(|error| wrong(&error))?;
        if request.follow {
            return Err(Failure::new(
                "sysdump/no-future",
                format!(
                    "the dump {} ends with the time it was made: nothing follows",
                    self.path()
                ),
            )
            .field("--follow")
            .help("leave --follow out")
            .exit(USAGE));
        }
        let matcher = request.matcher().map_err(|error| wrong(&error))?;
        let file = flows_file(self.folder(node));
        let Some(text) = self.file(&file) else {
            // The reason stands where answers have it.
            self.recorded(node, OBSERVE)?;
            return Err(self.lacks(&file));
        };
        let lines = text.split(|byte| *byte == b'\n');
        let records = lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice::<Response>(line).map(Box::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.misfit(&file, &error.to_string()))?;
        let begin = records.first().map(|record| record.time);
        let chosen = request.past(records, &matcher);
        let found = chosen.iter().filter(|record| record.flow().is_some());
        let may_lack = reaches_before(begin, &request, found.count() as u64);
        let lines = chosen
            .iter()
            .map(|record| serde_json::to_value(record).map_err(|error| wrong(&error)))
            .collect::<Result<_, _>>()?;
        let note = may_lack
            .then(|| self.cut_flows(node, &file, begin))
            .flatten();
        Ok(Flows { lines, note })
    }

    /// What is to be said of flows that a limit cut, which begin at this time.
    fn cut_flows(&self, node: usize, file: &str, begin: Option<Timestamp>) -> Option<String> {
        let cut = self.manifest().cut.iter().find(|it| it.file == file)?;
        let node = self.nodes().get(node).map_or("?", DumpedNode::shown);
        let before = begin.map_or_else(
            || "no flow is in it".to_owned(),
            |begin| format!("what came before {begin} is not in it"),
        );
        Some(format!(
            "of the flows of {node} the dump {} has {} ({}): {before}",
            self.path(),
            cut.what,
            cut.limit
        ))
    }

    fn misfit(&self, what: &str, why: &str) -> Failure {
        Failure::new(
            "sysdump/malformed",
            format!(
                "{} in the dump {} cannot be understood: {why}",
                what,
                self.path()
            ),
        )
        .object(self.path())
        .help("read it with the version of heddle that made it (`heddle` in its manifest.json)")
        .exit(USAGE)
        .in_one_line()
    }
}

/// Whether an answer may lack flows from before the first that there is: it goes back that far, and has not found enough
/// later.
fn reaches_before(begin: Option<Timestamp>, request: &ObserveRequest, found: u64) -> bool {
    let is_earlier = |since| begin.is_none_or(|begin| since < begin);
    request.since.is_none_or(is_earlier)
        && (request.first || request.number.is_none_or(|number| found < number))
}

/// An answer with those of its rows alone.
fn kept(mut answer: Value, keep: impl Fn(&Value) -> bool) -> Value {
    if let Some(rows) = rows_of(&mut answer) {
        rows.retain(keep);
    }
    answer
}

/// The rows of an answer. Earlier agents' answers were their rows and nothing more.
fn rows_of(answer: &mut Value) -> Option<&mut Vec<Value>> {
    match answer {
        Value::Array(rows) => Some(rows),
        answer => answer.get_mut("rows")?.as_array_mut(),
    }
}
