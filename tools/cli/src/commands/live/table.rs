//! Rows of agents' answers as tables that fit a terminal.

use crate::output::one_line;
use heddle_rpc::Call;
use heddle_rpc::node::{
    EndpointList, IdentityList, IpamList, IpcacheList, ListConnections, ListPolicies, NodeList,
};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// Blanks between two columns.
const BETWEEN: usize = 3;

/// Columns that a method's rows have, in the order people read them. A row may have others: they follow
/// in `wide`.
fn columns(method: &str) -> &'static [&'static str] {
    match method {
        EndpointList::METHOD => &[
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
        IdentityList::METHOD => &["id", "endpoints", "seenBy", "labels"],
        NodeList::METHOD => &["name", "addresses", "podCIDRs", "local", "seenBy"],
        IpamList::METHOD => &[
            "node", "family", "blocks", "total", "used", "resting", "free",
        ],
        ListPolicies::METHOD => &[
            "node",
            "pod",
            "direction",
            "identity",
            "protocol",
            "port",
            "verdict",
            "rules",
            "labels",
        ],
        ListConnections::METHOD => &[
            "node",
            "protocol",
            "source",
            "destination",
            "state",
            "packetsThere",
            "packetsBack",
            "bytesThere",
            "bytesBack",
            "expires",
        ],
        IpcacheList::METHOD => &[
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

/// Rows as a table: the columns that people read, in a line of this width; without a width, all columns in full.
pub(super) fn of(method: &str, rows: &[Value], width: Option<usize>) -> String {
    let flat: Vec<Value> = rows
        .iter()
        .flat_map(flatten)
        .map(named_directions)
        .collect();
    with_columns(columns(method), &flat, width)
}

/// The two numbers of a connection's counters, each with its direction, and when it ends.
fn named_directions(row: Value) -> Value {
    let Value::Object(mut fields) = row else {
        return row;
    };
    for (key, there, back) in [
        ("packets", "packetsThere", "packetsBack"),
        ("bytes", "bytesThere", "bytesBack"),
    ] {
        if let Some([out, into]) = fields.get(key).and_then(Value::as_array).map(Vec::as_slice) {
            let (out, into) = (out.clone(), into.clone());
            fields.remove(key);
            fields.insert(there.to_owned(), out);
            fields.insert(back.to_owned(), into);
        }
    }
    if let Some(seconds) = fields.remove("remainingSeconds").and_then(|it| it.as_u64()) {
        let text = match seconds {
            0 => "expired".to_owned(),
            seconds => format!("{seconds}s"),
        };
        fields.insert("expires".to_owned(), Value::String(text));
    }
    Value::Object(fields)
}

/// Columns whose cells may be cut to fit a line, and the characters that are left of a cell at least; the rest is what
/// rows are told apart by.
const CUT: [(&str, usize); 4] = [("labels", 10), ("rules", 10), ("seenBy", 10), ("pod", 24)];

/// Rows with these columns first; without a width, with all others, too.
pub(super) fn with_columns(preferred: &[&str], rows: &[Value], width: Option<usize>) -> String {
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
    if width.is_none() || unknown {
        for row in rows.iter().filter_map(Value::as_object) {
            for key in row.keys() {
                if !keys.contains(key) {
                    keys.push(key.clone());
                }
            }
        }
    }
    // Long, and the least to look at: last.
    keys.sort_by_key(|key| key == "labels");
    let mut lines = vec![keys.iter().map(|key| title(key)).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| {
        keys.iter()
            .map(|key| keyed(key, &row[key.as_str()]))
            .collect()
    }));
    if let Some(width) = width {
        fit(&keys, &mut lines, width);
    }
    align(&lines)
}

/// Cuts cells of the columns that may be cut, the last column first, until lines fit.
fn fit(keys: &[String], lines: &mut [Vec<String>], width: usize) {
    let longest = |lines: &[Vec<String>], column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let total: usize = (0..keys.len())
        .map(|column| longest(lines, column) + BETWEEN)
        .sum();
    let mut over = total.saturating_sub(BETWEEN).saturating_sub(width);
    for column in (0..keys.len()).rev() {
        if over == 0 {
            return;
        }
        let Some((_, least)) = CUT.iter().find(|(key, _)| *key == keys[column]) else {
            continue;
        };
        let is = longest(lines, column);
        let may = is.saturating_sub(over).max((*least).min(is));
        for line in lines.iter_mut() {
            line[column] = cut(&line[column], may);
        }
        over -= is - may;
    }
}

fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let kept: String = text.chars().take(length.saturating_sub(3)).collect();
    format!("{kept}...")
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

/// A value in a cell.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => one_line(text),
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

/// Lines whose cells stand below each other.
pub(super) fn align(lines: &[Vec<String>]) -> String {
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
                let _ = write!(text, "{cell:<width$}{:BETWEEN$}", "");
            }
            text.trim_end().to_owned()
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy_rows() -> Vec<Value> {
        let labels: Vec<String> = (0..20)
            .map(|n| format!("k8s:io.example/label-{n}=value"))
            .collect();
        vec![json!({
            "node": "node-1", "endpoint": 7, "pod": "shop/database-6f5d7c9b8-x2x4z", "direction": "ingress",
            "identity": 20001, "labels": labels, "protocol": "TCP", "port": "8080-8095", "verdict": "allow",
            "precedence": 5, "cookie": 9, "generation": 3,
            "rules": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "database", "section": "ingress", "index": 0}],
        })]
    }

    #[test]
    fn u4_a_policy_row_says_its_protocol_and_port_and_fits_the_line() {
        let text = of("bpf.policy", &policy_rows(), Some(120));
        let mut lines = text.lines();
        let head = lines.next().unwrap();
        for title in ["PROTOCOL", "PORT", "VERDICT"] {
            assert!(head.contains(title), "{head}");
        }
        assert!(head.ends_with("LABELS"), "{head}");
        let row = lines.next().unwrap();
        assert!(row.contains("TCP") && row.contains("8080-8095"), "{row}");
        for line in text.lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
        let wide = of("bpf.policy", &policy_rows(), None);
        assert!(wide.lines().next().unwrap().ends_with("LABELS"), "{wide}");
        assert!(
            wide.contains("label-19=value") && wide.contains("PRECEDENCE"),
            "{wide}"
        );
    }

    #[test]
    fn u10_a_connection_names_its_directions_state_and_end() {
        let row = json!({"node": "n", "protocol": "TCP", "source": "10.0.0.1:4", "destination": "10.0.0.2:80",
            "state": "established", "packets": [491, 651], "bytes": [5, 6], "remainingSeconds": 21600});
        let text = of("bpf.ct", &[row], Some(120));
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert!(text.starts_with("NODE   PROTOCOL   SOURCE"), "{text}");
        assert!(
            text.contains("PACKETS THERE   PACKETS BACK   BYTES THERE   BYTES BACK   EXPIRES"),
            "{text}"
        );
        assert_eq!(
            words[4..],
            ["established", "491", "651", "5", "6", "21600s"]
        );
    }
}
