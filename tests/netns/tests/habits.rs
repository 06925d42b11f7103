//! What people do by habit, as with kubectl: list, get, watch, describe, events, exec with a terminal, delete by label.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, allow_only, eventually, heddle, idle, server};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    items.iter().map(name).collect()
}

fn reasons(lab: &Lab, pod: &str) -> Vec<String> {
    let events = lab.run(&["lab", "events", "-o", "json"]).ok().json();
    let items = events["items"].as_array().unwrap();
    let about = |event: &&Value| event["involvedObject"]["name"] == pod;
    items
        .iter()
        .filter(about)
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn objects_are_listed_described_told_and_deleted_as_with_kubectl() {
    let lab = Lab::up(&["--nodes", "1"]);
    lab.apply(&[server("web", "node-1"), idle("client", "node-1")].concat());
    lab.apply(&allow_only("web", "client"));

    let labs = lab.run(&["lab", "list", "-o", "json"]).ok().json();
    let own = labs
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == *lab.name)
        .unwrap();
    assert_eq!(own["state"], "up", "{own}");
    assert_eq!(own["nodes"], 1, "{own}");
    assert_eq!(own["pods"], 2, "{own}");
    assert!(own["since"].as_str().unwrap().ends_with('Z'), "{own}");

    // Several kinds, several names, names only.
    let both = lab
        .run(&["lab", "get", "pods,netpol", "-o", "json"])
        .ok()
        .json();
    assert_eq!(names(&both), ["client", "web", "only-client-to-web"]);
    let said = lab.run(&["lab", "get", "pods,netpol", "-o", "name"]).ok();
    assert_eq!(
        said.out,
        "pod/client\npod/web\nnetworkpolicy/only-client-to-web\n"
    );
    let said = lab
        .run(&["lab", "get", "pod", "web", "client", "-o", "name"])
        .ok();
    assert_eq!(said.out, "pod/web\npod/client\n");
    let said = lab.run(&["lab", "get", "pod", "web", "absent", "-o", "name"]);
    assert_eq!((said.code, said.out.as_str()), (1, "pod/web\n"), "{said:?}");

    // How a policy is, once the operator has said so.
    eventually("the policy's row says so", Duration::from_secs(5), || {
        let said = lab.run(&["lab", "get", "netpol"]).ok();
        let rows: Vec<Vec<&str>> = said
            .out
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        rows[0][..3] == ["NAME", "VALID", "NODES"] && rows[1][1..3] == ["True", "1/1"]
    });

    let said = lab.run(&["lab", "describe", "pod", "web"]).ok();
    for part in [
        "Name:             web",
        "networkpolicy/default/only-client-to-web (ingress)",
        "Readiness:      tcpSocket :8080",
        "Started",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = lab.run(&["lab", "describe", "netpol"]).ok();
    assert!(said.out.contains("  pod/default/web\n"), "{}", said.out);
    assert!(!said.out.contains("pod/default/client\n"), "{}", said.out);

    let told = reasons(&lab, "web");
    for reason in ["Scheduled", "Started", "Ready"] {
        assert!(told.iter().any(|one| one == reason), "{reason}: {told:?}");
    }

    let said = lab
        .run(&["lab", "delete", "pods,netpol", "-l", "app=client"])
        .ok();
    assert_eq!(said.out, "pod/default/client deleted\n");
    let left = lab.run(&["lab", "get", "pods", "-o", "name"]).ok();
    assert_eq!(left.out, "pod/web\n");

    let said = lab.run(&["lab", "agent", "restart", "node-1"]).ok();
    assert_eq!(said.out, "agent/node-1 restarted and ready\n");
}

#[test]
fn a_failing_init_container_says_so() {
    let lab = Lab::up(&["--nodes", "1"]);
    let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
        "initContainers": [{"name": "prepare", "image": "host", "command": ["bash", "-c", "exit 3"]}],
        "containers": [{"name": "c", "image": "heddle/idle"}]}}"#;
    let said = lab.run_with(&["lab", "apply", "-f", "-", "--timeout", "3s"], pod);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("init container prepare"), "{said:?}");
    assert!(said.err.contains("code 3"), "{said:?}");
    let said = lab.run(&["lab", "get", "pods"]).ok();
    assert!(said.out.contains("Init:"), "{said:?}");
    let told = reasons(&lab, "a");
    assert!(told.iter().any(|reason| reason == "Failed"), "{told:?}");
}

#[test]
fn changes_are_printed_as_they_come() {
    let lab = Lab::up(&["--nodes", "1"]);
    let mut child = lab
        .command(&["lab", "get", "pods", "-w"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lab.apply(&idle("a", "node-1"));
    let _ = lab.run(&["lab", "delete", "pod", "a"]).ok();
    let end = Instant::now() + Duration::from_secs(20);
    let mut seen: Vec<String> = Vec::new();
    while !seen.iter().any(|line| line.contains("Terminating")) {
        let left = end.saturating_duration_since(Instant::now());
        seen.push(
            lines
                .recv_timeout(left)
                .unwrap_or_else(|error| panic!("{error}: {seen:?}")),
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    assert!(seen[0].starts_with("NAME"), "{seen:?}");
    assert!(
        seen.iter()
            .any(|line| line.contains("1/1") && line.contains("Running")),
        "{seen:?}"
    );
    assert_eq!(
        seen.iter().filter(|line| line.starts_with("NAME")).count(),
        1
    );
}

#[test]
fn a_command_in_a_pod_has_a_terminal_when_asked_for() {
    let lab = Lab::up(&["--nodes", "1"]);
    lab.apply(&idle("a", "node-1"));
    let within = |before: &str, options: &str, command: &str| {
        let line = format!(
            "{before} {} lab exec {options} a -- bash -c '{command}'",
            heddle().display()
        );
        // A terminal for the caller, too.
        let output = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("HEDDLE_LAB", &lab.name)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        (output.status.code(), text)
    };
    let (code, text) = within(
        "stty rows 33 cols 99;",
        "-it",
        "test -t 0 && test -t 1 && stty size; set -m; sleep 60 & jobs; kill %1; exit 7",
    );
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains("33 99"), "{text}");
    assert!(text.contains("Running"), "{text}");
    assert!(!text.contains("no job control"), "{text}");

    // Without: the caller's files, as they are.
    let said = lab.exec("a", "test -t 0 || echo none; exit 5");
    assert_eq!((said.code, said.out.as_str()), (5, "none\n"), "{said:?}");
    let said = lab
        .run_with(&["lab", "exec", "-i", "a", "--", "cat"], "through")
        .ok();
    assert_eq!(said.out, "through");
}

#[test]
fn a_large_paste_passes_through_a_terminal() {
    let lab = Lab::up(&["--nodes", "1"]);
    lab.apply(&idle("a", "node-1"));
    // More than a terminal holds comes back before the command reads on.
    let script = "stty raw -echo; head -c 300000 /dev/zero; head -c 1000000 | wc -c";
    let line = ["lab", "exec", "-it", "a", "--", "bash", "-c", script];
    let mut child = lab
        .command(&line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut paste, mut shown) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut text = vec![0];
    // The terminal does not edit lines any more.
    shown.read_exact(&mut text).unwrap();
    let pasting = std::thread::spawn(move || paste.write_all(&[b'x'; 1_000_000]));
    shown.read_to_end(&mut text).unwrap();
    pasting.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(text.ends_with(b"1000000\n"), "{} bytes", text.len());
}

#[test]
fn slips_are_answered_as_by_kubectl() {
    let lab = Lab::up(&["--nodes", "1"]);
    lab.apply(&idle("client", "node-1"));

    // Who is named and not there is no reason to wait, and a name may have its namespace before it.
    for name in ["clinet", "default/clinet", "pod/clinet"] {
        let said = lab.run(&["lab", "get", "pod", name, "-w"]);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("help: did you mean client?"), "{said:?}");
    }
    for line in [
        &["lab", "logs", "clinet"][..],
        &["lab", "exec", "clinet", "--", "true"],
        &["lab", "get", "pod", "clinet"],
    ] {
        let said = lab.run(line);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("help: did you mean client?"), "{said:?}");
    }
    for name in ["client", "default/client", "pod/client"] {
        let mut child = lab
            .command(&["lab", "get", "pod", name, "-w", "-n"])
            .arg(if name.contains("default") {
                "elsewhere"
            } else {
                "default"
            })
            .args(["-o", "name"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut first).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(first, "pod/client\n", "{name}");
    }

    let nothing = r#"{"apiVersion": "v1", "kind": "List", "items": []}"#;
    let said = lab.run_with(&["lab", "delete", "-f", "-"], nothing).ok();
    assert_eq!(said.err, "the manifests hold no object\n");
    let said = lab.run(&["lab", "delete", "pods", "-l", "app=nobody"]).ok();
    assert!(said.err.contains("nothing has these labels"), "{said:?}");
}

#[test]
fn logs_are_shown_by_age() {
    let lab = Lab::up(&["--nodes", "1"]);
    // Pods have the machine's files.
    let file = format!("/tmp/{}-may-go-on", lab.name);
    let script =
        format!("echo early; until [ -e {file} ]; do sleep 0.1; done; echo late; sleep 600");
    let pod = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "a"}}, "spec": {{
        "terminationGracePeriodSeconds": 0,
        "containers": [{{"name": "c", "image": "host", "command": ["bash", "-c", "{script}"]}}]}}}}"#
    );
    let _ = lab.run_with(&["lab", "apply", "-f", "-"], &pod).ok();
    let logs = |options: &[&str]| lab.run(&[&["lab", "logs", "a"], options].concat()).ok().out;
    eventually("the first line", Duration::from_secs(10), || {
        logs(&[]) == "early\n"
    });
    assert_eq!(logs(&["--since", "1h"]), "early\n");
    eventually("it is old", Duration::from_secs(10), || {
        logs(&["--since", "1s"]).is_empty()
    });
    std::fs::write(&file, "").unwrap();
    eventually("the second line", Duration::from_secs(10), || {
        logs(&[]) == "early\nlate\n"
    });
    std::fs::remove_file(&file).unwrap();
    assert_eq!(logs(&["--since", "1h"]), "early\nlate\n");
    assert_eq!(logs(&["--tail", "1"]), "late\n");
}
