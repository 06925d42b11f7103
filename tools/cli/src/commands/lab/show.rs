//! How the lab's objects and its status are printed.

use super::Output;
use crate::{failure::Failure, output::tell};
use comfy_table::{Table, presets};
use heddle_kube::store::{Kind, Object};
use heddle_lab::status::Report;
use heddle_lab::time;
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Write;

/// Prints one object; JSON and YAML as it is.
pub(super) fn one(object: &Object, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json | Output::Yaml => structured(&object.value, output),
        Output::Table | Output::Wide => {
            many(object.kind, std::slice::from_ref(object), output, false)
        }
    }
}

/// Prints a list, in kubectl's shapes.
pub(super) fn many(
    kind: Kind,
    objects: &[Object],
    output: Output,
    all_namespaces: bool,
) -> Result<(), Failure> {
    if matches!(output, Output::Json | Output::Yaml) {
        let items: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
        return structured(
            &json!({"apiVersion": "v1", "kind": "List", "items": items}),
            output,
        );
    }
    if objects.is_empty() {
        tell(&format!("no {} found", kind.name()));
        return Ok(());
    }
    let wide = output == Output::Wide;
    let with_namespace = all_namespaces && kind.is_namespaced();
    let mut head: Vec<&str> = if with_namespace {
        vec!["NAMESPACE", "NAME"]
    } else {
        vec!["NAME"]
    };
    head.extend(columns(kind, wide));
    let rows = objects.iter().map(|object| {
        let mut row = Vec::new();
        if with_namespace {
            row.push(object.name.namespace.clone());
        }
        row.push(object.name.name.clone());
        row.extend(cells(object, wide));
        row
    });
    table(&head, rows)
}

fn columns(kind: Kind, wide: bool) -> Vec<&'static str> {
    let mut columns = match kind {
        Kind::Pod => vec!["READY", "STATUS", "RESTARTS", "AGE"],
        Kind::Node => vec!["STATUS", "AGE"],
        Kind::Deployment => vec!["READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
        Kind::CiliumEndpoint => vec!["IDENTITY", "STATE", "AGE"],
        Kind::Namespace => vec!["STATUS", "AGE"],
        _ => vec!["AGE"],
    };
    if wide {
        columns.extend(match kind {
            Kind::Pod => vec!["IP", "NODE", "REASON"],
            Kind::Node => vec!["INTERNAL-IP", "POD-CIDRS"],
            Kind::CiliumEndpoint => vec!["IP", "NODE"],
            _ => vec!["LABELS"],
        });
    }
    columns
}

fn cells(object: &Object, wide: bool) -> Vec<String> {
    let value = &object.value;
    let status = &value["status"];
    let count = |key: &str| status[key].as_u64().unwrap_or(0).to_string();
    let age = value["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(time::parse)
        .map_or_else(String::new, |born| {
            time::age(time::now().saturating_sub(born))
        });
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
        let agent = match (node.agent.pid, node.agent.ready) {
            (Some(pid), true) => format!("ready ({pid})"),
            (Some(pid), false) => format!("not ready ({pid})"),
            (None, _) => "not running".to_owned(),
        };
        vec![
            node.name.clone(),
            agent,
            node.addresses.join(","),
            node.pod_cidrs.join(","),
            node.pods.to_string(),
        ]
    });
    table(&["NODE", "AGENT", "ADDRESSES", "POD-CIDRS", "PODS"], rows)?;
    line(&format!("world: {}", report.world.addresses.join(", ")))?;
    for warning in &report.warnings {
        tell(&format!("warning: {warning}"));
    }
    Ok(())
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<(), Failure> {
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

fn structured(value: &impl Serialize, output: Output) -> Result<(), Failure> {
    let text = match output {
        Output::Yaml => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
        _ => serde_json::to_string_pretty(value).map_err(|error| error.to_string()),
    };
    let text = text.map_err(|error| Failure::new("lab/output", error))?;
    line(text.trim_end())
}

fn line(text: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads may stop early (`| head`).
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            "lab/output",
            format!("the answer cannot be written: {error}"),
        )),
        _ => Ok(()),
    }
}
