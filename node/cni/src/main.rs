//! The CNI plugin: reads what the runtime says, asks the agent, prints the answer.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::process::ExitCode;

/// Bytes of configuration read at most: a network configuration is a few kilobytes.
const INPUT_LIMIT: u64 = 4 * 1024 * 1024;

fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(INPUT_LIMIT)
        .read_to_end(&mut input);
    let outcome = match read {
        Ok(_) => heddle_cni::run(&|name| std::env::var(name).ok(), &input),
        Err(error) => heddle_cni::Outcome::failed(
            heddle_cni::CniError::new(
                heddle_cni::codes::IO,
                format!("the network configuration cannot be read from stdin: {error}"),
            ),
            None,
        ),
    };
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(outcome.output.as_bytes())
        .and_then(|()| stdout.flush());
    if outcome.ok && written.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
