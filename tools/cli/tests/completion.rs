//! Shells can read what `heddle completion` prints, and complete by it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use std::process::Command;

fn script(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args(["completion", shell])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("heddle");
    std::fs::write(&file, script("bash")).unwrap();
    // What bash does when the tab key is pressed behind the last word.
    let press = r#"
        source "$1"; shift
        complete -p heddle >/dev/null
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _heddle heddle "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    for (line, found) in [
        (&["heddle", "obs"][..], "observe"),
        (&["heddle", "lab", "g"], "get"),
        (&["heddle", "lab", "get", "--all"], "--all-namespaces"),
        (&["heddle", "lab", "get", "pods", "-o", "ya"], "yaml"),
        (&["heddle", "policy", "matrix", "--output", "c"], "csv"),
    ] {
        let output = Command::new("bash")
            .args(["--norc", "-eu", "-c", press, "bash"])
            .arg(&file)
            .args(line)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.lines().any(|word| word == found),
            "{line:?}: {output:?}"
        );
        assert!(output.stderr.is_empty(), "{line:?}: {output:?}");
    }
}

#[test]
fn every_shell_has_its_script_and_others_are_named() {
    assert!(script("zsh").starts_with("#compdef heddle"));
    assert!(script("fish").contains("complete -c heddle"));
    let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
        .args(["completion", "csh"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("bash") && said.contains("zsh") && said.contains("fish"),
        "{said}"
    );
}
