//! What the commands of a lab promise beside packets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::Lab;

#[test]
fn two_ups_of_one_name_at_once_make_one_lab() {
    let first = Lab::up(&["--nodes", "1"]);
    let _ = first.run(&["lab", "down"]).ok();
    // Both begin with nothing there.
    let up = || first.command(&["lab", "up", "--nodes", "1"]).output();
    let said = std::thread::scope(|scope| {
        let both = [scope.spawn(up), scope.spawn(up)];
        both.map(|one| one.join().unwrap().unwrap())
    });
    for one in &said {
        let words = String::from_utf8_lossy(&one.stderr);
        assert!(one.status.success(), "{words}");
    }
    let waited = said
        .iter()
        .filter(|one| String::from_utf8_lossy(&one.stderr).contains("it is up already"));
    assert_eq!(waited.count(), 1, "{said:?}");
    let status = first.run(&["lab", "status", "-o", "json"]).ok().json();
    assert_eq!(status["nodes"][0]["agent"]["ready"], true, "{status}");
}

#[test]
fn what_a_lab_stands_on_is_not_deleted() {
    let lab = Lab::up(&["--nodes", "1"]);
    lab.apply(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "heddle/idle"}]}}"#,
    );
    for (kind, name) in [
        ("node", "node-1"),
        ("ns", "default"),
        ("namespace", "kube-system"),
    ] {
        let said = lab.run(&["lab", "delete", kind, name]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("error[lab/protected]"), "{said:?}");
    }
    // Of several none is deleted when one may not be.
    let both = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}
---
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
"#;
    assert_eq!(lab.run_with(&["lab", "delete", "-f", "-"], both).code, 1);
    assert_eq!(lab.object("pod", "a")["metadata"]["name"], "a");
}
