//! `heddle version`: what this binary is, and where it runs.

use crate::failure::Failure;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// `heddle version`.
#[derive(Args)]
pub struct VersionArgs {
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line each.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Runs it.
pub fn run(args: &VersionArgs) -> Result<ExitCode, Failure> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        "kernel": kernel.trim(),
    });
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&version).map_err(|error| error.to_string()),
        Output::Yaml => serde_saphyr::to_string(&version).map_err(|error| error.to_string()),
        Output::Table => Ok(format!(
            "heddle {} ({}, Linux {})",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH,
            kernel.trim()
        )),
    };
    let text = text.map_err(|error| Failure::new("output/unwritable", error))?;
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // Whoever reads may stop early (`| head`).
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            "output/unwritable",
            format!("the answer cannot be written: {error}"),
        )),
        _ => Ok(ExitCode::SUCCESS),
    }
}
