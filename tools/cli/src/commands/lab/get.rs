//! `heddle lab get`: objects as a table, as manifests, by name, and as they change.

use super::{ReadFrom, failure, objects, pod_name, show};
use crate::failure::Failure;
use crate::output::tell;
use clap::{Args, ValueEnum};
use heddle_kube::store::{Event, Kind, Object, Scope, Store};
use heddle_lab::{LabError, apply, mirror::Mirror, paths::Lab, time};
use heddle_model::NamespacedName;
use std::process::ExitCode;

/// `heddle lab get`.
#[derive(Args)]
#[command(after_help = "Examples:
  heddle lab get pods -A -o wide
  heddle lab get pods,cnp -n shop -l app=web
  heddle lab get pod web client -o yaml
  heddle lab get pods -w
  heddle lab get netpol -o name")]
pub struct GetArgs {
    #[command(flatten)]
    from: ReadFrom,
    /// Kind of the objects, or several: `pods,cnp`.
    kind: String,
    /// Names of some.
    names: Vec<String>,
    /// Namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels: `a=b,c!=d,e,!f,g in (h,i)`.
    #[arg(short = 'l', long, default_value = "", conflicts_with = "names")]
    selector: String,
    /// After what is there, print each change, until interrupted. Columns only.
    #[arg(short, long)]
    watch: bool,
    /// How to show them.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// How objects are shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name`, one per line.
    Name,
}

impl Output {
    const fn shown(self) -> super::Output {
        match self {
            Self::Table | Self::Name => super::Output::Table,
            Self::Wide => super::Output::Wide,
            Self::Json => super::Output::Json,
            Self::Yaml => super::Output::Yaml,
        }
    }
}

/// Runs it.
pub(super) async fn run(args: GetArgs) -> Result<ExitCode, Failure> {
    let reading = args.from.open()?;
    let kinds = objects::kinds(&args.kind).map_err(failure)?;
    if args.watch {
        reading.must_change()?;
    }
    let lab = &reading.lab;
    let store = reading.store(&kinds)?;
    let store = store.as_ref();
    if args.watch {
        return watch(&args, lab, store, &kinds).await;
    }
    let structured = matches!(args.output, Output::Json | Output::Yaml);
    if let ([kind], [name]) = (kinds.as_slice(), args.names.as_slice())
        && structured
    {
        let (namespace, name) = pod_name(&args.namespace, name);
        let object = objects::one(lab, store, *kind, namespace, name)
            .await
            .map_err(failure)?;
        show::structured(&object.value, args.output.shown())?;
        return Ok(ExitCode::SUCCESS);
    }
    let labels = objects::Labels::parse(&args.selector).map_err(failure)?;
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut found: Vec<(Kind, Vec<Object>)> = Vec::new();
    let mut missing: Option<LabError> = None;
    for kind in kinds {
        if args.names.is_empty() {
            let many = objects::many(store, kind, namespace, &labels).await;
            found.push((kind, many.map_err(failure)?));
            continue;
        }
        let mut named = Vec::new();
        for name in &args.names {
            let (namespace, name) = pod_name(&args.namespace, name);
            match objects::one(lab, store, kind, namespace, name).await {
                Ok(object) => named.push(object),
                Err(error @ LabError::NotFound { .. }) => missing = missing.or(Some(error)),
                Err(error) => return Err(failure(error)),
            }
        }
        found.push((kind, named));
    }
    let all = args.names.is_empty() || found.iter().any(|(_, objects)| !objects.is_empty());
    if all {
        print(&args, &found, reading.now())?;
    }
    missing.map_or(Ok(ExitCode::SUCCESS), |error| Err(failure(error)))
}

fn print(args: &GetArgs, found: &[(Kind, Vec<Object>)], now: u64) -> Result<(), Failure> {
    let columns = |kind| show::Columns {
        wide: args.output == Output::Wide,
        namespace: args.all_namespaces,
        kind,
        now,
    };
    match args.output {
        Output::Name => {
            for object in found.iter().flat_map(|(_, objects)| objects) {
                show::line(&short_name(object))?;
            }
            Ok(())
        }
        Output::Json | Output::Yaml => {
            let objects: Vec<&Object> = found.iter().flat_map(|(_, objects)| objects).collect();
            show::list(&objects, args.output.shown())
        }
        Output::Table | Output::Wide => match found {
            [(kind, objects)] => show::many(*kind, objects, columns(false)),
            several => {
                let mut first = true;
                for (kind, objects) in several.iter().filter(|(_, objects)| !objects.is_empty()) {
                    if !first {
                        show::line("")?;
                    }
                    first = false;
                    show::rows(*kind, objects, columns(true))?;
                }
                if first {
                    tell("nothing found");
                }
                Ok(())
            }
        },
    }
}

/// `pod/web`, as kubectl names objects.
fn short_name(object: &Object) -> String {
    let name = NamespacedName::new("", &object.name.name);
    apply::label(object.kind, &name)
}

/// Prints what is there, then every change, until whoever reads or asked has enough.
async fn watch(
    args: &GetArgs,
    lab: &Lab,
    store: &dyn Store,
    kinds: &[Kind],
) -> Result<ExitCode, Failure> {
    if matches!(args.output, Output::Yaml) {
        return Err(
            Failure::new("lab/usage", "--watch prints columns, names or JSON")
                .help("leave -o out, or use -o wide, name or json")
                .exit(crate::failure::USAGE),
        );
    }
    let labels = objects::Labels::parse(&args.selector).map_err(failure)?;
    // As without --watch: who is named and not there is an error, not a wait for ever.
    for name in &args.names {
        let (namespace, name) = pod_name(&args.namespace, name);
        let (mut is_there, mut missing) = (false, None);
        for kind in kinds {
            match objects::one(lab, store, *kind, namespace, name).await {
                Ok(_) => is_there = true,
                Err(error @ LabError::NotFound { .. }) => missing = Some(error),
                Err(error) => return Err(failure(error)),
            }
        }
        if let Some(error) = missing.filter(|_| !is_there) {
            return Err(failure(error));
        }
    }
    let fits = |object: &Object| {
        let of =
            |namespace: &str| !object.kind.is_namespaced() || object.name.namespace == namespace;
        let named = args.names.iter().any(|name| {
            let (namespace, name) = pod_name(&args.namespace, name);
            of(namespace) && object.name.name == name
        });
        let listed = args.names.is_empty() && (args.all_namespaces || of(&args.namespace));
        (named || listed) && labels.fit(object)
    };
    let mut printer = Printer {
        args,
        several: kinds.len() > 1,
        widths: Vec::new(),
        head: None,
    };
    let mut changes = store.watch(&Scope::each(kinds));
    let mut mirror = Mirror::default();
    while let Some(event) = changes.recv().await {
        let was_synced = mirror.synced;
        let changed = match &event {
            Event::Applied(object) => {
                let key = (object.kind, object.name.clone());
                let news = mirror
                    .objects
                    .get(&key)
                    .is_none_or(|known| known.version != object.version);
                news.then(|| object.clone())
            }
            Event::Deleted(object) => {
                let key = (object.kind, object.name.clone());
                mirror.objects.get(&key).cloned().map(|mut gone| {
                    show::mark_deleted(&mut gone);
                    gone
                })
            }
            _ => None,
        };
        mirror.note(event);
        mirror.gone.clear();
        let fresh: Vec<&Object> = match (was_synced, mirror.synced) {
            // All that is there in one table, so that its columns fit.
            (false, true) => mirror
                .objects
                .values()
                .filter(|object| fits(object))
                .collect(),
            (true, _) => changed.iter().filter(|object| fits(object)).collect(),
            (false, false) => continue,
        };
        if !printer.print(&fresh)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints rows whose columns stay where they are.
struct Printer<'a> {
    args: &'a GetArgs,
    several: bool,
    widths: Vec<usize>,
    /// The kind whose head was printed last.
    head: Option<Kind>,
}

impl Printer<'_> {
    /// False when nobody reads any more.
    fn print(&mut self, objects: &[&Object]) -> Result<bool, Failure> {
        let columns = show::Columns {
            wide: self.args.output == Output::Wide,
            namespace: self.args.all_namespaces,
            kind: self.several,
            now: time::now(),
        };
        let mut lines = Vec::new();
        let rows: Vec<(Kind, Vec<String>)> = objects
            .iter()
            .map(|object| (object.kind, show::row(object, columns)))
            .collect();
        for (object, (kind, row)) in objects.iter().zip(&rows) {
            match self.args.output {
                Output::Json => lines.push(object.value.to_string()),
                Output::Name => lines.push(short_name(object)),
                _ => {
                    if self.head != Some(*kind) {
                        self.head = Some(*kind);
                        self.widths.clear();
                        let head = show::head(*kind, columns);
                        for (_, row) in rows.iter().filter(|(of, _)| of == kind) {
                            self.widen(row);
                        }
                        lines.push(self.padded(&head));
                    }
                    lines.push(self.padded(row));
                }
            }
        }
        show::lines(&lines)
    }

    fn widen(&mut self, row: &[String]) {
        self.widths.resize(self.widths.len().max(row.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    fn padded(&mut self, row: &[String]) -> String {
        self.widen(row);
        let cells: Vec<String> = row
            .iter()
            .zip(&self.widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("   ").trim_end().to_owned()
    }
}
