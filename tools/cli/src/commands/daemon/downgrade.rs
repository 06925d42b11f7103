//! `heddle agent --prepare-downgrade`: the way back to an older version of the datapath.

use super::{on_runtime, refusal};
use crate::failure::Failure;
use heddle_agent::config::AgentConfig;
use heddle_datapath::prepare_downgrade;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Prepares the node's datapath for an older version, and keeps it prepared until that has taken over.
pub fn run(config: &AgentConfig, version: u32, limit: Duration) -> Result<ExitCode, Failure> {
    let prepared =
        prepare_downgrade(&config.pin_dir, version).map_err(|error| refusal(config, error))?;
    tracing::info!(
        node = %config.node_name, version, seconds = limit.as_secs(),
        "prepared: start the agent of the older version now; this command ends when it has taken over"
    );
    let unfinished = |code: &str, what: String| {
        Failure::new(code, what)
            .object(config.node_name.clone())
            .help(format!(
                "nothing has changed for traffic; repeat the command and start version {version} meanwhile, or start this version, which takes the preparation back"
            ))
    };
    on_runtime("downgrade", |shutdown| async move {
        let end = Instant::now() + limit;
        let is_asked_to_stop = shutdown.clone();
        let following = tokio::task::spawn_blocking(move || {
            prepared.follow_until(|| *is_asked_to_stop.borrow() || Instant::now() >= end)
        });
        let has_taken_over = following
            .await
            .map_err(|error| Failure::new("daemon/failed", error.to_string()))?
            .map_err(|error| refusal(config, error))?;
        if has_taken_over {
            tracing::info!(node = %config.node_name, version, "the older version has taken over");
            return Ok(());
        }
        Err(if *shutdown.borrow() {
            unfinished(
                "downgrade/interrupted",
                format!("stopped before version {version} had taken over"),
            )
        } else {
            unfinished(
                "downgrade/time-limit",
                format!(
                    "version {version} has not taken over within {} s",
                    limit.as_secs()
                ),
            )
        })
    })
}
