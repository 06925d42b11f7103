//! What a dump says of itself: `manifest.json`, its first file.

use serde::{Deserialize, Serialize};

/// What `format` says.
pub(crate) const FORMAT: &str = "heddle-sysdump";
/// The version that is written, and the only one that is read.
pub(crate) const FORMAT_VERSION: u64 = 1;

/// What a dump says of itself. Readers ignore fields that they do not know.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    /// [`FORMAT`].
    pub(crate) format: String,
    /// [`FORMAT_VERSION`]; another one is laid out in another way.
    pub(crate) format_version: u64,
    /// Version of the command that made it.
    pub(crate) heddle: String,
    /// The kernel of the machine where it ran.
    pub(crate) kernel: String,
    /// When it was begun, RFC 3339.
    pub(crate) time: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The lab; null for an agent outside a lab.
    pub(crate) lab: Option<String>,
    /// The objects' revision; null without objects.
    pub(crate) revision: Option<u64>,
    /// Whether everything that was asked for is in it.
    pub(crate) complete: bool,
    /// The nodes, heard and not.
    pub(crate) nodes: Vec<DumpedNode>,
    /// What could not be had, with the reason.
    pub(crate) missing: Vec<Missing>,
    /// What limits left out or shortened.
    pub(crate) cut: Vec<Cut>,
    /// What was taken out because it may be secret.
    pub(crate) stripped: Vec<Stripped>,
    /// The limits that held.
    pub(crate) limits: Limits,
}

/// A node of a dump.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DumpedNode {
    /// Its name; null where the agent was named by its socket: answers do not name it then, either.
    pub(crate) name: Option<String>,
    /// The folder of its files.
    pub(crate) folder: String,
    /// Whether its agent answered.
    pub(crate) heard: bool,
    /// Why not.
    pub(crate) reason: Option<String>,
    /// The agent's version.
    pub(crate) version: Option<String>,
}

impl DumpedNode {
    /// Its name, or what stands for it.
    pub(crate) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.folder)
    }
}

/// Something that could not be had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Missing {
    /// The file it would be in.
    pub(crate) file: String,
    /// Why it is not.
    pub(crate) reason: String,
}

/// Something that a limit left out or shortened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cut {
    /// The file.
    pub(crate) file: String,
    /// The flag that sets the limit.
    pub(crate) limit: String,
    /// What was cut, in words.
    pub(crate) what: String,
    /// True for the end of flows and logs that was asked for; false for what makes the dump incomplete.
    pub(crate) asked_for: bool,
}

/// Something that was taken out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Stripped {
    /// What.
    pub(crate) what: String,
    /// How often.
    pub(crate) count: u64,
}

/// The limits of a dump.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Limits {
    /// Seconds that all answers may take.
    pub(crate) timeout_seconds: f64,
    /// Bytes of the archive.
    pub(crate) max_bytes: u64,
    /// Flows of each node, the last ones.
    pub(crate) flows: u64,
    /// Bytes of each log, the last ones.
    pub(crate) log_bytes: u64,
}
