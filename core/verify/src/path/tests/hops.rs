//! What is made of routes with several next hops.

use super::super::*;
use super::{address, device, found, inside, overlay, routed, side};

fn hop(name: &str, gateway: &str, neighbour: Neighbour) -> NextHop {
    NextHop {
        device: device(name, 1500),
        gateway: Some(address(gateway)),
        neighbour,
        since: Some(1),
    }
}

/// A route whose first next hop was chosen by the look-up.
fn by(hops: &[NextHop]) -> Option<Observed<Route>> {
    let first = hops[0].clone();
    Some(Observed::Seen(Route::Leads {
        device: first.device,
        gateway: first.gateway,
        mtu: None,
        neighbour: first.neighbour,
        since: first.since,
        hops: hops.to_vec(),
    }))
}

#[test]
fn each_next_hop_is_looked_at_and_one_that_fails_does_not_stop_all() {
    use Neighbour::{Failed, Known};
    let one = |neighbour| hop("eth0", "172.31.1.1", neighbour);
    let two = |neighbour| hop("eth0", "172.31.1.2", neighbour);
    let elsewhere = hop("eth1", "172.31.9.1", Known);
    let failed = (Code::NeighbourFailed, false);
    // With an overlay, outer packets may leave by any device.
    for (hops, expected, with_overlay) in [
        (vec![one(Known), two(Known)], vec![], vec![]),
        (vec![one(Failed), two(Known)], vec![failed], vec![failed]),
        // Whichever the look-up chose.
        (vec![one(Known), two(Failed)], vec![failed], vec![failed]),
        (
            vec![one(Failed), two(Failed)],
            vec![(Code::NeighbourFailed, true), (Code::NeighbourFailed, true)],
            vec![(Code::NeighbourFailed, true), (Code::NeighbourFailed, true)],
        ),
        (
            vec![one(Known), elsewhere.clone()],
            vec![(Code::WrongDevice, false)],
            vec![],
        ),
        (
            vec![one(Failed), elsewhere],
            vec![(Code::NeighbourFailed, true), (Code::WrongDevice, true)],
            vec![failed],
        ),
    ] {
        let plain = Seen {
            to_peer: by(&hops),
            ..routed()
        };
        let encapsulated = Seen {
            to_node: by(&hops),
            ..overlay()
        };
        for (seen, expected) in [(plain, expected), (encapsulated, with_overlay)] {
            assert_eq!(found(&side(Family::V4), &seen), expected, "{hops:?}");
        }
    }
}

#[test]
fn a_next_hop_among_others_is_told_as_one_of_them() {
    let hops = [
        hop("eth0", "172.31.1.1", Neighbour::Known),
        hop("eth0", "172.31.1.2", Neighbour::Failed),
    ];
    let seen = Seen {
        to_peer: by(&hops),
        ..routed()
    };
    let all = checks(&side(Family::V4), &Observed::Seen(seen));
    let failing = all.iter().find(|it| it.code.is_some()).unwrap();
    assert!(failing.seen.contains("172.31.1.2 on eth0"), "{failing:?}");
    let end = " (one of 2 next hops: only the connections that take this one are affected)";
    assert!(failing.seen.ends_with(end), "{failing:?}");
    let whole = "leads to eth0 by 172.31.1.1 (one of 2 next hops)";
    assert!(all.iter().any(|it| it.seen.ends_with(whole)), "{all:?}");
}

#[test]
fn the_smallest_device_of_all_next_hops_counts() {
    let mut small = hop("eth1", "172.31.9.1", Neighbour::Known);
    small.device = device("eth1", 1400);
    let seen = Seen {
        place: Place::RemoteNode {
            node: address("172.31.2.2"),
        },
        to_peer: by(&[hop("eth0", "172.31.1.1", Neighbour::Known), small]),
        uplink: None,
        ..routed()
    };
    assert_eq!(
        found(&side(Family::V4), &seen),
        [(Code::MtuTooSmall, false)]
    );
}

#[test]
fn a_next_hop_in_a_pod_is_looked_at_as_well() {
    let mut seen = routed();
    inside(&mut seen).to_peer = by(&[
        hop("eth0", "169.254.23.1", Neighbour::Known),
        hop("net1", "10.9.0.1", Neighbour::Known),
    ]);
    assert_eq!(found(&side(Family::V6), &seen), []);
    let all = checks(&side(Family::V6), &Observed::Seen(seen.clone()));
    let mut not_done = all.iter().filter(|it| it.status == Status::NotDone);
    let told = not_done.next().unwrap();
    assert!(told.seen.ends_with("(one of 2 next hops)"), "{told:?}");
    // One that fails stops only the connections that take it.
    inside(&mut seen).to_peer = by(&[
        hop("eth0", "169.254.23.1", Neighbour::Failed),
        hop("net1", "10.9.0.1", Neighbour::Known),
    ]);
    assert_eq!(
        found(&side(Family::V6), &seen),
        [(Code::NeighbourFailed, false)]
    );
}
