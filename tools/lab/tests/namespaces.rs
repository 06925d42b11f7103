//! Several labs begin and end at once on a machine that has no folder of named network namespaces yet.
//!
//! Needs root. The test runs itself again in a mount namespace with a /run of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use heddle_lab::namespace;
use std::process::Command;

const INSIDE: &str = "HEDDLE_TEST_INSIDE";

#[test]
fn labs_that_begin_while_others_end_find_the_folder_of_names() {
    if std::env::var_os(INSIDE).is_none() {
        let again = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(std::env::current_exe().unwrap())
            .arg("labs_that_begin_while_others_end")
            .env(INSIDE, "yes")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    // What is mounted below the new /run would still be listed.
    while nix::mount::umount2("/run/netns", nix::mount::MntFlags::MNT_DETACH).is_ok() {}
    nix::mount::mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
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
    assert!(!std::path::Path::new("/run/netns").exists());
}
