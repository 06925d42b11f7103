//! Named network namespaces, kept as `ip netns` keeps them: a bind mount in /run/netns.

use crate::LabError;
use crate::cgroup::{self, OWN_SOURCE};
use crate::files;
use crate::paths::{NAMESPACES, namespace_path};
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use std::fs::File;
use std::path::Path;

/// Settings of every namespace of a lab before it has links. Duplicate address detection would delay
/// each address by a second or more; nothing in a lab sends router advertisements.
const QUIET: [(&str, &str); 8] = [
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
];

/// Holds the folder of names against another lab's `up` or `down`. What is locked is the folder that it stands in: the
/// folder itself is another one after it was mounted, and may go.
fn lock_folder() -> Result<Flock<File>, LabError> {
    lock(Path::new(NAMESPACES).parent().unwrap_or(Path::new("/")))
}

fn lock(folder: &Path) -> Result<Flock<File>, LabError> {
    let shown = folder.display();
    let file = nix::fcntl::open(
        folder,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(|error| LabError::system(format!("open {shown}"), error))?;
    Flock::lock(File::from(file), FlockArg::LockExclusive)
        .map_err(|(_, error)| LabError::system(format!("lock {shown}"), error))
}

/// Makes the folder of names a mount that spreads to other mount namespaces, so that a namespace
/// removed here is not kept alive by a copy elsewhere.
fn prepare_folder() -> Result<(), LabError> {
    let folder = Path::new(NAMESPACES);
    std::fs::create_dir_all(folder)
        .map_err(|error| LabError::system(format!("make {NAMESPACES}"), error))?;
    // `ip netns add` locks the folder itself, as long as it mounts it.
    let _lock = lock(folder)?;
    if !cgroup::mounts()?.iter().any(|mount| mount.point == folder) {
        let empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        let mounted = if empty {
            // A tmpfs carries the lab's mark, which a bind mount of the folder on itself cannot.
            nix::mount::mount(
                Some(OWN_SOURCE),
                folder,
                Some("tmpfs"),
                MsFlags::empty(),
                Some("mode=755,size=1m"),
            )
        } else {
            // Somebody's namespaces are named here: they must stay visible.
            nix::mount::mount(
                Some(folder),
                folder,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )
        };
        mounted.map_err(|error| LabError::system(format!("mount {NAMESPACES}"), error))?;
    }
    nix::mount::mount(
        None::<&str>,
        folder,
        None::<&str>,
        MsFlags::MS_SHARED | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|error| LabError::system(format!("share {NAMESPACES}"), error))
}

/// Makes a network namespace with its loopback up. One of the same name must not exist.
pub fn create(name: &str) -> Result<(), LabError> {
    let lock = lock_folder()?;
    prepare_folder()?;
    let path = namespace_path(name);
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|error| LabError::system(format!("name the namespace {name}"), error))?;
    // With a name in it, nobody removes the folder.
    drop(lock);
    let made = in_new_thread(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|error| LabError::system("make a network namespace", error))?;
        nix::mount::mount(
            Some("/proc/thread-self/ns/net"),
            &path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .map_err(|error| LabError::system(format!("keep the namespace {name}"), error))?;
        for (key, value) in QUIET {
            set(key, value)?;
        }
        crate::network::in_this_namespace(async |handle| {
            crate::network::bring_up(&handle, "lo").await
        })
    });
    if made.is_err() {
        remove(name);
    }
    made
}

/// Removes a namespace's name; the namespace ends with its last process. Not existing is no error.
pub fn remove(name: &str) {
    let path = namespace_path(name);
    // Not mounted, or not there: what matters is that the name is gone afterwards.
    while nix::mount::umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
    let _ = std::fs::remove_file(&path);
}

/// Unmounts the folder of names if a lab mounted it and nothing is in it.
///
/// The folder itself stays, as it does after `ip netns`: in another mount namespace it may be mounted, and the kernel
/// takes a mount away everywhere when the folder that it stands on is removed in a namespace that does not see it.
pub fn remove_folder() {
    let folder = Path::new(NAMESPACES);
    let Ok(_lock) = lock_folder() else { return };
    let empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !empty {
        return;
    }
    let is_own = |mount: &cgroup::Mount| mount.point == folder && mount.source == OWN_SOURCE;
    if cgroup::mounts().is_ok_and(|mounts| mounts.iter().any(is_own)) {
        // Busy again: somebody else's lab has begun.
        let _ = nix::mount::umount2(folder, MntFlags::empty());
    }
}

/// Names of the namespaces that exist.
pub fn names() -> Vec<String> {
    files::names_in(Path::new(NAMESPACES))
}

/// Opens a namespace by name.
pub fn open(name: &str) -> Result<File, LabError> {
    let path = namespace_path(name);
    File::open(&path).map_err(|error| LabError::file("open the namespace", &path, error))
}

/// Runs `work` in a namespace, in a thread of its own: only that thread moves.
pub fn inside<T: Send>(
    name: &str,
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    let namespace = open(name)?;
    in_new_thread(move || {
        nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|error| LabError::system(format!("enter the namespace {name}"), error))?;
        work()
    })
}

fn in_new_thread<T: Send>(
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| {
            Err(LabError::system(
                "work in a namespace",
                std::io::Error::other("its thread ended early"),
            ))
        })
    })
}

/// Sets a `net` setting of the current thread's namespace. Keys of a family that the kernel lacks are
/// left out.
pub fn set(key: &str, value: &str) -> Result<(), LabError> {
    let path = Path::new("/proc/sys/net").join(key);
    match std::fs::write(&path, value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|error| LabError::file("set", &path, error)),
    }
}
