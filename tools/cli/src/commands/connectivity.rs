//! `heddle connectivity`: probes between test pods in a lab.

use super::lab::show::{line, table};
use super::which::Which;
use crate::failure::{FINDINGS, Failure, NO_DATA};
use crate::output::tell;
use clap::{Args, Subcommand, ValueEnum};
use heddle_kube::store::embedded::Client;
use heddle_lab::LabError;
use heddle_lab::connectivity::{self, Options, report::Report};
use heddle_lab::paths::Lab;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// `heddle connectivity`.
#[derive(Subcommand)]
pub enum Command {
    /// Probe who reaches whom, with and without policies, and compare with what must be.
    #[command(after_help = "Examples:
  heddle connectivity test
  heddle connectivity test --lab second -o wide
  heddle connectivity test -o junit > connectivity.xml
  heddle connectivity test --keep

Exit code: 0 all as expected, 1 probes that differ, 3 it could not be run.")]
    Test(TestArgs),
}

/// `heddle connectivity test`.
#[derive(Args)]
pub struct TestArgs {
    #[command(flatten)]
    which: Which,
    /// How to show what was found; `wide` shows every probe.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// How long it may take.
    #[arg(long, default_value = "120s", value_parser = super::lab::timeout)]
    timeout: Duration,
    /// Leave the test's pods, and the policies of the first scenario that differed, to look at.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Counts, and the probes that differ.
    Table,
    /// Every probe.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// JUnit's XML.
    Junit,
}

/// Runs a command of the family.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    let Command::Test(args) = command;
    let lab = Lab::named(args.which.or_default()).map_err(super::lab::failure)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new("lab/runtime", format!("the runtime cannot start: {error}"))
        })?;
    let report = runtime.block_on(test(&lab, &args)).map_err(not_run)?;
    match args.output {
        Output::Json => line(
            &serde_json::to_string_pretty(&report)
                .map_err(|error| Failure::new("lab/output", error.to_string()))?,
        )?,
        Output::Yaml => line(
            serde_saphyr::to_string(&report)
                .map_err(|error| Failure::new("lab/output", error.to_string()))?
                .trim_end(),
        )?,
        Output::Junit => line(report.junit().trim_end())?,
        Output::Table | Output::Wide => show(&report, args.output == Output::Wide)?,
    }
    Ok(ExitCode::from(exit(&report)))
}

fn not_run(error: LabError) -> Failure {
    super::lab::failure(error).exit(NO_DATA)
}

fn exit(report: &Report) -> u8 {
    match (report.failed, report.not_run.is_empty()) {
        (0, true) => 0,
        (0, false) => NO_DATA,
        _ => FINDINGS,
    }
}

async fn test(lab: &Lab, args: &TestArgs) -> Result<Report, LabError> {
    let store = Client::new(lab.store_socket());
    let handler = |kind| signal(kind).map_err(|error| LabError::system("wait for signals", error));
    let (mut interrupt, mut terminate) = (
        handler(SignalKind::interrupt())?,
        handler(SignalKind::terminate())?,
    );
    let interrupted = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let options = Options {
        timeout: args.timeout,
        keep: args.keep,
    };
    let progress = |what: &str| tell(&format!("connectivity: {what}"));
    connectivity::run(lab, &store, options, interrupted, &progress).await
}

fn show(report: &Report, wide: bool) -> Result<(), Failure> {
    let rows = report.scenarios.iter().map(|scenario| {
        [
            scenario.name.clone(),
            if scenario.failed == 0 {
                "ok"
            } else {
                "DIFFERS"
            }
            .to_owned(),
            scenario.passed.to_string(),
            scenario.failed.to_string(),
            format!("{:.1}s", seconds(scenario.milliseconds)),
            scenario.about.clone(),
        ]
    });
    table(
        &["SCENARIO", "RESULT", "PASSED", "FAILED", "TIME", "WHAT"],
        rows.map(Vec::from),
    )?;
    if wide {
        line("")?;
        let rows = report.scenarios.iter().flat_map(|scenario| {
            scenario.probes.iter().map(|probe| {
                [
                    scenario.name.clone(),
                    probe.from.clone(),
                    probe.to.clone(),
                    probe.probe.clone(),
                    probe.family.to_string(),
                    probe.expected.to_string(),
                    probe.seen.to_string(),
                    format!("{}ms", probe.milliseconds),
                ]
            })
        });
        table(
            &[
                "SCENARIO", "FROM", "TO", "PROBE", "FAMILY", "EXPECTED", "SEEN", "TIME",
            ],
            rows.map(Vec::from),
        )?;
    }
    let mut said = std::collections::BTreeSet::new();
    for skipped in report
        .scenarios
        .iter()
        .flat_map(|scenario| &scenario.skipped)
    {
        if said.insert((&skipped.what, &skipped.reason)) {
            line(&format!("skipped: {}: {}", skipped.what, skipped.reason))?;
        }
    }
    for scenario in report
        .scenarios
        .iter()
        .filter(|scenario| scenario.failed > 0)
    {
        line(&format!(
            "\n{}: {} of {} probes differ",
            scenario.name,
            scenario.failed,
            scenario.probes.len()
        ))?;
        for probe in scenario.differing() {
            line(&format!(
                "  {} -> {} {} {}: {}\n    {}",
                probe.from,
                probe.to,
                probe.probe,
                probe.family,
                probe.verdict(),
                probe.why
            ))?;
        }
    }
    for missing in &report.not_run {
        line(&format!("\nnot run: {}: {}", missing.what, missing.reason))?;
    }
    line(&format!(
        "\n{} passed, {} failed, in {:.1}s",
        report.passed,
        report.failed,
        seconds(report.milliseconds)
    ))?;
    if report.kept {
        line(&format!(
            "namespace {0} is kept: `heddle lab delete namespace {0}` removes it",
            report.namespace
        ))?;
    } else if report.failed > 0 {
        line("the pods are gone again: with --keep they stay, and the commands above answer")?;
    }
    Ok(())
}

fn seconds(milliseconds: u64) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}
