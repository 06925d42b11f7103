//! The agent's socket: one JSON question per line, one JSON answer per line (a stream has many).

mod answers;
mod differences;
mod lookup;
mod path;
mod state;
mod tables;

pub use lookup::{AskedPeer, FoundPeer, Held, Question, RecentConnections, Standing, look_up};
pub use path::AskedPath;
pub use state::{Known, PolicyState};

#[cfg(test)]
pub(crate) use differences::differences;

use crate::agent::Agent;
use crate::metrics::CniCommand;
use heddle_cni::protocol::{ApiError, Request, error_codes};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};

/// Connections at once; one more waits.
const MAX_CONNECTIONS: usize = 512;
/// Bytes of a question at most.
const MAX_QUESTION: u64 = 1024 * 1024;
/// A reader that takes nothing for this long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted.
const RETRY: Duration = Duration::from_millis(200);

/// Where flows come from.
pub trait FlowSource: Send + Sync {
    /// Begins to observe; lines arrive until the end of the past, or until the receiver is dropped.
    ///
    /// # Errors
    /// When the parameters make no sense or too many observe already.
    fn observe(&self, params: Value) -> Result<mpsc::Receiver<Value>, ApiError>;

    /// Numbers about the source for `status`.
    fn status(&self) -> Value;

    /// What an operator should know about the source right now.
    fn warning(&self) -> Option<String>;
}

/// Binds the agent's socket, root-only; a leftover of a former run is replaced.
pub(crate) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    // Bound beside and renamed, so that nobody ever sees it with wider permissions, or half made.
    let fresh = path.with_extension("sock.new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Answers until `shutdown`.
pub(crate) async fn serve(
    agent: Arc<Agent>,
    flows: Option<Arc<dyn FlowSource>>,
    listener: UnixListener,
    mut shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: trying at once would burn a CPU.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let (agent, flows) = (Arc::clone(&agent), flows.clone());
        let mut shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                // A peer that hangs up is its own loss.
                _ = converse(&agent, flows, stream) => {}
            }
            drop(place);
        });
    }
}

async fn converse(
    agent: &Arc<Agent>,
    flows: Option<Arc<dyn FlowSource>>,
    stream: UnixStream,
) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let read = (&mut reading)
            .take(MAX_QUESTION)
            .read_until(b'\n', &mut line)
            .await?;
        if read == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && read as u64 == MAX_QUESTION {
            let error = ApiError::new("api/bad-request", "the question is longer than 1 MiB");
            return say(&mut writing, &json!({ "error": error })).await;
        }
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => {
                let error = ApiError::new("api/bad-request", format!("not a request: {error}"))
                    .help("one JSON object per line: {\"method\":\"status\",\"params\":{}}");
                say(&mut writing, &json!({ "error": error })).await?;
                continue;
            }
        };
        if request.method == "observe" {
            stream_flows(flows.as_deref(), request.params, &mut reading, &mut writing).await?;
            continue;
        }
        let answer = match answer(agent, flows.as_deref(), request).await {
            Ok(result) => json!({ "result": result }),
            Err(error) => json!({ "error": error }),
        };
        say(&mut writing, &answer).await?;
    }
}

async fn say(writing: &mut (impl AsyncWriteExt + Unpin), value: &Value) -> std::io::Result<()> {
    let mut line = value.to_string();
    line.push('\n');
    match tokio::time::timeout(WRITE_TIMEOUT, writing.write_all(line.as_bytes())).await {
        Ok(written) => written,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Streams flows until the past has been told, or until who follows hangs up or asks something else.
async fn stream_flows(
    flows: Option<&dyn FlowSource>,
    params: Value,
    reading: &mut (impl AsyncBufRead + Unpin),
    writing: &mut (impl AsyncWriteExt + Unpin),
) -> std::io::Result<()> {
    let follow = params["follow"] == true;
    let begun = match flows {
        Some(flows) => flows.observe(params),
        None => Err(ApiError::new(
            "observe/off",
            "this agent does not collect flows",
        )),
    };
    let mut lines = match begun {
        Ok(lines) => lines,
        Err(error) => return say(writing, &json!({ "error": error })).await,
    };
    // The past has an end by itself; a following may never have a line that would find the peer gone.
    let mut left = std::pin::pin!(async {
        if follow {
            heard(reading).await;
        } else {
            std::future::pending::<()>().await;
        }
    });
    loop {
        let line = tokio::select! {
            () = &mut left => break,
            line = lines.recv() => line,
        };
        let Some(line) = line else { break };
        say(writing, &json!({ "result": line })).await?;
    }
    say(writing, &json!({ "end": true })).await
}

/// Returns when the peer has hung up, or has begun another question, which stays to be read.
async fn heard(reading: &mut (impl AsyncBufRead + Unpin)) {
    loop {
        let blank = match reading.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => bytes
                .iter()
                .take_while(|it| it.is_ascii_whitespace())
                .count(),
        };
        if blank == 0 {
            return;
        }
        reading.consume(blank);
    }
}

fn read<T: DeserializeOwned>(params: Value) -> Result<T, ApiError> {
    serde_json::from_value(params)
        .map_err(|error| ApiError::new(error_codes::INVALID, format!("parameters: {error}")))
}

async fn answer(
    agent: &Arc<Agent>,
    flows: Option<&dyn FlowSource>,
    request: Request,
) -> Result<Value, ApiError> {
    let Request { method, params } = request;
    if let Some(command) = cni_command(&method) {
        let started = Instant::now();
        let outcome = answer_cni(agent, command, params).await;
        agent
            .metrics
            .cni_request(command, outcome.is_ok(), started.elapsed());
        return outcome;
    }
    match method.as_str() {
        "status" => answers::status(agent, flows).await,
        "endpoint.list" => answers::endpoints(agent).await,
        "endpoint.get" => answers::endpoint(agent, params).await,
        "identity.list" => answers::identities(agent).await,
        "identity.get" => answers::identity(agent, params).await,
        "node.list" => Ok(answers::nodes(agent).await),
        "ipam.list" => Ok(answers::addresses(agent)),
        "bpf.policy" => tables::policies(agent, params).await,
        "bpf.ct" => tables::connections(agent, params).await,
        "bpf.ipcache" => tables::ipcache(agent).await,
        "policy.lookup" => lookup::lookup(agent, params).await,
        "policy.state" => state::state(agent).await,
        "metrics" => answers::metrics(agent).await,
        "path.look" => path::look(agent, params).await,
        "diff" => differences::differences(agent).await,
        _ => Err(ApiError::new(
            "api/unknown-method",
            format!("there is no method {method:?}"),
        )
        .help("agent and caller may be of different versions")),
    }
}

fn cni_command(method: &str) -> Option<CniCommand> {
    Some(match method {
        "cni.add" => CniCommand::Add,
        "cni.del" => CniCommand::Del,
        "cni.check" => CniCommand::Check,
        "cni.gc" => CniCommand::Gc,
        "cni.status" => CniCommand::Status,
        _ => return None,
    })
}

async fn answer_cni(
    agent: &Arc<Agent>,
    command: CniCommand,
    params: Value,
) -> Result<Value, ApiError> {
    match command {
        CniCommand::Add => {
            let attachment = agent.add(read(params)?).await?;
            serde_json::to_value(attachment)
                .map_err(|error| ApiError::new("api/bad-answer", error.to_string()))
        }
        CniCommand::Del => agent.delete(read(params)?).await.map(|()| json!({})),
        CniCommand::Check => agent.check(read(params)?).await.map(|()| json!({})),
        CniCommand::Gc => {
            let removed = agent.collect_garbage(read(params)?).await?;
            Ok(json!({ "removed": removed }))
        }
        CniCommand::Status => {
            agent.must_be_ready()?;
            if !agent.store_reachable.load(Ordering::SeqCst) {
                return Err(ApiError::new(
                    error_codes::NOT_READY,
                    "the store cannot be reached: new pods cannot be attached, running ones are not affected",
                )
                .help("see that the store runs"));
            }
            Ok(json!({}))
        }
    }
}
