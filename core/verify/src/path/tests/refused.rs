//! Which addresses no packet of a pod gets to or comes from, whatever the kernels say.

use super::super::*;
use super::{address, found, inside, leads, overlay, routed, side};

fn asked<'a>(peer: &'a str, receives: bool) -> Side<'a> {
    let peer_address = address(peer);
    Side {
        peer,
        peer_address: Some(peer_address),
        receives,
        ..side(Family::of(peer_address))
    }
}

fn outside() -> Seen {
    Seen {
        place: Place::Outside,
        ..routed()
    }
}

#[test]
fn what_the_programs_always_drop_stops_every_packet_with_the_reason() {
    for (peer, as_destination, as_source) in [
        ("224.0.0.1", true, true),
        ("127.0.0.1", true, true),
        ("0.0.0.0", true, true),
        ("255.255.255.255", true, true),
        ("240.0.0.1", true, true),
        ("169.254.23.1", true, false),
        ("169.254.169.254", false, false),
        ("203.0.113.10", false, false),
        ("ff02::1", true, true),
        ("::1", true, true),
        ("::", true, true),
        ("fe80::23:1", true, true),
        ("2001:db8:113::10", false, false),
    ] {
        for (receives, refused, reason) in [
            (false, as_destination, "STALE_OR_UNROUTABLE_IP"),
            (true, as_source, "INVALID_SOURCE_IP"),
        ] {
            let side = asked(peer, receives);
            let expected: &[_] = if refused {
                &[(Code::Unroutable, true)]
            } else {
                &[]
            };
            assert_eq!(found(&side, &outside()), expected, "{peer} {receives}");
            let all = checks(&side, &Observed::Seen(outside()));
            let names_it = |check: &Check| check.seen.contains(reason);
            assert_eq!(all.iter().any(names_it), refused, "{all:?}");
            assert_eq!(Verdict::of(&all) == Verdict::Broken, refused, "{peer}");
        }
    }
}

#[test]
fn a_destination_is_refused_also_where_nobody_can_be_asked() {
    let nobody = Observed::Failed("no agent".to_owned());
    let all = checks(&asked("224.0.0.1", false), &nobody);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].code, all[0].stops), (Some(Code::Unroutable), true));
    // Where a source is, only the node knows.
    let all = checks(&asked("224.0.0.1", true), &nobody);
    assert_eq!(all[0].status, Status::NotDone, "{all:?}");
}

#[test]
fn the_node_itself_and_neighbour_discovery_are_not_refused_there() {
    let node = Side {
        is_node: true,
        ..asked("224.0.0.1", false)
    };
    let found_of_node = found(&node, &outside());
    assert!(
        found_of_node
            .iter()
            .all(|(code, _)| *code != Code::Unroutable),
        "{found_of_node:?}"
    );
    // A neighbour solicitation is answered, and listener reports are taken; echo requests are not.
    for (kind, refused) in [(128, true), (135, false), (143, false)] {
        let asks = Side {
            protocol: 58,
            port: kind,
            ..asked("fe80::23:1", false)
        };
        assert_eq!(
            found(&asks, &outside()) == [(Code::Unroutable, true)],
            refused,
            "{kind}"
        );
    }
    // The node's own processes may send from any address to its pods.
    let own = Seen {
        place: Place::ThisNode,
        ..outside()
    };
    let of_own = found(&asked("127.0.0.1", true), &own);
    assert!(
        of_own.iter().all(|(code, _)| *code != Code::Unroutable),
        "{of_own:?}"
    );
}

/// `from_pod` drops what is for the overlay's port where only nodes encapsulate.
#[test]
fn what_has_the_form_of_the_overlays_packets_is_refused_by_place_and_fabric() {
    let node = address("172.31.2.2");
    // Whether it is refused with routes, and with an overlay.
    for (place, with_routes, with_overlay) in [
        (Place::ThisNode, true, true),
        (Place::RemoteNode { node }, true, true),
        (Place::Outside, false, true),
        (Place::Pod, false, false),
        (Place::RemotePod { node }, false, false),
        (Place::Unknown, false, false),
    ] {
        for (base, refused) in [(routed(), with_routes), (overlay(), with_overlay)] {
            for host_routing in [true, false] {
                let seen = Seen {
                    place: place.clone(),
                    host_routing,
                    ..base.clone()
                };
                for family in [Family::V4, Family::V6] {
                    refuses_encapsulation(&side(family), seen.clone(), refused);
                }
            }
        }
    }
}

fn refuses_encapsulation(base: &Side<'_>, seen: Seen, refused: bool) {
    let sends = Side {
        receives: false,
        protocol: 17,
        port: heddle_abi::OVERLAY_PORT,
        ..*base
    };
    // An end without an address, such as all that is outside, is refused by its place alone.
    let unnamed = Side {
        peer_address: None,
        ..sends
    };
    let mut from_another_network = seen.clone();
    inside(&mut from_another_network).to_peer = Some(leads("net1", 1500, None));
    let answered = Side {
        receives: true,
        ..sends
    };
    let node = Side {
        is_node: true,
        ..sends
    };
    let (tcp, beside) = (
        Side {
            protocol: 6,
            ..sends
        },
        Side {
            port: 8473,
            ..sends
        },
    );
    for (side, seen, expected) in [
        (sends, &seen, refused),
        (unnamed, &seen, refused),
        (sends, &from_another_network, false),
        (answered, &seen, false),
        (node, &seen, false),
        (tcp, &seen, false),
        (beside, &seen, false),
    ] {
        let all = checks(&side, &Observed::Seen(seen.clone()));
        let told = all
            .iter()
            .find(|it| it.code.map(Code::as_str) == Some("path/encapsulation"));
        assert_eq!(told.is_some(), expected, "{side:?} {seen:?}");
        if let Some(check) = told {
            assert_eq!((check.status, check.stops), (Status::Fail, true));
            let reason = "(ENCAPSULATION_TRAFFIC_IS_PROHIBITED)";
            assert!(check.seen.ends_with(reason), "{check:?}");
            assert!(check.help.is_some() && all.len() == 1, "{all:?}");
        }
    }
}

/// The condition is written after the program's: who changes the one has to look at the other.
#[test]
fn the_programs_condition_for_encapsulated_packets_is_the_one_that_is_known_here() {
    let program = include_str!("../../../../../bpf/programs/src/hooks/from_pod.rs");
    let program: Vec<&str> = program.split_whitespace().collect();
    let program = program.join(" ");
    let in_order = [
        "if let Some(endpoint) = peer::local(&flow.packet.destination) { return pod_to_local_pod(",
        "if is_unroutable(&flow.packet.destination, v6, config) { return Err(DropReason::StaleOrUnroutableIp); }",
        "let is_for_pod = destination.is(IPCACHE_IN_CLUSTER) && !destination.is(IPCACHE_NODE); \
         if tunnel::is_encapsulated(&flow.packet) \
         && (destination.is(IPCACHE_NODE) || (config.flags & NODE_OVERLAY != 0 && !is_for_pod)) \
         { return Err(DropReason::EncapsulationTrafficIsProhibited); }",
        "admit(skb, scratch)?",
    ];
    let found = in_order.map(|part| program.find(part));
    assert!(
        found.iter().all(Option::is_some) && found.is_sorted(),
        "{found:?}"
    );
}
