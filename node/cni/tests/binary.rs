//! The plugin as the runtime starts it: a process with an environment, stdin, stdout and an exit code.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn start(variables: &[(&str, &str)], input: &str) -> Output {
    let mut plugin = Command::new(env!("CARGO_BIN_EXE_heddle-cni"))
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    plugin
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    plugin.wait_with_output().unwrap()
}

#[test]
fn version_is_printed_and_exits_0() {
    let output = start(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"1.0.0"}"#);
    assert!(output.status.success());
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["cniVersion"], "1.0.0");
    assert_eq!(printed["supportedVersions"][3], "1.1.0");
}

#[test]
fn an_error_is_json_on_stdout_and_exits_1() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let config = format!(
        r#"{{"cniVersion":"1.1.0","name":"heddle","type":"heddle-cni","agentSocket":"{}"}}"#,
        socket.display()
    );
    let output = start(&[("CNI_COMMAND", "STATUS")], &config);
    assert_eq!(output.status.code(), Some(1));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["code"], 50);
    assert!(output.stderr.is_empty());
    let output = start(&[], "");
    assert_eq!(output.status.code(), Some(1));
}
