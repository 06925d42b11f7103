//! Another ABI version, and other map sizes, take over under traffic: nothing is lost and nothing opens.
//!
//! Needs root. Everything lives in network namespaces that the test makes and removes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use aya::{
    maps::{Array, HashMap, Map, MapData},
    programs::{SchedClassifier, tc::TcAttachType},
};
use bed::{Bed, Pod, allow_all, deny_all};
use heddle_abi::{ABI_VERSION, ConnectionEntry, ConnectionEntry1, ConnectionKey, NodeConfig};
use heddle_datapath::{Datapath, DatapathError, OpenStep};
use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The test version.
const NEXT: u32 = ABI_VERSION + 1;
/// The version before.
const FORMER: u32 = ABI_VERSION - 1;

/// Builds a node of another version, unless `scripts/test.sh` did; the dependencies are those of this test.
fn node_of(feature: &str, example: &str) -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "heddle-datapath",
        ])
        .args(["--features", feature, "--example", example])
        .status()
        .expect("cargo");
    assert!(built.success(), "{example} builds");
    // target/PROFILE/deps/upgrade-HASH
    let test = std::env::current_exe().expect("path");
    test.ancestors()
        .nth(2)
        .expect("target directory")
        .join("examples")
        .join(example)
}

fn next_abi_node() -> PathBuf {
    node_of("next-abi", "next_abi_node")
}

/// The test version at work, and what it says.
fn start(bed: &Bed, program: &Path, work: &str, hook: &str, options: &[String]) -> (Child, String) {
    // Not by `ip netns exec`, which hides the bpffs.
    let mut child = bed.in_node(|| {
        Command::new(program)
            .arg(work)
            .arg(bed.pin_dir())
            .arg(hook)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("test version")
    });
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("output"))
        .read_line(&mut said)
        .expect("read");
    (child, said.trim().to_owned())
}

/// The test version at work, until its input closes.
fn next_abi(bed: &Bed, program: &Path, work: &str, hook: &str) -> Child {
    let (child, said) = start(bed, program, work, hook, &[]);
    assert_eq!(said, "ready", "{work}");
    child
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("wait").success());
}

/// A pinned map of a version.
fn pinned(bed: &Bed, version: u32, map: &str) -> MapData {
    let pin = bed.pin_dir().join(format!("v{version}/maps/{map}"));
    MapData::from_pin(&pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()))
}

/// A table of connections of a version; V is the layout of its entries.
fn table<V: aya::Pod>(bed: &Bed, version: u32, map: &str) -> HashMap<MapData, ConnectionKey, V> {
    Map::HashMap(pinned(bed, version, map)).try_into().unwrap()
}

fn key(port: u16) -> ConnectionKey {
    ConnectionKey {
        low_port: port,
        protocol: 6,
        ..ConnectionKey::default()
    }
}

/// An entry in the layout of the test version: this one's and eight bytes before it.
type Wide = [u8; size_of::<ConnectionEntry>() + 8];

/// One with these numbers.
fn wide(last_report: u32, packets: u64) -> Wide {
    let mut raw = [0; size_of::<Wide>()];
    raw[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    raw[12..16].copy_from_slice(&last_report.to_ne_bytes());
    raw[56..64].copy_from_slice(&packets.to_ne_bytes());
    raw
}

/// The connections that are kept apart, and room for how many; V is the layout of the version's entries.
fn established<V: aya::Pod>(bed: &Bed, version: u32) -> (BTreeSet<ConnectionKey>, u32) {
    let room = pinned(bed, version, "ESTABLISHED").info().unwrap();
    let table = table::<V>(bed, version, "ESTABLISHED");
    let keys = table.keys().map(Result::unwrap).collect();
    (keys, room.max_entries())
}

/// Waits until the streams of [`Traffic`] are among the connections that are kept apart.
fn wait_until_established(bed: &Bed) -> (BTreeSet<ConnectionKey>, u32) {
    for _ in 0..500 {
        let found = established::<ConnectionEntry>(bed, ABI_VERSION);
        if found.0.len() == 2 {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the streams are not established");
}

/// The steps of an open between two versions; [`OpenStep::LinkMoved`] for the first link and for one of a pod.
const STEPS: [(OpenStep, u32); 12] = [
    (OpenStep::MapsShared, 1),
    (OpenStep::MapsMade, 1),
    (OpenStep::MapsFilled, 1),
    (OpenStep::LinkAdopted, 1),
    (OpenStep::Configured, 1),
    (OpenStep::LinkMoved, 1),
    (OpenStep::LinkMoved, 3),
    (OpenStep::OtherHooksRemoved, 1),
    (OpenStep::MapsFilledAgain, 1),
    (OpenStep::LinksRemoved, 1),
    (OpenStep::OtherRemoved, 1),
    (OpenStep::Opened, 1),
];

/// An open that is ended after each of its steps in turn goes on where the one before came to.
#[test]
fn a_takeover_that_ends_after_any_step_is_gone_on_with() {
    let program = next_abi_node();
    for hook in ["tcx", "clsact"] {
        let mut bed = Bed::new(|settings| {
            settings.force_clsact = hook == "clsact";
            settings.quick_attach = false;
        });
        let (a, b, c) = (bed.pod(1, 300), bed.pod(2, 301), bed.pod(3, 302));
        bed.datapath.set_policy(3, &deny_all()).unwrap();
        let traffic = Traffic::start(&bed, &a, &b, &c);
        let before = wait_until_established(&bed);
        bed.close();
        for (step, times) in STEPS {
            // With filters there are no links to adopt.
            if hook == "clsact" && step == OpenStep::LinkAdopted {
                continue;
            }
            let end_after = format!("end-after={step:?}:{times}");
            let (child, said) = start(&bed, &program, "open", hook, &[end_after]);
            end(child);
            assert_eq!(said, "ended", "{step:?}");
            // Until every link runs one version's programs, no connection goes to a table of one version alone.
            let config = pinned(&bed, NEXT, "CONFIG");
            let config: Array<_, NodeConfig> = Map::Array(config).try_into().unwrap();
            let share = config.get(&0, 0).unwrap().established_share;
            match step {
                OpenStep::MapsShared
                | OpenStep::MapsMade
                | OpenStep::MapsFilled
                | OpenStep::LinkAdopted => {}
                OpenStep::Opened => assert_eq!(share, 256),
                _ => assert_eq!(share, 0, "{step:?}"),
            }
        }
        end(next_abi(&bed, &program, "open", hook));
        only_one_attached(&bed, hook);
        let (keys, room) = established::<Wide>(&bed, NEXT);
        assert!(keys.is_superset(&before.0), "{keys:?}");
        assert_eq!(room, before.1);
        traffic.stop();
    }
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
        let before = wait_until_established(&bed);
        bed.close();
        end(next_abi(&bed, &program, "open", hook));
        only_one_attached(&bed, hook);
        assert_eq!(established::<Wide>(&bed, NEXT), before);
        // Without the newer one's help the older one refuses, and nothing changes.
        let refused = bed.try_open().expect_err("refused").to_string();
        assert!(refused.contains("nothing was touched"), "{refused}");
        only_one_attached(&bed, hook);
        let preparing = next_abi(&bed, &program, "prepare", hook);
        bed.reopen();
        end(preparing);
        only_one_attached(&bed, hook);
        assert_eq!(established::<ConnectionEntry>(&bed, ABI_VERSION), before);
        traffic.stop();
    }
}

/// From the layouts that the version before this one really had, and back to them.
#[test]
fn the_former_version_takes_over_and_gives_back_under_traffic() {
    let program = node_of("former-abi", "former_abi_node");
    for hook in ["tcx", "clsact"] {
        let mut bed = Bed::new(|settings| {
            settings.force_clsact = hook == "clsact";
            settings.quick_attach = false;
        });
        let (a, b, c) = (bed.pod(1, 300), bed.pod(2, 301), bed.pod(3, 302));
        bed.datapath.set_policy(3, &deny_all()).unwrap();
        let policy = bed.datapath.policy(3).unwrap().entries;
        let traffic = Traffic::start(&bed, &a, &b, &c);
        let before = wait_until_established(&bed);
        bed.close();
        let prepared = bed
            .in_node(|| heddle_datapath::prepare_downgrade(bed.pin_dir(), FORMER))
            .unwrap();
        let following = std::thread::spawn(move || prepared.follow_until(|| false));
        end(next_abi(&bed, &program, "open", hook));
        assert!(following.join().unwrap().unwrap());
        only_one_attached(&bed, hook);
        assert_eq!(established::<ConnectionEntry1>(&bed, FORMER), before);
        bed.reopen();
        only_one_attached(&bed, hook);
        assert_eq!(established::<ConnectionEntry>(&bed, ABI_VERSION), before);
        for name in ["ESTABLISHED", "CONNECTIONS"] {
            for row in table::<ConnectionEntry>(&bed, ABI_VERSION, name).iter() {
                let Ok((key, entry)) = row else { continue };
                assert!(entry.room_is_zero(), "{key:?}: {entry:?}");
            }
        }
        assert_eq!(bed.datapath.policy(3).unwrap().entries, policy);
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

/// Programs that still run fill the map between the look at its size and the next try.
#[test]
fn a_takeover_that_began_with_too_small_a_map_is_gone_on_with() {
    let program = next_abi_node();
    let small = || "max-connections=64".to_owned();
    for (before, meanwhile, room) in [(20, 0, 64), (40, 0, 131_072), (20, 200, 131_072)] {
        let mut bed = Bed::new(|_| {});
        bed.close();
        let add = |ports| {
            let mut table = table(&bed, ABI_VERSION, "ESTABLISHED");
            for port in ports {
                let entry = ConnectionEntry {
                    expires: u32::MAX,
                    ..ConnectionEntry::default()
                };
                table.insert(key(port), entry, 0).unwrap();
            }
        };
        add(0..before);
        let options = [small(), "end-after=MapsFilled:1".to_owned()];
        let (child, said) = start(&bed, &program, "open", "tcx", &options);
        assert_eq!(said, "ended");
        end(child);
        add(before..before + meanwhile);
        let (child, said) = start(&bed, &program, "open", "tcx", &[small()]);
        assert_eq!(said, "ready", "{before} and {meanwhile} entries");
        end(child);
        let (keys, found) = established::<Wide>(&bed, NEXT);
        assert_eq!(keys, (0..before + meanwhile).map(key).collect());
        assert_eq!(found, room, "{before} and {meanwhile} entries");
    }
}

#[test]
fn a_prepared_downgrade_follows_until_the_older_version_starts() {
    let program = next_abi_node();
    let mut bed = Bed::new(|_| {});
    bed.close();
    end(next_abi(&bed, &program, "open", "tcx"));
    let mut newer = table::<Wide>(&bed, NEXT, "CONNECTIONS");
    for port in 1..=3 {
        newer.insert(key(port), wide(100, 5), 0).unwrap();
    }
    let preparing = next_abi(&bed, &program, "prepare", "tcx");
    let mut older = table::<ConnectionEntry>(&bed, ABI_VERSION, "CONNECTIONS");
    let reads = |older: &HashMap<_, _, ConnectionEntry>, expected: [Option<(u32, u64)>; 3]| {
        let now = || {
            [1, 2, 3].map(|port| {
                let entry = older.get(&key(port), 0).ok()?;
                Some((entry.last_report, entry.packets[0]))
            })
        };
        for _ in 0..100 {
            if now() == expected {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(now(), expected);
    };
    reads(&older, [Some((100, 5)); 3]);
    // Before the older version starts: one goes on, one goes, one is opened anew.
    newer.insert(key(1), wide(100, 9), 0).unwrap();
    newer.remove(&key(2)).unwrap();
    newer.insert(key(3), wide(200, 1), 0).unwrap();
    reads(&older, [Some((100, 9)), None, Some((200, 1))]);
    // The preparation is given up, and done again later.
    let mut preparing = preparing;
    preparing.kill().unwrap();
    preparing.wait().unwrap();
    newer.insert(key(1), wide(300, 20), 0).unwrap();
    newer.insert(key(2), wide(300, 1), 0).unwrap();
    newer.remove(&key(3)).unwrap();
    let preparing = next_abi(&bed, &program, "prepare", "tcx");
    reads(&older, [Some((300, 20)), Some((300, 1)), None]);
    // What the older version's programs wrote later stays, and so does what only they know.
    let later = ConnectionEntry {
        expires: u32::MAX,
        last_report: 400,
        ..ConnectionEntry::default()
    };
    older.insert(key(1), later, 0).unwrap();
    bed.reopen();
    end(preparing);
    reads(&older, [Some((400, 0)), Some((300, 1)), None]);
}

/// Programs before version 4 do not follow the rows of another identity: a deny could get lost.
#[test]
fn a_version_that_knows_no_aliases_is_refused_while_there_are_some() {
    let mut bed = Bed::new(|_| {});
    bed.pod(2, 301);
    let mut policy = allow_all();
    let mut row = policy.entries[0];
    row.key.identity = heddle_model::Identity(300);
    policy.entries.push(row);
    policy.entries.sort_unstable();
    let plain = policy.clone();
    policy.give(heddle_model::Identity(302), heddle_model::Identity(300));
    bed.datapath.set_policy(2, &policy).unwrap();
    bed.close();
    let prepare = |bed: &Bed| {
        bed.in_node(|| heddle_datapath::prepare_downgrade(bed.pin_dir(), FORMER).map(drop))
    };
    let refused = prepare(&bed).unwrap_err().to_string();
    assert!(refused.contains("alias rows"), "{refused}");
    bed.reopen();
    bed.datapath.set_policy(2, &plain).unwrap();
    bed.close();
    prepare(&bed).unwrap();
}

/// Maps of policies are made one by one: those that are in force keep their size.
#[test]
fn policies_outlive_another_size_of_their_maps() {
    let program = next_abi_node();
    let policy = |rows: u16| {
        let mut policy = allow_all();
        let row = policy.entries[0];
        policy.entries.extend((2..rows).map(|port| {
            let mut row = row;
            (row.key.protocol, row.key.port, row.key.port_prefix) = (6, port, 16);
            row
        }));
        policy
    };
    let mut bed = Bed::new(|_| {});
    let (a, b) = (bed.pod(1, 300), bed.pod(2, 301));
    bed.datapath.set_policy(2, &policy(40)).unwrap();
    let check = |bed: &Bed| {
        let rows = bed.datapath.policy(2).unwrap().entries.unwrap();
        assert_eq!(rows.len(), 40);
        assert!(bed.ping(&a, &b.ipv4.to_string()));
    };
    let takeover = |bed: &mut Bed, size: u32| {
        bed.close();
        let options = [format!("max-policy-entries={size}")];
        let (child, said) = start(bed, &program, "open", "tcx", &options);
        assert_eq!(said, "ready");
        end(child);
        let preparing = next_abi(bed, &program, "prepare", "tcx");
        bed.reopen();
        end(preparing);
    };
    for other in [false, true] {
        bed.change(|settings| settings.max_policy_entries = 16);
        if other {
            takeover(&mut bed, 16);
        }
        bed.reopen();
        check(&bed);
        // What does not fit is refused, and what was in force stays.
        let refused = bed.datapath.set_policy(2, &policy(20)).unwrap_err();
        assert!(
            matches!(refused, DatapathError::MapFull { .. }),
            "{refused}"
        );
        check(&bed);
        bed.change(|settings| settings.max_policy_entries = 30_000);
        if other {
            takeover(&mut bed, 30_000);
        }
        bed.reopen();
        check(&bed);
        bed.datapath.set_policy(2, &policy(20_000)).unwrap();
        bed.datapath.set_policy(2, &policy(40)).unwrap();
        check(&bed);
    }
}
