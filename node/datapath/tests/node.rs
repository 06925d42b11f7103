//! Real packets through the real programs on one node: two pods, the node itself, both families.
//!
//! Needs root. Everything lives in network namespaces that the test makes and removes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use bed::{Bed, allow_all, deny_all};
use heddle_datapath::Datapath;
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};

fn allow_ingress(identity: u32, protocol: u8, port: u16) -> CompiledPolicy {
    let mut policy = allow_all();
    policy.ingress_enforced = true;
    policy
        .entries
        .retain(|entry| entry.key.direction == Direction::Egress);
    policy.entries.push(Entry {
        key: EntryKey {
            direction: Direction::Ingress,
            identity: Identity(identity),
            protocol,
            port,
            port_prefix: 16,
        },
        verdict: EntryVerdict::Allow,
        precedence: 1 << 24,
        cookie: 77,
    });
    policy.entries.sort_unstable();
    policy
}

#[test]
fn pods_of_one_node_talk_and_policy_stops_them() {
    for host_routing in [true, false] {
        let bed = Bed::new(|settings| settings.host_routing = host_routing);
        let a = bed.pod(1, 300);
        let b = bed.pod(2, 301);
        for (x, y) in [(&a, &b), (&b, &a)] {
            for address in y.addresses() {
                assert!(
                    bed.ping(x, &address),
                    "ping {address}, host routing {host_routing}"
                );
            }
        }
        for address in a.addresses() {
            assert!(bed.ping_from_node(&address), "node pings {address}");
        }
        bed.datapath.set_policy(2, &deny_all()).unwrap();
        for address in b.addresses() {
            assert!(
                !bed.ping(&a, &address),
                "denied ping {address}, host routing {host_routing}"
            );
        }
        // b may still open connections, and their replies come in.
        let mut only_out = allow_all();
        only_out
            .entries
            .retain(|entry| entry.key.direction == Direction::Egress);
        bed.datapath.set_policy(2, &only_out).unwrap();
        for address in a.addresses() {
            assert!(bed.ping(&b, &address), "reply to {address}");
        }
        bed.datapath
            .set_policy(2, &allow_ingress(300, 6, 8080))
            .unwrap();
        for address in b.addresses() {
            assert!(!bed.ping(&a, &address));
            assert_eq!(bed.tcp(&a, &b, &address, 8080), "hello");
            assert_eq!(bed.tcp(&a, &b, &address, 8081), "");
        }
        let events = bed.events();
        assert!(
            events
                .iter()
                .any(|event| event.kind == heddle_abi::EVENT_DROP && event.reason == 133)
        );
        assert!(events.iter().any(|event| event.ingress_cookie == 77));
    }
}

#[test]
fn clsact_does_what_tcx_does() {
    let mut bed = Bed::new(|settings| settings.force_clsact = true);
    let a = bed.pod(1, 300);
    let b = bed.pod(2, 301);
    for round in ["first", "reopened"] {
        for address in b.addresses() {
            assert!(bed.ping(&a, &address), "{round}: {address}");
        }
        bed.in_node(|| bed.datapath.set_policy(2, &deny_all()).unwrap());
        for address in b.addresses() {
            assert!(!bed.ping(&a, &address), "{round}: {address}");
        }
        bed.in_node(|| bed.datapath.set_policy(2, &allow_all()).unwrap());
        // The filters of the one before are replaced, not added to.
        bed.reopen();
        let filters = bed::said(&format!(
            "ip netns exec {} tc filter show dev hd1 ingress",
            bed.node()
        ));
        assert_eq!(
            filters.matches("handle 0x4844").count(),
            1,
            "{round}: {filters}"
        );
    }
}
