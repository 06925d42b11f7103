//! How the lab's objects and its status are printed.

use super::Output;
use crate::failure::Failure;
use crate::output::{one_line, tell};
use comfy_table::{Table, presets};
use heddle_kube::store::{Kind, Object};
use heddle_kube::timestamp::seconds_of;
use heddle_lab::status::Report;
use heddle_lab::time;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;

/// Prints objects of one kind as a table, or says that there are none.
pub(super) fn many(kind: Kind, objects: &[Object], columns: Columns) -> Result<(), Failure> {
    if objects.is_empty() {
        tell(&format!("no {} found", kind.name()));
        return Ok(());
    }
    rows(kind, objects, columns)
}

/// Prints objects of any kinds as one List.
pub(super) fn list(objects: &[&Object], output: Output) -> Result<(), Failure> {
    let items: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
    structured(
        &json!({"apiVersion": "v1", "kind": "List", "items": items}),
        output,
    )
}

/// Which columns there are beside a kind's own.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// Those of `-o wide`.
    pub(super) wide: bool,
    /// The namespace, where the kind has one.
    pub(super) namespace: bool,
    /// The kind, before the name.
    pub(super) kind: bool,
    /// Seconds since 1970 that ages count to.
    pub(super) now: u64,
}

/// Prints objects of one kind as a table.
pub(super) fn rows(kind: Kind, objects: &[Object], columns: Columns) -> Result<(), Failure> {
    let head = head(kind, columns);
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, objects.iter().map(|object| row(object, columns)))
}

/// A kind's head.
pub(super) fn head(kind: Kind, with: Columns) -> Vec<String> {
    let mut head = Vec::new();
    if with.namespace && kind.is_namespaced() {
        head.push("NAMESPACE");
    }
    head.push("NAME");
    head.extend(columns(kind, with.wide));
    head.into_iter().map(str::to_owned).collect()
}

/// An object's row.
pub(super) fn row(object: &Object, with: Columns) -> Vec<String> {
    let mut row = Vec::new();
    if with.namespace && object.kind.is_namespaced() {
        row.push(object.name.namespace.clone());
    }
    let name = &object.name.name;
    row.push(if with.kind {
        format!("{}/{name}", object.kind.name().to_ascii_lowercase())
    } else {
        name.clone()
    });
    row.extend(cells(object, with.wide, with.now));
    row
}

/// Lets an object that was deleted while it was watched be shown as such.
pub(super) fn mark_deleted(object: &mut Object) {
    if !object.value["metadata"]["deletionTimestamp"].is_string() {
        object.value["metadata"]["deletionTimestamp"] = json!(time::stamp());
    }
}

fn columns(kind: Kind, wide: bool) -> Vec<&'static str> {
    let mut columns = match kind {
        Kind::Pod => vec!["READY", "STATUS", "RESTARTS", "AGE"],
        Kind::Node => vec!["STATUS", "AGE"],
        Kind::Deployment => vec!["READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        Kind::CiliumEndpoint => vec!["IDENTITY", "STATE", "AGE"],
        Kind::Namespace => vec!["STATUS", "AGE"],
        kind if kind.is_policy() => vec!["VALID", "NODES", "AGE"],
        _ => vec!["AGE"],
    };
    if wide {
        columns.extend(match kind {
            Kind::Pod => vec!["IP", "NODE", "REASON"],
            Kind::Node => vec!["INTERNAL-IP", "POD-CIDRS"],
            Kind::CiliumEndpoint => vec!["IP", "NODE"],
            kind if kind.is_policy() => vec!["ENDPOINTS", "REASON"],
            _ => vec!["LABELS"],
        });
    }
    columns
}

fn cells(object: &Object, wide: bool, now: u64) -> Vec<String> {
    let value = &object.value;
    let status = &value["status"];
    let count = |key: &str| status[key].as_u64().unwrap_or(0).to_string();
    let age = value["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(seconds_of)
        .map_or_else(String::new, |born| time::age(now.saturating_sub(born)));
    let mut cells = match object.kind {
        Kind::Pod => {
            let containers: Vec<&Value> = status["containerStatuses"]
                .as_array()
                .into_iter()
                .flatten()
                .collect();
            let ready = containers
                .iter()
                .filter(|container| container["ready"] == true)
                .count();
            let all = value["spec"]["containers"].as_array().map_or(0, Vec::len);
            let restarts: u64 = containers
                .iter()
                .filter_map(|container| container["restartCount"].as_u64())
                .sum();
            vec![
                format!("{ready}/{all}"),
                pod_state(value),
                restarts.to_string(),
            ]
        }
        Kind::Node => vec![
            (if condition(status, "Ready").0 {
                "Ready"
            } else {
                "NotReady"
            })
            .into(),
        ],
        Kind::Deployment => vec![
            format!(
                "{}/{}",
                count("readyReplicas"),
                value["spec"]["replicas"].as_u64().unwrap_or(1)
            ),
            count("updatedReplicas"),
            count("availableReplicas"),
        ],
        Kind::CiliumEndpoint => vec![
            status["identity"]["id"].to_string(),
            status["state"].as_str().unwrap_or_default().to_owned(),
        ],
        Kind::Namespace => vec!["Active".to_owned()],
        kind if kind.is_policy() => policy_cells(value),
        _ => Vec::new(),
    };
    cells.push(age);
    if wide {
        cells.extend(wide_cells(object));
    }
    cells
}

fn wide_cells(object: &Object) -> Vec<String> {
    let value = &object.value;
    let status = &value["status"];
    let list = |items: &Value, key: &str| {
        let texts = items.as_array().into_iter().flatten().filter_map(|item| {
            if key.is_empty() {
                item.as_str()
            } else {
                item[key].as_str()
            }
        });
        texts.collect::<Vec<_>>().join(",")
    };
    match object.kind {
        Kind::Pod => vec![
            list(&status["podIPs"], "ip"),
            value["spec"]["nodeName"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            condition(status, "Ready").1,
        ],
        Kind::Node => {
            let addresses = status["addresses"].as_array().into_iter().flatten();
            let internal: Vec<&str> = addresses
                .filter(|address| address["type"] == "InternalIP")
                .filter_map(|address| address["address"].as_str())
                .collect();
            vec![internal.join(","), list(&value["spec"]["podCIDRs"], "")]
        }
        Kind::CiliumEndpoint => {
            let addressing = status["networking"]["addressing"]
                .as_array()
                .into_iter()
                .flatten();
            let addresses: Vec<&str> = addressing
                .flat_map(|pair| [pair["ipv4"].as_str(), pair["ipv6"].as_str()])
                .flatten()
                .collect();
            vec![
                addresses.join(","),
                status["nodeName"].as_str().unwrap_or_default().to_owned(),
            ]
        }
        kind if kind.is_policy() => {
            let endpoints = &status["enforcement"]["endpoints"];
            let reason = match condition(status, "Valid") {
                (false, message) => message,
                (true, _) => String::new(),
            };
            vec![
                if endpoints.is_null() {
                    "?".into()
                } else {
                    endpoints.to_string()
                },
                reason,
            ]
        }
        _ => {
            let labels = value["metadata"]["labels"]
                .as_object()
                .into_iter()
                .flatten();
            let texts: Vec<String> = labels
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            vec![texts.join(",")]
        }
    }
}

/// Whether a policy can be enforced, and on how many nodes it is; `?` until somebody has said so of this version of it.
fn policy_cells(policy: &Value) -> Vec<String> {
    let status = &policy["status"];
    let valid = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Valid")
        .and_then(|condition| condition["status"].as_str());
    let enforcement = &status["enforcement"];
    let current = enforcement["observedGeneration"] == policy["metadata"]["generation"];
    let nodes = match (
        enforcement["nodes"].as_u64(),
        enforcement["ofNodes"].as_u64(),
    ) {
        (Some(nodes), Some(of)) if current => format!("{nodes}/{of}"),
        _ => "?".to_owned(),
    };
    vec![valid.unwrap_or("?").to_owned(), nodes]
}

fn condition(status: &Value, kind: &str) -> (bool, String) {
    let found = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind);
    let text = |key: &str| {
        found
            .and_then(|condition| condition[key].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    let message = text("message");
    (
        found.is_some_and(|condition| condition["status"] == "True"),
        if message.is_empty() {
            text("reason")
        } else {
            message
        },
    )
}

/// The word that kubectl shows for a pod.
fn pod_state(pod: &Value) -> String {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating".into();
    }
    let status = &pod["status"];
    if let Some(state) = init_state(pod) {
        return state;
    }
    for container in status["containerStatuses"].as_array().into_iter().flatten() {
        for state in ["waiting", "terminated"] {
            if let Some(reason) = container["state"][state]["reason"].as_str()
                && !(reason == "Completed" && status["phase"] != "Succeeded")
            {
                return reason.to_owned();
            }
        }
    }
    let reason = status["reason"].as_str().or(status["phase"].as_str());
    reason.unwrap_or("Pending").to_owned()
}

/// The word that kubectl shows while a pod's init containers are not through: `Init:Error`, `Init:ExitCode:3`,
/// `Init:CrashLoopBackOff`, `Init:1/2`.
fn init_state(pod: &Value) -> Option<String> {
    let statuses = pod["status"]["initContainerStatuses"].as_array()?;
    let done = |one: &Value| one["state"]["terminated"]["exitCode"] == 0;
    let at = statuses.iter().position(|one| !done(one))?;
    let state = &statuses[at]["state"];
    if let Some(code) = state["terminated"]["exitCode"].as_i64() {
        let reason = state["terminated"]["reason"].as_str().unwrap_or_default();
        return Some(match reason {
            "" => format!("Init:ExitCode:{code}"),
            reason => format!("Init:{reason}"),
        });
    }
    let waiting = state["waiting"]["reason"].as_str().unwrap_or_default();
    if !matches!(waiting, "" | "PodInitializing" | "ContainerCreating") {
        return Some(format!("Init:{waiting}"));
    }
    // Before the network is there nothing is initialised, and the reason is the network.
    (!pod["status"]["podIPs"].is_null()).then(|| format!("Init:{at}/{}", statuses.len()))
}

/// Prints a lab's status.
pub(super) fn status(report: &Report, output: Output) -> Result<(), Failure> {
    if matches!(output, Output::Json | Output::Yaml) {
        return structured(report, output);
    }
    let families: Vec<String> = report.families.iter().map(|f| format!("IPv{f}")).collect();
    line(&format!(
        "lab {}: fabric {}, {}, {} pods",
        report.name,
        json!(report.fabric).as_str().unwrap_or_default(),
        families.join(" and "),
        report.pods
    ))?;
    let rows = report.nodes.iter().map(|node| {
        vec![
            node.name.clone(),
            node.agent.to_string(),
            node.addresses.join(","),
            node.pod_cidrs.join(","),
            node.pods.to_string(),
        ]
    });
    table(&["NODE", "AGENT", "ADDRESSES", "POD-CIDRS", "PODS"], rows)?;
    line(&format!("world: {}", report.world.addresses.join(", ")))?;
    for warning in &report.warnings {
        tell(&one_line(&format!("warning: {warning}")));
    }
    Ok(())
}

pub(crate) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    line(&text.join("\n"))
}

pub(super) fn structured(value: &impl Serialize, output: Output) -> Result<(), Failure> {
    let text = match output {
        Output::Yaml => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
        _ => serde_json::to_string_pretty(value).map_err(|error| error.to_string()),
    };
    let text = text.map_err(|error| Failure::new("lab/output", error))?;
    line(text.trim_end())
}

/// Prints lines; false when nobody reads any more.
pub(super) fn lines(lines: &[String]) -> Result<bool, Failure> {
    let mut output = std::io::stdout().lock();
    let written = lines
        .iter()
        .try_for_each(|line| writeln!(output, "{line}"))
        .and_then(|()| output.flush());
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(
            "lab/output",
            format!("the answer cannot be written: {error}"),
        )),
    }
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads may stop early (`| head`).
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            "lab/output",
            format!("the answer cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}
