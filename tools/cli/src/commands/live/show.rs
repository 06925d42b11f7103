//! Answers of agents as tables, JSON and YAML.

use super::Output;
use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// JSON or YAML.
pub(super) fn structured(value: &Value, output: Output) -> Result<String, Failure> {
    let failed = |why: String| Failure::new("output/failed", why);
    if output == Output::Yaml {
        return serde_saphyr::to_string(value)
            .map(|text| text.trim_end().to_owned())
            .map_err(|error| failed(format!("the answer cannot be written as YAML: {error}")));
    }
    serde_json::to_string_pretty(value)
        .map_err(|error| failed(format!("the answer cannot be written as JSON: {error}")))
}

/// Columns that a method's rows have, in the order people read them. A row may have others: they follow
/// in `wide`.
fn columns(method: &str) -> &'static [&'static str] {
    match method {
        "endpoint.list" => &[
            "node",
            "id",
            "namespace",
            "pod",
            "ipv4",
            "ipv6",
            "identity",
            "ingress",
            "egress",
            "policyRevision",
            "state",
        ],
        "identity.list" => &["id", "labels", "endpoints", "seenBy"],
        "node.list" => &["name", "addresses", "podCIDRs", "local", "seenBy"],
        "bpf.policy" => &[
            "node",
            "endpoint",
            "pod",
            "direction",
            "identity",
            "traffic",
            "verdict",
            "cookie",
            "rules",
        ],
        "bpf.ct" => &[
            "node",
            "protocol",
            "source",
            "sourcePort",
            "destination",
            "destinationPort",
            "sourceIdentity",
            "destinationIdentity",
            "packets",
            "bytes",
            "seenReply",
            "closing",
            "remainingSeconds",
        ],
        "bpf.ipcache" => &[
            "prefix",
            "identity",
            "cidr",
            "node",
            "pod",
            "inCluster",
            "seenBy",
        ],
        _ => &["node"],
    }
}

/// Rows in the form that was asked for.
pub(super) fn rows(method: &str, rows: &[Value], output: Output) -> Result<String, Failure> {
    match output {
        Output::Json | Output::Yaml => structured(&json!(rows), output),
        Output::Table | Output::Wide => {
            let flat: Vec<Value> = rows.iter().flat_map(flatten).collect();
            Ok(table(columns(method), &flat, output == Output::Wide))
        }
    }
}

/// A row with `entries` (a policy map) becomes a row per entry.
fn flatten(row: &Value) -> Vec<Value> {
    let (Some(fields), Some(entries)) = (row.as_object(), row["entries"].as_array()) else {
        return vec![row.clone()];
    };
    entries
        .iter()
        .filter_map(Value::as_object)
        .map(|entry| {
            let mut flat = fields.clone();
            flat.remove("entries");
            flat.extend(entry.clone());
            Value::Object(flat)
        })
        .collect()
}

/// The name of an IP protocol number.
const fn protocol_name(number: u64) -> Option<&'static str> {
    match number {
        1 => Some("ICMP"),
        6 => Some("TCP"),
        17 => Some("UDP"),
        58 => Some("ICMPv6"),
        132 => Some("SCTP"),
        _ => None,
    }
}

fn table(preferred: &[&str], rows: &[Value], wide: bool) -> String {
    if rows.is_empty() {
        return "nothing found".to_owned();
    }
    let has = |key: &str| rows.iter().any(|row| row.get(key).is_some());
    let mut keys: Vec<String> = preferred
        .iter()
        .filter(|key| has(key))
        .map(|key| (*key).to_owned())
        .collect();
    // Rows of a kind this table does not know are shown whole.
    let unknown = keys.iter().all(|key| key == "node");
    if wide || unknown {
        for row in rows.iter().filter_map(Value::as_object) {
            for key in row.keys() {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
        }
    }
    let mut lines = vec![keys.iter().map(|key| title(key)).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| {
        keys.iter()
            .map(|key| keyed(key, &row[key.as_str()]))
            .collect()
    }));
    align(&lines)
}

/// `policyRevision` becomes `POLICY REVISION`.
fn title(key: &str) -> String {
    let mut title = String::new();
    let mut lower = false;
    for character in key.chars() {
        if character.is_ascii_uppercase() && lower {
            title.push(' ');
        }
        lower = character.is_ascii_lowercase();
        title.push(character.to_ascii_uppercase());
    }
    title
}

fn keyed(key: &str, value: &Value) -> String {
    match value.as_u64().filter(|_| key == "protocol") {
        Some(number) => protocol_name(number).map_or_else(|| number.to_string(), str::to_owned),
        None => cell(value),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => object_cell(fields),
        other => other.to_string(),
    }
}

/// A rule or policy reads as people name it; anything else as `key=value` pairs.
fn object_cell(fields: &Map<String, Value>) -> String {
    if let (Some(kind), Some(name)) = (fields.get("kind"), fields.get("name")) {
        let namespace = fields.get("namespace").and_then(Value::as_str);
        let mut text = match namespace {
            Some(namespace) if !namespace.is_empty() => {
                format!("{}:{namespace}/{}", cell(kind), cell(name))
            }
            _ => format!("{}:{}", cell(kind), cell(name)),
        };
        if let (Some(section), Some(index)) = (fields.get("section"), fields.get("index")) {
            let _ = write!(text, ".{}[{}]", cell(section), cell(index));
        }
        return text;
    }
    fields
        .iter()
        .map(|(key, value)| format!("{key}={}", cell(value)))
        .collect::<Vec<_>>()
        .join(" ")
}

fn align(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    lines
        .iter()
        .map(|line| {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(text, "{cell:<width$}   ");
            }
            text.trim_end().to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// Adds a row that several nodes may know: equal rows become one with the names of those who know it.
pub(super) fn merge(rows: &mut Vec<Value>, row: Value, node: &str) {
    let same = rows.iter_mut().find(|known| {
        let mut plain = (*known).clone();
        if let Value::Object(fields) = &mut plain {
            fields.remove("seenBy");
        }
        plain == row
    });
    match same.and_then(|known| known["seenBy"].as_array_mut()) {
        Some(seen) => seen.push(json!(node)),
        None => {
            let mut row = row;
            if let Value::Object(fields) = &mut row {
                fields.insert("seenBy".to_owned(), json!([node]));
            }
            rows.push(row);
        }
    }
}

/// Statuses of nodes for people.
pub(super) fn statuses(nodes: &[Value]) -> String {
    nodes
        .iter()
        .map(one_status)
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn one_status(status: &Value) -> String {
    let mut lines = Vec::new();
    let mut put = |key: &str, value: String| lines.push(vec![format!("{key}:"), value]);
    put("Node", cell(&status["node"]));
    if let Some(error) = status.get("error") {
        put("Ready", "unknown".to_owned());
        put("Error", cell(&error["message"]));
        return align(&lines);
    }
    put(
        "Ready",
        if status["ready"] == true { "yes" } else { "no" }.to_owned(),
    );
    put("Version", cell(&status["version"]));
    put("Kernel", cell(&status["kernel"]));
    put(
        "Endpoints",
        format!(
            "{} of {} ready",
            cell(&status["endpoints"]["ready"]),
            cell(&status["endpoints"]["total"])
        ),
    );
    for (title, key) in [
        ("Policies", "policies"),
        ("Identities", "identities"),
        ("Services", "services"),
    ] {
        put(title, cell(&status[key]));
    }
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    for feature in list("features") {
        let why = match cell(&feature["why"]).as_str() {
            "-" => String::new(),
            why => format!(" ({why})"),
        };
        put(
            &format!("Feature {}", cell(&feature["name"])),
            format!("{}{why}", cell(&feature["state"])),
        );
    }
    for map in list("maps") {
        put(
            &format!("Map {}", cell(&map["name"])),
            format!("{} of {}", cell(&map["entries"]), cell(&map["max"])),
        );
    }
    for warning in list("warnings") {
        put("Warning", cell(&warning));
    }
    align(&lines)
}

/// The lists of differences in an answer: the answer itself, or every list in it.
fn lists(value: &Value) -> Vec<&Vec<Value>> {
    match value {
        Value::Array(items) => vec![items],
        Value::Object(fields) => fields.values().filter_map(Value::as_array).collect(),
        _ => Vec::new(),
    }
}

/// How many differences the answers hold.
pub(super) fn count_differences<'a>(answers: impl Iterator<Item = &'a Value>) -> usize {
    answers
        .flat_map(lists)
        .map(Vec::len)
        .fold(0, usize::saturating_add)
}

/// The answers of several nodes as one: rows with their node, or `{"nodes": [...]}` for objects.
pub(super) fn per_node(answers: &[(String, Value)]) -> Value {
    let with_node = |node: &str, value: &Value| {
        let mut value = value.clone();
        if let Value::Object(fields) = &mut value {
            fields.entry("node").or_insert_with(|| json!(node));
        }
        value
    };
    if answers.iter().all(|(_, value)| value.is_array()) {
        let rows: Vec<Value> = answers
            .iter()
            .flat_map(|(node, value)| {
                lists(value)
                    .into_iter()
                    .flatten()
                    .map(|row| with_node(node, row))
            })
            .collect();
        return Value::Array(rows);
    }
    let nodes: Vec<Value> = answers
        .iter()
        .map(|(node, value)| with_node(node, value))
        .collect();
    json!({ "nodes": nodes })
}

/// Differences for people.
pub(super) fn differences(answers: &[(String, Value)]) -> String {
    let mut rows = Vec::new();
    for (node, value) in answers {
        for row in lists(value).into_iter().flatten() {
            let mut row = match row {
                Value::Object(fields) => fields.clone(),
                other => Map::from_iter([("difference".to_owned(), other.clone())]),
            };
            if !node.is_empty() {
                row.entry("node").or_insert_with(|| json!(node));
            }
            rows.push(Value::Object(row));
        }
    }
    if rows.is_empty() {
        return "no differences: the datapath has what is wished".to_owned();
    }
    table(
        &["node", "object", "field", "wished", "realised"],
        &rows,
        true,
    )
}
