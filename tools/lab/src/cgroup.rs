//! Control groups: what runs for a lab is in its group, so that ending it is one write.

use crate::LabError;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the cgroup2 hierarchy is mounted when the machine has none mounted.
const OWN_MOUNT: &str = "/run/heddle/cgroup2";
/// Source of the mounts that a lab makes, by which `down` knows them again.
pub const OWN_SOURCE: &str = "heddle-lab";

/// One line of /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// File system type.
    pub kind: String,
    /// What was mounted.
    pub source: String,
}

/// The mounts that this process sees (proc_pid_mountinfo(5)).
pub fn mounts() -> Result<Vec<Mount>, LabError> {
    let path = Path::new("/proc/self/mountinfo");
    let text =
        std::fs::read_to_string(path).map_err(|error| LabError::file("read", path, error))?;
    Ok(parse_mounts(&text))
}

/// Refuses a root that no mount point is, before anything is made: a pod's mount namespace is cut off from this
/// one by changing the propagation of `/`, which the kernel answers with EINVAL there.
pub fn require_root_mount() -> Result<(), LabError> {
    if mounts()?.iter().any(|mount| mount.point == Path::new("/")) {
        Ok(())
    } else {
        Err(LabError::RootNotMounted)
    }
}

fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let point = before.split(' ').nth(4)?;
            let mut after = after.split(' ');
            Some(Mount {
                point: PathBuf::from(unescape(point)),
                kind: after.next()?.to_owned(),
                source: after.next()?.to_owned(),
            })
        })
        .collect()
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// The mount point of the cgroup2 hierarchy, if there is one.
pub fn mount_point() -> Result<Option<PathBuf>, LabError> {
    Ok(mounts()?
        .into_iter()
        .find(|mount| mount.kind == "cgroup2")
        .map(|mount| mount.point))
}

/// The mount point of the cgroup2 hierarchy; mounts it if it is not.
pub fn require_mount() -> Result<PathBuf, LabError> {
    if let Some(point) = mount_point()? {
        return Ok(point);
    }
    let point = PathBuf::from(OWN_MOUNT);
    crate::files::make_folder(&point)?;
    nix::mount::mount(
        Some(OWN_SOURCE),
        &point,
        Some("cgroup2"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|error| LabError::Host {
        what: "no cgroup2 hierarchy is mounted and mounting one failed".into(),
        reason: error.to_string(),
    })?;
    Ok(point)
}

/// Makes a group, and those above it.
pub fn create(path: &Path) -> Result<(), LabError> {
    std::fs::create_dir_all(path)
        .map_err(|error| LabError::system(format!("make the cgroup {}", path.display()), error))
}

/// The process ids in a group and the groups below it; empty when it does not exist.
pub fn processes(path: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for group in groups(path) {
        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    found
}

/// A group and all below it, the deepest first.
fn groups(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(groups(&entry.path()));
        }
    }
    if path.is_dir() {
        found.push(path.to_owned());
    }
    found
}

/// Kills every process in a group and below it. Returns at once; [`remove`] waits.
pub fn kill(path: &Path) {
    // Kernels before 5.14 have no cgroup.kill: then each process is killed, and `remove` comes back
    // for those that were born meanwhile.
    if std::fs::write(path.join("cgroup.kill"), "1").is_err() {
        for process in processes(path) {
            if process > 0 {
                // It may have ended since it was listed.
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(process),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }
}

/// Kills what is in a group and removes the group and those below it, within `deadline`.
pub fn remove(path: &Path, deadline: Duration) -> Result<(), LabError> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if !path.exists() {
            return Ok(());
        }
        kill(path);
        let mut last = None;
        for group in groups(path) {
            match std::fs::remove_dir(&group) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => last = Some(error),
            }
        }
        let Some(error) = last else { return Ok(()) };
        if Instant::now() >= end {
            return Err(LabError::System {
                doing: format!(
                    "remove the cgroup {} (processes left: {:?})",
                    path.display(),
                    processes(path)
                ),
                source: error,
            });
        }
        // Killed processes leave their group when they are reaped by the kernel, which nothing
        // announces for a whole tree; the pause grows so that a slow exit costs few rounds.
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The cgroup2 path of a process below the mount point, from /proc (`/heddle-x/node-1/...`).
pub fn of_process(process: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read() {
        let text = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
                    42 31 0:39 / /mnt/a\\040b rw - tmpfs heddle-lab rw\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts[0].kind, "cgroup2");
        assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[1].point, Path::new("/mnt/a b"));
        assert_eq!(mounts[1].source, OWN_SOURCE);
    }
}
