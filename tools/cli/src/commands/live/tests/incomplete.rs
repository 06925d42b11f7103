//! Answers that lack something say so.

use super::*;

#[test]
fn rows_that_an_answer_left_out_are_told_of_and_are_not_enough() {
    let stage = Stage::new();
    stage.agent(&stage.socket("default", "n1"), |_| {
        result(json!({"rows": [{"prefix": "10.244.0.5/32", "identity": 20001}], "leftOut": 12}))
    });
    let shown = stage.run(&["bpf", "ipcache", "list", "-o", "json"]);
    assert_eq!(shown.exit, NO_DATA);
    assert!(
        shown.err.contains("node n1 has 12 more rows than the 1"),
        "{}",
        shown.err
    );
    let rows = shown.json();
    assert_eq!(rows[0]["prefix"], "10.244.0.5/32");
    assert_eq!(
        (&rows[1]["node"], &rows[1]["error"]["code"]),
        (&json!("n1"), &json!("agent/rows-left-out"))
    );
}

#[test]
fn what_is_missing_of_an_answer_stands_in_it_with_the_node_and_the_reason() {
    let stage = Stage::new();
    let rows = |request: &Value| match request["method"].as_str().unwrap() {
        "endpoint.list" => json!([endpoint(7, "web")]),
        "identity.list" => json!([{"id": 20001, "labels": ["k8s:app=web"]}]),
        "node.list" => json!([{"name": "n1", "addresses": ["192.168.0.1"], "local": true}]),
        "bpf.ipcache" => json!([{"prefix": "10.244.0.5/32", "identity": 20001, "node": null}]),
        "bpf.ct" => json!([{"protocol": "TCP", "source": "a", "remainingSeconds": 5}]),
        _ => json!([{"node": "n1", "object": "7"}]),
    };
    stage.agent(&stage.socket("default", "n1"), move |request| {
        result(rows(request))
    });
    stage.socket("default", "n2");
    for line in [
        &["endpoint", "list"][..],
        &["endpoint", "get", "7"],
        &["identity", "list"],
        &["identity", "get", "20001"],
        &["node", "list"],
        &["ipam", "list"],
        &["bpf", "policy", "list"],
        &["bpf", "ct", "list"],
        &["bpf", "ipcache", "list"],
        &["bpf", "ipcache", "list", "--endpoint", "7"],
        &["diff"],
    ] {
        let shown = stage.run(&[line, &["-o", "json"]].concat());
        // A difference that is known counts more.
        let exit = if line[0] == "diff" { 1 } else { 3 };
        assert_eq!(shown.exit, exit, "{line:?}");
        let rows = shown.json();
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), 2, "{line:?}: {rows:?}");
        assert!(rows[0].get("error").is_none(), "{line:?}: {rows:?}");
        assert_eq!(rows[1]["node"], "n2", "{line:?}");
        let error = rows[1]["error"].as_object().unwrap();
        assert_eq!(error["code"], "agent/unreachable", "{line:?}");
        assert_eq!(error.len(), 5, "{line:?}: {error:?}");
        // For people it stands on standard error, and no row is made of it.
        let table = stage.run(line);
        assert_eq!(
            (table.out.contains("unreachable"), table.err.contains("n2")),
            (false, true),
            "{line:?}: {}",
            table.out
        );
        // Who answers whole answers with rows alone.
        let whole = stage.run(&[line, &["-o", "json", "--node", "n1"]].concat());
        assert_eq!(whole.json().as_array().unwrap().len(), 1, "{line:?}");
    }
    // Nobody can say that there is no such endpoint.
    for line in [
        &["endpoint", "get", "9"][..],
        &["bpf", "ipcache", "list", "--endpoint", "9"],
    ] {
        let failure = stage.run(line).failure.unwrap();
        assert_eq!(
            (failure.code.as_str(), failure.exit),
            ("endpoint/unknown", 3),
            "{line:?}"
        );
    }
}
