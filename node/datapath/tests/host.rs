//! Host policies with real packets: what the node itself sends and receives, over a routed fabric and over
//! the overlay, with host routing and without, both families.
//!
//! Needs root. Everything lives in network namespaces that the tests make and remove.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use bed::{Bed, Pod};
use heddle_abi::{DropReason, EVENT_AUDIT, EVENT_VERDICT};
use heddle_datapath::Datapath;
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};

const REMOTE_NODE: u32 = 6;
const POD_OF_ONE: u32 = 300;
const POD_OF_TWO: u32 = 301;
const TCP: u8 = 6;
const DENIED: u8 = DropReason::PolicyDenied as u8;

/// Two nodes with a pod each.
struct Pair {
    one: Bed,
    two: Bed,
    a: Pod,
    b: Pod,
}

fn for_each_mode(test: impl Fn(&mut Pair, &str)) {
    for overlay in [false, true] {
        for host_routing in [true, false] {
            let set = |settings: &mut heddle_datapath::Settings| {
                settings.overlay = overlay;
                settings.host_routing = host_routing;
            };
            let one = Bed::new(set);
            let two = Bed::beside(&one, set);
            let (a, b) = (one.pod(1, POD_OF_ONE), two.pod(1, POD_OF_TWO));
            one.learn(&two, &[(&b, POD_OF_TWO)]);
            two.learn(&one, &[(&a, POD_OF_ONE)]);
            if !overlay {
                one.tell_router();
                two.tell_router();
            }
            let mut pair = Pair { one, two, a, b };
            let mode = format!("overlay {overlay}, host routing {host_routing}");
            test(&mut pair, &mode);
        }
    }
}

fn allow(direction: Direction, identity: u32, protocol: u8, port: u16) -> Entry {
    Entry {
        key: EntryKey {
            direction,
            identity: Identity(identity),
            protocol,
            port,
            port_prefix: if port == 0 { 0 } else { 16 },
        },
        verdict: EntryVerdict::Allow,
        precedence: 1 << 24,
        cookie: 7,
    }
}

fn policy(mut entries: Vec<Entry>) -> CompiledPolicy {
    entries.sort_unstable_by_key(|entry| entry.key);
    CompiledPolicy {
        ingress_enforced: true,
        egress_enforced: true,
        entries,
        aliases: Vec::new(),
        audit: false,
    }
}

fn allow_all(direction: Direction) -> Entry {
    allow(direction, 0, 0, 0)
}

impl Pair {
    /// Who reaches whom: node one node two, pod of one node two, pod of two its node, node two its pod, node
    /// two the other pod, node two node one, and the two pods each other; the same in both families.
    fn reach(&self, mode: &str) -> [bool; 7] {
        let [one, two] = [&self.one, &self.two].map(|bed| bed.as_host());
        let (a, b) = (&self.a, &self.b);
        let ways = [
            (&one, &two),
            (a, &two),
            (b, &two),
            (&two, b),
            (&two, a),
            (&two, &one),
            (a, b),
        ];
        std::thread::scope(|scope| {
            let ping = |from: &Pod, to: &str| {
                let (from, to) = (from.netns.clone(), to.to_owned());
                scope.spawn(move || Bed::ping_with(&from, &["-c1", "-W2"], &to))
            };
            let pings = ways.map(|(from, to)| to.addresses().map(|to| ping(from, &to)));
            pings.map(|families| {
                let [v4, v6] = families.map(|ping| ping.join().unwrap());
                assert_eq!(v4, v6, "families differ: {mode}");
                v4
            })
        })
    }
}

#[test]
fn a_host_policy_is_about_the_node_alone_both_ways() {
    for_each_mode(|pair, mode| {
        assert_eq!(pair.reach(mode), [true; 7], "{mode}");
        let before = pair.two.drops(DENIED);
        pair.two.set_node_policy(Some(&policy(vec![])));
        assert_eq!(
            pair.reach(mode),
            [false, false, false, false, false, false, true],
            "nothing allowed: {mode}"
        );
        assert!(pair.two.drops(DENIED) > before, "{mode}");
        // Who may come in, each by its identity; and the node may go out.
        let entries = vec![
            allow(Direction::Ingress, REMOTE_NODE, 0, 0),
            allow(Direction::Ingress, POD_OF_TWO, 0, 0),
            allow_all(Direction::Egress),
        ];
        pair.two.set_node_policy(Some(&policy(entries.clone())));
        let expected = [true, false, true, true, true, true, true];
        assert_eq!(pair.reach(mode), expected, "some allowed: {mode}");
        // It outlives the agent.
        pair.two.reopen();
        assert_eq!(pair.reach(mode), expected, "reopened: {mode}");
        let realised = pair.two.datapath.node_policy().unwrap().unwrap();
        assert_eq!(realised.entries.unwrap().len(), entries.len());
        // And the other way round.
        let entries = vec![
            allow_all(Direction::Ingress),
            allow(Direction::Egress, POD_OF_ONE, 0, 0),
        ];
        pair.two.set_node_policy(Some(&policy(entries)));
        assert_eq!(
            pair.reach(mode),
            [true, true, true, false, true, false, true],
            "egress: {mode}"
        );
        pair.two.set_node_policy(None);
        assert_eq!(pair.reach(mode), [true; 7], "open again: {mode}");
        assert!(pair.two.datapath.node_policy().unwrap().is_none());
    });
}

#[test]
fn connections_older_than_the_policy_go_on_as_it_says() {
    for_each_mode(|pair, mode| {
        let [one, two] = [&pair.one, &pair.two].map(Bed::as_host);
        for family in 0..2 {
            let mut inward = pair.one.connect(&one, &two, &two.addresses()[family], 2200);
            let mut outward = pair.two.connect(&two, &one, &one.addresses()[family], 2201);
            assert!(inward.echoes() && outward.echoes(), "{mode}");
            // The far end of the node's own connection speaks first.
            let entries = vec![
                allow(Direction::Ingress, REMOTE_NODE, TCP, 2200),
                allow(Direction::Egress, REMOTE_NODE, TCP, 2201),
            ];
            pair.two.set_node_policy(Some(&policy(entries)));
            assert!(outward.answers(), "far end first: {mode}");
            assert!(inward.echoes() && outward.echoes(), "{mode}");
            // What is not allowed any more is cut.
            let entries = vec![allow(Direction::Egress, REMOTE_NODE, TCP, 2201)];
            pair.two.set_node_policy(Some(&policy(entries)));
            assert!(!inward.echoes(), "cut: {mode}");
            assert!(outward.echoes(), "{mode}");
            pair.two.set_node_policy(None);
        }
    });
}

#[test]
fn a_policy_on_audit_is_told_and_stops_nothing() {
    for_each_mode(|pair, mode| {
        let told = CompiledPolicy {
            audit: true,
            ..policy(vec![])
        };
        pair.two.set_node_policy(Some(&told));
        pair.two.datapath.set_policy(1, &told).unwrap();
        let before = pair.two.drops(DENIED);
        pair.two.events();
        assert_eq!(pair.reach(mode), [true; 7], "{mode}");
        assert_eq!(pair.two.drops(DENIED), before, "{mode}");
        let events = pair.two.events();
        let audited: Vec<_> = events
            .iter()
            .filter(|event| event.flags & EVENT_AUDIT != 0)
            .collect();
        // Seven ways, two families, each once or, with both ends here, twice; but the node reaches its pod unasked.
        assert!(audited.len() >= 14, "{}: {mode}", audited.len());
        for event in &audited {
            assert_eq!(
                (event.kind, event.reason),
                (EVENT_VERDICT, DENIED),
                "{mode}"
            );
        }
        assert!(pair.two.datapath.node_policy().unwrap().unwrap().audit);
        // The same rows, in earnest.
        pair.two.set_node_policy(Some(&policy(vec![])));
        pair.two.datapath.set_policy(1, &policy(vec![])).unwrap();
        assert_eq!(pair.reach(mode), [false; 7], "{mode}");
    });
}

#[test]
fn a_host_policy_that_comes_and_goes_is_attached_each_time() {
    let bed = Bed::new(|_| {});
    let reaches_router = || Bed::ping_with(&bed.as_host().netns, &["-c1", "-W2"], "172.31.1.1");
    for _ in 0..10 {
        bed.set_node_policy(None);
        bed.set_node_policy(Some(&policy(vec![])));
    }
    assert!(!reaches_router());
    bed.set_node_policy(None);
    assert!(reaches_router());
}
