//! Resident memory of an agent with a hundred pods.

use crate::RunArguments;
use crate::compare::{Arm, Report, Rounds};
use crate::lab::{Lab, idle_pod};
use anyhow::{Context, Result};
use serde_json::json;

const NAME: &str = "memory/agent-rss-100-pods";
const PODS: usize = 100;
/// DESIGN budget at 250 pods, 10,000 identities and 1,000 services.
const BUDGET_MB: f64 = 60.0;

/// Measures, when asked for.
pub(crate) fn run(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    if arguments.baselines_only || !arguments.wants(NAME) {
        return Ok(());
    }
    let lab = Lab::up(arguments)?;
    let items: Vec<_> = (0..PODS)
        .map(|n| idle_pod(&format!("idle-{n}"), "node-1", "idle"))
        .collect();
    lab.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
    let (_, agent) = lab
        .agents()?
        .into_iter()
        .find(|(node, _)| node == "node-1")
        .context("the lab has no node-1")?;
    let arms = vec![
        Arm {
            name: "budget",
            measure: Box::new(|| Ok(vec![BUDGET_MB])),
        },
        Arm {
            name: "heddle-agent",
            measure: Box::new(|| Ok(vec![resident_megabytes(agent)?])),
        },
    ];
    let rounds = Rounds::run(arms, 1)?;
    if let Some(line) = rounds.compare(NAME, "MB", 0, ("budget", "heddle-agent")) {
        report.add(line)?;
    }
    Ok(())
}

fn resident_megabytes(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let kilobytes: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("{path} has no VmRSS"))?
        .parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
