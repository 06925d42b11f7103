//! Deletions that the agent has not heard of yet: one small file each, beside the agent's socket.
//!
//! A DEL must not fail because the agent is away, and must not be forgotten. The plugin writes the file,
//! the agent carries the deletion out and removes it.

use crate::cni::DelParams;
use crate::durable::{file_stem, make_private_directory, write_durably};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The queue of an agent with this socket.
pub fn directory(agent_socket: &Path) -> PathBuf {
    agent_socket
        .parent()
        .unwrap_or(Path::new("/"))
        .join("cni-pending")
}

/// Queues a deletion; the same one twice is one.
///
/// # Errors
/// The file system's: then nothing is queued and the runtime has to ask again.
pub fn record(directory: &Path, deletion: &DelParams) -> io::Result<()> {
    make_private_directory(directory)?;
    let name = format!(
        "{}.json",
        file_stem(&deletion.container_id, &deletion.interface)
    );
    let content = serde_json::to_vec(deletion)?;
    write_durably(&directory.join(name), &content)
}

/// The queued deletions with their files, in the order of their names. A file that cannot be read is
/// given as an error with its path and left where it is.
///
/// # Errors
/// When the directory cannot be listed; a missing one is an empty queue.
pub fn list(directory: &Path) -> io::Result<Vec<(PathBuf, Result<DelParams, String>)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths
        .into_iter()
        .map(|path| {
            let deletion = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|content| {
                    serde_json::from_slice(&content).map_err(|error| error.to_string())
                });
            (path, deletion)
        })
        .collect())
}
