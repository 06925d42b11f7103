//! Dumps that tests read.

use super::tar::{append, finish};
use super::{FORMAT, FORMAT_VERSION, MANIFEST};
use serde_json::{Value, json};

/// The manifest of a dump of the lab `shop`: node-1 was heard and node-2 was not.
pub(crate) fn manifest() -> Value {
    json!({
        "format": FORMAT, "formatVersion": FORMAT_VERSION, "heddle": "0.0.1", "kernel": "6.12",
        "time": "2026-11-30T10:00:00Z", "seconds": 1.5, "lab": "shop", "revision": 7, "complete": false,
        "nodes": [
            {"name": "node-1", "folder": "nodes/node-1", "heard": true, "reason": null, "version": "0.0.1"},
            {"name": "node-2", "folder": "nodes/node-2", "heard": false, "reason": "no answer", "version": null},
        ],
        "missing": [{"file": "nodes/node-1/diff.json", "reason": "it was slow"}],
        "cut": [{"file": "nodes/node-1/bpf.ct.json", "limit": "--max-size", "what": "left out", "askedFor": false}],
        "stripped": [],
        "limits": {"timeoutSeconds": 60.0, "maxBytes": 1, "flows": 1, "logBytes": 1},
        "aFieldOfALaterVersion": true,
    })
}

/// An archive of these files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        append(&mut bytes, name, content, 0).unwrap();
    }
    finish(&mut bytes).unwrap();
    bytes
}

/// An archive of a manifest and these files, whose texts are written as they are.
pub(crate) fn archive_of(manifest: &Value, files: &[(&str, Value)]) -> Vec<u8> {
    let texts: Vec<(&str, Vec<u8>)> = [(MANIFEST, manifest.clone())]
        .iter()
        .chain(files)
        .map(|(name, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (*name, text.into_bytes())
        })
        .collect();
    let files: Vec<(&str, &[u8])> = texts.iter().map(|(n, c)| (*n, c.as_slice())).collect();
    archive(&files)
}

/// Lines of a node's flows, one at each of these times of the manifest's day.
pub(crate) fn flow_lines(node: &str, times: &[&str]) -> String {
    let lines = times.iter().map(|time| {
        let time = format!("2026-11-30T{time}Z");
        json!({"flow": {"verdict": "DROPPED", "node_name": node}, "node_name": node, "time": time})
            .to_string()
            + "\n"
    });
    lines.collect()
}
