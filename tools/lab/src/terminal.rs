//! A terminal for a command elsewhere: a pseudo-terminal, joined with the caller's own.

use crate::LabError;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;

/// The character that ends the input of a terminal (Ctrl-D).
const END_OF_INPUT: u8 = 4;

/// True when a file is a terminal.
pub fn is_terminal(file: &impl std::io::IsTerminal) -> bool {
    file.is_terminal()
}

fn refused(doing: &'static str) -> LabError {
    LabError::system(doing, std::io::Error::last_os_error())
}

/// The size of the caller's terminal; `None` where stdin is none.
fn size() -> Option<libc::winsize> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `winsize`, to which the pointer leads; the call keeps nothing.
    let done = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0).then_some(size)
}

/// The caller's terminal without line discipline, so that every key goes to the command; put back when dropped.
struct Raw {
    before: libc::termios,
}

impl Raw {
    fn start() -> Result<Self, LabError> {
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut before: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one `termios`, to which the pointer leads.
        if unsafe { libc::tcgetattr(0, &raw mut before) } != 0 {
            return Err(refused("read the terminal's settings"));
        }
        let mut raw = before;
        // SAFETY: changes fields of the structure only.
        unsafe { libc::cfmakeraw(&raw mut raw) };
        // SAFETY: the kernel reads one `termios`.
        if unsafe { libc::tcsetattr(0, libc::TCSANOW, &raw const raw) } != 0 {
            return Err(refused("change the terminal's settings"));
        }
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the kernel reads one `termios`. A terminal that is gone has no settings to put back.
        unsafe { libc::tcsetattr(0, libc::TCSANOW, &raw const self.before) };
    }
}

/// A pseudo-terminal whose other end a command has.
pub struct Terminal {
    own: File,
    raw: Option<Raw>,
    /// False once the caller's input has ended.
    input: bool,
}

impl Terminal {
    /// Makes a pseudo-terminal of the caller's size and gives its other end to `command`, which must become the leader of a
    /// session with this terminal ([`crate::enter::Place::with_terminal`]).
    ///
    /// # Errors
    ///
    /// When the kernel gives no pseudo-terminal.
    pub fn of(command: &mut Command) -> Result<Self, LabError> {
        let (mut own, mut theirs) = (-1, -1);
        let size = size();
        let size = size.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: both descriptors are written, no name is asked for, the settings are the kernel's, and the size is null
        // or leads to a `winsize` that lives until the end of the call.
        let made = unsafe {
            libc::openpty(
                &raw mut own,
                &raw mut theirs,
                std::ptr::null_mut(),
                std::ptr::null(),
                size,
            )
        };
        if made != 0 {
            return Err(refused("make a pseudo-terminal"));
        }
        // SAFETY: both descriptors are new and nobody else's.
        let (own, theirs) = unsafe { (OwnedFd::from_raw_fd(own), OwnedFd::from_raw_fd(theirs)) };
        // SAFETY: sets a flag of a descriptor that is this process' own.
        if unsafe { libc::fcntl(own.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
            return Err(refused("keep a pseudo-terminal"));
        }
        let copy = || {
            theirs
                .try_clone()
                .map_err(|error| LabError::system("share a pseudo-terminal", error))
        };
        command.stdin(copy()?).stdout(copy()?).stderr(theirs);
        Ok(Self {
            own: File::from(own),
            raw: None,
            input: true,
        })
    }

    /// Takes the caller's terminal, if there is one, once the command runs.
    ///
    /// # Errors
    ///
    /// When its settings cannot be changed.
    pub fn start(&mut self) -> Result<(), LabError> {
        if is_terminal(&std::io::stdin()) {
            self.raw = Some(Raw::start()?);
        }
        Ok(())
    }

    /// Gives the pseudo-terminal the size of the caller's.
    pub fn resize(&self) {
        if let Some(size) = size() {
            // SAFETY: the kernel reads one `winsize`. A command that is gone has no size to set.
            unsafe { libc::ioctl(self.own.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        }
    }

    /// Waits until `signals` can be read, and passes keys and output on meanwhile.
    ///
    /// # Errors
    ///
    /// When waiting fails.
    pub fn relay(&mut self, signals: BorrowedFd<'_>) -> Result<(), LabError> {
        loop {
            let stdin = std::io::stdin();
            let mut waited = vec![
                PollFd::new(signals, PollFlags::POLLIN),
                PollFd::new(self.own.as_fd(), PollFlags::POLLIN),
            ];
            if self.input {
                waited.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match nix::poll::poll(&mut waited, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(LabError::system("wait for the terminal", error)),
            }
            let ready: Vec<bool> = waited
                .iter()
                .map(|one| one.any().unwrap_or(false))
                .collect();
            drop(waited);
            if ready.get(2) == Some(&true) {
                self.pass_keys();
            }
            if ready[1] && !self.pass_output() {
                // Nobody has the other end any more: the command ends, which a signal says.
                return Ok(());
            }
            if ready[0] {
                return Ok(());
            }
        }
    }

    /// Passes on what the command wrote before it ended.
    pub fn drain(&mut self) {
        loop {
            let mut waited = [PollFd::new(self.own.as_fd(), PollFlags::POLLIN)];
            let ready = nix::poll::poll(&mut waited, PollTimeout::ZERO).unwrap_or(0) > 0;
            if !ready || !self.pass_output() {
                return;
            }
        }
    }

    fn pass_keys(&mut self) {
        let mut keys = [0; 4_096];
        // Not through std's buffer, which `poll` knows nothing of.
        let stdin = std::io::stdin();
        match nix::unistd::read(stdin.as_fd(), &mut keys) {
            Ok(0) | Err(_) => {
                self.input = false;
                let _ = self.own.write_all(&[END_OF_INPUT]);
            }
            // A command that is gone reads no keys.
            Ok(count) => {
                let _ = self.own.write_all(&keys[..count]);
            }
        }
    }

    /// False when there is no more output.
    fn pass_output(&mut self) -> bool {
        let mut output = [0; 4_096];
        match self.own.read(&mut output) {
            Ok(0) => false,
            Ok(count) => {
                let mut stdout = std::io::stdout().lock();
                // Whoever reads may have enough.
                let _ = stdout
                    .write_all(&output[..count])
                    .and_then(|()| stdout.flush());
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => true,
            // EIO: the other end is closed.
            Err(_) => false,
        }
    }
}
