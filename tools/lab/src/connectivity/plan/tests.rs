//! Tests of the plan of a connectivity test.

use super::*;

/// A lab of both families whose world is reachable.
pub(in crate::connectivity) fn setting(nodes: usize) -> Setting {
    let nodes: Vec<String> = (1..=nodes).map(|number| format!("node-{number}")).collect();
    Setting {
        namespace: "test".into(),
        node_ports: nodes.iter().map(|node| (node.clone(), 30_000)).collect(),
        nodes,
        families: vec![Family::V4, Family::V6],
        world: World {
            addresses: vec![
                "203.0.113.10".parse().unwrap(),
                "2001:db8:113::10".parse().unwrap(),
            ],
            tcp: 40_000,
            udp: 40_001,
            unreachable: None,
        },
        own_node_passes: true,
    }
}

fn crosses_nodes(case: &Case) -> bool {
    let node = |end: &End| match end {
        End::Pod { node, .. } | End::Node(node) => Some(node.clone()),
        End::World => None,
    };
    matches!((node(&case.from), node(&case.to)), (Some(a), Some(b)) if a != b)
}

#[test]
fn names_are_distinct_and_no_probe_is_planned_twice() {
    let scenarios = scenarios(&setting(3));
    let mut names: Vec<_> = scenarios.iter().map(|scenario| scenario.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), scenarios.len());
    for scenario in &scenarios {
        for (index, case) in scenario.cases.iter().enumerate() {
            let twin = scenario.cases[..index].iter().find(|other| {
                (&other.from, &other.to, other.probe, other.family)
                    == (&case.from, &case.to, case.probe, case.family)
            });
            assert_eq!(twin, None, "{}: {case:?}", scenario.name);
        }
    }
}

#[test]
fn each_scenario_with_policies_expects_silence_and_shows_both_places_and_families() {
    for scenario in scenarios(&setting(2)) {
        let silent = |case: &&Case| case.expected == Outcome::Silent;
        assert_eq!(
            scenario.policies.is_empty(),
            scenario.cases.iter().find(silent).is_none(),
            "{}",
            scenario.name
        );
        for family in [Family::V4, Family::V6] {
            let of_family = || scenario.cases.iter().filter(|case| case.family == family);
            assert!(of_family().any(crosses_nodes), "{}", scenario.name);
            assert!(
                of_family().any(|case| !crosses_nodes(case)),
                "{}",
                scenario.name
            );
        }
        assert!(scenario.skipped.is_empty(), "{:?}", scenario.skipped);
    }
}

#[test]
fn one_node_has_no_other_and_says_so() {
    for scenario in scenarios(&setting(1)) {
        assert!(!scenario.cases.is_empty(), "{}", scenario.name);
        assert!(!scenario.cases.iter().any(crosses_nodes));
        assert_eq!(scenario.skipped[0].reason, "the lab has one node");
    }
}

#[test]
fn what_has_no_way_to_world_says_so_and_tries_it_not() {
    let mut closed = setting(2);
    closed.world.unreachable = Some("no way");
    for scenario in scenarios(&closed) {
        let about_world = |case: &Case| case.from == End::World || case.to == End::World;
        assert!(!scenario.cases.iter().any(about_world));
        // What cuts a connection is not about world.
        assert_eq!(
            scenario.skipped.len(),
            usize::from(scenario.name != "deny-cuts-established")
        );
    }
}

#[test]
fn where_policy_decides_of_the_own_node_too_nothing_is_expected_of_it() {
    let mut strict = setting(2);
    strict.own_node_passes = false;
    for scenario in scenarios(&strict).iter().filter(|s| !s.policies.is_empty()) {
        let own = |case: &Case| match (&case.from, &case.to) {
            (End::Pod { node, .. }, End::Node(host)) | (End::Node(host), End::Pod { node, .. }) => {
                node == host
            }
            _ => false,
        };
        assert!(!scenario.cases.iter().any(own), "{}", scenario.name);
    }
}

#[test]
fn the_probes_of_many_nodes_grow_with_their_number_only() {
    let count = |nodes| -> usize {
        let all = scenarios(&setting(nodes));
        all.iter().map(|scenario| scenario.cases.len()).sum()
    };
    assert_eq!(count(40), 2 * count(20));
    assert!(count(6) > 2 * count(3));
}

#[test]
fn probes_are_named_as_the_matrix_names_them() {
    assert_eq!(Probe::Echo.name(Family::V6), "ICMPv6/128");
    assert_eq!(Probe::Udp(53).name(Family::V4), "UDP/53");
    assert_eq!(Probe::Established(80).why(Family::V4), "--port 80/TCP");
    assert_eq!(
        End::pod(Role::Server, "node-1").peer("n"),
        "n/server-node-1"
    );
}
