//! The folder of named network namespaces, on a machine that has none yet, while several labs begin and end.
//!
//! Needs root. Each test runs itself again in a mount namespace with a /run of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use heddle_lab::namespace;
use std::process::Command;

/// Set in a mount namespace that a test has made: which one.
const INSIDE: &str = "HEDDLE_TEST_INSIDE";

fn is_inside(which: &str) -> bool {
    std::env::var(INSIDE).is_ok_and(|it| it == which)
}

/// Runs a test of this file in a mount namespace of its own.
fn run_inside(which: &str, test: &str) {
    let again = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, which)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn unmount_names() {
    while nix::mount::umount2("/run/netns", nix::mount::MntFlags::MNT_DETACH).is_ok() {}
}

fn fresh_run() {
    // What is mounted below the new /run would still be listed.
    unmount_names();
    nix::mount::mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
}

#[test]
fn labs_that_begin_while_others_end_find_the_folder_of_names() {
    if !is_inside("one") {
        return run_inside("one", "labs_that_begin_while_others_end");
    }
    fresh_run();
    std::thread::scope(|scope| {
        for lab in 0..2 {
            scope.spawn(move || {
                for round in 0..800 {
                    let name = format!("n{lab}-{round}");
                    namespace::create(&name).unwrap();
                    assert!(namespace::names().contains(&name));
                    namespace::remove(&name);
                    namespace::remove_folder();
                }
            });
        }
    });
    assert!(namespace::names().is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" /run/netns "), "{mounts}");
}

/// As in a chroot that was entered before the first lab of the machine began.
#[test]
fn a_lab_that_ends_in_another_mount_namespace_leaves_the_names_of_this_one() {
    const NAME: &str = "a_lab_that_ends_in_another_mount_namespace";
    if is_inside("other") {
        unmount_names();
        namespace::create("theirs").unwrap();
        assert!(!namespace::names().contains(&"ours".to_owned()));
        namespace::remove("theirs");
        namespace::remove_folder();
        // One that never began is taken down, too.
        namespace::remove_folder();
        return;
    }
    if !is_inside("one") {
        return run_inside("one", NAME);
    }
    fresh_run();
    namespace::create("ours").unwrap();
    run_inside("other", NAME);
    assert!(namespace::names().contains(&"ours".to_owned()));
    assert!(namespace::inside("ours", || Ok(())).is_ok());
    namespace::remove("ours");
}
