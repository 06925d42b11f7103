//! Routes by other devices than Heddle's: other networks of a pod, and other ways of a node to the other nodes.

use super::super::*;
use super::{address, device, down, found, inside, leads, overlay, routed, side};

/// A route by a device in this state.
fn by(name: &str, up: bool, carrier: bool) -> Option<Observed<Route>> {
    let mut route = leads(name, 1500, Some("10.9.0.1"));
    if let Observed::Seen(Route::Leads { device, .. }) = &mut route {
        let state = device.state.as_mut().unwrap();
        (state.up, state.carrier) = (up, carrier);
    }
    Some(route)
}

fn refused(reason: NoRoute) -> Option<Observed<Route>> {
    Some(Observed::Seen(Route::Refused(reason)))
}

#[test]
fn what_leaves_the_pod_by_another_network_is_told_and_stops_nothing() {
    use Code::{DeviceDown, NoRoute as Without};
    type Case = (
        &'static str,
        Option<Observed<Route>>,
        &'static [(Code, bool)],
        Verdict,
    );
    let cases: [Case; 9] = [
        ("own", by("eth0", true, true), &[], Verdict::Ok),
        ("Multus", by("net1", true, true), &[], Verdict::Unknown),
        ("a tunnel", by("tun0", true, true), &[], Verdict::Unknown),
        ("WireGuard", by("wg0", true, true), &[], Verdict::Unknown),
        (
            "down",
            by("net1", false, false),
            &[(DeviceDown, true)],
            Verdict::Broken,
        ),
        (
            "no carrier",
            by("net1", true, false),
            &[(DeviceDown, true)],
            Verdict::Broken,
        ),
        (
            "none",
            refused(NoRoute::Missing),
            &[(Without, true)],
            Verdict::Broken,
        ),
        (
            "blackhole",
            refused(NoRoute::Blackhole),
            &[(Without, true)],
            Verdict::Broken,
        ),
        (
            "unreachable",
            refused(NoRoute::Unreachable),
            &[(Without, true)],
            Verdict::Broken,
        ),
    ];
    for (name, route, expected, verdict) in &cases {
        for base in [routed(), overlay()] {
            for (family, receives) in [(Family::V4, false), (Family::V6, true)] {
                let mut seen = base.clone();
                inside(&mut seen).to_peer.clone_from(route);
                let side = Side {
                    receives,
                    ..side(family)
                };
                assert_eq!(found(&side, &seen), *expected, "{name}");
                let all = checks(&side, &Observed::Seen(seen));
                assert_eq!(Verdict::of(&all), *verdict, "{name}: {all:?}");
            }
        }
    }
}

#[test]
fn a_route_by_another_network_names_it_and_that_nothing_is_known() {
    let mut seen = routed();
    inside(&mut seen).to_peer = by("net1", true, true);
    let all = checks(&side(Family::V4), &Observed::Seen(seen));
    let told: Vec<&Check> = all
        .iter()
        .filter(|it| it.status == Status::NotDone)
        .collect();
    assert_eq!(told.len(), 1, "{all:?}");
    let check = told[0];
    assert_eq!(
        (check.subject, check.code, check.stops),
        (Subject::Route, None, false)
    );
    let words =
        "it leaves by net1 by 10.9.0.1, which Heddle does not carry: nothing is known of its path";
    assert!(check.seen.ends_with(words), "{check:?}");
}

/// What another network carries needs none of this; what comes to the pod may.
#[test]
fn of_a_packet_that_does_not_come_to_heddle_the_nodes_devices_and_routes_say_nothing() {
    type Change = fn(&mut Seen);
    type Case = (&'static str, Change, Option<(Code, bool)>);
    let cases: [Case; 4] = [
        (
            "route to the peer",
            |it| it.to_peer = refused(NoRoute::Missing),
            None,
        ),
        (
            "route to its node",
            |it| it.to_node = refused(NoRoute::Missing),
            None,
        ),
        (
            "uplink down",
            |it| {
                down(&mut it.uplink);
                it.to_node = refused(NoRoute::Missing);
            },
            Some((Code::DeviceDown, true)),
        ),
        (
            "overlay down",
            |it| down(&mut it.overlay),
            Some((Code::DeviceDown, true)),
        ),
    ];
    for (name, change, as_receiver) in cases {
        for (receives, expected) in [(false, None), (true, as_receiver)] {
            let mut seen = overlay();
            inside(&mut seen).to_peer = by("net1", true, true);
            change(&mut seen);
            let side = Side {
                receives,
                ..side(Family::V4)
            };
            let found = found(&side, &seen);
            assert_eq!(found, expected.as_slice(), "{name} {receives}");
        }
    }
    // The interface that Heddle gave the pod is looked at first.
    let mut seen = routed();
    let own = &mut inside(&mut seen).device;
    own.state.as_mut().unwrap().up = false;
    inside(&mut seen).to_peer = by("net1", true, true);
    assert_eq!(found(&side(Family::V4), &seen), [(Code::DeviceDown, true)]);
}

#[test]
fn outer_packets_may_leave_by_any_device_and_those_of_a_routed_fabric_by_the_uplink_alone() {
    let hop = |name: &str, up: bool| {
        let mut device = device(name, 1500);
        device.state.as_mut().unwrap().up = up;
        NextHop {
            device,
            gateway: Some(address("172.31.9.1")),
            neighbour: Neighbour::Known,
            since: None,
        }
    };
    let several = |hops: Vec<NextHop>| {
        let mut route = leads(&hops[0].device.name, 1500, Some("172.31.9.1"));
        if let Observed::Seen(Route::Leads { hops: all, .. }) = &mut route {
            *all = hops;
        }
        Some(route)
    };
    let failed = |name: &str| {
        let mut route = leads(name, 1500, Some("172.31.9.1"));
        if let Observed::Seen(Route::Leads {
            neighbour, since, ..
        }) = &mut route
        {
            (*neighbour, *since) = (Neighbour::Failed, Some(1));
        }
        Some(route)
    };
    // The route, whether the uplink is up, and what is found with an overlay and without.
    type Found = &'static [(Code, bool)];
    const NONE: Found = &[];
    const WRONG: Found = &[(Code::WrongDevice, true)];
    const SOME_WRONG: Found = &[(Code::WrongDevice, false)];
    const DOWN: Found = &[(Code::DeviceDown, true)];
    for (name, route, uplink_up, encapsulated, plain) in [
        ("the uplink", by("eth0", true, true), true, NONE, NONE),
        ("another", by("eth1", true, true), true, NONE, WRONG),
        ("another, down", by("eth1", false, false), true, DOWN, WRONG),
        (
            "another, no carrier",
            by("eth1", true, false),
            true,
            DOWN,
            WRONG,
        ),
        (
            "another, silent",
            failed("eth1"),
            true,
            &[(Code::NeighbourFailed, true)],
            WRONG,
        ),
        (
            "both",
            several(vec![hop("eth0", true), hop("eth1", true)]),
            true,
            NONE,
            SOME_WRONG,
        ),
        (
            "both, one down",
            several(vec![hop("eth0", true), hop("eth1", false)]),
            true,
            &[(Code::DeviceDown, false)],
            SOME_WRONG,
        ),
        (
            "another, uplink down",
            by("eth1", true, true),
            false,
            NONE,
            DOWN,
        ),
        (
            "both, uplink down",
            several(vec![hop("eth0", false), hop("eth1", true)]),
            false,
            &[(Code::DeviceDown, false)],
            DOWN,
        ),
        (
            "none, uplink down",
            refused(NoRoute::Missing),
            false,
            DOWN,
            DOWN,
        ),
    ] {
        for family in [Family::V4, Family::V6] {
            let mut over = Seen {
                to_node: route.clone(),
                ..overlay()
            };
            let mut direct = Seen {
                to_peer: route.clone(),
                ..routed()
            };
            if !uplink_up {
                down(&mut over.uplink);
                down(&mut direct.uplink);
            }
            assert_eq!(found(&side(family), &over), encapsulated, "{name}, overlay");
            assert_eq!(found(&side(family), &direct), plain, "{name}, routed");
        }
    }
}
