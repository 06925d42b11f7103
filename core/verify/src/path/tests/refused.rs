//! Which addresses no packet of a pod gets to or comes from, whatever the kernels say.

use super::super::*;
use super::{address, found, routed, side};

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
