//! Finding the agents that a command is meant for.

use crate::failure::{Failure, NO_DATA, USAGE};
use clap::Args;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Which agents to ask. Without any of these: all nodes of the lab `default`, or this machine's agent.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Target {
    /// The agent's socket.
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// The lab's node whose agent to ask.
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// The lab [default: default].
    #[arg(long, value_name = "NAME", env = "HEDDLE_LAB")]
    pub(super) lab: Option<String>,
}

/// An agent and its socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Agent {
    /// Its node, where the command knows it.
    pub(super) node: Option<String>,
    /// Its socket.
    pub(super) socket: PathBuf,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Some(node) => write!(f, "the agent of node {node} ({})", self.socket.display()),
            None => write!(f, "the agent at {}", self.socket.display()),
        }
    }
}

/// One agent that was named, or all of a lab.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Agents {
    /// One that was named, or the machine's only one.
    One(Agent),
    /// Those of a whole lab, sorted by node.
    Lab(Vec<Agent>),
}

impl Agents {
    /// All of them.
    pub(super) fn into_vec(self) -> Vec<Agent> {
        match self {
            Self::One(agent) => vec![agent],
            Self::Lab(agents) => agents,
        }
    }
}

impl Target {
    /// The lab that was named; an empty HEDDLE_LAB names none.
    fn named_lab(&self) -> Option<&str> {
        self.lab.as_deref().filter(|name| !name.is_empty())
    }

    /// Finds the agents under the runtime directory.
    pub(super) fn find(&self, runtime: &Path) -> Result<Agents, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Agents::One(Agent {
                node: None,
                socket: socket.clone(),
            }));
        }
        let name = self.named_lab().unwrap_or("default");
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
        let known: Vec<String> = agents
            .iter()
            .filter_map(|agent| agent.node.clone())
            .collect();
        agents
            .into_iter()
            .find(|agent| agent.node.as_ref() == Some(node))
            .map(Agents::One)
            .ok_or_else(|| {
                Failure::new("node/unknown", format!("lab {name} has no node {node}"))
                    .object(node.as_str())
                    .field("--node")
                    .help(format!("its nodes are {}", known.join(", ")))
            })
    }

    fn without_lab(&self, runtime: &Path, name: &str, lab: &Path) -> Result<Agents, Failure> {
        let socket = runtime.join("agent.sock");
        if let Err(error) = std::fs::metadata(&socket)
            && error.kind() == ErrorKind::PermissionDenied
        {
            return Err(root_only(runtime));
        }
        if self.named_lab().is_none() && self.node.is_none() && socket.exists() {
            return Ok(Agents::One(Agent { node: None, socket }));
        }
        if self.named_lab().is_none() && self.node.is_none() {
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
                socket: entry.path().join("agent.sock"),
            })
        })
        .collect();
    agents.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(agents)
}
