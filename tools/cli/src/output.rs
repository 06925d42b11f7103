//! Standard output and standard error, whose readers may go away at any moment.

use crate::failure::Failure;
use std::io::{self, ErrorKind, Write};

/// Prints lines to standard output. A reader that has read enough is no failure.
pub fn say(text: &str) -> Result<(), Failure> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// What came of writing an answer: a reader that has read enough (`| head -1`) is no failure.
pub fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            "output/unwritable",
            format!("standard output cannot be written: {error}"),
        )
        .help("is the disk full?")),
        _ => Ok(()),
    }
}

/// Tells a line on standard error; when nobody reads that, nobody is left to tell.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
