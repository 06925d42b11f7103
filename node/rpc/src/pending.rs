//! Deletions that the agent has not heard of yet: one small file each, beside the agent's socket.
//!
//! A DEL must not fail because the agent is away, and must not be forgotten. The plugin writes the file,
//! the agent carries the deletion out and removes it.

use crate::cni::DelParams;
use crate::durable::{file_stem, make_private_directory, write_durably};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Age of a file that was never given its name: who writes one is done in moments, unless it was killed.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

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
    let content = serde_json::to_vec(deletion)?;
    write_durably(&file(directory, deletion), &content)
}

/// Takes a deletion from the queue without carrying it out; false when it is not there.
///
/// # Errors
/// The file system's: then it may still be queued.
pub fn withdraw(directory: &Path, deletion: &DelParams) -> io::Result<bool> {
    match fs::remove_file(file(directory, deletion)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn file(directory: &Path, deletion: &DelParams) -> PathBuf {
    let stem = file_stem(&deletion.container_id, &deletion.interface);
    directory.join(format!("{stem}.json"))
}

/// The queued deletions with their files, in the order of their names. A file that cannot be read is
/// given as an error with its path and left where it is. What a killed plugin left half written is removed.
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
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => paths.push(path),
            Some("tmp") if was_left_behind(&path) => {
                // It is tried again when the queue is read next.
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
    paths.sort();
    let mut queued = Vec::with_capacity(paths.len());
    for path in paths {
        let deletion = match fs::read(&path) {
            Ok(content) => serde_json::from_slice(&content).map_err(|error| error.to_string()),
            // It was withdrawn since the directory was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => Err(error.to_string()),
        };
        queued.push((path, deletion));
    }
    Ok(queued)
}

/// True when nobody writes the file any more.
fn was_left_behind(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|it| it.modified());
    // A time to come is a clock that was set, which says nothing.
    written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFT_BEHIND))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn deletion(container: &str) -> DelParams {
        DelParams {
            container_id: container.into(),
            interface: "eth0".into(),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_queued_is_listed_and_can_be_withdrawn_once() {
        let folder = tempfile::tempdir().unwrap();
        let queue = directory(&folder.path().join("agent.sock"));
        assert!(!withdraw(&queue, &deletion("c1")).unwrap());
        let long = "c".repeat(300);
        for container in ["c1", "c2", "c1", &long] {
            record(&queue, &deletion(container)).unwrap();
        }
        assert_eq!(list(&queue).unwrap().len(), 3);
        for container in ["c1", &long] {
            assert!(withdraw(&queue, &deletion(container)).unwrap());
            assert!(!withdraw(&queue, &deletion(container)).unwrap());
        }
        let (_, left) = list(&queue).unwrap().remove(0);
        assert_eq!(left.unwrap(), deletion("c2"));
    }

    #[test]
    fn a_queue_that_cannot_be_written_to_is_no_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let queue = directory(&folder.path().join("agent.sock"));
        fs::write(&queue, "").unwrap();
        withdraw(&queue, &deletion("c1")).unwrap_err();
        list(&queue).unwrap_err();
    }

    #[test]
    fn half_written_files_of_killed_plugins_are_removed_and_those_under_way_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let queue = directory(&folder.path().join("agent.sock"));
        record(&queue, &deletion("c1")).unwrap();
        for (name, seconds) in [("old.json.7.tmp", 61), ("new.json.8.tmp", 0)] {
            let file = fs::File::create(queue.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
                .unwrap();
        }
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        let file = fs::File::create(queue.join("clock.json.9.tmp")).unwrap();
        file.set_modified(tomorrow).unwrap();
        assert_eq!(list(&queue).unwrap().len(), 1);
        assert_eq!(
            names(&queue),
            ["c1@eth0.json", "clock.json.9.tmp", "new.json.8.tmp"]
        );
    }
}
