//! Standard output and standard error, whose readers may go away at any moment.

use crate::failure::Failure;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};

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

/// A text that begins no line and no column of its own.
pub fn one_line(text: &str) -> String {
    text.replace(['\n', '\r', '\t'], " ")
}

/// Whether colours are welcome: on a terminal, unless NO_COLOR is set to anything (https://no-color.org).
pub fn is_colored(to: &impl IsTerminal) -> bool {
    permits_color(to.is_terminal(), std::env::var_os("NO_COLOR"))
}

fn permits_color(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_for_terminals_whose_user_does_not_forbid_them() {
        for (is_terminal, no_color, colored) in [
            (true, None, true),
            (true, Some(""), true),
            (true, Some("0"), false),
            (true, Some("1"), false),
            (false, None, false),
        ] {
            let found = permits_color(is_terminal, no_color.map(OsString::from));
            assert_eq!(found, colored, "{is_terminal} {no_color:?}");
        }
    }
}
