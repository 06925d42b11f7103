//! Deletions that the agent has not heard of yet: one small file each, beside the agent's socket.
//!
//! A DEL must not fail because the agent is away, and must not be forgotten. The plugin writes the file,
//! the agent carries the deletion out and removes it.

use crate::protocol::DelParams;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest file name (Linux: 255), with room for endings.
const NAME_LIMIT: usize = 200;

/// The queue of an agent with this socket.
pub fn directory(agent_socket: &Path) -> PathBuf {
    agent_socket
        .parent()
        .unwrap_or(Path::new("/"))
        .join("cni-pending")
}

/// A file name for a container's interface; unlike for unlike attachments.
///
/// `@` cannot stand in a container id, so the first one parts the two.
pub fn file_stem(container_id: &str, interface: &str) -> String {
    let plain = format!("{container_id}@{interface}");
    if plain.len() <= NAME_LIMIT {
        return plain;
    }
    // FNV-1a: the name only has to be the same each time and differ in practice; the file's content
    // says what it is about.
    let hash = plain.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let head: String = container_id.chars().take(NAME_LIMIT - 40).collect();
    format!("{head}~{hash:016x}@{interface}")
}

/// Writes a file so that after a crash, the machine's included, it is there whole or not at all.
///
/// # Errors
/// The file system's; the former content is kept then.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, File::sync_all)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Writes a file so that whenever this process ends, it is there whole or not at all. A power failure may
/// lose it or leave it damaged: for what is worth no more then than the pods that ended with it.
///
/// # Errors
/// The file system's; the former content is kept then.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, |_| Ok(()))
}

fn put(path: &Path, content: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        sync(&file)?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes a directory that only root may enter.
///
/// # Errors
/// The file system's.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
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
