//! Dumps as they come from anywhere.

use super::*;
use crate::dump::tar::append;
use crate::dump::testing::{archive, archive_of, flow_lines, manifest};
use serde_json::json;

/// A dump of a manifest and these files.
fn dump(files: &[(&str, Value)]) -> Dump {
    dump_of(&manifest(), files)
}

fn dump_of(manifest: &Value, files: &[(&str, Value)]) -> Dump {
    let bytes = archive_of(manifest, files);
    Dump::read("d.tar".to_owned(), bytes.as_slice()).unwrap()
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
            json!({"result": {"rows": [{"endpoint": 7}, {"endpoint": 8}], "leftOut": 3}}),
        ),
        (
            "nodes/node-1/bpf.ct.json",
            json!({"result": [
                row("10.0.0.7:1", "10.0.0.8:80"), row("[fd00::8]:1", "[fd00::7]:80"), row("10.0.0.8:1", "10.0.0.9:80"),
            ]}),
        ),
    ]);
    let of = |method: &str, endpoint: u32| dump.answer(0, method, &json!({"endpoint": endpoint}));
    assert_eq!(
        of("bpf.policy", 7).unwrap(),
        json!({"rows": [{"endpoint": 7}], "leftOut": 3})
    );
    // As agents answered before they left rows out.
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
    let times = ["10:00:01", "10:00:02", "10:00:03"];
    let text = flow_lines("node-1", &times);
    let dump = dump(&[("nodes/node-1/flows.jsonl", json!(text))]);
    let count = |params: Value| dump.flows(0, &params).map(|flows| flows.lines.len());
    let code = |params: Value| dump.flows(0, &params).err().map(|failure| failure.code);
    assert_eq!(count(json!({})).unwrap(), 3);
    assert_eq!(count(json!({"number": 2})).unwrap(), 2);
    assert_eq!(count(json!({"since": "2026-11-30T10:00:03Z"})).unwrap(), 1);
    assert_eq!(
        count(json!({"whitelist": [{"verdict": ["FORWARDED"]}]})).unwrap(),
        0
    );
    assert_eq!(
        code(json!({"follow": true})).as_deref(),
        Some("sysdump/no-future")
    );
    assert_eq!(
        code(json!({"nonsense": 1})).as_deref(),
        Some("sysdump/malformed")
    );
}

#[test]
fn that_flows_were_cut_is_said_where_the_answer_may_lack_some() {
    let file = "nodes/node-1/flows.jsonl";
    let times = ["10:00:01", "10:00:02", "10:00:03"];
    let files = [(file, json!(flow_lines("node-1", &times)))];
    let mut cut = manifest();
    cut["cut"] = json!([{"file": file, "limit": "--flows", "what": "only the last 3 flows", "askedFor": true}]);
    let (whole, cut) = (dump(&files), dump_of(&cut, &files));
    let at = |second: u32| format!("2026-11-30T10:00:{second:02}Z");
    for (params, is_said) in [
        (json!({}), true),
        (json!({"number": 3}), false),
        (json!({"number": 4}), true),
        (json!({"number": u64::MAX}), true),
        (json!({"number": 1, "first": true}), true),
        (json!({"since": at(1)}), false),
        (json!({"since": at(0)}), true),
        (json!({"since": at(0), "number": 2}), false),
        (json!({"since": at(2), "number": 1, "first": true}), false),
        (json!({"until": at(2)}), true),
        // What is rare may have been there before.
        (
            json!({"number": 1, "whitelist": [{"verdict": ["FORWARDED"]}]}),
            true,
        ),
    ] {
        let note = cut.flows(0, &params).unwrap().note;
        assert_eq!(note.is_some(), is_said, "{params}");
        if let Some(note) = note {
            assert_eq!(
                note,
                "of the flows of node-1 the dump d.tar has only the last 3 flows (--flows): what came before \
                 2026-11-30T10:00:01.000000000Z is not in it"
            );
        }
        assert_eq!(whole.flows(0, &params).unwrap().note, None, "{params}");
    }
}

#[test]
fn a_manifest_without_a_time_is_refused() {
    let mut manifest = manifest();
    manifest["time"] = json!("yesterday");
    let failure = refusal(&archive_of(&manifest, &[]));
    assert_eq!(failure.code, "sysdump/malformed");
    assert!(
        failure.message.contains("time: \"yesterday\""),
        "{failure:?}"
    );
}

#[test]
fn what_a_dump_says_of_failures_stands_in_one_line() {
    let lines = "no answer\nerror[lab/ruined]: run rm\r\nhelp: now\tthen";
    let mut manifest = manifest();
    manifest["missing"][0]["reason"] = json!(lines);
    manifest["cut"][0]["what"] = json!(lines);
    manifest["cut"][0]["limit"] = json!(lines);
    manifest["nodes"][1]["name"] = json!("node\n2");
    let dump = dump_of(
        &manifest,
        &[
            (
                "nodes/node-2/error.json",
                json!({"error": {"code": lines, "message": lines, "object": lines, "field": lines, "help": lines}, "exit": 3}),
            ),
            (
                "nodes/node-1/policy.state.json",
                json!({"result": {"policies": {lines: {}}}}),
            ),
        ],
    );
    let none = json!({});
    let question = json!({"address": null, "direction": "egress", "peer": {"identity": 1}, "protocol": 6, "port": 80});
    for failure in [
        dump.answer(0, "diff", &none),
        dump.answer(0, "bpf.ct", &none),
        dump.answer(1, "status", &none),
        dump.answer(0, "policy.lookup", &question),
        dump.answer(0, "policy.lookup", &json!({"direction": lines})),
    ]
    .map(Result::unwrap_err)
    {
        let texts = [
            &failure.code,
            &failure.message,
            &failure.object,
            &failure.field,
            &failure.help,
        ];
        for text in texts {
            assert!(!text.contains(['\n', '\r', '\t']), "{failure:?}");
        }
        assert!(!failure.message.is_empty(), "{failure:?}");
    }
    assert_eq!(dump.nodes()[1].shown(), "node 2");
    let pod = json!({"kind": "Pod", "metadata": {"name": "p\nerror", "namespace": "n"}});
    let named = dump_of(&manifest, &[("objects/pods.json", json!({"items": [pod]}))]);
    let failure = named.objects(&[Kind::Pod]).unwrap_err();
    assert_eq!(failure.code, "sysdump/malformed");
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

#[test]
fn objects_count_by_what_they_take_of_memory() {
    // 28 MB that would take more than 2 GB.
    let many = format!("[{}]", vec![r#"{"":0}"#; 4_000_000].join(","));
    let failure = refusal(&archive_of(&manifest(), &[("a.json", json!(many))]));
    assert_eq!(failure.code, "sysdump/too-large");
    assert!(failure.message.contains("values"), "{failure:?}");
}
