//! What is found of which path, by tables.

mod connections;
mod elsewhere;
mod hops;
mod refused;

use super::*;
use std::net::IpAddr;

fn device(name: &str, mtu: u32) -> Device {
    Device {
        name: name.to_owned(),
        state: Some(DeviceState {
            up: true,
            carrier: true,
            mtu,
        }),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn leads(name: &str, mtu: u32, gateway: Option<&str>) -> Observed<Route> {
    Observed::Seen(Route::Leads {
        device: device(name, mtu),
        gateway: gateway.map(address),
        mtu: None,
        neighbour: Neighbour::Known,
        since: None,
        hops: Vec::new(),
    })
}

fn listener(text: &str, ipv6_only: bool) -> Listener {
    Listener {
        address: address(text),
        ipv6_only,
        device: None,
    }
}

/// A pod whose peer is on another node of a routed network, all as it must be.
fn routed() -> Seen {
    Seen {
        host_routing: true,
        place: Place::RemotePod {
            node: address("172.31.2.2"),
        },
        uplink: Some(Observed::Seen(device("eth0", 1500))),
        overlay: None,
        pod_link: Some(Observed::Seen(device("hd7", 1500))),
        inside: Some(Observed::Seen(Inside {
            device: device("eth0", 1500),
            to_peer: Some(leads("eth0", 1500, Some("169.254.23.1"))),
            listeners: Some(Observed::Seen(vec![listener("::", false)])),
        })),
        to_peer: Some(leads("eth0", 1500, Some("172.31.1.1"))),
        to_node: None,
        to_own: Some(leads("hd7", 1500, None)),
        listeners: None,
    }
}

/// The same with VXLAN.
fn overlay() -> Seen {
    let mut seen = routed();
    seen.overlay = Some(Observed::Seen(device("heddle-vxlan", 1450)));
    seen.pod_link = Some(Observed::Seen(device("hd7", 1450)));
    inside(&mut seen).device = device("eth0", 1450);
    seen.to_peer = Some(leads("heddle-vxlan", 1450, None));
    seen.to_node = Some(leads("eth0", 1500, Some("172.31.1.1")));
    seen
}

fn inside(seen: &mut Seen) -> &mut Inside {
    match &mut seen.inside {
        Some(Observed::Seen(inside)) => inside,
        other => panic!("{other:?}"),
    }
}

fn mtu_of(device: &mut Option<Observed<Device>>, mtu: u32) {
    if let Some(Observed::Seen(Device {
        state: Some(state), ..
    })) = device
    {
        state.mtu = mtu;
    }
}

fn down(device: &mut Option<Observed<Device>>) {
    if let Some(Observed::Seen(Device {
        state: Some(state), ..
    })) = device
    {
        state.up = false;
    }
}

fn side(family: Family) -> Side<'static> {
    Side {
        node: "node-1",
        own: "shop/front",
        is_node: false,
        address: Some(match family {
            Family::V4 => address("10.244.0.5"),
            Family::V6 => address("fd10::5"),
        }),
        peer: "shop/database",
        peer_address: Some(match family {
            Family::V4 => address("10.244.1.5"),
            Family::V6 => address("fd10:1::5"),
        }),
        family,
        receives: true,
        protocol: 6,
        port: 8080,
    }
}

fn found(side: &Side<'_>, seen: &Seen) -> Vec<(Code, bool)> {
    let checks = checks(side, &Observed::Seen(seen.clone()));
    let found = checks
        .iter()
        .filter(|it| !matches!(it.status, Status::Pass | Status::NotDone));
    found
        .map(|it| {
            assert!(it.help.is_some(), "{it:?}");
            (it.code.unwrap(), it.stops)
        })
        .collect()
}

#[test]
fn a_whole_path_has_no_finding_wherever_the_peer_is() {
    let places = [
        (Place::Pod, Some(leads("hd8", 1450, None))),
        (Place::ThisNode, Some(leads("lo", 65_536, None))),
        (
            Place::RemotePod {
                node: address("172.31.2.2"),
            },
            None,
        ),
        (
            Place::RemoteNode {
                node: address("172.31.2.2"),
            },
            Some(leads("eth0", 1500, Some("172.31.1.1"))),
        ),
        (
            Place::Outside,
            Some(leads("eth0", 1500, Some("172.31.1.1"))),
        ),
    ];
    for family in [Family::V4, Family::V6] {
        for base in [routed(), overlay()] {
            for (place, to_peer) in &places {
                for host_routing in [true, false] {
                    let mut seen = base.clone();
                    (seen.place, seen.host_routing) = (place.clone(), host_routing);
                    if to_peer.is_some() {
                        seen.to_peer.clone_from(to_peer);
                    }
                    assert_eq!(found(&side(family), &seen), [], "{seen:?}");
                    let node = Seen {
                        pod_link: None,
                        inside: None,
                        to_own: None,
                        ..seen.clone()
                    };
                    let node = Seen {
                        listeners: Some(Observed::Seen(vec![listener("::", false)])),
                        ..node
                    };
                    let own = Side {
                        is_node: true,
                        ..side(family)
                    };
                    assert_eq!(found(&own, &node), [], "{node:?}");
                }
            }
        }
    }
}

#[test]
fn each_thing_that_is_broken_is_found_and_nothing_else() {
    type Change = fn(&mut Seen);
    type Case = (&'static str, fn() -> Seen, Change, &'static [(Code, bool)]);
    let cases: &[Case] = &[
        (
            "no route",
            routed,
            |it| it.to_peer = Some(Observed::Seen(Route::Refused(NoRoute::Missing))),
            &[(Code::NoRoute, true)],
        ),
        (
            "blackhole",
            routed,
            |it| it.to_peer = Some(Observed::Seen(Route::Refused(NoRoute::Blackhole))),
            &[(Code::NoRoute, true)],
        ),
        (
            "another device",
            routed,
            |it| it.to_peer = Some(leads("eth1", 1500, None)),
            &[(Code::WrongDevice, true)],
        ),
        (
            "no route inside",
            routed,
            |it| inside(it).to_peer = Some(Observed::Seen(Route::Refused(NoRoute::Missing))),
            &[(Code::NoRoute, true)],
        ),
        (
            "uplink down",
            routed,
            |it| {
                down(&mut it.uplink);
                it.to_peer = Some(Observed::Seen(Route::Refused(NoRoute::Missing)));
            },
            &[(Code::DeviceDown, true)],
        ),
        (
            "host side down",
            routed,
            |it| {
                down(&mut it.pod_link);
                it.to_own = Some(Observed::Seen(Route::Refused(NoRoute::Missing)));
            },
            &[(Code::DeviceDown, true)],
        ),
        (
            "host side gone",
            routed,
            |it| {
                it.pod_link = Some(Observed::Seen(Device {
                    name: "hd7".into(),
                    state: None,
                }))
            },
            &[(Code::DeviceMissing, true)],
        ),
        (
            "pod's interface gone",
            routed,
            |it| inside(it).device.state = None,
            &[(Code::DeviceMissing, true)],
        ),
        (
            "large pod",
            routed,
            |it| mtu_of(&mut it.pod_link, 1400),
            &[(Code::MtuTooSmall, false)],
        ),
        (
            "small uplink",
            routed,
            |it| {
                mtu_of(&mut it.uplink, 1300);
                it.to_peer = Some(leads("eth0", 1300, Some("172.31.1.1")));
            },
            &[(Code::MtuTooSmall, false)],
        ),
        (
            "overlay down",
            overlay,
            |it| down(&mut it.overlay),
            &[(Code::DeviceDown, true)],
        ),
        (
            "overlay gone",
            overlay,
            |it| {
                it.overlay = Some(Observed::Seen(Device {
                    name: "heddle-vxlan".into(),
                    state: None,
                }))
            },
            &[(Code::DeviceMissing, true)],
        ),
        (
            "no route to the node",
            overlay,
            |it| it.to_node = Some(Observed::Seen(Route::Refused(NoRoute::Missing))),
            &[(Code::NoRoute, true)],
        ),
        (
            "outer headers do not fit",
            overlay,
            |it| it.to_node = Some(leads("eth0", 1480, Some("172.31.1.1"))),
            &[(Code::MtuTooSmall, false)],
        ),
        // The programs do not ask the node's route to another node's pods there.
        (
            "no inner route",
            overlay,
            |it| it.to_peer = Some(Observed::Seen(Route::Refused(NoRoute::Missing))),
            &[],
        ),
        (
            "no inner route, by the stack",
            overlay,
            |it| {
                it.host_routing = false;
                it.to_peer = Some(Observed::Seen(Route::Refused(NoRoute::Missing)));
            },
            &[(Code::NoRoute, true)],
        ),
        (
            "inner route elsewhere, by the stack",
            overlay,
            |it| {
                it.host_routing = false;
                it.to_peer = Some(leads("eth0", 1500, None));
            },
            &[(Code::WrongDevice, true)],
        ),
        (
            "no route to the own pod",
            routed,
            |it| it.to_own = Some(Observed::Seen(Route::Refused(NoRoute::Missing))),
            &[(Code::NoRoute, false)],
        ),
        (
            "no route to the own pod, by the stack",
            routed,
            |it| {
                it.host_routing = false;
                it.to_own = Some(Observed::Seen(Route::Refused(NoRoute::Missing)));
            },
            &[(Code::NoRoute, true)],
        ),
        (
            "no route to the own pod, from the node",
            routed,
            |it| {
                it.place = Place::ThisNode;
                it.to_own = Some(leads("eth0", 1500, None));
            },
            &[(Code::WrongDevice, true)],
        ),
        (
            "nobody listens",
            routed,
            |it| inside(it).listeners = Some(Observed::Seen(vec![])),
            &[(Code::NoListener, false)],
        ),
        (
            "listens for itself",
            routed,
            |it| {
                inside(it).listeners = Some(Observed::Seen(vec![
                    listener("127.0.0.1", false),
                    listener("::1", false),
                ]))
            },
            &[(Code::NoListener, false)],
        ),
    ];
    for (name, base, change, expected) in cases {
        for family in [Family::V4, Family::V6] {
            let mut seen = base();
            change(&mut seen);
            assert_eq!(found(&side(family), &seen), *expected, "{name}, {family:?}");
        }
    }
}

#[test]
fn a_next_hop_that_does_not_answer_is_found_on_each_route() {
    let hop = |neighbour, since| {
        Some(Observed::Seen(Route::Leads {
            device: device("eth0", 1500),
            gateway: Some(address("172.31.1.1")),
            mtu: None,
            neighbour,
            since,
            hops: Vec::new(),
        }))
    };
    for (neighbour, since, expected) in [
        (
            Neighbour::Failed,
            Some(0),
            &[(Code::NeighbourFailed, true)][..],
        ),
        (
            Neighbour::Failed,
            Some(30),
            &[(Code::NeighbourFailed, true)],
        ),
        // The entry stays for as long as nobody asks again: it says nothing of the host as it is now.
        (
            Neighbour::Failed,
            Some(31),
            &[(Code::NeighbourFailed, false)],
        ),
        (Neighbour::Failed, None, &[(Code::NeighbourFailed, false)]),
        (
            Neighbour::Incomplete,
            Some(9),
            &[(Code::NeighbourIncomplete, true)],
        ),
        (Neighbour::Absent, Some(0), &[]),
    ] {
        let plain = Seen {
            to_peer: hop(neighbour, since),
            ..routed()
        };
        let encapsulated = Seen {
            to_node: hop(neighbour, since),
            ..overlay()
        };
        for seen in [plain, encapsulated] {
            assert_eq!(found(&side(Family::V4), &seen), expected);
        }
    }
    let mut seen = routed();
    inside(&mut seen).to_peer = hop(Neighbour::Failed, Some(3));
    assert_eq!(
        found(&side(Family::V6), &seen),
        [(Code::NeighbourFailed, true)]
    );
}

#[test]
fn less_than_1280_bytes_is_the_end_of_ipv6_alone() {
    let changes: [fn(&mut Seen); 3] = [
        |it| mtu_of(&mut it.uplink, 1200),
        |it| mtu_of(&mut it.pod_link, 1200),
        |it| inside(it).device = device("eth0", 1200),
    ];
    for change in changes {
        let mut seen = routed();
        change(&mut seen);
        assert_eq!(
            found(&side(Family::V6), &seen),
            [(Code::MtuBelow1280, true)]
        );
        let v4 = found(&side(Family::V4), &seen);
        assert!(v4.iter().all(|(_, stops)| !stops), "{v4:?}");
    }
    // Outer headers over IPv4 need no more.
    let mut seen = overlay();
    mtu_of(&mut seen.uplink, 1200);
    seen.to_node = Some(leads("eth0", 1200, None));
    assert_eq!(
        found(&side(Family::V6), &seen),
        [(Code::MtuTooSmall, false)]
    );
}

#[test]
fn who_listens_is_asked_for_the_address_and_family_of_the_packet() {
    for (bound, family, takes) in [
        (listener("0.0.0.0", false), Family::V4, true),
        (listener("0.0.0.0", false), Family::V6, false),
        (listener("::", false), Family::V4, true),
        (listener("::", true), Family::V4, false),
        (listener("::", true), Family::V6, true),
        (listener("10.244.0.5", false), Family::V4, true),
        (listener("::ffff:10.244.0.5", false), Family::V4, true),
        (listener("fd10::5", false), Family::V6, true),
        (listener("fd10::5", false), Family::V4, false),
        (listener("127.0.0.1", false), Family::V4, false),
    ] {
        let mut seen = routed();
        inside(&mut seen).listeners = Some(Observed::Seen(vec![bound.clone()]));
        assert_eq!(
            found(&side(family), &seen).is_empty(),
            takes,
            "{bound:?} {family:?}"
        );
        let sends = Side {
            receives: false,
            ..side(family)
        };
        assert_eq!(found(&sends, &seen), []);
    }
    // Ports may be translated before a socket is looked up, by a node's rules or those of a mesh in the pod: that is a hint.
    let (mut pod, node) = (routed(), the_node(Vec::new()));
    inside(&mut pod).listeners = Some(Observed::Seen(Vec::new()));
    for (is_node, seen) in [(false, pod), (true, node)] {
        let own = Side {
            is_node,
            ..side(Family::V4)
        };
        let checks = checks(&own, &Observed::Seen(seen));
        let hint = checks
            .iter()
            .find(|it| it.code == Some(Code::NoListener))
            .unwrap();
        assert_eq!((hint.status, hint.stops), (Status::Warn, false));
        let said = "(ports that rules translate are not looked at)";
        assert!(hint.seen.ends_with(said), "{hint:?}");
    }
}

/// The node as the end, with these sockets.
fn the_node(listeners: Vec<Listener>) -> Seen {
    Seen {
        pod_link: None,
        inside: None,
        to_own: None,
        listeners: Some(Observed::Seen(listeners)),
        ..routed()
    }
}

#[test]
fn a_socket_that_is_bound_to_a_device_takes_what_comes_by_that_one_alone() {
    let bound = |device: Option<&str>| Listener {
        device: device.map(str::to_owned),
        ..listener("::", false)
    };
    use Status::{NotDone, Pass, Warn};
    for (listeners, pod, node, from_itself) in [
        (vec![bound(None)], Pass, Pass, Pass),
        (vec![bound(Some("eth0"))], Pass, Pass, NotDone),
        (vec![bound(Some("lo"))], NotDone, NotDone, Pass),
        (vec![bound(Some("net1"))], NotDone, NotDone, NotDone),
        (vec![bound(Some("net1")), bound(None)], Pass, Pass, Pass),
        (vec![], Warn, Warn, Warn),
    ] {
        let mut of_pod = routed();
        inside(&mut of_pod).listeners = Some(Observed::Seen(listeners.clone()));
        let of_node = the_node(listeners.clone());
        let of_itself = Seen {
            place: Place::ThisNode,
            to_peer: Some(leads("lo", 65_536, None)),
            ..of_node.clone()
        };
        for (is_node, seen, expected) in [
            (false, of_pod, pod),
            (true, of_node, node),
            (true, of_itself, from_itself),
        ] {
            let own = Side {
                is_node,
                ..side(Family::V4)
            };
            let checks = checks(&own, &Observed::Seen(seen));
            let mut found = checks.iter().filter(|it| it.subject == Subject::Listener);
            let found = found.next().unwrap();
            assert_eq!(found.status, expected, "{listeners:?} {is_node}: {found:?}");
        }
    }
}

#[test]
fn what_could_not_be_done_is_told_and_is_no_finding() {
    let nobody = checks(&side(Family::V4), &Observed::Failed("no agent".to_owned()));
    assert_eq!(nobody.len(), 1);
    assert_eq!(
        (nobody[0].subject, nobody[0].status),
        (Subject::Path, Status::NotDone)
    );
    assert!(nobody[0].seen.ends_with("no agent"), "{nobody:?}");
    assert_eq!(Verdict::of(&nobody), Verdict::Unknown);
    let mut seen = routed();
    seen.inside = Some(Observed::Failed("it is gone".to_owned()));
    (seen.place, seen.to_peer) = (Place::Unknown, None);
    let some = checks(
        &Side {
            protocol: 132,
            ..side(Family::V4)
        },
        &Observed::Seen(seen),
    );
    let not_done: Vec<Subject> = some
        .iter()
        .filter(|it| it.status == Status::NotDone)
        .map(|it| it.subject)
        .collect();
    assert_eq!(
        not_done,
        [Subject::Device, Subject::Route, Subject::Listener]
    );
    assert_eq!(Verdict::of(&some), Verdict::Unknown);
}

#[test]
fn families_that_say_the_same_are_one_check_and_the_worst_comes_first() {
    let mut seen = routed();
    down(&mut seen.uplink);
    inside(&mut seen).listeners = Some(Observed::Seen(Vec::new()));
    let both = [Family::V4, Family::V6];
    let all = both.map(|family| checks(&side(family), &Observed::Seen(seen.clone())));
    let merged = merged(all.into_iter().flatten());
    let worst = &merged[0];
    assert_eq!(
        (worst.code, worst.families.as_slice()),
        (Some(Code::DeviceDown), &both[..])
    );
    assert_eq!(merged[1].code, Some(Code::NoListener));
    assert!(
        merged[2..].iter().all(|it| it.status == Status::Pass),
        "{merged:?}"
    );
    assert_eq!(Verdict::of(&merged), Verdict::Broken);
    assert_eq!(Verdict::of(&merged[1..]), Verdict::Impaired);
    assert_eq!(Verdict::of(&merged[2..]), Verdict::Ok);
}

#[test]
fn codes_are_written_alike_everywhere() {
    for code in [
        Code::DeviceMissing,
        Code::MtuBelow1280,
        Code::NeighbourFailed,
        Code::Unroutable,
        Code::OneWay,
    ] {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
}

#[test]
fn pods_of_different_mtu_are_told_of() {
    let names = ("shop/front", "shop/database");
    assert_eq!(differing_mtu(names, "node-1", Family::V4, 1500, 1500), None);
    let found = differing_mtu(names, "node-1", Family::V4, 1500, 1450).unwrap();
    assert_eq!((found.status, found.stops), (Status::Warn, false));
    assert!(found.seen.contains("more than 1450 bytes"), "{found:?}");
}
