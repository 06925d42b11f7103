//! `heddle lab logs`: what a pod's process wrote.

use crate::LabError;
use crate::paths::Lab;
use crate::pod::output::set_aside;
use crate::pod::sandbox::SandboxRecord;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

/// Between looks at a log that is followed.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Writes a container's log to `output`; with `follow`, goes on until the pod is gone or `output` is
/// closed.
pub fn copy(
    lab: &Lab,
    namespace: &str,
    pod: &str,
    container: Option<&str>,
    follow: bool,
    output: &mut dyn Write,
) -> Result<(), LabError> {
    let path = find(lab, namespace, pod, container)?;
    let written = |error| LabError::system("write the log", error);
    if let Ok(mut old) = File::open(set_aside(&path)) {
        std::io::copy(&mut old, output).map_err(written)?;
    }
    let mut file = match File::open(&path) {
        Ok(file) => file,
        // It has written nothing yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !follow => return Ok(()),
        Err(error) => return Err(LabError::file("read", &path, error)),
    };
    loop {
        std::io::copy(&mut file, output).map_err(written)?;
        output.flush().map_err(written)?;
        if !follow {
            return Ok(());
        }
        std::thread::sleep(CHECK_INTERVAL);
        let Ok(now) = std::fs::metadata(&path) else {
            return Ok(());
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
    crate::files::read_json(&path)?.ok_or_else(|| LabError::NotFound {
        what: format!("a running pod/{namespace}/{pod}"),
        lab: lab.name().to_owned(),
        help: format!("`heddle lab get pod {pod} -n {namespace} -o yaml` says why it does not run, if it exists"),
    })
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
