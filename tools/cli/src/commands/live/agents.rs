//! Finding the agents that a command is meant for.

use crate::commands::which::Which;
use crate::dump::Dump;
use crate::failure::{Failure, NO_DATA, USAGE};
use clap::Args;
use heddle_flow::Timestamp;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Which agents to ask. Without any of these: all nodes of the lab `default`, or this machine's agent.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::commands) struct Target {
    /// The agent's socket.
    #[arg(long, value_name = "PATH")]
    pub(in crate::commands) socket: Option<PathBuf>,
    /// The lab's node whose agent to ask.
    #[arg(long, value_name = "NAME")]
    pub(in crate::commands) node: Option<String>,
    #[command(flatten)]
    pub(in crate::commands) which: Which,
    /// Answers from a dump that `heddle sysdump` made, instead of from running agents; --lab does not count then.
    #[arg(
        long,
        visible_alias = "from-dump",
        value_name = "FILE",
        conflicts_with = "socket"
    )]
    pub(in crate::commands) from: Option<PathBuf>,
}

/// An agent, or what a dump has of one.
#[derive(Clone)]
pub(in crate::commands) struct Agent {
    /// Its node, where the command knows it.
    pub(in crate::commands) node: Option<String>,
    /// Where its answers come from.
    pub(super) source: Source,
}

impl Agent {
    /// Whether somebody listens to its questions.
    pub(in crate::commands) fn listens(&self) -> bool {
        match &self.source {
            Source::Socket(socket) => UnixStream::connect(socket).is_ok(),
            Source::Dump(..) => true,
        }
    }

    /// The agent with this socket.
    #[cfg(test)]
    pub(in crate::commands) fn at(node: &str, socket: &Path) -> Self {
        Self {
            node: Some(node.to_owned()),
            source: Source::Socket(socket.to_owned()),
        }
    }
}

/// Where an agent's answers come from.
#[derive(Clone)]
pub(super) enum Source {
    /// A running agent's socket.
    Socket(PathBuf),
    /// A node of a dump, by its place there.
    Dump(Arc<Dump>, usize),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => write!(f, "{}", socket.display()),
            Self::Dump(dump, _) => f.write_str(dump.path()),
        }
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "the agent of node {node} ({})", self.source),
            None => write!(f, "the agent at {}", self.source),
        }
    }
}

impl Agent {
    /// What it calls now: of a dump the time of that.
    pub(super) fn now(&self) -> Timestamp {
        if let Source::Dump(dump, _) = &self.source {
            return dump.time();
        }
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// One agent that was named, or all of a lab.
#[derive(Clone)]
pub(in crate::commands) enum Agents {
    /// One that was named, or the machine's only one.
    One(Agent),
    /// Those of a whole lab, sorted by node.
    Lab(Vec<Agent>),
}

impl Agents {
    /// All of them.
    pub(in crate::commands) fn into_vec(self) -> Vec<Agent> {
        match self {
            Self::One(agent) => vec![agent],
            Self::Lab(agents) => agents,
        }
    }
}

impl Target {
    /// Finds the agents under the runtime directory.
    pub(in crate::commands) fn find(&self, runtime: &Path) -> Result<Agents, Failure> {
        if let Some(path) = &self.from {
            return self.in_dump(&Dump::open(path)?);
        }
        if let Some(socket) = &self.socket {
            return Ok(Agents::One(Agent {
                node: None,
                source: Source::Socket(socket.clone()),
            }));
        }
        let name = self.which.or_default();
        for (what, given) in [("--lab", Some(name)), ("--node", self.node.as_deref())] {
            if let Some(given) = given
                && (given.is_empty() || given.starts_with('.') || given.contains('/'))
            {
                return Err(Failure::new(
                    "usage/bad-name",
                    format!("{what} {given:?} is not a name"),
                )
                .field(what)
                .exit(USAGE));
            }
        }
        let lab = runtime.join("labs").join(name);
        match std::fs::metadata(&lab) {
            Ok(about) if about.is_dir() => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(root_only(&runtime.join("labs")));
            }
            _ => return self.without_lab(runtime, name, &lab),
        }
        let agents = nodes_of(&lab)?;
        let Some(node) = &self.node else {
            if agents.is_empty() {
                return Err(
                    Failure::new("lab/no-nodes", format!("lab {name} has no nodes"))
                        .object(name)
                        .exit(NO_DATA)
                        .help(format!("`heddle lab status --lab {name}` says how it is")),
                );
            }
            return Ok(Agents::Lab(agents));
        };
        one_of(agents, node, &format!("lab {name}"))
    }

    /// The agents that a dump has answers of.
    pub(super) fn in_dump(&self, dump: &Arc<Dump>) -> Result<Agents, Failure> {
        let nodes = dump.nodes().iter().enumerate();
        let agents: Vec<Agent> = nodes
            .map(|(at, node)| Agent {
                node: node.name.clone(),
                source: Source::Dump(Arc::clone(dump), at),
            })
            .collect();
        let is_lab = dump.manifest().lab.is_some();
        match (&self.node, agents.as_slice()) {
            (Some(node), _) => one_of(agents, node, &format!("the dump {}", dump.path())),
            (None, [only]) if !is_lab => Ok(Agents::One(only.clone())),
            (None, []) => Err(Failure::new(
                "lab/no-nodes",
                format!("the dump {} has no nodes", dump.path()),
            )
            .object(dump.path())
            .help("its manifest.json says what is missing")
            .exit(NO_DATA)),
            (None, _) => Ok(Agents::Lab(agents)),
        }
    }

    fn without_lab(&self, runtime: &Path, name: &str, lab: &Path) -> Result<Agents, Failure> {
        let socket = runtime.join("agent.sock");
        if let Err(error) = std::fs::metadata(&socket)
            && error.kind() == ErrorKind::PermissionDenied
        {
            return Err(root_only(runtime));
        }
        let names_none = self.which.named().is_none() && self.node.is_none();
        if names_none && socket.exists() {
            return Ok(Agents::One(Agent {
                node: None,
                source: Source::Socket(socket),
            }));
        }
        if names_none {
            return Err(Failure::new(
                "agent/unreachable",
                format!(
                    "no agent found: there is no lab `{name}` ({}) and no agent of this machine ({})",
                    lab.display(),
                    socket.display()
                ),
            )
            .help("`heddle lab up` starts a lab; --lab NAME, --node NAME or --socket PATH name another agent")
            .exit(NO_DATA));
        }
        Err(Failure::new(
            "lab/unknown-lab",
            format!("there is no lab {name} ({})", lab.display()),
        )
        .object(name)
        .help(format!("`heddle lab up --lab {name}` starts it"))
        .exit(NO_DATA))
    }
}

/// The agent of one node.
fn one_of(agents: Vec<Agent>, node: &str, of: &str) -> Result<Agents, Failure> {
    let names = agents.iter().filter_map(|agent| agent.node.clone());
    let known: Vec<String> = names.collect();
    agents
        .into_iter()
        .find(|agent| agent.node.as_deref() == Some(node))
        .map(Agents::One)
        .ok_or_else(|| {
            Failure::new("node/unknown", format!("{of} has no node {node}"))
                .object(node)
                .field("--node")
                .help(format!("its nodes are {}", known.join(", ")))
        })
}

/// Labs and agents belong to root, and who asks is not root: that is not the same as there being none.
fn root_only(path: &Path) -> Failure {
    Failure::new(
        "lab/not-root",
        format!("{} is readable by root only", path.display()),
    )
    .object(path.display().to_string())
    .help("use sudo")
    .exit(NO_DATA)
}

/// The agents of a lab: each folder in `nodes` is a node, its agent may be down.
fn nodes_of(lab: &Path) -> Result<Vec<Agent>, Failure> {
    let folder = lab.join("nodes");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(root_only(&folder));
        }
        Err(error) => {
            return Err(Failure::new(
                "lab/unreadable",
                format!(
                    "the lab's nodes in {} cannot be listed: {error}",
                    folder.display()
                ),
            )
            .help("labs belong to root: try with sudo")
            .exit(NO_DATA));
        }
    };
    let mut agents: Vec<Agent> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| {
            Some(Agent {
                node: Some(entry.file_name().to_str()?.to_owned()),
                source: Source::Socket(entry.path().join("agent.sock")),
            })
        })
        .collect();
    agents.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(agents)
}
