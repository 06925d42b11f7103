//! Another ABI version, and other map sizes, take over under traffic: nothing is lost and nothing opens.
//!
//! Needs root. Everything lives in network namespaces that the test makes and removes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use aya::programs::{SchedClassifier, tc::TcAttachType};
use bed::{Bed, Pod, deny_all};
use heddle_datapath::Datapath;
use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Builds the node of the test version, unless `scripts/test.sh` did; the dependencies are those of this test.
fn next_abi_node() -> std::path::PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "heddle-datapath",
        ])
        .args(["--features", "next-abi", "--example", "next_abi_node"])
        .status()
        .expect("cargo");
    assert!(built.success(), "the test version builds");
    // target/PROFILE/deps/upgrade-HASH
    let test = std::env::current_exe().expect("path");
    test.ancestors()
        .nth(2)
        .expect("target directory")
        .join("examples/next_abi_node")
}

/// The test version at work, until its input closes.
fn next_abi(bed: &Bed, program: &std::path::Path, work: &str, hook: &str) -> Child {
    // Not by `ip netns exec`, which hides the bpffs.
    let mut child = bed.in_node(|| {
        Command::new(program)
            .arg(work)
            .arg(bed.pin_dir())
            .arg(hook)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("test version")
    });
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("output"))
        .read_line(&mut said)
        .expect("read");
    assert_eq!(said.trim(), "ready", "{work}");
    child
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("wait").success());
}

/// Pings and a request/response stream in both families, and probes that policy denies.
struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(bed: &Bed, a: &Pod, b: &Pod, denied: &Pod) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (port, (open, closed)) in
            (7000..).zip(b.addresses().into_iter().zip(denied.addresses()))
        {
            let mut stream = bed.connect(a, b, &open, port);
            let stopped = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    assert!(stream.echoes(), "a request or its answer is lost");
                }
            }));
            for (address, lost) in [(open, " 0% packet loss"), (closed, " 100% packet loss")] {
                let (stopped, netns) = (Arc::clone(&stop), a.netns.clone());
                threads.push(std::thread::spawn(move || {
                    while !stopped.load(Ordering::Relaxed) {
                        let said = bed::said(&format!(
                            "ip netns exec {netns} ping -n -q -i 0.002 -c 500 -W1 {address} || true"
                        ));
                        assert!(said.contains(lost), "{address}: {said}");
                    }
                }));
            }
        }
        Self { stop, threads }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("traffic");
        }
    }
}

/// One program in each direction of a pod's link, of the version whose maps are pinned.
fn only_one_attached(bed: &Bed, hook: &str) {
    let left: Vec<_> = std::fs::read_dir(bed.pin_dir())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    for (direction, name) in [
        (TcAttachType::Ingress, "ingress"),
        (TcAttachType::Egress, "egress"),
    ] {
        let links = bed.in_node(|| {
            SchedClassifier::query_tcx("hd1", direction)
                .unwrap()
                .1
                .len()
        });
        let filters = bed::said(&format!(
            "ip netns exec {} tc filter show dev hd1 {name}",
            bed.node()
        ))
        .matches("handle 0x4844")
        .count();
        let expected = if hook == "tcx" { (1, 0) } else { (0, 1) };
        assert_eq!((links, filters), expected, "{name}");
    }
}

#[test]
fn another_version_takes_over_and_gives_back_under_traffic() {
    let program = next_abi_node();
    for hook in ["tcx", "clsact"] {
        let mut bed = Bed::new(|settings| {
            settings.force_clsact = hook == "clsact";
            settings.quick_attach = false;
        });
        let (a, b, c) = (bed.pod(1, 300), bed.pod(2, 301), bed.pod(3, 302));
        bed.datapath.set_policy(3, &deny_all()).unwrap();
        let traffic = Traffic::start(&bed, &a, &b, &c);
        bed.close();
        end(next_abi(&bed, &program, "open", hook));
        only_one_attached(&bed, hook);
        // Without the newer one's help the older one refuses, and nothing changes.
        let refused = bed.try_open().expect_err("refused").to_string();
        assert!(refused.contains("nothing was touched"), "{refused}");
        only_one_attached(&bed, hook);
        let preparing = next_abi(&bed, &program, "prepare", hook);
        bed.reopen();
        end(preparing);
        only_one_attached(&bed, hook);
        traffic.stop();
    }
}

#[test]
fn maps_get_their_wished_size_under_traffic() {
    let mut bed = Bed::new(|_| {});
    let (a, b, c) = (bed.pod(1, 300), bed.pod(2, 301), bed.pod(3, 302));
    bed.datapath.set_policy(3, &deny_all()).unwrap();
    let traffic = Traffic::start(&bed, &a, &b, &c);
    let room = |bed: &Bed, name: &str| {
        let rows = bed.datapath.map_use().unwrap();
        rows.iter().find(|row| row.name == name).unwrap().max
    };
    for size in [4096, 200_000] {
        bed.close();
        bed.change(|settings| {
            settings.max_connections = size;
            settings.max_ipcache_entries = size;
        });
        bed.reopen();
        assert_eq!(room(&bed, "CONNECTIONS"), u64::from(size));
        assert_eq!(room(&bed, "IPCACHE"), u64::from(size));
    }
    // Smaller than what is in it: it stays as it is.
    bed.close();
    bed.change(|settings| settings.max_connections = 1);
    bed.reopen();
    assert_eq!(room(&bed, "CONNECTIONS"), 200_000);
    traffic.stop();
}
