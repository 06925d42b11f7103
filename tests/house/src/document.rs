//! Commands in documents: the `sh` blocks, and what their fences say about them.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// What a fence says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fence {
    /// `sh`, `sh exit=N`: runs, and ends with this code.
    Runs(i32),
    /// `sh root`: changes the machine; its words are checked.
    Root,
}

/// A command in a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The document.
    pub file: PathBuf,
    /// Its line there.
    pub line: usize,
    /// The words.
    pub words: Vec<String>,
    /// What its fence says.
    pub fence: Fence,
}

/// Every command in the `sh` blocks of a document.
pub fn commands(file: &Path) -> Result<Vec<Command>> {
    let text = crate::read(file)?;
    let mut found = Vec::new();
    let mut block: Option<Option<Fence>> = None;
    for (number, line) in text.lines().enumerate() {
        let place = || format!("{}:{}", file.display(), number + 1);
        if let Some(info) = line.strip_prefix("```") {
            block = match block {
                Some(_) => None,
                None => Some(fence(info).with_context(place)?),
            };
            continue;
        }
        let Some(Some(fence)) = &block else { continue };
        let command = line.trim();
        if command.is_empty() || command.starts_with('#') {
            continue;
        }
        if command.contains(['|', '>', '<', ';', '&', '\\', '$', '"', '\'']) {
            bail!(
                "{}: {command}: only plain words are checked; use a console block",
                place()
            );
        }
        found.push(Command {
            file: file.to_owned(),
            line: number + 1,
            words: command.split_whitespace().map(str::to_owned).collect(),
            fence: fence.clone(),
        });
    }
    Ok(found)
}

/// What the words behind a fence mean; `None` for a block without commands.
fn fence(info: &str) -> Result<Option<Fence>> {
    let mut words = info.split_whitespace();
    if words.next() != Some("sh") {
        return Ok(None);
    }
    match words.next() {
        None => Ok(Some(Fence::Runs(0))),
        Some("root") => Ok(Some(Fence::Root)),
        Some(word) => match word.strip_prefix("exit=").map(str::parse) {
            Some(Ok(code)) => Ok(Some(Fence::Runs(code))),
            _ => bail!("the fence says {info:?}; `sh`, `sh root` and `sh exit=N` are known"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_are_read() {
        assert_eq!(fence("sh").unwrap(), Some(Fence::Runs(0)));
        assert_eq!(fence("sh exit=1").unwrap(), Some(Fence::Runs(1)));
        assert_eq!(fence("sh root").unwrap(), Some(Fence::Root));
        assert_eq!(fence("console").unwrap(), None);
        assert_eq!(fence("").unwrap(), None);
        assert!(fence("sh maybe").is_err());
    }
}
