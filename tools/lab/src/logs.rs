//! `heddle lab logs`: what a pod's process wrote.

use crate::LabError;
use crate::paths::Lab;
use crate::pod::output::{Unstamped, set_aside};
use crate::pod::sandbox::SandboxRecord;
use crate::time;
use heddle_model::closest;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// Between looks at a log that is followed.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What of a log is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// Go on until the pod is gone or nobody reads any more.
    pub follow: bool,
    /// Only the last lines, this many.
    pub tail: Option<usize>,
    /// Only lines that were written this long ago at most, in whole seconds.
    pub since: Option<Duration>,
}

/// Writes a container's log to `output`.
pub fn copy(
    lab: &Lab,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    Shown {
        follow,
        tail,
        since,
    }: Shown,
    output: &mut dyn Write,
) -> Result<(), LabError> {
    let path = find(lab, namespace, pod, container)?;
    let written = |error| LabError::system("write the log", error);
    let since = since.map_or(0, |since| time::now().saturating_sub(since.as_secs()));
    let output = &mut Unstamped::new(output, since);
    let mut skip = 0;
    if let Ok(mut old) = File::open(set_aside(&path)) {
        match tail {
            None => {
                std::io::copy(&mut old, output).map_err(written)?;
            }
            Some(lines) => {
                // Both are bounded in size, so both fit into memory.
                let mut all = Vec::new();
                old.read_to_end(&mut all)
                    .map_err(|error| LabError::file("read", &path, error))?;
                let now = std::fs::read(&path).unwrap_or_default();
                let own = now.len() - last_lines(&now, lines).len();
                if own == 0 {
                    let missing = lines.saturating_sub(count_lines(&now));
                    output
                        .write_all(last_lines(&all, missing))
                        .map_err(written)?;
                }
                skip = own;
            }
        }
    } else if let Some(lines) = tail {
        let now = std::fs::read(&path).unwrap_or_default();
        skip = now.len() - last_lines(&now, lines).len();
    }
    let mut file = match File::open(&path) {
        Ok(file) => file,
        // It has written nothing yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !follow => return Ok(()),
        Err(error) => return Err(LabError::file("read", &path, error)),
    };
    file.seek(SeekFrom::Start(skip as u64))
        .map_err(|error| LabError::file("read", &path, error))?;
    loop {
        std::io::copy(&mut file, output).map_err(written)?;
        output.flush().map_err(written)?;
        if !follow {
            return output.finish().map_err(written);
        }
        std::thread::sleep(CHECK_INTERVAL);
        let Ok(now) = std::fs::metadata(&path) else {
            return output.finish().map_err(written);
        };
        let same = file.metadata().is_ok_and(|held| held.ino() == now.ino());
        let position = file.stream_position().unwrap_or(0);
        if !same {
            // Set aside: the rest of the old one, then the new one from its beginning.
            let mut rest = Vec::new();
            file.read_to_end(&mut rest)
                .map_err(|error| LabError::file("read", &path, error))?;
            output.write_all(&rest).map_err(written)?;
            file = File::open(&path).map_err(|error| LabError::file("read", &path, error))?;
        } else if now.len() < position {
            file.seek(SeekFrom::Start(0))
                .map_err(|error| LabError::file("read", &path, error))?;
        }
    }
}

/// Lines of a text; a last one without its end counts.
fn count_lines(text: &[u8]) -> usize {
    let ends = text.iter().filter(|byte| **byte == b'\n').count();
    ends + usize::from(text.last().is_some_and(|byte| *byte != b'\n'))
}

/// The last lines of a text.
fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &text[text.len()..];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1);
    ends.nth(lines - 1).map_or(text, |at| &text[at..])
}

fn find(
    lab: &Lab,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
) -> Result<PathBuf, LabError> {
    let record = sandbox(lab, namespace, pod)?;
    let names: Vec<&str> = record
        .containers
        .iter()
        .map(|found| found.name.as_str())
        .collect();
    let container = choose(lab, &record, container)?;
    debug_assert!(names.contains(&container.as_str()));
    Ok(lab.container_log(namespace, pod, &container))
}

/// A pod's sandbox, or why there is none to enter.
pub fn sandbox(lab: &Lab, namespace: &str, pod: &str) -> Result<SandboxRecord, LabError> {
    crate::config::record(lab)?;
    let path = SandboxRecord::path(lab, namespace, pod);
    crate::files::read_json(&path)?.ok_or_else(|| {
        let others = running(lab, namespace);
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        LabError::NotFound {
            what: format!("a running pod/{namespace}/{pod}"),
            lab: lab.name().to_owned(),
            help: match closest(pod, &others) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("`heddle lab get pod {pod} -n {namespace} -o yaml` says why it does not run, if it exists"),
            },
        }
    })
}

/// Names of the pods of a namespace that have a sandbox.
fn running(lab: &Lab, namespace: &str) -> Vec<String> {
    let record = SandboxRecord::path(lab, namespace, "x");
    let folder = record.ancestors().nth(2).map(std::fs::read_dir);
    let Some(Ok(entries)) = folder else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| SandboxRecord::path(lab, namespace, name).exists())
        .collect()
}

/// The container that is meant: the one that is named, or the first.
pub fn choose(
    lab: &Lab,
    record: &SandboxRecord,
    container: Option<&str>,
) -> Result<String, LabError> {
    let names: Vec<&str> = record
        .containers
        .iter()
        .map(|found| found.name.as_str())
        .collect();
    let chosen = match container {
        Some(name) => names.iter().find(|known| **known == name),
        None => names.first(),
    };
    chosen
        .map(|name| (*name).to_owned())
        .ok_or_else(|| LabError::NotFound {
            what: format!(
                "container {:?} of pod/{}/{}",
                container.unwrap_or_default(),
                record.namespace,
                record.name
            ),
            lab: lab.name().to_owned(),
            help: format!("its containers are {}", names.join(", ")),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_ones() {
        let text = b"a\nb\nc\n";
        assert_eq!(last_lines(text, 0), b"");
        assert_eq!(last_lines(text, 1), b"c\n");
        assert_eq!(last_lines(text, 2), b"b\nc\n");
        assert_eq!(last_lines(text, 3), text);
        assert_eq!(last_lines(text, 9), text);
        assert_eq!(last_lines(b"a\nb", 1), b"b");
        assert_eq!(last_lines(b"", 1), b"");
        assert_eq!(count_lines(b"a\nb"), 2);
        assert_eq!(count_lines(text), 3);
    }
}
