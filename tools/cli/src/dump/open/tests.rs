//! Dumps as they come from anywhere.

use super::*;
use crate::dump::tar::{append, finish};
use serde_json::json;

fn manifest() -> Value {
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

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        append(&mut bytes, name, content, 0).unwrap();
    }
    finish(&mut bytes).unwrap();
    bytes
}

/// A dump of a manifest and these files.
fn dump(files: &[(&str, Value)]) -> Dump {
    let texts: Vec<(&str, Vec<u8>)> = [(MANIFEST, manifest())]
        .iter()
        .chain(files)
        .map(|(name, value)| (*name, value.to_string().into_bytes()))
        .collect();
    let files: Vec<(&str, &[u8])> = texts.iter().map(|(n, c)| (*n, c.as_slice())).collect();
    Dump::read("d.tar".to_owned(), archive(&files).as_slice()).unwrap()
}

fn refusal(bytes: &[u8]) -> Failure {
    match Dump::read("d.tar".to_owned(), bytes) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error.into(),
    }
}

#[test]
fn what_is_no_dump_is_refused_with_the_reason() {
    let mut other = manifest();
    other["formatVersion"] = json!(2);
    let newer = other.to_string();
    other["format"] = json!("zip");
    let other = other.to_string();
    let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    let bare = format!(r#"{{"format":"{FORMAT}","formatVersion":1}}"#);
    for (bytes, code, part) in [
        (Vec::new(), "sysdump/malformed", "cut short"),
        (
            b"not a dump".repeat(100),
            "sysdump/malformed",
            "no tar archive",
        ),
        (
            b"\x1f\x8b\x08\x00rest".to_vec(),
            "sysdump/compressed",
            "compressed",
        ),
        (
            b"\x28\xb5\x2f\xfdrest".to_vec(),
            "sysdump/compressed",
            "compressed",
        ),
        (archive(&[]), "sysdump/malformed", "no manifest.json"),
        (
            archive(&[(MANIFEST, b"{")]),
            "sysdump/malformed",
            "manifest.json: ",
        ),
        (
            archive(&[(MANIFEST, b"{}")]),
            "sysdump/malformed",
            "missing field",
        ),
        (
            archive(&[(MANIFEST, deep.as_bytes())]),
            "sysdump/malformed",
            "EOF while parsing",
        ),
        (
            archive(&[(MANIFEST, bare.as_bytes())]),
            "sysdump/malformed",
            "missing field",
        ),
        (
            archive(&[(MANIFEST, other.as_bytes())]),
            "sysdump/malformed",
            "\"zip\"",
        ),
        (
            archive(&[(MANIFEST, newer.as_bytes())]),
            "sysdump/wrong-version",
            "version 2",
        ),
        (
            archive(&[("a", b""), ("a", b"")]),
            "sysdump/malformed",
            "a twice",
        ),
    ] {
        let failure = refusal(&bytes);
        assert_eq!(
            (failure.code.as_str(), failure.exit),
            (code, USAGE),
            "{failure:?}"
        );
        assert!(failure.message.contains(part), "{part}: {failure:?}");
        assert!(
            !failure.help.is_empty() && failure.object == "d.tar",
            "{failure:?}"
        );
    }
}

#[test]
fn an_answer_that_is_damaged_is_an_error_of_the_dump() {
    let manifest = manifest().to_string();
    let deep = "[".repeat(100_000);
    for (content, part) in [
        ("", "EOF"),
        ("{\"result\": ", "EOF"),
        (deep.as_str(), "nodes/node-1/status.json: "),
        ("\u{0}", "expected value"),
    ] {
        let content = format!("{{\"result\": {content}");
        let files: [(&str, &[u8]); 2] = [
            (MANIFEST, manifest.as_bytes()),
            ("nodes/node-1/status.json", content.as_bytes()),
        ];
        let dump = Dump::read("d.tar".to_owned(), archive(&files).as_slice()).unwrap();
        let failure = dump.answer(0, "status", &json!({})).unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.exit),
            ("sysdump/malformed", USAGE)
        );
        assert!(failure.message.contains(part), "{content:.20}: {failure:?}");
    }
}

/// A reader of this many bytes of one kind behind a start, which is never in memory.
fn endless(start: Vec<u8>, bytes: u64) -> impl Read {
    std::io::Cursor::new(start).chain(std::io::repeat(b'[').take(bytes))
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let mut whole = Vec::new();
    append(&mut whole, "a", &[0; 512], 0).unwrap();
    let header = |size: u64| {
        // The size in the first header, its sum made right.
        let mut header = whole[..512].to_vec();
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    };
    let too_large = |from: &mut dyn Read| match Dump::read("d.tar".to_owned(), from) {
        Err(DumpError::TooLarge { what, .. }) => what,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    };
    let what = too_large(&mut endless(header(MAX_FILE_BYTES + 1), u64::MAX));
    assert!(what.contains("64 MiB in one file"), "{what}");

    let many: Vec<u8> = (0..=MAX_FILES)
        .flat_map(|number| {
            let mut bytes = Vec::new();
            append(&mut bytes, &number.to_string(), b"", 0).unwrap();
            bytes
        })
        .collect();
    let what = too_large(&mut many.as_slice());
    assert!(what.contains("files"), "{what}");

    // Few bytes, many values.
    let mut bomb = Vec::new();
    append(&mut bomb, "a.json", &vec![b','; MAX_VALUES as usize], 0).unwrap();
    let what = too_large(&mut bomb.as_slice());
    assert!(what.contains("values"), "{what}");
}

#[test]
fn what_is_not_in_a_dump_is_said_with_the_dumps_reason() {
    let dump = dump(&[
        (
            "nodes/node-1/status.json",
            json!({"result": {"node": "node-1"}}),
        ),
        (
            "nodes/node-2/error.json",
            json!({
                "error": {"code": "agent/unreachable", "message": "no answer", "object": "node-2", "field": null, "help": "try"},
                "exit": 3,
            }),
        ),
    ]);
    let none = json!({});
    assert_eq!(dump.answer(0, "status", &none).unwrap()["node"], "node-1");
    let failure = dump.answer(0, "diff", &none).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.exit),
        ("sysdump/not-in-dump", NO_DATA)
    );
    assert!(failure.message.contains("it was slow"), "{failure:?}");
    let failure = dump.answer(0, "bpf.ct", &none).unwrap_err();
    assert!(
        failure.message.contains("left out (--max-size)"),
        "{failure:?}"
    );
    let failure = dump.answer(0, "no.such", &none).unwrap_err();
    assert_eq!(failure.code, "sysdump/not-in-dump");
    // A node that was not heard gives its own failure again.
    for method in ["status", "diff", "policy.lookup"] {
        let params = json!({"address": null, "direction": "egress", "peer": {"identity": 1}, "protocol": 6, "port": 80});
        let failure = dump.answer(1, method, &params).unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.exit),
            ("agent/unreachable", NO_DATA),
            "{method}"
        );
        assert_eq!(
            (failure.object.as_str(), failure.help.as_str()),
            ("node-2", "try")
        );
    }
    let failure = dump.objects(&[Kind::Pod]).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.exit),
        ("sysdump/not-in-dump", NO_DATA)
    );
}

#[test]
fn rows_of_one_endpoint_are_those_that_its_agent_would_tell() {
    let row =
        |source: &str, destination: &str| json!({"source": source, "destination": destination});
    let dump = dump(&[
        (
            "nodes/node-1/endpoint.list.json",
            json!({"result": [{"id": 7, "ipv4": "10.0.0.7", "ipv6": "fd00::7"}]}),
        ),
        (
            "nodes/node-1/bpf.policy.json",
            json!({"result": [{"endpoint": 7}, {"endpoint": 8}]}),
        ),
        (
            "nodes/node-1/bpf.ct.json",
            json!({"result": [
                row("10.0.0.7:1", "10.0.0.8:80"), row("[fd00::8]:1", "[fd00::7]:80"), row("10.0.0.8:1", "10.0.0.9:80"),
            ]}),
        ),
    ]);
    let of = |method: &str, endpoint: u32| dump.answer(0, method, &json!({"endpoint": endpoint}));
    assert_eq!(of("bpf.policy", 7).unwrap(), json!([{"endpoint": 7}]));
    assert_eq!(of("bpf.ct", 7).unwrap().as_array().unwrap().len(), 2);
    assert_eq!(of("bpf.ct", 9).unwrap_err().code, "endpoint/unknown");
    assert_eq!(
        dump.answer(0, "bpf.ct", &json!({}))
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn objects_become_a_store_and_malformed_ones_an_error() {
    let list = |items: Value| json!({"apiVersion": "v1", "kind": "List", "items": items});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "n", "name": "p", "resourceVersion": "5"}});
    let good = dump(&[("objects/pods.json", list(json!([pod])))]);
    let objects = good.objects(&[Kind::Pod]).unwrap();
    assert_eq!(objects[0].name, NamespacedName::new("n", "p"));
    assert_eq!(objects[0].version.as_str(), "5");
    for items in [
        json!([{}]),
        json!([{"kind": "Node", "metadata": {"name": "x"}}]),
        json!({}),
        json!([null]),
    ] {
        let bad = dump(&[("objects/pods.json", list(items.clone()))]);
        let failure = bad.objects(&[Kind::Pod]).unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.exit),
            ("sysdump/malformed", USAGE),
            "{items}"
        );
    }
}

#[test]
fn flows_are_filtered_as_their_agent_would() {
    let lines = [1, 2, 3].map(|second| {
        json!({"flow": {"verdict": "DROPPED", "node_name": "node-1"}, "node_name": "node-1",
            "time": format!("2026-11-30T10:00:0{second}Z")})
        .to_string()
    });
    let text = lines.join("\n") + "\n";
    let manifest = manifest().to_string();
    let files: [(&str, &[u8]); 2] = [
        (MANIFEST, manifest.as_bytes()),
        ("nodes/node-1/flows.jsonl", text.as_bytes()),
    ];
    let dump = Dump::read("d.tar".to_owned(), archive(&files).as_slice()).unwrap();
    let count = |params: Value| dump.flows(0, &params).map(|lines| lines.len());
    assert_eq!(count(json!({})).unwrap(), 3);
    assert_eq!(count(json!({"number": 2})).unwrap(), 2);
    assert_eq!(count(json!({"since": "2026-11-30T10:00:03Z"})).unwrap(), 1);
    assert_eq!(
        count(json!({"whitelist": [{"verdict": ["FORWARDED"]}]})).unwrap(),
        0
    );
    assert_eq!(
        count(json!({"follow": true})).unwrap_err().code,
        "sysdump/no-future"
    );
    assert_eq!(
        count(json!({"nonsense": 1})).unwrap_err().code,
        "sysdump/malformed"
    );
}

#[test]
fn what_a_dump_says_cannot_change_a_terminal() {
    let text = "{\"result\":{\"node\":\"\\u001b[2Jn\",\"kernel\":\"\u{9b}2J\"}}";
    let manifest = manifest().to_string();
    let files: &[(&str, &[u8])] = &[
        (MANIFEST, manifest.as_bytes()),
        ("nodes/node-1/status.json", text.as_bytes()),
    ];
    let dump = Dump::read("d.tar".to_owned(), archive(files).as_slice()).unwrap();
    let status = dump.answer(0, "status", &json!({})).unwrap();
    assert_eq!(
        status,
        json!({"node": "\u{fffd}[2Jn", "kernel": "\u{bf}2J"})
    );
}

#[test]
fn flows_count_among_the_values() {
    let many = "{}\n".repeat(MAX_VALUES as usize / 2);
    let manifest = manifest().to_string();
    let files: &[(&str, &[u8])] = &[
        (MANIFEST, manifest.as_bytes()),
        ("nodes/node-1/flows.jsonl", many.as_bytes()),
    ];
    let failure = refusal(&archive(files));
    assert_eq!(failure.code, "sysdump/too-large");
    assert!(failure.message.contains("flows.jsonl"), "{failure:?}");
}
