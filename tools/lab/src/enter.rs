//! Starting a process elsewhere: in namespaces, a cgroup and a folder that the caller is not in.

use crate::LabError;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a process is to start; nothing set means where the caller is.
#[derive(Debug, Default)]
pub struct Place {
    cgroup: Option<File>,
    namespaces: Vec<(File, CloneFlags)>,
    new_namespaces: Option<CloneFlags>,
    folder: Option<CString>,
    new_session: bool,
    terminal: bool,
}

impl Place {
    /// The caller's place.
    pub fn here() -> Self {
        Self::default()
    }

    /// In a cgroup, which must exist.
    pub fn in_cgroup(mut self, path: &Path) -> Result<Self, LabError> {
        let file = path.join("cgroup.procs");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .map_err(|error| LabError::file("join the cgroup", &file, error))?;
        self.cgroup = Some(file);
        Ok(self)
    }

    /// In a named network namespace.
    pub fn in_network(mut self, name: &str) -> Result<Self, LabError> {
        let file = crate::namespace::open(name)?;
        self.namespaces.push((file, CloneFlags::CLONE_NEWNET));
        Ok(self)
    }

    /// In the network, host name, cgroup and mount namespaces of a process.
    pub fn with_process(mut self, process: i32) -> Result<Self, LabError> {
        // The mount namespace comes last: paths of the others are the caller's.
        for (name, kind) in [
            ("net", CloneFlags::CLONE_NEWNET),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ] {
            let path = PathBuf::from(format!("/proc/{process}/ns/{name}"));
            let file = File::open(&path)
                .map_err(|error| LabError::file("open the namespace", &path, error))?;
            self.namespaces.push((file, kind));
        }
        Ok(self)
    }

    /// With new namespaces of its own.
    #[must_use]
    pub fn with_new(mut self, kinds: CloneFlags) -> Self {
        self.new_namespaces = Some(kinds);
        self
    }

    /// With a working folder, looked up in the new place.
    pub fn at_folder(mut self, path: &Path) -> Result<Self, LabError> {
        let folder = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| LabError::Usage(format!("{} is not a path", path.display())))?;
        self.folder = Some(folder);
        Ok(self)
    }

    /// In a session of its own: signals of the caller's terminal do not reach it.
    #[must_use]
    pub fn in_new_session(mut self) -> Self {
        self.new_session = true;
        self
    }

    /// In a session of its own, whose terminal is the command's stdin.
    #[must_use]
    pub fn with_terminal(mut self) -> Self {
        self.new_session = true;
        self.terminal = true;
        self
    }

    /// Lets `command` start in this place.
    pub fn apply(self, command: &mut Command) {
        let enter = move || -> std::io::Result<()> {
            if self.new_session {
                nix::unistd::setsid()?;
            }
            if self.terminal {
                // SAFETY: a system call on the command's own stdin, with a number and no pointer.
                let taken = unsafe { nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) };
                if taken != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            if let Some(cgroup) = &self.cgroup {
                // "0" is the writer itself.
                nix::unistd::write(cgroup, b"0")?;
            }
            for (namespace, kind) in &self.namespaces {
                nix::sched::setns(namespace, *kind)?;
            }
            if let Some(kinds) = self.new_namespaces {
                nix::sched::unshare(kinds)?;
            }
            if let Some(folder) = &self.folder {
                nix::unistd::chdir(folder.as_c_str())?;
            }
            // What the caller blocks or ignores is the caller's business.
            nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            for signal in [
                Signal::SIGPIPE,
                Signal::SIGINT,
                Signal::SIGQUIT,
                Signal::SIGHUP,
            ] {
                // SAFETY: the default action runs no code of this program.
                unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }?;
            }
            Ok(())
        };
        // SAFETY: `enter` runs between fork and exec. It makes system calls only (write, setns,
        // unshare, chdir, setsid, ioctl, sigprocmask, signal), with descriptors and strings made before the
        // fork; it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
    }
}

/// The search path of commands in pods and on nodes when the caller has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that runs this very program, also when its file has been replaced meanwhile.
pub fn own_executable() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("heddle");
    command
}
