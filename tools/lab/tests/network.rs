//! A lab's network without agents: hosts reach each other, forged sources do not pass, and `down` leaves
//! nothing. Needs root; namespaces, cgroups and mounts are the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_lab::config::{LabConfig, LabRecord};
use heddle_lab::paths::Lab;
use heddle_lab::{cgroup, config, down, exec, files, namespace, network, topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: it makes network namespaces"
    );
}

struct TestLab {
    lab: Lab,
    record: LabRecord,
}

impl TestLab {
    fn build(name: &str) -> Self {
        require_root();
        let lab = Lab::named(&format!("{name}-{}", std::process::id())).unwrap();
        down::down(&lab).unwrap();
        let mount = cgroup::require_mount().unwrap();
        let config = LabConfig::default();
        let record = LabRecord::new(
            lab.name(),
            config,
            "test",
            mount,
            PathBuf::from("/bin/true"),
        )
        .unwrap();
        files::make_folder(&lab.logs()).unwrap();
        files::write_json(&lab.record(), &record).unwrap();
        cgroup::create(&record.cgroup()).unwrap();
        topology::build(&lab, &record).unwrap();
        Self { lab, record }
    }

    /// Runs a command in a host's namespace.
    fn on(&self, host: &str, words: &[&str]) -> Output {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        heddle_lab::enter::Place::here()
            .in_network(&self.lab.host_namespace(host))
            .unwrap()
            .apply(&mut command);
        command.output().unwrap()
    }

    /// Any of a few packets is enough: on a busy machine one may be late.
    fn pings(&self, from: &str, to: &str) -> bool {
        self.on(from, &["ping", "-c3", "-i0.2", "-W2", to])
            .status
            .success()
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Err(error) = down::down(&self.lab) {
            eprintln!("{error}");
        }
    }
}

/// What of a lab can be seen on the machine.
fn traces(lab: &Lab) -> Vec<String> {
    let mut found: Vec<String> = namespace::names()
        .into_iter()
        .filter(|name| lab.owns_namespace(name))
        .collect();
    for mount in cgroup::mounts().unwrap() {
        if mount.kind == "cgroup2" && mount.point.join(lab.cgroup()).exists() {
            found.push(format!("cgroup {}", lab.cgroup()));
        }
        if mount
            .point
            .to_string_lossy()
            .contains(&format!("heddle-{}-", lab.name()))
        {
            found.push(format!("mount {}", mount.point.display()));
        }
    }
    for path in [lab.state(), lab.pins()] {
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let group = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        if group.contains(&lab.cgroup()) {
            found.push(process.path().display().to_string());
        }
    }
    found
}

#[test]
fn hosts_reach_each_other_and_forged_sources_do_not_pass() {
    let lab = TestLab::build("net");
    for (from, to) in [
        ("node-1", "172.31.2.2"),
        ("node-1", "fd31:2::2"),
        ("node-2", "203.0.113.10"),
        ("node-2", "2001:db8:113::10"),
        ("world", "172.31.1.2"),
        ("world", "fd31:1::2"),
    ] {
        assert!(lab.pings(from, to), "{from} to {to}");
    }
    // A pod range that the router was told of is reached through its node, and may be a source there.
    let range = "10.244.1.0/24".parse().unwrap();
    let range6 = "fd10:244:0:1::/64".parse().unwrap();
    for address in ["10.244.1.5/32", "fd10:244:0:1::5/128"] {
        lab.on("node-1", &["ip", "addr", "add", address, "dev", "lo"]);
        lab.on(
            "node-2",
            &[
                "ip",
                "addr",
                "add",
                &address
                    .replace("1.5/32", "9.5/32")
                    .replace("0:1::5", "0:9::5"),
                "dev",
                "lo",
            ],
        );
    }
    namespace::inside(&lab.lab.host_namespace("router"), || {
        network::in_this_namespace(async |handle| {
            network::add_route(&handle, range, "172.31.1.2".parse().unwrap()).await?;
            network::add_route(&handle, range6, "fd31:1::2".parse().unwrap()).await?;
            network::admit_source(&handle, "node-1", range6).await
        })
    })
    .unwrap();
    for (source, to) in [
        ("10.244.1.5", "203.0.113.10"),
        ("fd10:244:0:1::5", "2001:db8:113::10"),
    ] {
        assert!(lab.pings("world", source), "{source}");
        assert!(
            lab.on("node-1", &["ping", "-c3", "-i0.2", "-W2", "-I", source, to])
                .status
                .success()
        );
    }
    // Another node cannot send from a range that is not behind it: not the other's, not an unknown.
    for (source, to) in [
        ("10.244.9.5", "203.0.113.10"),
        ("fd10:244:0:9::5", "2001:db8:113::10"),
    ] {
        let sent = lab.on("node-2", &["ping", "-c1", "-W1", "-I", source, to]);
        assert!(!sent.status.success(), "{source} passed");
    }
}

#[test]
fn down_leaves_nothing_whatever_was_left() {
    let lab = TestLab::build("down");
    assert!(!traces(&lab.lab).is_empty());
    // A process that ignores SIGTERM, in a cgroup of its own, and a file nobody knows.
    let group = lab.record.node_cgroup("node-1").join("stray");
    cgroup::create(&group).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; sleep 1000 & wait"]);
    heddle_lab::enter::Place::here()
        .in_cgroup(&group)
        .unwrap()
        .in_network(&lab.lab.host_namespace("node-1"))
        .unwrap()
        .apply(&mut command);
    let mut stray = command.spawn().unwrap();
    std::fs::write(lab.lab.state().join("forgotten"), "x").unwrap();
    assert!(down::down(&lab.lab).unwrap());
    stray.wait().unwrap();
    assert_eq!(traces(&lab.lab), Vec::<String>::new());
    assert!(
        !down::down(&lab.lab).unwrap(),
        "a second time there is nothing"
    );
}

#[test]
fn two_labs_do_not_touch_each_other() {
    let one = TestLab::build("twin");
    let two = TestLab::build("twin-b");
    down::down(&one.lab).unwrap();
    assert_eq!(traces(&one.lab), Vec::<String>::new());
    assert!(two.pings("node-1", "172.31.2.2"));
    assert!(config::record(&two.lab).is_ok());
}

/// `exec` forks, so it runs in a process of its own: this test's binary, called again.
#[test]
fn what_exec_started_ends_with_its_caller() {
    const ROLE: &str = "HEDDLE_TEST_EXEC_LAB";
    if let Ok(name) = std::env::var(ROLE) {
        let lab = Lab::named(&name).unwrap();
        let words = ["sh", "-c", "sleep 1000 & echo started; wait"].map(String::from);
        let code = exec::on_host(&lab, "node-1", &words).unwrap();
        std::process::exit(i32::from(code));
    }
    let lab = TestLab::build("exec");
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "what_exec_started_ends_with_its_caller",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(ROLE, lab.lab.name())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let running = || cgroup::processes(&lab.record.node_cgroup("node-1")).len();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut caller = start();
        wait_for("the command to start", || running() >= 2);
        let caller_id = Pid::from_raw(i32::try_from(caller.id()).unwrap());
        kill(caller_id, signal).unwrap();
        caller.wait().unwrap();
        wait_for("the command to end", || running() == 0);
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
