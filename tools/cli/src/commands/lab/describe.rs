//! `heddle lab describe`: all about objects.

use super::{ReadFrom, failure, objects, pod_name, show};
use crate::failure::Failure;
use crate::output::tell;
use clap::Args;
use heddle_kube::store::Kind;
use heddle_lab::describe;
use std::process::ExitCode;

/// `heddle lab describe`.
#[derive(Args)]
#[command(after_help = "Examples:
  heddle lab describe pod web -n shop
  heddle lab describe node node-1
  heddle lab describe cnp -n shop")]
pub struct DescribeArgs {
    #[command(flatten)]
    from: ReadFrom,
    /// Kind of the objects, or several: `pods,cnp`.
    kind: String,
    /// Names of some; all of the namespace without.
    names: Vec<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels, as for `get`.
    #[arg(short = 'l', long, default_value = "", conflicts_with = "names")]
    selector: String,
}

/// Runs it.
pub(super) async fn run(args: &DescribeArgs) -> Result<ExitCode, Failure> {
    let reading = args.from.open()?;
    let lab = &reading.lab;
    let store = reading.store(&Kind::ALL)?;
    let store = store.as_ref();
    let labels = objects::Labels::parse(&args.selector).map_err(failure)?;
    let mut found = Vec::new();
    for kind in objects::kinds(&args.kind).map_err(failure)? {
        for name in &args.names {
            let (namespace, name) = pod_name(&args.namespace, name);
            let object = objects::one(lab, store, kind, namespace, name).await;
            found.push(object.map_err(failure)?);
        }
        if args.names.is_empty() {
            let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
            let many = objects::many(store, kind, namespace, &labels).await;
            found.extend(many.map_err(failure)?);
        }
    }
    if found.is_empty() {
        tell("nothing found");
    }
    let events = reading.events()?;
    for (index, object) in found.iter().enumerate() {
        if index > 0 {
            show::line("")?;
        }
        let text = describe::describe(store, &events, object, reading.now())
            .await
            .map_err(failure)?;
        show::line(text.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
