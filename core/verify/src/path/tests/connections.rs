//! What is made of both nodes' connections.

use super::super::*;
use super::address;

fn tracked(port: u16, packets: [u64; 2], idle_seconds: u32) -> Tracked {
    Tracked {
        source: (address("10.244.0.5"), port).into(),
        destination: (address("10.244.1.5"), 8080).into(),
        packets,
        answered: packets[1] > 0,
        idle_seconds,
    }
}

#[test]
fn a_connection_without_answer_is_followed_as_far_as_it_came() {
    let waiting = tracked(40_000, [3, 0], 4);
    /// What the sending node tracks, what the receiving one does and whether that is all, and who is found with what.
    type Case<'a> = (
        &'a [Tracked],
        Option<(&'a [Tracked], bool)>,
        Option<(&'a str, &'a str)>,
    );
    let cases: &[Case<'_>] = &[
        (
            &[waiting],
            Some((&[], true)),
            Some(("node-1", "leaves node-1 and does not arrive at node-2")),
        ),
        (
            &[waiting],
            Some((&[tracked(40_000, [3, 0], 4)], true)),
            Some(("node-2", "shop/database does not answer")),
        ),
        (
            &[waiting],
            Some((&[tracked(40_000, [3, 3], 4)], true)),
            Some(("node-2", "the answers do not arrive at node-1")),
        ),
        (
            &[waiting],
            Some((&[tracked(50_000, [9, 0], 1)], false)),
            Some(("node-1", "no answer comes back to node-1")),
        ),
        (
            &[waiting],
            None,
            Some(("node-1", "no answer comes back to node-1")),
        ),
        // One that was answered since, or nothing to speak of.
        (
            &[waiting, tracked(40_001, [5, 4], 2)],
            Some((&[], true)),
            None,
        ),
        (
            &[waiting, tracked(40_001, [5, 4], 9)],
            Some((&[], true)),
            Some(("node-1", "does not arrive")),
        ),
        (&[tracked(40_000, [1, 0], 0)], Some((&[], true)), None),
        (
            &[tracked(40_000, [1, 0], 1)],
            Some((&[], true)),
            Some(("node-1", "1 packet 10.244.0.5:40000")),
        ),
        (&[tracked(40_000, [3, 0], 31)], Some((&[], true)), None),
        (&[tracked(40_000, [3, 2], 1)], Some((&[], true)), None),
        (&[], Some((&[], true)), None),
    ];
    for (sending, receiving, expected) in cases {
        let first = Connections {
            node: "node-1",
            recent: sending,
            complete: true,
            latest_of_all: false,
        };
        let second = receiving.map(|(recent, complete)| Connections {
            node: "node-2",
            recent,
            complete,
            latest_of_all: false,
        });
        let names = ("shop/front", "shop/database");
        let found = one_way(names, Family::V4, 6, Some(first), second, &[]);
        match (expected, &found) {
            (None, None) => {}
            (Some((node, words)), Some(check)) => {
                assert_eq!((check.node.as_str(), check.status), (*node, Status::Fail));
                assert!(check.seen.contains(words), "{words}: {check:?}");
            }
            _ => panic!("{sending:?} {receiving:?}: {found:?}"),
        }
        let dropped = [waiting.source];
        assert_eq!(
            one_way(names, Family::V4, 6, Some(first), second, &dropped),
            None
        );
    }
}

#[test]
fn on_one_node_and_from_outside_one_table_says_all() {
    let recent = [tracked(40_000, [3, 0], 4)];
    let here = Connections {
        node: "node-1",
        recent: &recent,
        complete: true,
        latest_of_all: false,
    };
    let names = ("shop/front", "shop/database");
    for sending in [Some(here), None] {
        let found = one_way(names, Family::V4, 17, sending, Some(here), &[]).unwrap();
        assert!(
            found.seen.contains("shop/database does not answer"),
            "{found:?}"
        );
        // Datagrams may want no answer.
        assert_eq!(found.status, Status::Warn);
    }
    assert_eq!(one_way(names, Family::V4, 6, None, None, &[]), None);
}

#[test]
fn where_not_all_connections_were_looked_through_none_without_an_answer_is_no_result() {
    let names = ("shop/front", "shop/database");
    let (waiting, answered) = (tracked(40_000, [3, 0], 4), tracked(40_001, [5, 4], 2));
    let old = tracked(40_002, [5, 0], 31);
    /// What is told, whether that is all, whether those are the latest of all, and what comes of it.
    type Case<'a> = (&'a [Tracked], bool, bool, Option<Status>);
    let cases: &[Case<'_>] = &[
        (&[], true, false, None),
        (&[answered], true, false, None),
        // A table was cut: one without an answer may be among the rest.
        (&[], false, false, Some(Status::NotDone)),
        (&[answered], false, false, Some(Status::NotDone)),
        (&[old], false, false, Some(Status::NotDone)),
        // Another may have been answered since.
        (&[waiting], false, false, Some(Status::Warn)),
        (&[waiting], true, false, Some(Status::Fail)),
        // Only the list was cut: nothing that is left out had a packet later.
        (&[answered], false, true, None),
        (&[old], false, true, None),
        (&[waiting], false, true, Some(Status::Fail)),
        // All that was told is left out of account.
        (&[], false, true, Some(Status::NotDone)),
        (
            &[tracked(40_000, [1, 0], 0)],
            false,
            true,
            Some(Status::NotDone),
        ),
    ];
    for (recent, complete, latest_of_all, expected) in cases {
        let sending = Connections {
            node: "node-1",
            recent,
            complete: *complete,
            latest_of_all: *latest_of_all,
        };
        let found = one_way(names, Family::V4, 6, Some(sending), None, &[]);
        let status = found.as_ref().map(|check| check.status);
        assert_eq!(
            status, *expected,
            "{recent:?} {complete} {latest_of_all}: {found:?}"
        );
        if let Some(check) = found {
            assert_eq!(check.code.is_some(), check.status != Status::NotDone);
            assert_eq!((check.stops, check.node.as_str()), (false, "node-1"));
        }
    }
}
