//! Names and places of everything that belongs to a lab: what `down` finds it all by.

use crate::LabError;
use crate::files;
use std::path::{Path, PathBuf};

/// Where labs keep their state.
pub const LABS: &str = "/run/heddle/labs";
/// Where network namespaces are named, as `ip netns` does.
pub const NAMESPACES: &str = "/run/netns";
/// Where the BPF file system is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Words that mark what a namespace is; a lab's name may not have them as a part, so that no lab's
/// names look like another's.
const RESERVED_PARTS: [&str; 4] = ["pod", "node", "router", "world"];

/// A lab's name, and every name derived from it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// A lab of this name. At most 32 characters, because the name is part of cgroup, namespace and
    /// socket names (a unix socket's path has 108 bytes).
    pub fn named(name: &str) -> Result<Self, LabError> {
        let bad = |reason: &str| {
            Err(LabError::BadName {
                name: name.to_owned(),
                reason: reason.to_owned(),
            })
        };
        if name.is_empty() || name.len() > 32 {
            return bad("it must have 1 to 32 characters");
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            || !name.starts_with(|c: char| c.is_ascii_lowercase())
            || name.ends_with('-')
        {
            return bad("only a-z, 0-9 and - are possible, a letter first and no - at the end");
        }
        if let Some(part) = name.split('-').find(|part| RESERVED_PARTS.contains(part)) {
            return bad(&format!("{part:?} is a word that names a lab's namespaces"));
        }
        Ok(Self {
            name: name.to_owned(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its state.
    pub fn state(&self) -> PathBuf {
        Path::new(LABS).join(&self.name)
    }

    /// What the lab was made as ([`crate::config::LabRecord`]).
    pub fn record(&self) -> PathBuf {
        self.state().join("lab.json")
    }

    /// The events of its objects, a line for each time one happened.
    pub fn events(&self) -> PathBuf {
        self.state().join("events.jsonl")
    }

    /// Logs.
    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    /// The log of one of its processes: `store`, `operator`, `daemon`, `node-1`.
    pub fn log(&self, process: &str) -> PathBuf {
        self.logs().join(format!("{process}.log"))
    }

    /// The log of a pod's container.
    pub fn container_log(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.pod(namespace, pod).join(format!("{container}.log"))
    }

    /// The store's socket.
    pub fn store_socket(&self) -> PathBuf {
        self.state().join("store.sock")
    }

    /// The store's folder.
    pub fn store_dir(&self) -> PathBuf {
        self.state().join("store")
    }

    /// The daemon's socket.
    pub fn daemon_socket(&self) -> PathBuf {
        self.state().join("daemon.sock")
    }

    /// A node's state folder, which is its agent's.
    pub fn node(&self, node: &str) -> PathBuf {
        self.state().join("nodes").join(node)
    }

    /// A node's agent's socket.
    pub fn agent_socket(&self, node: &str) -> PathBuf {
        self.node(node).join("agent.sock")
    }

    /// A pod's folder: its sandbox's record, its files and logs.
    pub fn pod(&self, namespace: &str, pod: &str) -> PathBuf {
        self.state().join("pods").join(namespace).join(pod)
    }

    /// Where this lab's nodes pin.
    pub fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("heddle").join(&self.name)
    }

    /// Name of the cgroup of everything that runs for the lab.
    pub fn cgroup(&self) -> String {
        format!("heddle-{}", self.name)
    }

    /// Name of a node's, the router's or world's network namespace.
    pub fn host_namespace(&self, host: &str) -> String {
        format!("heddle-{}-{host}", self.name)
    }

    /// Name of a pod's network namespace. The namespace's name has no dot, so the two parts cannot be
    /// read in another way.
    pub fn pod_namespace(&self, namespace: &str, pod: &str) -> String {
        format!("heddle-{}-pod-{namespace}.{pod}", self.name)
    }

    /// True when a network namespace of this name is this lab's.
    pub fn owns_namespace(&self, name: &str) -> bool {
        let Some(rest) = name
            .strip_prefix("heddle-")
            .and_then(|rest| rest.strip_prefix(&self.name))
            .and_then(|rest| rest.strip_prefix('-'))
        else {
            return false;
        };
        matches!(rest, "router" | "world") || rest.starts_with("node-") || rest.starts_with("pod-")
    }

    /// True when there is state of such a lab.
    pub fn exists(&self) -> bool {
        self.state().exists()
    }
}

/// The path of a named network namespace.
pub fn namespace_path(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(name)
}

/// Names of the labs that have state on this machine.
pub fn existing_labs() -> Vec<String> {
    files::names_in(Path::new(LABS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_owns_its_namespaces_and_no_other_labs() {
        let short = Lab::named("a").unwrap();
        let long = Lab::named("a-b").unwrap();
        for host in ["node-1", "router", "world"] {
            assert!(short.owns_namespace(&short.host_namespace(host)));
            assert!(!short.owns_namespace(&long.host_namespace(host)));
            assert!(!long.owns_namespace(&short.host_namespace(host)));
        }
        assert!(short.owns_namespace(&short.pod_namespace("default", "web.0")));
        assert!(!long.owns_namespace(&short.pod_namespace("b", "web")));
        assert!(!short.owns_namespace(&long.pod_namespace("b", "web")));
        assert!(!short.owns_namespace("other"));
    }

    #[test]
    fn names_that_would_look_like_another_labs_are_refused() {
        for name in [
            "",
            "A",
            "1a",
            "a_b",
            "a-",
            "a-pod",
            "node-1",
            "my-router",
            "a/b",
            &"x".repeat(33),
        ] {
            assert!(Lab::named(name).is_err(), "{name:?}");
        }
        for name in ["default", "x", "restart-test-2", "nodes"] {
            assert!(Lab::named(name).is_ok(), "{name:?}");
        }
    }
}
