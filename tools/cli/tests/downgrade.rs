//! `heddle agent --prepare-downgrade`: what it refuses, and how it says so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, process::Command};

#[test]
fn what_cannot_be_prepared_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (config, pins) = (folder.path().join("agent.yaml"), folder.path().join("pins"));
    let text = format!(
        "nodeName: n1\nstore: /nowhere/store.sock\nstateDir: /nowhere\npinDir: {}\nuplink: eth0\n\
         fabric: routed\npodCidrs: [10.0.0.0/8, 'fd00::/16']\n",
        pins.display()
    );
    fs::write(&config, text).unwrap();
    for (version, reason) in [
        ("2", "version 2 cannot take over from any other"),
        ("99", "nothing is pinned there"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_heddle"))
            .args(["agent", "--config"])
            .arg(&config)
            .args(["--prepare-downgrade", version])
            .output()
            .expect("heddle runs");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("error[datapath/other-version]: "), "{said}");
        assert!(said.contains(reason), "{said}");
        assert!(said.contains("help: drain the node"), "{said}");
        assert!(!pins.exists(), "nothing was touched");
    }
}
