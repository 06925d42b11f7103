//! `heddle lab events`: what happened to pods, nodes and policies.

use super::{Output, ReadFrom, show};
use crate::failure::{Failure, USAGE};
use crate::output::tell;
use clap::Args;
use heddle_kube::timestamp::seconds_of;
use heddle_lab::paths::Lab;
use heddle_lab::{events, time};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Between looks with --watch.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// `heddle lab events`.
#[derive(Args)]
#[command(after_help = "Examples:
  heddle lab events -n shop
  heddle lab events -A -w
  heddle lab events -A -o json")]
pub struct EventsArgs {
    #[command(flatten)]
    from: ReadFrom,
    /// Namespace. Events of nodes are in `default`.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Go on until interrupted.
    #[arg(short, long)]
    watch: bool,
    /// How to show them.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Runs it.
pub(super) async fn run(args: &EventsArgs) -> Result<ExitCode, Failure> {
    let reading = args.from.open()?;
    if args.watch {
        reading.must_change()?;
    }
    if args.watch && args.output == Output::Yaml {
        return Err(Failure::new("lab/usage", "--watch prints columns or JSON")
            .help("leave -o out, or use -o json")
            .exit(USAGE));
    }
    let found = chosen(args, reading.events()?);
    match args.output {
        Output::Json | Output::Yaml if !args.watch => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": found});
            show::structured(&list, args.output)?;
            return Ok(ExitCode::SUCCESS);
        }
        Output::Json => {
            let lines: Vec<String> = found.iter().map(Value::to_string).collect();
            if !show::lines(&lines)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        _ if found.is_empty() && !args.watch => tell("no events found"),
        _ => {
            let now = reading.now();
            show::table(&head(args), found.iter().map(|event| row(args, event, now)))?;
        }
    }
    if args.watch {
        watch(args, &reading.lab, found).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn watch(args: &EventsArgs, lab: &Lab, mut known: Vec<Value>) -> Result<(), Failure> {
    // A lab that is gone has nothing more to tell.
    while lab.exists() {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let now = chosen(args, events::read(lab));
        let news = now.iter().filter(|event| !known.contains(event));
        let lines: Vec<String> = news
            .map(|event| {
                if args.output == Output::Json {
                    event.to_string()
                } else {
                    row(args, event, time::now()).join("   ")
                }
            })
            .collect();
        if !show::lines(&lines)? {
            return Ok(());
        }
        known = now;
    }
    Ok(())
}

fn chosen(args: &EventsArgs, mut found: Vec<Value>) -> Vec<Value> {
    found.retain(|event| args.all_namespaces || event["metadata"]["namespace"] == *args.namespace);
    found
}

fn head(args: &EventsArgs) -> Vec<&'static str> {
    let mut head = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if args.all_namespaces {
        head.insert(0, "NAMESPACE");
    }
    if args.output == Output::Wide {
        head.extend(["COUNT", "FIRST SEEN"]);
    }
    head
}

/// An event's row; `now` in seconds since 1970.
fn row(args: &EventsArgs, event: &Value, now: u64) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let age = |key: &str| {
        let at = event[key].as_str().and_then(seconds_of);
        at.map_or_else(String::new, |at| time::age(now.saturating_sub(at)))
    };
    let about = &event["involvedObject"];
    let object = format!(
        "{}/{}",
        text(&about["kind"]).to_ascii_lowercase(),
        text(&about["name"])
    );
    let mut row = vec![
        age("lastTimestamp"),
        text(&event["type"]),
        text(&event["reason"]),
        object,
        text(&event["message"]).replace('\n', " "),
    ];
    if args.all_namespaces {
        row.insert(0, text(&event["metadata"]["namespace"]));
    }
    if args.output == Output::Wide {
        row.push(event["count"].to_string());
        row.push(age("firstTimestamp"));
    }
    row
}
