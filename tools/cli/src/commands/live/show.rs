//! Answers of agents as tables, JSON and YAML.

use super::{
    Output,
    table::{self, align, cell},
};
use crate::failure::Failure;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

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

/// Rows in the form that was asked for.
pub(super) fn rows(
    method: &str,
    rows: &[Value],
    output: Output,
    width: usize,
) -> Result<String, Failure> {
    match output {
        Output::Json | Output::Yaml => structured(&json!(rows), output),
        Output::Table => Ok(table::of(method, rows, Some(width))),
        Output::Wide => Ok(table::of(method, rows, None)),
    }
}

/// Rows that several nodes may know, in the order in which they were added first: equal rows are one with the names of
/// those who know it.
#[derive(Default)]
pub(super) struct Merged {
    rows: Vec<Value>,
    /// Where the row of a text is. Fields of equal rows stand in one order, which is that of their names.
    places: HashMap<String, usize>,
}

impl Merged {
    /// Adds what a node says.
    pub(super) fn add(&mut self, mut row: Value, node: &str) {
        if let Value::Object(fields) = &mut row {
            fields.remove("seenBy");
        }
        let next = self.rows.len();
        let place = *self.places.entry(row.to_string()).or_insert(next);
        match self.rows.get_mut(place) {
            Some(known) => {
                if let Some(seen) = known.get_mut("seenBy").and_then(Value::as_array_mut) {
                    seen.push(json!(node));
                }
            }
            None => {
                if let Value::Object(fields) = &mut row {
                    fields.insert("seenBy".to_owned(), json!([node]));
                }
                self.rows.push(row);
            }
        }
    }

    /// The rows.
    pub(super) fn into_rows(self) -> Vec<Value> {
        self.rows
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

/// The answers of several nodes as one: rows with their node, or `{"nodes": [...]}` for objects; behind them what stands
/// for nodes that gave none.
pub(super) fn per_node(answers: &[(String, Value)], absent: Vec<Value>) -> Value {
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
            .chain(absent)
            .collect();
        return Value::Array(rows);
    }
    let nodes: Vec<Value> = answers
        .iter()
        .map(|(node, value)| with_node(node, value))
        .chain(absent)
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
    table::with_columns(
        &["node", "object", "field", "wished", "realised"],
        &rows,
        None,
    )
}
