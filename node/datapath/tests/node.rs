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
use heddle_abi::{DIRECTION_EGRESS, DropReason, EVENT_AUDIT, EVENT_VERDICT, TracePoint};
use heddle_datapath::{Datapath, PeerRow};
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

/// Everything goes, but for one direction, which a rule with this cookie denies.
fn denies(direction: Direction, cookie: u32, audit: bool) -> CompiledPolicy {
    let mut policy = allow_all();
    policy.audit = audit;
    for entry in &mut policy.entries {
        if entry.key.direction == direction {
            (entry.verdict, entry.cookie) = (EntryVerdict::Deny, cookie);
        } else {
            entry.cookie = 7;
        }
    }
    policy
}

#[test]
fn what_is_denied_on_audit_is_told_with_the_rule_that_denies() {
    for (direction, host_routing) in [
        (Direction::Ingress, true),
        (Direction::Egress, true),
        (Direction::Egress, false),
    ] {
        let bed = Bed::new(|settings| settings.host_routing = host_routing);
        let (a, b) = (bed.pod(1, 300), bed.pod(2, 301));
        let audited = if direction == Direction::Egress { 1 } else { 2 };
        let mut allowing = allow_all();
        allowing.entries.iter_mut().for_each(|it| it.cookie = 7);
        bed.datapath.set_policy(3 - audited, &allowing).unwrap();
        let denying = denies(direction, 9, true);
        bed.datapath.set_policy(audited, &denying).unwrap();
        for address in b.addresses() {
            bed.events();
            assert!(bed.ping(&a, &address), "{direction:?} {host_routing}");
            let events = bed.events();
            let told: Vec<_> = events
                .iter()
                .filter(|event| event.flags & EVENT_AUDIT != 0)
                .map(|event| (event.endpoint, event.reason, event.ingress_cookie))
                .collect();
            assert_eq!(
                told,
                [(u32::from(audited), DropReason::PolicyDeny as u8, 9)],
                "{direction:?} {host_routing}"
            );
        }
    }
}

#[test]
fn a_sender_is_told_of_though_the_receiver_is_on_audit() {
    let bed = Bed::new(|settings| settings.host_routing = false);
    let (a, b) = (bed.pod(1, 300), bed.pod(2, 301));
    let denying = denies(Direction::Ingress, 9, true);
    bed.datapath.set_policy(2, &denying).unwrap();
    for address in b.addresses() {
        bed.events();
        assert!(bed.ping(&a, &address));
        let events = bed.events();
        let sent: Vec<_> = events
            .iter()
            .filter(|event| {
                event.observation == TracePoint::ToStack as u8
                    && event.kind == EVENT_VERDICT
                    && event.source_identity == 300
            })
            .map(|event| (event.endpoint, event.direction, event.ingress_cookie))
            .collect();
        assert_eq!(sent, [(1, DIRECTION_EGRESS, 0)], "{address}");
    }
}

#[test]
fn a_packet_whose_hops_are_used_up_is_counted_once() {
    let bed = Bed::new(|settings| settings.host_routing = true);
    let a = bed.pod(1, 300);
    let counted = |reason: u8| {
        let metrics = bed.datapath.metrics().unwrap();
        let mut slots = metrics.iter();
        slots
            .find(|(key, _)| *key == (reason, DIRECTION_EGRESS))
            .map_or(0, |(_, slot)| slot.packets)
    };
    bed.tell_router();
    let outside = PeerRow {
        prefix: "0.0.0.0/0".parse().unwrap(),
        identity: Identity::WORLD,
        cidr: Identity(0),
        node: None,
        in_cluster: false,
        is_node: false,
    };
    bed.datapath.set_peers(&[outside]).unwrap();
    // What a pod sends by itself, such as router solicitations, ends with its first seconds.
    assert!(bed.ping(&a, "172.31.1.1"));
    let before = counted(0);
    for _ in 0..3 {
        let options = ["-c1", "-W1", "-t1"];
        assert!(!Bed::ping_with(&a.netns, &options, "172.31.1.1"));
    }
    assert_eq!(counted(DropReason::TtlExceeded as u8), 3);
    assert_eq!(counted(0), before);
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
                bed.is_silent(&a, &address),
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
            assert!(bed.is_silent(&a, &address));
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
fn an_identity_with_anothers_rows_is_treated_as_the_other() {
    for host_routing in [true, false] {
        let bed = Bed::new(|settings| settings.host_routing = host_routing);
        let a = bed.pod(1, 300);
        let b = bed.pod(2, 301);
        let mut policy = allow_ingress(999, 6, 8080);
        let mut other = policy.entries.clone();
        other.retain(|row| row.key.direction == Direction::Ingress);
        other[0].key.port = 8082;
        policy.entries.append(&mut other);
        policy.entries.sort_unstable();
        bed.datapath.set_policy(2, &policy).unwrap();
        for address in b.addresses() {
            assert_eq!(bed.tcp(&a, &b, &address, 8080), "", "{address}");
        }
        let own = policy.clone();
        policy.give(Identity(300), Identity(999));
        assert_eq!(policy.aliases.len(), 1);
        bed.datapath.set_policy(2, &policy).unwrap();
        for address in b.addresses() {
            assert_eq!(bed.tcp(&a, &b, &address, 8080), "hello", "{address}");
            assert_eq!(bed.tcp(&a, &b, &address, 8081), "", "{address}");
            assert_eq!(bed.tcp(&a, &b, &address, 8082), "hello", "{address}");
            assert!(bed.is_silent(&a, &address), "{address}");
        }
        let realised = bed.datapath.policy(2).unwrap();
        assert_eq!(realised.entries.as_ref(), Some(&policy.entries));
        assert_eq!(realised.aliases, policy.aliases);
        // Policies that differ in nothing else are not taken for the same.
        bed.datapath.set_policy(2, &own).unwrap();
        for address in b.addresses() {
            assert_eq!(bed.tcp(&a, &b, &address, 8080), "", "{address}");
        }
    }
}

/// Waits for a condition, 20 s at most.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_new_pod_is_guarded_at_once_and_by_tcx_soon_after() {
    let mut bed = Bed::new(|_| {});
    let a = bed.pod(1, 300);
    let b = bed.pod(2, 301);
    let filters = |bed: &Bed| {
        ["ingress", "egress"].map(|direction| {
            bed::said(&format!(
                "ip netns exec {} tc filter show dev hd1 {direction}",
                bed.node()
            ))
        })
    };
    let unfiltered = |bed: &Bed| filters(bed).iter().all(|said| !said.contains("_pod"));
    let links = bed.datapath.map_directory().with_file_name("links");
    let pinned = || links.join("hd1-ingress").exists() && links.join("hd1-egress").exists();
    bed.datapath.set_policy(2, &deny_all()).unwrap();
    assert!(filters(&bed).iter().all(|said| said.contains("_pod")));
    for address in b.addresses() {
        assert!(bed.is_silent(&a, &address), "{address}");
    }
    bed.datapath.set_policy(2, &allow_all()).unwrap();
    wait_for("tcx links, and filters gone", || {
        // Whichever of the two is there, packets pass as policy says.
        assert!(bed.ping(&a, &b.addresses()[0]));
        pinned() && unfiltered(&bed)
    });
    for round in ["settled", "reopened"] {
        for address in b.addresses() {
            assert!(bed.ping(&a, &address), "{round}: {address}");
        }
        bed.reopen();
        assert!(unfiltered(&bed), "{round}: {:?}", filters(&bed));
        assert!(
            bed.datapath
                .endpoints()
                .unwrap()
                .iter()
                .all(|it| it.attached)
        );
    }
    // A pod that goes before its link is settled leaves nothing behind.
    bed.pod(3, 302);
    bed.datapath.remove_endpoint(3).unwrap();
    bed.pod(4, 303);
    wait_for("the next pod settles", || links.join("hd4-egress").exists());
    assert!(!links.join("hd3-ingress").exists() && !links.join("hd3-egress").exists());
}

/// Packets by the node's own stack meet the link's transmit queue, which the kernel takes out of service
/// when a qdisc comes or goes.
#[test]
fn a_link_that_moves_to_tcx_loses_no_packet() {
    for host_routing in [true, false] {
        let bed = Bed::new(|settings| settings.host_routing = host_routing);
        let a = bed.pod(1, 300);
        let b = bed.pod(2, 301);
        let links = bed.datapath.map_directory().with_file_name("links");
        let settled = || [1, 2].map(|it| links.join(format!("hd{it}-egress")).exists());
        assert_eq!(settled(), [false; 2], "the move is still to come");
        let said = bed::said(&format!(
            "ip netns exec {} ping -n -q -i 0.001 -c 2500 {}",
            a.netns,
            b.addresses()[0]
        ));
        assert_eq!(settled(), [true; 2], "the move came meanwhile");
        assert!(
            said.contains(" 0% packet loss"),
            "host routing {host_routing}: {said}"
        );
    }
}

#[test]
fn policies_change_without_end_in_few_maps() {
    let mut bed = Bed::new(|_| {});
    let a = bed.pod(1, 300);
    let b = bed.pod(2, 301);
    let slots = |bed: &Bed| {
        let rows = bed.datapath.map_use().unwrap();
        let row = rows.iter().find(|row| row.name == "POLICY_SLOTS").unwrap();
        row.entries
    };
    for round in 0..3 {
        // More changes in a row than there are spare maps.
        for port in 1..=200u16 {
            let policy = allow_ingress(300, 6, port);
            for endpoint in [1, 2] {
                bed.datapath.set_policy(endpoint, &policy).unwrap();
                let realised = bed.datapath.policy(endpoint).unwrap();
                assert_eq!(realised.entries.as_deref(), Some(&policy.entries[..]));
            }
        }
        assert!(
            bed.datapath
                .map_use()
                .unwrap()
                .iter()
                .all(|row| row.entries <= row.max)
        );
        wait_for("left maps are spare again", || slots(&bed) == 1);
        for address in b.addresses() {
            assert_eq!(bed.tcp(&a, &b, &address, 200), "hello", "round {round}");
            assert_eq!(bed.tcp(&a, &b, &address, 199), "", "round {round}");
        }
        // What a former run left is taken over: endpoints keep their policies, maps their use.
        bed.reopen();
        wait_for("maps of the former run are spare", || slots(&bed) == 1);
        let policy = allow_ingress(300, 6, 200);
        for endpoint in [1, 2] {
            let realised = bed.datapath.policy(endpoint).unwrap();
            assert_eq!(realised.entries.as_deref(), Some(&policy.entries[..]));
        }
    }
    bed.datapath.remove_endpoint(2).unwrap();
    assert_eq!(bed.datapath.policy(2).unwrap().entries, None);
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
            assert!(bed.is_silent(&a, &address), "{round}: {address}");
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
