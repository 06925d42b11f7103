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
    /// Keys that the command's end has no room for yet; until they are gone no more are read, so that a large paste waits
    /// for the command and its output does not.
    keys: Vec<u8>,
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
        // SAFETY: set flags of a descriptor that is this process' own.
        let kept = unsafe {
            libc::fcntl(own.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) == 0
                && libc::fcntl(own.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) == 0
        };
        if !kept {
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
            keys: Vec::new(),
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
        let stdin = std::io::stdin();
        self.relay_between(stdin.as_fd(), &mut std::io::stdout(), signals)
    }

    fn relay_between(
        &mut self,
        input: BorrowedFd<'_>,
        output: &mut dyn Write,
        signals: BorrowedFd<'_>,
    ) -> Result<(), LabError> {
        loop {
            let mut of_own = PollFlags::POLLIN;
            of_own.set(PollFlags::POLLOUT, !self.keys.is_empty());
            let mut waited = vec![
                PollFd::new(signals, PollFlags::POLLIN),
                PollFd::new(self.own.as_fd(), of_own),
            ];
            if self.input && self.keys.is_empty() {
                waited.push(PollFd::new(input, PollFlags::POLLIN));
            }
            match nix::poll::poll(&mut waited, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(LabError::system("wait for the terminal", error)),
            }
            let came: Vec<PollFlags> = waited
                .iter()
                .map(|one| one.revents().unwrap_or(PollFlags::empty()))
                .collect();
            drop(waited);
            if came.get(2).is_some_and(|came| !came.is_empty()) {
                self.take_keys(input);
            }
            if came[1].contains(PollFlags::POLLOUT) {
                self.pass_keys();
            }
            let has_output = came[1].intersects(!PollFlags::POLLOUT);
            if has_output && !self.pass_output(output) {
                // Nobody has the other end any more: the command ends, which a signal says.
                return Ok(());
            }
            if !came[0].is_empty() {
                return Ok(());
            }
        }
    }

    /// Passes on what the command wrote before it ended.
    pub fn drain(&mut self) {
        self.drain_to(&mut std::io::stdout());
    }

    fn drain_to(&mut self, output: &mut dyn Write) {
        loop {
            let mut waited = [PollFd::new(self.own.as_fd(), PollFlags::POLLIN)];
            let ready = nix::poll::poll(&mut waited, PollTimeout::ZERO).unwrap_or(0) > 0;
            if !ready || !self.pass_output(output) {
                return;
            }
        }
    }

    fn take_keys(&mut self, input: BorrowedFd<'_>) {
        let mut keys = [0; 4_096];
        // Not through std's buffer, which `poll` knows nothing of.
        match nix::unistd::read(input, &mut keys) {
            Ok(0) | Err(_) => {
                self.input = false;
                self.keys.push(END_OF_INPUT);
            }
            Ok(count) => self.keys.extend_from_slice(&keys[..count]),
        }
        self.pass_keys();
    }

    /// Passes on as many keys as the command's end has room for.
    fn pass_keys(&mut self) {
        match self.own.write(&self.keys) {
            Ok(count) => drop(self.keys.drain(..count)),
            Err(error) if is_for_later(&error) => {}
            // A command that is gone reads no keys.
            Err(_) => self.keys.clear(),
        }
    }

    /// False when there is no more output.
    fn pass_output(&mut self, output: &mut dyn Write) -> bool {
        let mut bytes = [0; 4_096];
        match self.own.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                // Whoever reads may have enough.
                let _ = output
                    .write_all(&bytes[..count])
                    .and_then(|()| output.flush());
                true
            }
            Err(error) if is_for_later(&error) => true,
            // EIO: the other end is closed.
            Err(_) => false,
        }
    }
}

/// Whether it may be tried again.
fn is_for_later(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// A paste larger than what a terminal holds, to a command that writes more than it holds before it reads on.
    #[test]
    fn a_large_paste_and_the_output_pass_each_other() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "stty raw -echo; echo ready; head -c 500000 /dev/zero; head -c 1000000 | wc -c",
        ]);
        let mut terminal = Terminal::of(&mut command).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        let (input, mut paste) = UnixStream::pair().unwrap();
        let (_quiet, signals) = UnixStream::pair().unwrap();
        let (mut shown, mut output) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = vec![0; 6];
            shown.read_exact(&mut text).unwrap();
            // Before, the terminal edits lines and holds a line of 4,095 bytes at most.
            assert_eq!(text, b"ready\n");
            let mut begun = paste.try_clone().unwrap();
            let pasting = std::thread::spawn(move || begun.write_all(&[b'x'; 1_000_000]));
            shown.read_to_end(&mut text).unwrap();
            pasting.join().unwrap().unwrap();
            paste.flush().unwrap();
            text
        });
        terminal
            .relay_between(input.as_fd(), &mut output, signals.as_fd())
            .unwrap();
        terminal.drain_to(&mut output);
        drop(output);
        let text = reader.join().unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text.iter().filter(|byte| **byte == 0).count(), 500_000);
        assert!(text.ends_with(b"1000000\n"), "{} bytes", text.len());
    }
}
