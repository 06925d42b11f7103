//! `heddle sysdump`: one archive of everything that tells how a lab or an agent is.

mod draft;
mod lab;
mod nodes;
mod refused;

pub(crate) use refused::refusal;

use super::live::RUNTIME;
use super::live::agents::{Agents, Target};
use crate::dump::{DumpedNode, FORMAT, FORMAT_VERSION, Limits, MAX_BYTES, Manifest};
use crate::failure::{Failure, NO_DATA, USAGE};
use crate::output::{say, tell};
use clap::{Args, ValueEnum};
use draft::Draft;
use heddle_lab::{paths::Lab, time};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `heddle sysdump`.
#[derive(Args)]
#[command(
    mut_arg("from", |from| from.hide(true)),
    after_help = "Examples:
  heddle sysdump
  heddle sysdump before.tar --lab second --timeout 20s

Commands that read answer from it with `--from before.tar`.

What may be secret is taken out: what containers run and their environment, annotations and settings that name a
secret, values of HTTP headers, and in logs, events and messages what looks like a password, a token or a key.

Exit code: 0 everything is in the dump, 3 something is missing or was cut by --max-size or --timeout; manifest.json
in the archive and standard error say what."
)]
pub struct Sysdump {
    /// The archive [default: heddle-sysdump-LAB-TIME.tar in this folder].
    file: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
    /// How long all answers may take.
    #[arg(long, default_value = "60s", value_parser = super::lab::timeout)]
    timeout: Duration,
    /// Size of the archive's files at most: 64KiB to 256MiB.
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = max_size)]
    max_size: u64,
    /// Flows of each node, the last ones.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    flows: u64,
    /// Size of each log, its end.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size)]
    log_size: u64,
    /// How to tell what was written: the file's name, or its manifest.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The file's name.
    Table,
    /// The manifest, as JSON.
    Json,
}

/// `500KiB`, `64MiB`, or bytes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let scale: u64 = match &text[digits..] {
        "" | "B" => 1,
        "k" | "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        unit => return Err(format!("{unit:?} is no unit: use KiB, MiB or GiB")),
    };
    let number: Option<u64> = text[..digits].parse().ok();
    number
        .and_then(|number| number.checked_mul(scale))
        .ok_or_else(|| "write it as 500KiB or 64MiB".to_owned())
}

fn max_size(text: &str) -> Result<u64, String> {
    size(text).and_then(|bytes| match bytes {
        0x1_0000..=MAX_BYTES => Ok(bytes),
        _ => Err(format!("it must be 64KiB to {}MiB", MAX_BYTES >> 20)),
    })
}

impl Sysdump {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output == Output::Json;
        self.make().map_err(|failure| failure.json(json))
    }

    fn make(&self) -> Result<ExitCode, Failure> {
        if self.target.from.is_some() {
            return Err(Failure::new(
                "sysdump/not-offline",
                "a dump is made of what runs, not of another dump",
            )
            .field("--from")
            .help("leave --from out; the dump is there already")
            .exit(USAGE));
        }
        let begun = Instant::now();
        let time = time::stamp();
        let until = begun + self.timeout;
        let agents = self.target.find(Path::new(RUNTIME))?;
        // Only a lab's agents have known names.
        let is_lab = match &agents {
            Agents::Lab(_) => true,
            Agents::One(agent) => agent.node.is_some(),
        };
        let lab = match is_lab {
            true => {
                let name = self.target.which.or_default();
                Some(Lab::named(name).map_err(super::lab::failure)?)
            }
            false => None,
        };
        let agents = agents.into_vec();
        let mut draft = Draft::new(self.max_size);
        let revision = match &lab {
            Some(lab) => lab::add(lab, until, &mut draft),
            None => {
                draft.lacks(
                    "objects",
                    "only a dump of a lab has objects: an agent does not tell them",
                );
                None
            }
        };
        let nodes = nodes::ask_all(&agents, self.flows, until, &mut draft).told;
        match &lab {
            Some(lab) => {
                lab::add_maps(lab, &nodes, &mut draft);
                lab::add_logs(lab, &nodes, self.log_size, &mut draft);
            }
            None => draft.lacks(
                "nodes/agent-0/agent.log",
                "an agent outside a lab writes to its service manager: `journalctl`, `kubectl logs`",
            ),
        }
        let path = self.path(lab.as_ref(), &time);
        let bytes = draft.bytes();
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            heddle: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            time,
            seconds: begun.elapsed().as_secs_f64(),
            lab: lab.map(|lab| lab.name().to_owned()),
            revision,
            complete: draft.is_complete(),
            nodes,
            missing: std::mem::take(&mut draft.missing),
            cut: std::mem::take(&mut draft.cut),
            stripped: std::mem::take(&mut draft.stripper).into_counts(),
            limits: Limits {
                timeout_seconds: self.timeout.as_secs_f64(),
                max_bytes: self.max_size,
                flows: self.flows,
                log_bytes: self.log_size,
            },
        };
        draft.write(&path, &manifest)?;
        tell_of(&manifest, bytes);
        let shown = path.display().to_string();
        match self.output {
            Output::Table => say(&shown)?,
            Output::Json => {
                let mut value = json!(manifest);
                value["file"] = json!(shown);
                say(&format!("{value:#}"))?;
            }
        }
        Ok(ExitCode::from(if manifest.complete { 0 } else { NO_DATA }))
    }

    fn path(&self, lab: Option<&Lab>, time: &str) -> PathBuf {
        self.file.clone().unwrap_or_else(|| {
            let of = lab.map_or("agent", Lab::name);
            let time: String = time.chars().filter(|c| !matches!(c, '-' | ':')).collect();
            format!("heddle-sysdump-{of}-{time}.tar").into()
        })
    }
}

/// Says what is in a dump, and what is not.
fn tell_of(manifest: &Manifest, bytes: u64) {
    for missing in &manifest.missing {
        tell(&format!(
            "warning: {} is missing: {}",
            missing.file, missing.reason
        ));
    }
    for cut in &manifest.cut {
        let word = if cut.asked_for { "note" } else { "warning" };
        tell(&format!(
            "{word}: {}: {} ({})",
            cut.file, cut.what, cut.limit
        ));
    }
    for stripped in &manifest.stripped {
        tell(&format!("stripped: {} {}", stripped.count, stripped.what));
    }
    let heard = manifest.nodes.iter().filter(|node| node.heard).count();
    tell(&format!(
        "{} dump: {heard} of {} nodes heard, {:.1} MiB in {:.1} s",
        if manifest.complete {
            "complete"
        } else {
            "partial"
        },
        manifest.nodes.len(),
        bytes as f64 / f64::from(1 << 20),
        manifest.seconds
    ));
    let unheard: Vec<&str> = manifest
        .nodes
        .iter()
        .filter(|node| !node.heard)
        .map(DumpedNode::shown)
        .collect();
    if !unheard.is_empty() {
        tell(&format!("not heard: {}", unheard.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, expected) in [
            ("7", Some(7)),
            ("500KiB", Some(500 << 10)),
            ("64M", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("MiB", None),
            ("1.5M", None),
            ("-1", None),
            ("99999999999999GiB", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        for (text, fits) in [
            ("64KiB", true),
            ("63KiB", false),
            ("256MiB", true),
            ("257MiB", false),
        ] {
            assert_eq!(max_size(text).is_ok(), fits, "{text}");
        }
    }
}
