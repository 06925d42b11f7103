//! `heddle lab down`: finds what belongs to a lab by its names, whatever is left of it, and removes it.

use crate::LabError;
use crate::cgroup::{self, OWN_SOURCE};
use crate::namespace;
use crate::paths::{BPFFS, LABS, Lab};
use nix::errno::Errno;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long killed processes may take to go.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long ended processes may take to leave the process table.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Removes everything of a lab; not existing is no error. Returns whether there was something.
pub fn down(lab: &Lab) -> Result<bool, LabError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot {
            what: "removing namespaces and cgroups".into(),
        });
    }
    let mut found = lab.exists();
    // Processes first: what follows is then used by nobody.
    for mount in cgroup::mounts()?
        .into_iter()
        .filter(|mount| mount.kind == "cgroup2")
    {
        let group = mount.point.join(lab.cgroup());
        if group.exists() {
            found = true;
            let processes = cgroup::processes(&group);
            cgroup::remove(&group, DEADLINE)?;
            wait_until_reaped(&processes);
        }
    }
    for name in namespace::names()
        .iter()
        .filter(|name| lab.owns_namespace(name))
    {
        found = true;
        namespace::remove(name);
    }
    let pins = lab.pins();
    if pins.exists() {
        found = true;
        remove_folder(&pins)?;
    }
    unmount_below(&lab.state())?;
    if lab.exists() {
        remove_folder(&lab.state())?;
    }
    sweep();
    Ok(found)
}

/// Orphans stay in the process table until init reaps them, which it does in its own time.
fn wait_until_reaped(processes: &[i32]) {
    let end = Instant::now() + REAP_TIMEOUT;
    while processes
        .iter()
        .any(|process| Path::new(&format!("/proc/{process}")).exists())
        && Instant::now() < end
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what labs share once nothing uses it any more.
fn sweep() {
    // Each is refused while something is in it, which is what is wanted.
    let _ = std::fs::remove_dir(Path::new(BPFFS).join("heddle"));
    let _ = std::fs::remove_dir(LABS);
    namespace::remove_folder();
    if Path::new(LABS).exists() {
        return;
    }
    for mount in cgroup::mounts().unwrap_or_default() {
        let empty =
            || std::fs::read_dir(&mount.point).is_ok_and(|mut entries| entries.next().is_none());
        let unused = match mount.kind.as_str() {
            "bpf" => empty(),
            "cgroup2" => true,
            _ => false,
        };
        if mount.source == OWN_SOURCE && unused {
            let _ = nix::mount::umount2(&mount.point, nix::mount::MntFlags::empty());
            if mount.kind == "cgroup2" {
                let _ = std::fs::remove_dir(&mount.point);
            }
        }
    }
    let _ = std::fs::remove_dir("/run/heddle");
}

/// Unmounts everything below a folder, in the caller's mount namespace.
pub(crate) fn unmount_below(folder: &Path) -> Result<(), LabError> {
    let mut points: Vec<_> = cgroup::mounts()?
        .into_iter()
        .map(|mount| mount.point)
        .filter(|point| point.starts_with(folder))
        .collect();
    points.sort();
    points.iter().rev().try_for_each(|point| unmount(point))
}

/// One that is gone is no error: whoever removes what it stands on, in any mount namespace, takes it away here, too.
fn unmount(point: &Path) -> Result<(), LabError> {
    match nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => Ok(()),
        Err(error) => Err(LabError::system(
            format!("unmount {}", point.display()),
            error,
        )),
    }
}

fn remove_folder(path: &Path) -> Result<(), LabError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LabError::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::unmount;
    use std::path::Path;

    #[test]
    fn a_mount_that_went_meanwhile_is_no_error() {
        assert!(unmount(Path::new("/run/netns/gone-meanwhile")).is_ok());
    }
}
