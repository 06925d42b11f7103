//! Versions stand in one place; one async runtime, one TLS stack, one netlink stack, no duplicates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_house::{Findings, Workspace, bans::Bans, lock::Lock};

#[test]
fn versions_stand_in_one_place() {
    let workspace = Workspace::read().unwrap();
    let mut findings = Findings::default();
    for member in &workspace.members {
        for dependency in member.dependencies.iter().filter(|d| !d.from_workspace) {
            findings.add(format!(
                "{}: {} is not `workspace = true`",
                member.folder, dependency.name
            ));
        }
    }
    findings.none_or_panic("[workspace.dependencies] is the only place for a version");
}

#[test]
fn default_features_are_asked_for_by_name() {
    let workspace = Workspace::read().unwrap();
    let mut findings = Findings::default();
    for (name, value) in &workspace.pinned {
        let ours = value.get("path").is_some();
        let off = value.get("default-features").and_then(toml::Value::as_bool) == Some(false);
        // A procedural macro without features.
        if !ours && !off && name != "async-trait" {
            findings.add(format!(
                "{name}: set default-features = false and name what is needed"
            ));
        }
    }
    findings.none_or_panic("default features");
}

#[test]
fn every_pinned_version_is_used() {
    let workspace = Workspace::read().unwrap();
    let mut findings = Findings::default();
    for (name, value) in &workspace.pinned {
        let used = workspace
            .members
            .iter()
            .any(|member| member.dependencies.iter().any(|d| d.name == *name));
        if !used && value.get("path").is_none() {
            findings.add(format!("{name} is pinned and nobody uses it"));
        }
    }
    findings.none_or_panic("[workspace.dependencies]");
}

#[test]
fn banned_crates_are_absent() {
    let lock = Lock::read().unwrap();
    let versions = lock.versions();
    let mut findings = Findings::default();
    for name in Bans::read().unwrap().denied {
        if versions.contains_key(name.as_str()) {
            findings.add(format!("{name} is banned by deny.toml"));
        }
    }
    for name in lock.unknown_sources() {
        findings.add(format!("{name} does not come from a registry"));
    }
    findings.none_or_panic("crates");
}

#[test]
fn duplicates_are_listed_with_a_reason() {
    let lock = Lock::read().unwrap();
    let skipped = Bans::read().unwrap().skipped;
    let versions = lock.versions();
    let mut findings = Findings::default();
    for (name, versions) in &versions {
        let listed = skipped
            .iter()
            .any(|entry| entry.split('@').next() == Some(name));
        if versions.len() > 1 && !listed {
            findings.add(format!(
                "{name} in versions {versions:?}: choose one, or list it in deny.toml"
            ));
        }
    }
    for entry in &skipped {
        let name = entry.split('@').next().unwrap();
        if versions.get(name).is_none_or(|versions| versions.len() < 2) {
            findings.add(format!(
                "{entry} is listed in deny.toml and is no duplicate any more"
            ));
        }
    }
    findings.none_or_panic("duplicates");
}
