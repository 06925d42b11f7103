//! Dumps that `heddle sysdump` makes: one archive of answers, read back as another source of the same answers.

mod answers;
mod control;
mod manifest;
mod open;
pub(crate) mod strip;
pub(crate) mod tar;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use answers::error_file;
pub(crate) use manifest::{
    Cut, DumpedNode, FORMAT, FORMAT_VERSION, Limits, Manifest, Missing, Stripped,
};
pub(crate) use open::Dump;

use heddle_agent::ReadPolicyState;
use heddle_rpc::Call;
use heddle_rpc::node::{
    DifferenceList, EndpointList, IdentityList, IpamList, IpcacheList, ListConnections,
    ListPolicies, NodeList, ReadMetrics, ReadStatus,
};
use serde_json::{Value, json};

/// Bytes of a dump at most, written or read.
pub(crate) const MAX_BYTES: u64 = 256 << 20;
/// Bytes of one file of a dump at most.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;
/// Files of a dump at most.
pub(crate) const MAX_FILES: usize = 20_000;
/// Values of all JSON files of a dump at most, where an object counts as 20 beside what is in it: what they take of memory
/// does not follow from their bytes.
pub(crate) const MAX_VALUES: u64 = 10_000_000;
/// Values that a dump in the making leaves to its manifest.
pub(crate) const MANIFEST_VALUES: u64 = 1_000_000;
/// What an object takes beside its values, in values: the first field of one makes room for eleven.
const OBJECT_VALUES: u64 = 20;

/// The manifest's file, the first of the archive.
pub(crate) const MANIFEST: &str = "manifest.json";
/// What the lab was made as.
pub(crate) const LAB_RECORD: &str = "lab/lab.json";
/// The lab's status, as `lab status -o json` prints it.
pub(crate) const LAB_STATUS: &str = "lab/status.json";
/// The lab's events.
pub(crate) const LAB_EVENTS: &str = "lab/events.json";

/// What each agent is asked without parameters, what matters most first; each answer is a file of the node.
pub(crate) const METHODS: [&str; 11] = [
    ReadStatus::METHOD,
    EndpointList::METHOD,
    IdentityList::METHOD,
    NodeList::METHOD,
    IpamList::METHOD,
    ReadPolicyState::METHOD,
    DifferenceList::METHOD,
    ListPolicies::METHOD,
    IpcacheList::METHOD,
    ReadMetrics::METHOD,
    ListConnections::METHOD,
];

/// The file of a kind's objects.
pub(crate) fn objects_file(kind: heddle_kube::store::Kind) -> String {
    format!("objects/{}.json", kind.plural())
}

/// The file of an answer of a node.
pub(crate) fn answer_file(folder: &str, method: &str) -> String {
    format!("{folder}/{method}.json")
}

/// The file of a node's flows, a line each as `observe -o jsonpb` prints it.
pub(crate) fn flows_file(folder: &str) -> String {
    format!("{folder}/flows.jsonl")
}

/// The file of what the pinned maps of a node without an agent say.
pub(crate) fn maps_file(folder: &str) -> String {
    format!("{folder}/maps.json")
}

/// Whether a file holds JSON: one value, or one in each line.
pub(crate) fn is_json(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".jsonl")
}

/// An upper bound of the values that a JSON text holds, by what they take of memory.
pub(crate) fn values_of(text: &[u8]) -> u64 {
    let starts = text.iter().map(|byte| match byte {
        b'{' => OBJECT_VALUES,
        b',' | b'[' | b'\n' => 1,
        _ => 0,
    });
    1 + starts.sum::<u64>()
}

/// A failure as files hold it.
pub(crate) fn recorded(failure: &crate::failure::Failure) -> Value {
    json!({ "error": failure, "exit": failure.exit })
}
