//! The rules one by one, on lists of candidates.

use super::*;
use crate::{Conditions, DEFAULT_WEIGHT, Hints};

const HERE: Viewpoint<'static> = Viewpoint {
    node: "n1",
    zone: Some("a"),
};

/// A candidate by words: `ready`, `unready`, `serving` (and terminating), `gone` (terminating, not serving),
/// `@NODE`, `zone=Z`, `node=N` (hints), `up`, `down`, `drain` (admin), `pass`, `fail` (probe), `w0`.
struct Spec(Endpoint, AdminState, Probe, Option<OutReason>);

fn spec(words: &str) -> Spec {
    let conditions = |ready, serving, terminating| Conditions {
        ready,
        serving,
        terminating,
    };
    let mut endpoint = Endpoint {
        address: [10, 0, 0, 1].into(),
        conditions: conditions(true, true, false),
        weight: DEFAULT_WEIGHT,
        node: None,
        zone: None,
        pod: None,
        hostname: None,
        hints: None,
    };
    let (mut admin, mut probe, mut excluded) = (AdminState::None, Probe::Unknown, None);
    let mut hints = Hints::default();
    for word in words.split_whitespace() {
        match word {
            "ready" => {}
            "unready" => endpoint.conditions = conditions(false, false, false),
            "serving" => endpoint.conditions = conditions(false, true, true),
            "gone" => endpoint.conditions = conditions(false, false, true),
            "w0" => endpoint.weight = 0,
            "up" => admin = AdminState::Up,
            "down" => admin = AdminState::Down,
            "drain" => admin = AdminState::Drain { deadline: 9 },
            "pass" => probe = Probe::Up,
            "fail" => probe = Probe::Down,
            "noport" => excluded = Some(OutReason::NoSuchPort),
            _ => match (word.strip_prefix('@'), word.split_once('=')) {
                (Some(node), _) => endpoint.node = Some(node.into()),
                (_, Some(("zone", zone))) => hints.zones.push(zone.into()),
                (_, Some(("node", node))) => hints.nodes.push(node.into()),
                _ => panic!("{word}"),
            },
        }
    }
    endpoint.hints = (hints != Hints::default()).then(|| Arc::new(hints));
    Spec(endpoint, admin, probe, excluded)
}

fn chosen(specs: &[&str], policy: TrafficPolicy, viewpoint: Option<Viewpoint<'_>>) -> Choice {
    let specs: Vec<Spec> = specs.iter().map(|words| spec(words)).collect();
    let candidates: Vec<Candidate<'_>> = specs
        .iter()
        .map(|Spec(endpoint, admin, probe, excluded)| Candidate {
            endpoint,
            excluded: *excluded,
            admin: *admin,
            probe: *probe,
        })
        .collect();
    choose(&candidates, policy, viewpoint)
}

/// Each row: candidates with the codes that they get under a policy, as seen from node `n1` in zone `a`.
fn check(policy: TrafficPolicy, rows: &[&[(&str, &str)]]) {
    for row in rows {
        let specs: Vec<&str> = row.iter().map(|(words, _)| *words).collect();
        let choice = chosen(&specs, policy, Some(HERE));
        let codes: Vec<&str> = choice.states.iter().map(|state| state.code()).collect();
        let wanted: Vec<&str> = row.iter().map(|(_, code)| *code).collect();
        assert_eq!(codes, wanted, "{specs:?} under {policy:?}");
    }
}

#[test]
fn ready_endpoints_are_used_and_terminating_ones_only_when_nothing_is_ready() {
    check(
        TrafficPolicy::Cluster,
        &[
            &[("ready", "Up_Ready"), ("unready", "Down_NotReady")],
            &[("ready", "Up_Ready"), ("serving", "Down_Terminating")],
            &[
                ("unready", "Down_NotReady"),
                ("serving", "Up_Terminating_NothingReady"),
                ("gone", "Down_Terminating_NotServing"),
            ],
            &[("gone", "Down_Terminating_NotServing")],
            &[],
        ],
    );
}

#[test]
fn under_local_the_node_s_own_are_used_and_its_terminating_ones_before_others_ready_ones() {
    check(
        TrafficPolicy::Local,
        &[
            &[
                ("ready @n1", "Up_Ready"),
                ("ready @n2", "Down_Local_OtherNode"),
            ],
            &[
                ("serving @n1", "Up_Terminating_NothingReady"),
                ("ready @n2", "Down_Local_OtherNode"),
                ("ready", "Down_Local_OtherNode"),
            ],
            // Hints mean nothing to Local.
            &[
                ("ready @n1 zone=b node=n2", "Up_Ready"),
                ("ready @n1 zone=a node=n1", "Up_Ready"),
            ],
        ],
    );
}

#[test]
fn local_without_backends_knows_whether_others_have_any() {
    for (specs, elsewhere) in [
        (&["ready @n2"][..], true),
        (&["serving @n2"], true),
        (&["unready @n2", "unready @n1"], false),
        (&["ready @n1", "ready @n2"], false),
        (&["down @n2"], false),
        (&[], false),
    ] {
        let choice = chosen(specs, TrafficPolicy::Local, Some(HERE));
        assert_eq!(choice.elsewhere, elsewhere, "{specs:?}");
        let cluster = chosen(specs, TrafficPolicy::Cluster, Some(HERE));
        assert!(!cluster.elsewhere, "{specs:?}");
    }
}

#[test]
fn hints_count_where_every_candidate_has_some_and_one_is_for_here() {
    check(
        TrafficPolicy::Cluster,
        &[
            &[
                ("zone=a", "Up_Ready"),
                ("zone=b", "Down_Topology_OtherZone"),
            ],
            &[
                ("zone=a zone=b", "Up_Ready"),
                ("zone=b", "Down_Topology_OtherZone"),
            ],
            // One without a hint: all are used.
            &[
                ("zone=a", "Up_Ready"),
                ("zone=b", "Up_Ready"),
                ("ready", "Up_Ready"),
            ],
            // None for this zone: all are used.
            &[("zone=b", "Up_Ready"), ("zone=c", "Up_Ready")],
            // Only what is ready counts.
            &[
                ("zone=a", "Up_Ready"),
                ("zone=b", "Down_Topology_OtherZone"),
                ("unready", "Down_NotReady"),
            ],
            // Terminating ones are used without regard to zones.
            &[
                ("serving zone=a", "Up_Terminating_NothingReady"),
                ("serving zone=b", "Up_Terminating_NothingReady"),
            ],
            // The node before the zone, the zone before everywhere.
            &[
                ("zone=a node=n1", "Up_Ready"),
                ("zone=a node=n2", "Down_Topology_OtherNode"),
            ],
            &[
                ("zone=a node=n2", "Up_Ready"),
                ("zone=b node=n3", "Down_Topology_OtherZone"),
            ],
            &[
                ("zone=a node=n1", "Up_Ready"),
                ("zone=a", "Up_Ready"),
                ("zone=b", "Down_Topology_OtherZone"),
            ],
        ],
    );
    let nowhere = Viewpoint {
        node: "n1",
        zone: None,
    };
    let choice = chosen(&["zone=a", "zone=b"], TrafficPolicy::Cluster, Some(nowhere));
    assert_eq!(choice.topology, Topology::Ignored);
    assert!(choice.states.iter().all(|state| state.is_in()));
}

#[test]
fn what_an_operator_took_out_is_as_if_it_were_not_there() {
    check(
        TrafficPolicy::Cluster,
        &[
            &[("down", "Down_Admin"), ("ready", "Up_Ready")],
            &[("drain", "Down_Admin_Draining"), ("ready", "Up_Ready")],
            // All down: no backend, by the operator's wish.
            &[("down", "Down_Admin"), ("down", "Down_Admin")],
            &[
                ("down", "Down_Admin"),
                ("serving", "Up_Terminating_NothingReady"),
            ],
            // The zone's only endpoint is down: the others are used.
            &[("down zone=a", "Down_Admin"), ("zone=b", "Up_Ready")],
            // Up is about probes, not about readiness.
            &[("up unready", "Down_NotReady"), ("ready", "Up_Ready")],
            &[("w0", "Down_NoWeight"), ("ready", "Up_Ready")],
        ],
    );
}

#[test]
fn failing_probes_take_backends_out_while_anything_else_is_left() {
    check(
        TrafficPolicy::Cluster,
        &[
            &[("fail", "Down_Probe"), ("pass", "Up_Probe_Success")],
            &[("fail", "Down_Probe"), ("ready", "Up_Ready")],
            &[("fail up", "Up_Admin"), ("fail", "Down_Probe")],
            &[
                ("fail", "Up_Probe_AllDownIsUp"),
                ("fail", "Up_Probe_AllDownIsUp"),
            ],
            &[("fail", "Up_Probe_AllDownIsUp"), ("down", "Down_Admin")],
            // Readiness comes first: a ready pod with a failing probe is better than one that goes.
            &[
                ("fail", "Up_Probe_AllDownIsUp"),
                ("serving pass", "Down_Terminating"),
            ],
            // The zone's only endpoint fails: the others are used.
            &[("fail zone=a", "Down_Probe"), ("zone=b", "Up_Ready")],
        ],
    );
    check(
        TrafficPolicy::Local,
        &[&[
            ("fail @n1", "Up_Probe_AllDownIsUp"),
            ("pass @n2", "Down_Local_OtherNode"),
        ]],
    );
}

#[test]
fn what_is_excluded_is_out_and_counts_for_nothing() {
    check(
        TrafficPolicy::Cluster,
        &[&[
            ("noport", "Down_NoSuchPort"),
            ("serving", "Up_Terminating_NothingReady"),
        ]],
    );
}

#[test]
fn from_no_viewpoint_neither_nodes_nor_zones_matter() {
    let specs = [
        "ready @n1 zone=b node=n9",
        "ready @n2 zone=c node=n8",
        "unready",
    ];
    let choice = chosen(&specs, TrafficPolicy::Local, None);
    let codes: Vec<&str> = choice.states.iter().map(|state| state.code()).collect();
    assert_eq!(codes, ["Up_Ready", "Up_Ready", "Down_NotReady"]);
}

#[test]
fn a_load_balancer_counts_on_what_is_ready_here_and_spoken_against_by_nothing() {
    for (words, healthy) in [
        ("ready @n1", true),
        ("pass @n1", true),
        ("fail up @n1", true),
        ("ready @n2", false),
        ("fail @n1", false),
        ("down @n1", false),
        ("drain @n1", false),
        ("serving @n1", false),
        ("unready @n1", false),
        ("noport @n1", false),
    ] {
        let Spec(endpoint, admin, probe, excluded) = spec(words);
        let candidate = Candidate {
            endpoint: &endpoint,
            excluded,
            admin,
            probe,
        };
        assert_eq!(candidate.is_healthy_on("n1"), healthy, "{words}");
    }
}

#[test]
fn codes_are_distinct_and_say_up_or_down() {
    use InReason::{AdminUp, AllProbesDown, NothingReady, ProbeUp, Ready};
    let ins = [Ready, ProbeUp, AdminUp, NothingReady, AllProbesDown].map(BackendState::In);
    let outs = [
        OutReason::WrongFamily,
        OutReason::NodeAddress,
        OutReason::ServiceAddress,
        OutReason::NoSuchPort,
        OutReason::NoWeight,
        OutReason::AdminDown,
        OutReason::Draining { deadline: 0 },
        OutReason::NotReady,
        OutReason::NotServing,
        OutReason::OtherNode,
        OutReason::Terminating,
        OutReason::ProbeDown,
        OutReason::HintedForOtherNodes,
        OutReason::HintedForOtherZones,
    ]
    .map(BackendState::Out);
    let states: Vec<BackendState> = ins.into_iter().chain(outs).collect();
    for state in &states {
        let prefix = if state.is_in() { "Up_" } else { "Down_" };
        assert!(state.code().starts_with(prefix), "{state:?}");
        let same = |other: &&BackendState| {
            other.code() == state.code() || other.describe() == state.describe()
        };
        assert_eq!(states.iter().filter(same).count(), 1, "{state:?}");
    }
}
