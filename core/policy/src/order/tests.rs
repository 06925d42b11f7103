//! Places, levels and frames, one by one.

use super::*;

fn place(tier: Tier, priority: i32, index: u32, action: Action) -> Place {
    Place {
        tier,
        priority,
        index,
        action,
    }
}

const OPEN: Frame = Frame {
    isolated: false,
    strict: false,
    own_node: false,
};

#[test]
fn what_holds_where_no_rule_matches() {
    for (frame, expected) in [
        (OPEN, Because::NotEnforced),
        (
            Frame {
                isolated: true,
                ..OPEN
            },
            Because::DefaultDeny,
        ),
        (
            Frame {
                strict: true,
                ..OPEN
            },
            Because::DefaultDeny,
        ),
        (
            Frame {
                isolated: true,
                own_node: true,
                ..OPEN
            },
            Because::Reserved,
        ),
        (
            Frame {
                strict: true,
                own_node: true,
                ..OPEN
            },
            Because::Reserved,
        ),
        (
            Frame {
                own_node: true,
                ..OPEN
            },
            Because::NotEnforced,
        ),
    ] {
        assert_eq!(
            rule_on([].into_iter(), frame).because,
            expected,
            "{frame:?}"
        );
    }
}

#[test]
fn passes_are_followed_through_both_tiers_that_have_them() {
    let admin = place(Tier::Admin, 3, 0, Action::Pass);
    let skipped = place(Tier::Admin, 4, 0, Action::Deny);
    let baseline = place(Tier::Baseline, 0, 0, Action::Pass);
    let after = place(Tier::Baseline, 0, 1, Action::Deny);
    let ruling = rule_on([after, skipped, baseline, admin].into_iter(), OPEN);
    assert_eq!(ruling.because, Because::NotEnforced);
    assert_eq!(ruling.passed, [Some(admin), Some(baseline)]);
    assert!(ruling.skips(skipped) && ruling.skips(after));
    assert!(!ruling.skips(place(Tier::Admin, 2, 9, Action::Allow)));
    let isolated = Frame {
        isolated: true,
        ..OPEN
    };
    let ruling = rule_on([after, skipped, baseline, admin].into_iter(), isolated);
    assert_eq!(ruling.because, Because::DefaultDeny);
    assert_eq!(ruling.passed, [Some(admin), None]);
}

#[test]
fn an_earlier_place_has_the_higher_precedence_and_no_two_places_share_one() {
    let mut places = Vec::new();
    for tier in [Tier::Admin, Tier::Baseline] {
        for priority in [i32::MIN, -1, 0, 7, i32::MAX] {
            for index in [0, 1, u32::MAX] {
                places.push(place(tier, priority, index, Action::Deny));
                places.push(place(tier, priority, index, Action::Allow));
            }
        }
    }
    for verdict in [crate::EntryVerdict::Allow, crate::EntryVerdict::Deny] {
        places.push(normal_place(verdict));
    }
    let levels = Levels::new(places.iter().copied()).unwrap();
    places.sort_unstable();
    let precedences: Vec<u32> = places.iter().map(|it| levels.precedence(*it)).collect();
    assert!(precedences.windows(2).all(|pair| pair[0] > pair[1]));
    assert!(
        precedences
            .iter()
            .all(|it| *it > crate::compiled::PRECEDENCE_FALLBACK)
    );
}
