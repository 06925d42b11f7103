//! Files of a lab: written whole or not at all.

use crate::LabError;
use serde::{Serialize, de::DeserializeOwned};
use std::io::Write;
use std::path::Path;

/// Makes a folder, and those above it, for root only.
pub fn make_folder(path: &Path) -> Result<(), LabError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    // Another lab's `down` removes a shared parent when it finds it empty, perhaps between our making it
    // and our making what goes into it.
    let mut made = builder.create(path);
    for _ in 0..PARENT_LOST {
        match &made {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                made = builder.create(path)
            }
            _ => break,
        }
    }
    made.map_err(|error| LabError::system(format!("make the folder {}", path.display()), error))
}

/// Times that a folder is tried again when its parent vanished.
const PARENT_LOST: u32 = 16;

/// Names of what is in a folder, sorted; none when there is no such folder.
pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Writes a file so that a reader sees the old content or the new one.
pub fn write(path: &Path, content: &[u8]) -> Result<(), LabError> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // The half-written file is of no use to anybody; the first error is what matters.
        let _ = std::fs::remove_file(&beside);
        LabError::file("write", path, error)
    })
}

/// Writes a value as JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), LabError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| LabError::file("write", path, error.into()))?;
    text.push(b'\n');
    write(path, &text)
}

/// Reads a JSON file; `None` when it does not exist.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LabError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LabError::file("read", path, error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| LabError::file("read", path, error.into()))
}

/// The last lines of a text file, for an error message; empty when it cannot be read.
pub fn last_lines(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let start = text.len().saturating_sub(16 * 1024);
    let tail = String::from_utf8_lossy(&text[start..]).into_owned();
    let all: Vec<&str> = tail.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
