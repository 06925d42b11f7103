//! What the agents of a dump answer, asked side by side and no longer than the time allows.

use super::draft::Draft;
use crate::commands::live::agents::Agent;
use crate::commands::live::client::{Answers, ask};
use crate::dump::{
    DumpedNode, METHODS, answer_file, error_file, flows_file, recorded, strip::Stripper,
};
use crate::failure::{Failure, NO_DATA};
use heddle_flow::ObserveRequest;
use heddle_rpc::Call;
use heddle_rpc::node::{OBSERVE, ReadMetrics, ReadStatus};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Agents that are asked at once.
const AT_ONCE: usize = 8;
/// What an agent is that cannot be asked.
const UNREACHABLE: &str = "agent/unreachable";

/// What a thread tells of a node, by its place.
enum Heard {
    Answer(usize, &'static str, Result<Value, Failure>),
    Flows(usize, Result<Vec<Value>, Failure>),
    /// Nothing more comes of it.
    End(usize),
}

/// The nodes of a dump as long as it is made.
pub(super) struct Nodes {
    /// As the manifest tells them.
    pub(super) told: Vec<DumpedNode>,
    /// What has come of each.
    answered: Vec<BTreeMap<&'static str, bool>>,
    /// What each remembers of flows: it is added last, so that it takes no answer's room.
    flows: Vec<(usize, Vec<Value>)>,
    ended: Vec<bool>,
}

/// Asks these agents, and adds what they answer.
pub(super) fn ask_all(agents: &[Agent], flows: u64, until: Instant, draft: &mut Draft) -> Nodes {
    let mut nodes = Nodes {
        told: agents
            .iter()
            .enumerate()
            .map(|(at, agent)| of_agent(agent, at))
            .collect(),
        answered: vec![BTreeMap::new(); agents.len()],
        flows: Vec::new(),
        ended: vec![false; agents.len()],
    };
    let (sender, heard) = sync_channel(2 * AT_ONCE);
    let queue: VecDeque<(usize, Agent)> = agents.iter().cloned().enumerate().collect();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..agents.len().min(AT_ONCE) {
        let (queue, sender) = (Arc::clone(&queue), sender.clone());
        // Ends with the queue, or with the process: an agent that does not answer must not hold up the others.
        std::thread::spawn(move || {
            loop {
                let next = queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let Some((at, agent)) = next else { return };
                if hear(at, &agent, flows, until, &sender).is_none() {
                    return;
                }
            }
        });
    }
    drop(sender);
    while nodes.ended.contains(&false) {
        let left = until.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(one) => nodes.take(one, draft),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    for (at, lines) in std::mem::take(&mut nodes.flows) {
        add_flows(&nodes.told[at].folder, lines, flows, draft);
    }
    nodes.finish(draft);
    nodes
}

/// A node as it is before anything was heard of it. Names that are no name of a file get a number.
fn of_agent(agent: &Agent, at: usize) -> DumpedNode {
    let is_plain = |name: &&str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        name.len() <= 63 && !name.starts_with('.') && name.chars().all(fits)
    };
    let name = agent.node.as_deref();
    let folder = name
        .filter(is_plain)
        .map_or_else(|| format!("agent-{at}"), str::to_owned);
    DumpedNode {
        name: name.map(str::to_owned),
        folder: format!("nodes/{folder}"),
        heard: false,
        reason: None,
        version: None,
    }
}

/// Asks one agent everything; `None` when nobody listens any more.
fn hear(
    at: usize,
    agent: &Agent,
    flows: u64,
    until: Instant,
    to: &SyncSender<Heard>,
) -> Option<()> {
    for method in METHODS {
        if Instant::now() >= until {
            return None;
        }
        let answer = ask(agent, method, &json!({}));
        // One that is only slow may answer the rest.
        let is_gone = answer
            .as_ref()
            .is_err_and(|failure| failure.code == UNREACHABLE)
            && (method == ReadStatus::METHOD || !agent.listens());
        to.send(Heard::Answer(at, method, answer)).ok()?;
        if is_gone {
            return to.send(Heard::End(at)).ok();
        }
    }
    to.send(Heard::Flows(at, remembered(agent, flows))).ok()?;
    to.send(Heard::End(at)).ok()
}

/// The last flows that an agent remembers.
fn remembered(agent: &Agent, flows: u64) -> Result<Vec<Value>, Failure> {
    let request = ObserveRequest {
        number: Some(flows),
        ..ObserveRequest::default()
    };
    let params = serde_json::to_value(request).unwrap_or_default();
    let mut answers = Answers::begin(agent, OBSERVE, &params)?;
    let mut lines = Vec::new();
    while let Some(line) = answers.next()? {
        lines.push(line);
    }
    Ok(lines)
}

impl Nodes {
    fn take(&mut self, heard: Heard, draft: &mut Draft) {
        match heard {
            Heard::Answer(at, method, answer) => self.answer(at, method, answer, draft),
            Heard::Flows(at, answer) => {
                self.answered[at].insert(OBSERVE, answer.is_ok());
                match answer {
                    Ok(lines) => self.flows.push((at, lines)),
                    Err(failure) => lacks(&self.told[at].folder, OBSERVE, &failure, draft),
                }
            }
            Heard::End(at) => self.ended[at] = true,
        }
    }

    fn answer(
        &mut self,
        at: usize,
        method: &'static str,
        answer: Result<Value, Failure>,
        draft: &mut Draft,
    ) {
        let node = &mut self.told[at];
        self.answered[at].insert(method, answer.is_ok());
        if method == ReadStatus::METHOD {
            match &answer {
                Ok(status) => {
                    node.heard = true;
                    node.version = status["version"].as_str().map(str::to_owned);
                }
                Err(failure) => {
                    node.reason = Some(failure.message.clone());
                    draft.add_json(error_file(&node.folder), &recorded(failure));
                    return;
                }
            }
        }
        match answer {
            Ok(answer) if method == ReadMetrics::METHOD => {
                let text = answer["text"].as_str().unwrap_or_default();
                draft.add(format!("{}/metrics.txt", node.folder), text.into());
            }
            Ok(answer) => {
                let file = answer_file(&node.folder, method);
                let left_out = answer.get("leftOut").and_then(Value::as_u64);
                if let Some(rows) = left_out.filter(|rows| *rows > 0) {
                    draft.lacks_rows(&file, rows);
                }
                draft.add_json(file, &json!({ "result": answer }));
            }
            // That the whole agent was not heard is said once.
            Err(_) if !node.heard => {}
            Err(failure) => lacks(&node.folder, method, &failure, draft),
        }
    }

    /// Says what has not come of nodes that were heard, and of those that were not.
    fn finish(&mut self, draft: &mut Draft) {
        for (at, node) in self.told.iter_mut().enumerate() {
            let late = Failure::new(
                "sysdump/time-limit",
                "the time that the dump may take was over before it was answered (--timeout)",
            )
            .help("make another dump with a longer --timeout")
            .exit(NO_DATA);
            if !node.heard {
                if node.reason.is_none() {
                    node.reason = Some(late.message.clone());
                    draft.add_json(error_file(&node.folder), &recorded(&late));
                }
                let reason = node.reason.clone().unwrap_or_default();
                draft.lacks(&node.folder, reason);
                continue;
            }
            // It was asked no more, or not in time.
            let gone = Failure::new(UNREACHABLE, "the agent was gone before it was asked")
                .help("make another dump when it runs")
                .exit(NO_DATA);
            let why = if self.ended[at] { &gone } else { &late };
            for method in METHODS.into_iter().chain([OBSERVE]) {
                if !self.answered[at].contains_key(method) {
                    lacks(&node.folder, method, why, draft);
                }
            }
        }
    }
}

/// An answer that was not given: in the place of the answer the reason.
fn lacks(folder: &str, method: &str, failure: &Failure, draft: &mut Draft) {
    let file = answer_file(folder, method);
    draft.lacks(&file, &failure.message);
    draft.add_json(file, &recorded(failure));
}

fn add_flows(folder: &str, lines: Vec<Value>, most: u64, draft: &mut Draft) {
    let mut stripper = Stripper::default();
    let mut text = String::new();
    let mut flows = 0;
    for mut line in lines {
        flows += u64::from(line.get("flow").is_some());
        stripper.flow(&mut line);
        text.push_str(&line.to_string());
        text.push('\n');
    }
    let file = flows_file(folder);
    if flows >= most {
        draft.only_the_end(&file, "--flows", format!("only the last {most} flows"));
    }
    draft.stripper.add(stripper);
    draft.add(file, text.into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    /// An agent that answers each question as `answer` says; nothing: it hangs up, as one that takes too long does.
    fn agent(socket: &Path, answer: fn(&str) -> Option<Value>) -> Agent {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                let mut reading = BufReader::new(&stream);
                while reading.read_line(&mut line).is_ok_and(|read| read > 0) {
                    let question: Value = serde_json::from_str(&line).unwrap();
                    let method = question["method"].as_str().unwrap();
                    let Some(result) = answer(method) else { break };
                    let told = match method {
                        OBSERVE => json!({ "end": true }),
                        _ => json!({ "result": result }),
                    };
                    (&stream).write_all(format!("{told}\n").as_bytes()).unwrap();
                    line.clear();
                }
            }
        });
        Agent::at("n1", socket)
    }

    fn dump_of(answer: fn(&str) -> Option<Value>) -> (Nodes, Draft) {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder.path().join("agent.sock"), answer);
        let mut draft = Draft::new(1 << 20);
        let until = Instant::now() + Duration::from_secs(30);
        let nodes = ask_all(&[agent], 1, until, &mut draft);
        (nodes, draft)
    }

    #[test]
    fn an_agent_that_is_slow_once_is_asked_the_rest() {
        let (nodes, draft) =
            dump_of(|method| (method != "policy.state").then(|| json!({"version": "1"})));
        assert!(nodes.told[0].heard);
        let lacking: Vec<&str> = draft.missing.iter().map(|it| it.file.as_str()).collect();
        assert_eq!(lacking, ["nodes/n1/policy.state.json"]);
        assert!(draft.cut.is_empty());
    }

    #[test]
    fn rows_that_an_answer_left_out_make_the_dump_incomplete() {
        let (_, draft) = dump_of(|method| {
            let left_out = if method == "bpf.ipcache" { 12 } else { 0 };
            Some(json!({"version": "1", "rows": [], "leftOut": left_out}))
        });
        assert!(draft.missing.is_empty() && !draft.is_complete());
        let cut: Vec<&str> = draft.cut.iter().map(|it| it.file.as_str()).collect();
        assert_eq!(cut, ["nodes/n1/bpf.ipcache.json"]);
        assert_eq!(draft.cut[0].what, "12 rows left out");
    }
}
