//! What every command does alike: errors, their JSON, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::process::{Command, Output};

fn heddle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args(arguments)
        // A lab that nobody has.
        .env("HEDDLE_LAB", "manners-no-such-lab")
        .env("NO_COLOR", "1")
        .output()
        .expect("heddle runs")
}

/// Each command line that fails, with its exit code and the code of its error.
const FAILURES: [(&[&str], i32, &str); 12] = [
    (&["status"], 3, "lab/unknown-lab"),
    (&["endpoint", "list"], 3, "lab/unknown-lab"),
    (&["observe"], 3, "lab/unknown-lab"),
    (&["diff"], 3, "lab/unknown-lab"),
    (&["lab", "status"], 3, "lab/unknown-lab"),
    (&["lab", "get", "pods"], 3, "lab/unknown-lab"),
    (
        &["status", "--socket", "/nowhere/agent.sock"],
        3,
        "agent/unreachable",
    ),
    (&["status", "--nonsense"], 2, "usage/unknown-argument"),
    (&["nonsense"], 2, "usage/unknown-command"),
    (&["lab", "get"], 2, "usage/missing-argument"),
    (
        &[
            "policy",
            "decide",
            "-f",
            "/nowhere.yaml",
            "--from",
            "a/b",
            "--to",
            "a/c",
            "--port",
            "80",
            "--protocol",
            "TCP",
        ],
        2,
        "manifest/unreadable",
    ),
    (
        &["policy", "entries", "-f", "/nowhere.yaml", "--pod", "a/b"],
        2,
        "manifest/unreadable",
    ),
];

/// The same, of commands that show no object and so have no `-o`.
const OTHERS: [(&[&str], i32, &str); 3] = [
    (&["lab", "logs", "pod"], 3, "lab/unknown-lab"),
    (&["lab", "up", "--families", "5"], 2, "lab/bad-config"),
    (&["lab", "up", "--config", "/nowhere.yaml"], 2, "lab/file"),
];

#[test]
fn an_error_in_json_always_has_its_five_keys() {
    for (line, exit, code) in FAILURES {
        let json = if line[0] == "observe" {
            "jsonpb"
        } else {
            "json"
        };
        let output = heddle(&[line, &["-o", json]].concat());
        assert_eq!(output.status.code(), Some(exit), "{line:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{line:?}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stderr)
            .unwrap_or_else(|error| panic!("{line:?}: {error}: {output:?}"));
        let error = said["error"].as_object().unwrap();
        assert_eq!(error["code"], code, "{line:?}: {said}");
        assert!(error["message"].is_string(), "{said}");
        for key in ["object", "field", "help"] {
            let value = error.get(key).unwrap_or_else(|| panic!("no {key}: {said}"));
            let said_something = value.as_str().is_some_and(|text| !text.is_empty());
            assert!(value.is_null() || said_something, "{key}: {said}");
        }
        assert_eq!(error.len(), 5, "{said}");
    }
}

#[test]
fn an_error_for_people_has_its_code_and_what_to_try() {
    for (line, exit, code) in FAILURES.into_iter().chain(OTHERS) {
        let output = heddle(line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{line:?}: {said}");
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            lines[0].starts_with(&format!("error[{code}]: ")),
            "{line:?}: {said}"
        );
        assert!(lines[1].starts_with("help: "), "{line:?}: {said}");
        assert_eq!(lines.len(), 2, "{line:?}: {said}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    for line in [&["--help"][..], &["--version"], &["lab", "up", "--help"]] {
        let output = heddle(line);
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{line:?}"
        );
    }
    let alone = heddle(&[]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(
        String::from_utf8(alone.stderr)
            .unwrap()
            .contains("Usage: heddle")
    );
}

/// In a mount namespace of its own: `/run` is the test's, and the one who asks is nobody.
#[test]
fn u8_without_root_the_permission_is_named() {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout.trim_ascii() != b"0" {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        eprintln!("skipped: only root can become nobody");
        return;
    }
    let script = r#"
        mount -t tmpfs none /run
        cp "$HEDDLE" /run/heddle-command && chmod 755 /run/heddle-command
        mkdir -m 700 /run/heddle && mkdir -p /run/heddle/labs/demo/nodes/node-1
        exec setpriv --reuid 65534 --clear-groups /run/heddle-command "$@"
    "#;
    for line in [
        &["status", "--lab", "demo"][..],
        &["diff", "--lab", "demo"],
        &["observe", "--lab", "demo"],
        &["endpoint", "list"],
        &["bpf", "ct", "list", "--lab", "demo"],
        &["lab", "status", "--lab", "demo"],
        &["lab", "get", "pods", "--lab", "demo"],
        &["why", "--lab", "demo", "--from", "a/b", "--to", "a/c"],
    ] {
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", script, "sh"])
            .args(line)
            .env("HEDDLE", env!("CARGO_BIN_EXE_heddle"))
            .env_remove("HEDDLE_LAB")
            .output()
            .expect("unshare runs");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.starts_with("error[lab/not-root]: /run/heddle")
                && said.contains("readable by root only"),
            "{line:?}: {said}"
        );
        assert!(said.contains("help: use sudo"), "{line:?}: {said}");
        assert_eq!(output.status.code(), Some(3), "{line:?}: {said}");
    }
}

/// Writes a configuration file and starts a daemon with it.
fn start(daemon: &str, text: &str) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args([daemon, "--config"])
        .arg(&file)
        .args(["--log-level=error"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let (message, help) = said.split_once("\nhelp: ").unwrap_or((&said, ""));
    let place = format!("error[config/invalid]: configuration {}: ", file.display());
    let message = message.strip_prefix(&place).unwrap_or(message);
    let said = serde_json::json!({"message": message, "help": help.trim_end()});
    (output.status.code(), said)
}

#[test]
fn a_wrong_setting_is_named_with_its_value_its_range_and_what_to_do() {
    let agent = "nodeName: n\nstore: /s\nstateDir: /d\npinDir: /p\nuplink: eth0\nfabric: routed\npodCidrs: [10.0.0.0/16, 'fd00::/48']\n";
    let operator = "store: /s\nstateDir: /d\n";
    for (daemon, text, message, help) in [
        (
            "agent",
            format!("{agent}maxConnections: 5\n"),
            "maxConnections: is 5, must be 16 to 16777216 (connections)",
            "leave it out for 131072, or see docs/settings.md",
        ),
        (
            "agent",
            format!("{agent}flowCapacity: 4096\n"),
            "flowCapacity: is 4096, must be 2^n - 1, 1 to 65535 (flows)",
            "leave it out for 4095, or see docs/settings.md",
        ),
        (
            "agent",
            format!("{agent}maxConections: 4096\n"),
            "maxConections: there is no such setting",
            "did you mean `maxConnections`?",
        ),
        (
            "agent",
            format!("{agent}policyAudit: hosts\n"),
            "policyAudit: is \"hosts\", must be none or host or all",
            "did you mean `host`?",
        ),
        (
            "agent",
            format!(
                "{agent}protectedTraffic: [{{direction: egress, peer: 10.0.0.1/32, protocol: TCP}}]\n"
            ),
            "protectedTraffic: is [{\"direction\":\"egress\",\"peer\":\"10.0.0.1/32\",\"protocol\":\"TCP\"}]: missing field `port`",
            "docs/settings.md says what protectedTraffic does",
        ),
        (
            "agent",
            agent.replace("uplink: eth0\n", ""),
            "uplink: is missing, must be the name of an interface, 1 to 15 characters (`ip link` shows them)",
            "docs/settings.md lists the settings; keys are camelCase",
        ),
        (
            "agent",
            agent.replace(", 'fd00::/48'", ""),
            "podCidrs: has no IPv6 range, and families has 6; name every range that pods of the cluster get addresses from",
            "docs/settings.md says what podCidrs does",
        ),
        (
            "operator",
            format!("{operator}leaseSeconds: 2\n"),
            "leaseSeconds: is 2, must be 3 to 3600 (seconds)",
            "leave it out for 15, or see docs/settings.md",
        ),
        (
            "operator",
            format!("{operator}metrics: localhost\n"),
            "metrics: is \"localhost\", must be an IP address and a port, as in 127.0.0.1:9962",
            "leave it out, or see docs/settings.md",
        ),
        (
            "operator",
            format!("{operator}pools: [{{name: a, cidrs: [10.0.0.0/16], maskV4: 31}}]\n"),
            "pools: pool a: maskV4 is 31: block 10.0.0.0/31 has no usable address: its network, gateway and broadcast addresses are never given; use a mask of /30 or shorter",
            "docs/settings.md says what pools does",
        ),
    ] {
        let (code, said) = start(daemon, &text);
        assert_eq!(code, Some(2), "{text}: {said}");
        assert_eq!(said["message"], message, "{text}");
        assert_eq!(said["help"], help, "{text}");
    }
}

#[test]
fn nobody_who_reads_standard_error_is_no_failure_of_its_own() {
    for (line, code) in [
        (&["lab", "list"][..], 0),
        (&["lab", "get", "pods"], 3),
        (
            &["policy", "entries", "-f", "/nowhere.yaml", "--pod", "a/b"],
            2,
        ),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
            .args(line)
            .env("HEDDLE_LAB", "no-such-lab")
            .stderr(writer)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{line:?}: {output:?}");
    }
}

/// Runs a command with these variables, of which an empty one is set and empty, and gives its exit code and its words.
fn with(line: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args(line)
        .env_remove("HEDDLE_LAB")
        .env_remove("HEDDLE_LOG")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn an_empty_variable_names_no_lab_and_an_empty_flag_is_refused_in_every_form_of_command() {
    let peers = ["--from", "a/b", "--to", "a/c"];
    for line in [
        &["status"][..],
        &["observe", "--last", "1"],
        &["endpoint", "list"],
        &["diff"],
        &[&["why"], &peers[..]].concat(),
        &[&["policy", "why"], &peers[..]].concat(),
        &["lab", "status"],
        &["lab", "get", "pods"],
        &["lab", "events"],
        &["lab", "describe", "pods"],
        &["lab", "logs", "no-such-pod"],
        &["lab", "label", "pod", "no-such-pod", "a=b"],
    ] {
        let code = |said: &str| {
            said.lines()
                .next()
                .and_then(|it| it.split(':').next())
                .map(str::to_owned)
        };
        let (exit, said) = with(line, &[]);
        let (empty, said_empty) = with(line, &[("HEDDLE_LAB", "")]);
        assert_eq!(
            (exit, code(&said)),
            (empty, code(&said_empty)),
            "{line:?}: {said_empty}"
        );
        let (flag, said_flag) = with(&[line, &["--lab", ""]].concat(), &[]);
        // A script's variable that was never set must not mean somebody's lab.
        assert_eq!(
            (flag, code(&said_flag).as_deref()),
            (Some(2), Some("error[usage/bad-value]")),
            "{line:?}: {said_flag}"
        );
        assert!(!said_empty.contains("bad-name"), "{line:?}: {said_empty}");
    }
}

#[test]
fn a_mistyped_log_level_is_refused_and_an_empty_one_is_the_default() {
    let agent = ["agent", "--config", "/nowhere.yaml"];
    let operator = ["operator", "--config", "/nowhere.yaml"];
    for daemon in [agent, operator] {
        for (flags, variables) in [
            (&["--log-level", "wran"][..], &[][..]),
            (&[], &[("HEDDLE_LOG", "wran")]),
        ] {
            let (exit, said) = with(&[&daemon[..], flags].concat(), variables);
            assert_eq!(exit, Some(2), "{said}");
            assert!(
                said.starts_with("error[config/invalid]: log level \"wran\": \"wran\" is no level\nhelp: did you mean `warn`?"),
                "{said}"
            );
        }
        for text in ["", "info,heddle_agent=debug"] {
            let (exit, said) = with(&daemon, &[("HEDDLE_LOG", text)]);
            assert_eq!(exit, Some(2), "{said}");
            assert!(
                said.contains("/nowhere.yaml") && !said.contains("log level"),
                "{said}"
            );
        }
    }
    // Before anything of a lab is made.
    for line in [
        &[
            "lab",
            "up",
            "--lab",
            "manners-no-such-lab",
            "--config",
            "/nowhere.yaml",
        ][..],
        &["lab", "daemon", "--lab", "manners-no-such-lab"],
    ] {
        let (exit, said) = with(line, &[("HEDDLE_LOG", "inof")]);
        assert_eq!(exit, Some(2), "{said}");
        assert!(said.contains("\"inof\" is no level"), "{said}");
    }
}

#[test]
fn a_time_that_is_too_long_to_wait_is_refused() {
    let huge = "10000000000000000000s";
    for line in [
        &["sysdump", "--timeout", huge][..],
        &["connectivity", "test", "--timeout", huge],
        &["lab", "apply", "-f", "/nowhere.yaml", "--timeout", huge],
        &["lab", "delete", "pod", "a", "--timeout", huge],
        &["lab", "label", "pod", "a", "b=c", "--timeout", "169h"],
        &[
            "agent",
            "--config",
            "/nowhere.yaml",
            "--prepare-downgrade",
            "3",
            "--time-limit",
            "18446744073709551615",
        ],
        &[
            "agent",
            "--config",
            "/nowhere.yaml",
            "--prepare-downgrade",
            "3",
            "--time-limit",
            "604801",
        ],
    ] {
        let (exit, said) = with(line, &[]);
        assert_eq!(exit, Some(2), "{line:?}: {said}");
        assert!(
            said.starts_with("error[usage/bad-value]: "),
            "{line:?}: {said}"
        );
        // The value, the flag, and what it may be.
        for part in [line[line.len() - 1], line[line.len() - 2]] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("week") || said.contains("604800"), "{said}");
    }
}
