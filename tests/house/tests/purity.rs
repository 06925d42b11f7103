//! core/ is pure: no I/O, no async, no clock, no global state.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_house::{Findings, Workspace, lock::Lock, read, source};

/// Packages that do I/O, run futures, tell the time or draw random numbers.
const IMPURE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "futures-executor",
    "async-trait",
    "libc",
    "nix",
    "rustix",
    "socket2",
    "aya",
    "rtnetlink",
    "hyper",
    "redb",
    "tempfile",
    "rand",
    "getrandom",
    "chrono",
    "time",
    "tracing",
    "log",
    "crossbeam-channel",
    "parking_lot",
    "rayon",
    "dashmap",
];

/// What pure code does not name. A name also stands for everything under it.
const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::os",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::OnceLock",
    "std::sync::LazyLock",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::sync::atomic",
    "std::cell::OnceCell",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::time::*",
    "std::net::*",
    "std::sync::*",
    "SystemTime",
    "Instant",
    "static mut",
    "async fn",
    "thread_local!",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "dbg!",
];

#[test]
fn core_crates_are_built_from_pure_packages() {
    let (workspace, lock) = (Workspace::read().unwrap(), Lock::read().unwrap());
    let mut findings = Findings::default();
    let mut read = 0;
    for member in workspace.members.iter().filter(|m| m.floor() == "core") {
        let closure = workspace.closure(&member.name, &lock);
        read += closure.len();
        for package in IMPURE {
            if closure.contains(*package) {
                findings.add(format!("{} is built from {package}", member.name));
            }
        }
        // Optional dependencies are left out of the closure, so nobody in core may turn them on.
        for dependency in &member.dependencies {
            let ours = workspace.member(&dependency.name).is_some();
            if ours && !dependency.dev && !dependency.features.is_empty() {
                findings.add(format!(
                    "{} turns on features of {}: {:?}",
                    member.name, dependency.name, dependency.features
                ));
            }
        }
    }
    assert!(read > 20, "only {read} packages were read");
    findings.none_or_panic("core is not pure");
}

#[test]
fn core_sources_name_nothing_impure() {
    let mut findings = Findings::default();
    let mut mentions = 0;
    for path in source::files("rs").unwrap() {
        let text = path.to_string_lossy();
        let for_tests =
            text.contains("/tests/") || text.ends_with("/tests.rs") || text.contains("/benches/");
        if !text.starts_with("core/") || for_tests {
            continue;
        }
        for mention in source::mentions(&read(&path).unwrap()).unwrap() {
            mentions += 1;
            let what = mention
                .what
                .replacen("core::", "std::", 1)
                .replacen("alloc::", "std::", 1);
            let hit = FORBIDDEN.iter().any(|word| {
                what == *word
                    || what
                        .strip_prefix(word)
                        .is_some_and(|rest| rest.starts_with("::"))
            });
            if hit {
                findings.add(format!("{text}:{}: {}", mention.line, mention.what));
            }
        }
    }
    assert!(mentions > 500, "only {mentions} names were read");
    findings.none_or_panic("core names what a pure crate does not need");
}
