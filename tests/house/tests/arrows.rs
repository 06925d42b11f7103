//! An arrow only points down: tools -> cluster, node -> kube -> core -> bpf/abi.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_house::{Findings, Member, Workspace};

/// Height of each floor; `bpf/programs` stands beside everything and knows the layouts only.
fn height(member: &Member) -> u8 {
    match member.floor() {
        "bpf" => 0,
        "core" => 1,
        "kube" => 2,
        "node" | "cluster" => 3,
        "tools" => 4,
        "tests" | "benches" => 5,
        other => panic!(
            "{}: floor {other} is not in ARCHITECTURE.md; give it a height here",
            member.name
        ),
    }
}

/// Arrows along a floor, each with its reason.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("bpf/programs", "bpf/abi", "the layouts"),
    ("core/policy", "core/model", "the words"),
    ("core/ipam", "core/model", "the words"),
    ("core/flow", "core/model", "the words"),
    ("core/services", "core/model", "the words"),
    ("core/verify", "core/model", "the words"),
    (
        "core/verify",
        "core/policy",
        "the engine that every answer is computed by",
    ),
    (
        "node/agent",
        "node/datapath",
        "the control loop drives the kernel side",
    ),
    ("node/cni", "node/rpc", "the calls that the agent answers"),
    ("node/agent", "node/rpc", "the calls that it answers"),
    (
        "node/agent",
        "node/cni",
        "its tests attach pods by the plugin",
    ),
    (
        "tools/cli",
        "tools/lab",
        "the lab's commands are subcommands",
    ),
    (
        "benches",
        "tests/netns",
        "changes under load are tested and measured by the same code",
    ),
];

#[test]
fn arrows_only_point_down() {
    let workspace = Workspace::read().unwrap();
    let mut findings = Findings::default();
    let mut arrows = 0;
    for member in &workspace.members {
        for dependency in &member.dependencies {
            let Some(below) = workspace.member(&dependency.name) else {
                continue;
            };
            arrows += 1;
            let down = height(below) < height(member);
            let allowed = SIDEWAYS
                .iter()
                .any(|(from, to, _)| *from == member.folder && *to == below.folder);
            if !down && !allowed {
                findings.add(format!("{} -> {}", member.folder, below.folder));
            }
            if below.folder == "bpf/programs" {
                findings.add(format!(
                    "{} -> bpf/programs: only heddle-datapath's build script builds it",
                    member.folder
                ));
            }
        }
    }
    assert!(arrows > 20, "only {arrows} arrows were read");
    findings.none_or_panic("arrows that point up or sideways");
}

#[test]
fn ebpf_programs_know_the_layouts_only() {
    let workspace = Workspace::read().unwrap();
    let programs = workspace.member("heddle-bpf").unwrap();
    for dependency in &programs.dependencies {
        assert!(
            ["heddle-abi", "aya-ebpf"].contains(&dependency.name.as_str()),
            "bpf/programs depends on {}",
            dependency.name
        );
    }
}

#[test]
fn every_sideways_arrow_is_used() {
    let workspace = Workspace::read().unwrap();
    for (from, to, _) in SIDEWAYS {
        let member = workspace
            .members
            .iter()
            .find(|m| m.folder == *from)
            .unwrap();
        let below = workspace.members.iter().find(|m| m.folder == *to).unwrap();
        assert!(
            member.dependencies.iter().any(|d| d.name == below.name),
            "{from} -> {to} is allowed and not used: remove the line"
        );
    }
}
