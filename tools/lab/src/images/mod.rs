//! The built-in images: what `heddle/echo` and `heddle/idle` run.

pub mod echo;

/// The image `heddle/idle`: waits to be ended.
pub fn idle() -> Result<(), crate::LabError> {
    use nix::sys::signal::{SigSet, Signal};
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    let failed = |error| crate::LabError::system("wait for the end", error);
    ends.thread_block().map_err(failed)?;
    ends.wait().map_err(failed)?;
    Ok(())
}
