//! `heddle lab list`: the labs of this machine.

use super::{Output, show};
use crate::failure::Failure;
use crate::output::tell;
use clap::Args;
use heddle_kube::timestamp::seconds_of;
use heddle_lab::{list, time};
use serde_json::json;
use std::process::ExitCode;

/// `heddle lab list`.
#[derive(Args)]
pub struct ListArgs {
    /// How to show them.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Runs it.
pub(super) async fn run(args: &ListArgs) -> Result<ExitCode, Failure> {
    let labs = list::list().await;
    if matches!(args.output, Output::Json | Output::Yaml) {
        show::structured(&labs, args.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if labs.is_empty() {
        tell("there is no lab on this machine; `heddle lab up` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let word = |value: serde_json::Value| value.as_str().unwrap_or("?").to_owned();
    let rows = labs.iter().map(|lab| {
        let age = lab
            .since
            .as_deref()
            .and_then(seconds_of)
            .map_or_else(String::new, |at| time::age(time::now().saturating_sub(at)));
        let mut row = vec![
            lab.name.clone(),
            word(json!(lab.state)),
            lab.nodes.to_string(),
            lab.pods
                .map_or_else(|| "?".to_owned(), |pods| pods.to_string()),
            word(json!(lab.fabric)),
            age,
        ];
        if args.output == Output::Wide {
            row.push(lab.reason.clone());
        }
        row
    });
    let mut head = vec!["NAME", "STATE", "NODES", "PODS", "FABRIC", "SINCE"];
    if args.output == Output::Wide {
        head.push("REASON");
    }
    show::table(&head, rows)?;
    for lab in labs.iter().filter(|lab| !lab.reason.is_empty()) {
        tell(&format!("{}: {}", lab.name, lab.reason));
    }
    Ok(ExitCode::SUCCESS)
}
