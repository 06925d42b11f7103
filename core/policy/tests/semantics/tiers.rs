//! Tiers, priorities and passes (reference 2.9).

use super::{CLIENT, TCP80, WEB, ask, client, engine, from_client, policy, tcp};
use heddle_model::{Identity, Selector};
use heddle_policy::{
    Action, Because, CidrBlock, CidrScope, Direction, EndpointSelector, Engine, EntryVerdict,
    Isolation, Party, Peer, Peers, Policy, PolicyId, PolicyKind, PolicySpec, Ports, Rule, Section,
    Tier, Traffic, compiled,
};

/// A ClusterNetworkPolicy about all pods, with ingress rules.
fn cluster(name: &str, tier: Tier, priority: i32, rules: Vec<(Action, Peers, Ports)>) -> Policy {
    Policy {
        id: PolicyId::new(PolicyKind::ClusterNetworkPolicy, "", name),
        tier,
        priority,
        specs: vec![PolicySpec {
            position: None,
            subject: EndpointSelector::new(Selector::everything()),
            isolates: Isolation::default(),
            rules: rules
                .into_iter()
                .zip(0..)
                .map(|((action, peers, ports), index)| Rule {
                    section: Section::Ingress,
                    index,
                    action,
                    name: Some(format!("{name}-{index}")),
                    peers,
                    ports,
                })
                .collect(),
        }],
    }
}

fn deciding(engine: &Engine) -> (Because, Vec<String>, Vec<String>) {
    let decision = engine.decide_direction(
        &Party::in_cluster(WEB, None),
        &Party::in_cluster(CLIENT, None),
        Direction::Ingress,
        Traffic {
            protocol: 6,
            port: 80,
        },
    );
    let names = |rules: &[heddle_policy::RuleRef]| {
        rules.iter().filter_map(|rule| rule.rule.clone()).collect()
    };
    (
        decision.because,
        names(&decision.rules),
        names(&decision.passed),
    )
}

#[test]
fn tiers_admin_goes_before_normal_and_normal_before_baseline() {
    let mut engine = engine();
    engine.set_policy(cluster(
        "base",
        Tier::Baseline,
        0,
        vec![(Action::Deny, Peers::Any, Ports::All)],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
    assert!(!engine.compile(WEB).ingress_enforced, "nothing isolates");
    // A policy of the tier Normal that isolates ends the matter.
    engine.set_policy(policy("np", vec![(Section::Ingress, client(), tcp(80))]));
    assert_eq!(from_client(&mut engine, TCP80), Because::Rule);
    assert_eq!(from_client(&mut engine, (6, 81)), Because::DefaultDeny);
    engine.set_policy(cluster(
        "admin",
        Tier::Admin,
        0,
        vec![
            (Action::Deny, client(), tcp(80)),
            (Action::Allow, client(), Ports::All),
        ],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
    assert_eq!(from_client(&mut engine, (6, 81)), Because::Rule);
}

#[test]
fn priorities_a_lower_number_goes_first_and_then_the_rules_order() {
    let mut engine = engine();
    for (name, priority, action) in [("late", 9, Action::Deny), ("early", 1, Action::Allow)] {
        engine.set_policy(cluster(
            name,
            Tier::Admin,
            priority,
            vec![(action, client(), Ports::All)],
        ));
    }
    let early = vec!["early-0".to_owned()];
    assert_eq!(deciding(&engine), (Because::Rule, early, vec![]));
    assert_eq!(from_client(&mut engine, TCP80), Because::Rule);
    engine.set_policy(cluster(
        "early",
        Tier::Admin,
        1,
        vec![
            (Action::Deny, client(), Ports::All),
            (Action::Allow, client(), Ports::All),
        ],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
}

#[test]
fn ties_deny_beats_allow_beats_pass() {
    let order = [
        (Action::Deny, Because::ExplicitDeny),
        (Action::Allow, Because::Rule),
        (Action::Pass, Because::NotEnforced),
    ];
    for (at, (first, because)) in order.iter().enumerate() {
        for (second, _) in &order[at..] {
            for flip in [false, true] {
                let mut engine = engine();
                let (a, b) = if flip {
                    (second, first)
                } else {
                    (first, second)
                };
                for (name, action) in [("a", a), ("b", b)] {
                    engine.set_policy(cluster(
                        name,
                        Tier::Admin,
                        5,
                        vec![(*action, client(), Ports::All)],
                    ));
                }
                assert_eq!(from_client(&mut engine, TCP80), *because, "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn pass_skips_the_rest_of_its_tier_and_no_other() {
    let mut engine = engine();
    engine.set_policy(cluster(
        "admin",
        Tier::Admin,
        0,
        vec![
            (Action::Pass, client(), tcp(80)),
            (Action::Deny, Peers::Any, Ports::All),
        ],
    ));
    let passed = vec!["admin-0".to_owned()];
    assert_eq!(
        deciding(&engine),
        (Because::NotEnforced, vec![], passed.clone())
    );
    assert_eq!(from_client(&mut engine, TCP80), Because::NotEnforced);
    assert_eq!(from_client(&mut engine, (6, 81)), Because::ExplicitDeny);
    engine.set_policy(cluster(
        "base",
        Tier::Baseline,
        0,
        vec![(Action::Deny, client(), Ports::All)],
    ));
    let base = vec!["base-0".to_owned()];
    assert_eq!(
        deciding(&engine),
        (Because::ExplicitDeny, base, passed.clone())
    );
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
    engine.set_policy(policy("np", vec![(Section::Ingress, client(), tcp(8080))]));
    assert_eq!(deciding(&engine), (Because::DefaultDeny, vec![], passed));
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
    // Others are still denied by the tier that the client passed.
    let other = Party::in_cluster(Identity::REMOTE_NODE, None);
    let asked = ask(&mut engine, other, Direction::Ingress, (6, 8080));
    assert_eq!(asked, Because::ExplicitDeny);
}

#[test]
fn nearest_leaves_out_what_a_pass_skipped() {
    let mut engine = engine();
    engine.set_policy(cluster(
        "admin",
        Tier::Admin,
        0,
        vec![
            (Action::Pass, client(), Ports::All),
            (Action::Allow, client(), tcp(81)),
        ],
    ));
    engine.set_policy(policy("np", vec![(Section::Ingress, client(), tcp(8080))]));
    let decision = engine.decide_direction(
        &Party::in_cluster(WEB, None),
        &Party::in_cluster(CLIENT, None),
        Direction::Ingress,
        Traffic {
            protocol: 6,
            port: 80,
        },
    );
    assert_eq!(decision.nearest.len(), 1, "{:?}", decision.nearest);
    assert_eq!(decision.nearest[0].wanted, "TCP/8080");
}

#[test]
fn d11_the_own_node_passes_default_deny_and_an_admin_deny_stops_it() {
    let host = Party::in_cluster(Identity::HOST, None);
    for tier in [Tier::Admin, Tier::Baseline] {
        let mut engine = engine();
        engine.set_policy(cluster(
            "deny",
            tier,
            0,
            vec![(Action::Deny, Peers::Any, tcp(80))],
        ));
        let asked = ask(&mut engine, host, Direction::Ingress, TCP80);
        assert_eq!(asked, Because::ExplicitDeny);
        let asked = ask(&mut engine, host, Direction::Ingress, (6, 81));
        assert_eq!(asked, Because::NotEnforced);
    }
}

#[test]
fn a_pass_in_the_tier_normal_says_nothing() {
    let mut engine = engine();
    let mut odd = policy("np", vec![(Section::Ingress, client(), Ports::All)]);
    odd.specs[0].rules[0].action = Action::Pass;
    engine.set_policy(odd);
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
}

#[test]
fn precedence_of_rows_follows_the_order() {
    let mut engine = engine();
    engine.set_policy(cluster(
        "admin",
        Tier::Admin,
        0,
        vec![
            (Action::Allow, client(), tcp(1)),
            (Action::Deny, client(), tcp(2)),
        ],
    ));
    engine.set_policy(cluster(
        "base",
        Tier::Baseline,
        0,
        vec![
            (Action::Deny, client(), tcp(4)),
            (Action::Allow, client(), tcp(5)),
        ],
    ));
    let mut open = policy(
        "np",
        vec![
            (Section::IngressDeny, client(), tcp(3)),
            (Section::Ingress, client(), tcp(6)),
        ],
    );
    open.specs[0].isolates = Isolation::default();
    engine.set_policy(open);
    let rows = engine.compile(WEB);
    let precedence = |port: u16| {
        rows.lookup(Direction::Ingress, CLIENT, Identity(0), 6, port)
            .unwrap()
            .precedence
    };
    assert!(precedence(1) > precedence(2));
    assert!(precedence(2) > precedence(3));
    assert_eq!(precedence(3), compiled::PRECEDENCE_DENY);
    assert_eq!(precedence(6), compiled::PRECEDENCE_ALLOW);
    assert!(precedence(6) > precedence(4));
    assert!(precedence(4) > precedence(5));
    assert!(precedence(5) > precedence(7));
    assert_eq!(precedence(7), compiled::PRECEDENCE_FALLBACK);
}

/// The case that rows of an identity and of an address cannot answer each alone: a pass by label, a deny
/// and an allow by address.
#[test]
fn a_pass_by_label_and_rules_by_address_are_answered_together() {
    let block = |prefix: &str| {
        Peers::Terms(vec![Peer::Cidr(CidrBlock {
            block: prefix.parse().unwrap(),
            except: vec![],
            in_cluster: true,
        })])
    };
    let mut engine = engine();
    engine.set_policy(cluster(
        "admin",
        Tier::Admin,
        0,
        vec![
            (Action::Pass, client(), Ports::All),
            (Action::Deny, block("10.0.0.0/8"), Ports::All),
            (Action::Allow, block("10.2.0.0/16"), Ports::All),
        ],
    ));
    engine.set_policy(policy(
        "np",
        vec![(Section::Ingress, block("10.1.0.0/16"), Ports::All)],
    ));
    let other = Identity(302);
    engine.set_identity(other, super::pod("other", ""));
    let asked = |engine: &mut Engine, identity: Identity, address: &str| {
        let prefix = format!("{address}/32").parse().unwrap();
        engine.set_address(prefix, identity);
        let peer = Party::in_cluster(identity, Some(prefix));
        ask(engine, peer, Direction::Ingress, TCP80)
    };
    assert_eq!(asked(&mut engine, CLIENT, "10.1.0.1"), Because::Rule);
    assert_eq!(asked(&mut engine, CLIENT, "10.2.0.1"), Because::DefaultDeny);
    assert_eq!(asked(&mut engine, other, "10.1.0.2"), Because::ExplicitDeny);
    assert_eq!(asked(&mut engine, other, "10.2.0.2"), Because::ExplicitDeny);
    assert_eq!(asked(&mut engine, other, "11.0.0.1"), Because::DefaultDeny);
    // Two pods of one identity behind one block share a number.
    let cidr = |engine: &Engine, address: &str| {
        engine.cidr_covering(
            format!("{address}/32").parse().unwrap(),
            CidrScope::InCluster,
        )
    };
    engine.set_address("10.1.0.9/32".parse().unwrap(), CLIENT);
    assert_eq!(cidr(&engine, "10.1.0.1"), cidr(&engine, "10.1.0.9"));
    assert_ne!(cidr(&engine, "10.1.0.1"), cidr(&engine, "10.1.0.2"));
    // An address of the cluster that nobody told is closed, whatever it might be.
    let compiled = engine.compile(WEB);
    let unknown = cidr(&engine, "10.1.0.77");
    let row = compiled.lookup(Direction::Ingress, CLIENT, unknown, 6, 80);
    assert_eq!(row.map(|row| row.verdict), Some(EntryVerdict::Deny));
    // Without the pass, identities need not be told apart, and the numbers go.
    let before = engine.cidrs().len();
    engine.remove_policy(&PolicyId::new(
        PolicyKind::ClusterNetworkPolicy,
        "",
        "admin",
    ));
    assert_eq!(engine.cidrs().len(), 2, "of {before}");
}
