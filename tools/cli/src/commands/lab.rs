//! (written by its owner)

use crate::failure::Failure;
use clap::Subcommand;
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum Command {}

pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {}
}
