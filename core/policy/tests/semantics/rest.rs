//! Rows of 2.1, 2.2, 2.4 and 2.5 beside the first ones.

use super::{
    CLIENT, PING, TCP80, WEB, app, ask, cidr, client, engine, entity, from_client, from_world, pod,
    policy, tcp,
};
use heddle_model::{Entity, Identity, LabelSet, Operator, Requirement, Selector};
use heddle_policy::{
    Because, Direction, EndpointSelector, EnforcementMode, EntryVerdict, IcmpFamily, Party, Peer,
    Peers, PolicyId, PolicyKind, PortMatch, PortTerm, Ports, Section, Traffic, Transport,
};

use std::collections::BTreeMap;

fn one_term(transport: Transport, ports: PortMatch) -> Ports {
    Ports::Only(vec![PortTerm::Transport(transport, ports)])
}

fn from(engine: &mut heddle_policy::Engine, identity: Identity, traffic: (u8, u16)) -> Because {
    let peer = Party::in_cluster(identity, None);
    ask(engine, peer, Direction::Ingress, traffic)
}

#[test]
fn d2_always_denies_what_nothing_allows() {
    let mut engine = engine();
    let touched = engine.set_mode(EnforcementMode::Always);
    assert!(touched.contains(&WEB) && touched.contains(&CLIENT));
    assert!(engine.set_mode(EnforcementMode::Always).is_empty());
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
    let peer = Party::in_cluster(CLIENT, None);
    let out = ask(&mut engine, peer, Direction::Egress, TCP80);
    assert_eq!(out, Because::DefaultDeny);
    // Probes from the own node are still allowed, and so is what a rule allows.
    assert_eq!(from(&mut engine, Identity::HOST, TCP80), Because::Reserved);
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), tcp(80))]));
    assert_eq!(from_client(&mut engine, TCP80), Because::Rule);
    let compiled = engine.compile(CLIENT);
    assert!(compiled.ingress_enforced && compiled.egress_enforced);
}

#[test]
fn d3_never_asks_no_rule() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![(Section::IngressDeny, Peers::Any, Ports::All)],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
    engine.set_mode(EnforcementMode::Never);
    assert_eq!(from_client(&mut engine, TCP80), Because::NotEnforced);
    assert!(!engine.compile(WEB).ingress_enforced);
    engine.set_mode(EnforcementMode::Default);
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
}

#[test]
fn d5_without_a_host_policy_the_host_is_enforced_in_no_mode() {
    for mode in [
        EnforcementMode::Default,
        EnforcementMode::Always,
        EnforcementMode::Never,
    ] {
        let mut engine = engine();
        engine.set_mode(mode);
        let compiled = engine.compile(Identity::HOST);
        assert!(!compiled.ingress_enforced && !compiled.egress_enforced);
        assert_eq!(compiled.entries.len(), 2);
    }
}

#[test]
fn d11_a_nodes_own_policy_knows_no_own_node_and_a_pods_may_not() {
    let mut engine = engine();
    engine.set_identity(Identity::OWN_NODE, LabelSet::of_node([("role", "edge")]));
    assert!(!engine.is_about(Identity::OWN_NODE));
    let mut host = policy("host", vec![(Section::Ingress, client(), tcp(80))]);
    host.specs[0].subject = EndpointSelector::of_nodes(&Selector::everything());
    let touched = engine.set_policy(host);
    assert_eq!(Vec::from_iter(touched), [Identity::OWN_NODE]);
    assert!(engine.is_about(Identity::OWN_NODE) && !engine.is_about(WEB));
    let node = Party::in_cluster(Identity::HOST, None).with_subject(Identity::OWN_NODE);
    let decide = |engine: &heddle_policy::Engine, peer: Identity| {
        let traffic = Traffic {
            protocol: 6,
            port: 80,
        };
        let peer = Party::in_cluster(peer, None);
        let decision = engine.decide(&peer, &node, traffic);
        (decision.ingress.because, decision.verdict)
    };
    assert_eq!(
        decide(&engine, CLIENT),
        (Because::Rule, EntryVerdict::Allow)
    );
    for other in [Identity::REMOTE_NODE, Identity::HOST, WEB] {
        assert_eq!(
            decide(&engine, other),
            (Because::DefaultDeny, EntryVerdict::Deny),
            "{other}"
        );
    }
    assert!(engine.compile(Identity::OWN_NODE).ingress_enforced);
    // `--allow-localhost=policy`: a pod's own node needs a rule.
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), tcp(80))]));
    assert_eq!(from(&mut engine, Identity::HOST, TCP80), Because::Reserved);
    let touched = engine.set_allow_localhost(false);
    assert!(touched.contains(&WEB));
    assert_eq!(
        from(&mut engine, Identity::HOST, TCP80),
        Because::DefaultDeny
    );
}

#[test]
fn d9_isolation_is_what_a_policy_says_and_not_whether_it_has_rules() {
    let mut engine = engine();
    let mut closed = policy("p", vec![]);
    closed.specs[0].isolates.ingress = true;
    engine.set_policy(closed);
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
}

#[test]
fn e3_e4_an_empty_list_of_peers_selects_nobody_with_ports_and_without() {
    for ports in [Ports::All, tcp(80)] {
        let mut engine = engine();
        engine.set_policy(policy(
            "p",
            vec![(Section::Ingress, Peers::Terms(vec![]), ports)],
        ));
        assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
        assert_eq!(
            from_world(&mut engine, "8.8.8.8", TCP80),
            Because::DefaultDeny
        );
    }
}

#[test]
fn e6_a_selector_of_all_pods_selects_no_node_and_not_the_world() {
    let mut engine = engine();
    let all_pods = EndpointSelector::new(Selector::everything());
    engine.set_policy(policy(
        "p",
        vec![(
            Section::Ingress,
            Peers::Terms(vec![Peer::Endpoints(all_pods)]),
            Ports::All,
        )],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::Rule);
    assert_eq!(from(&mut engine, Identity::HOST, TCP80), Because::Reserved);
    for identity in [Identity::REMOTE_NODE, Identity::UNMANAGED, Identity::INIT] {
        assert_eq!(from(&mut engine, identity, TCP80), Because::DefaultDeny);
    }
    assert_eq!(
        from_world(&mut engine, "8.8.8.8", TCP80),
        Because::DefaultDeny
    );
}

#[test]
fn e7_e13_without_a_peer_and_with_entity_all_anybody_is_meant() {
    for peers in [Peers::Any, entity(Entity::All)] {
        let mut engine = engine();
        engine.set_policy(policy("p", vec![(Section::Ingress, peers, tcp(80))]));
        assert_eq!(from_client(&mut engine, TCP80), Because::Rule);
        for identity in [Identity::HOST, Identity::REMOTE_NODE, Identity::UNMANAGED] {
            assert_eq!(from(&mut engine, identity, TCP80), Because::Rule);
        }
        assert_eq!(from_world(&mut engine, "8.8.8.8", TCP80), Because::Rule);
        assert_eq!(
            from_world(&mut engine, "8.8.8.8", (6, 81)),
            Because::DefaultDeny
        );
    }
}

#[test]
fn e9_an_empty_list_of_ports_matches_nothing() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![(Section::Ingress, client(), Ports::Only(vec![]))],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
    assert_eq!(from_client(&mut engine, PING), Because::DefaultDeny);
}

#[test]
fn i5_i6_i7_i7b_nodes_are_told_by_entities_alone() {
    let nodes = [
        (Identity::HOST, Entity::Host),
        (Identity::REMOTE_NODE, Entity::RemoteNode),
        (Identity::KUBE_APISERVER, Entity::KubeApiserver),
    ];
    for (wanted, named) in nodes {
        let mut engine = engine();
        engine.set_policy(policy(
            "p",
            vec![(Section::Egress, entity(named), Ports::All)],
        ));
        for (identity, _) in nodes {
            // The API server's nodes are remote nodes, too.
            let selected = identity == wanted
                || (named == Entity::RemoteNode && identity == Identity::KUBE_APISERVER);
            let peer = Party::in_cluster(identity, None);
            let asked = ask(&mut engine, peer, Direction::Egress, TCP80);
            assert_eq!(asked == Because::Rule, selected, "{named} {identity}");
        }
    }
}

#[test]
fn p3_port_zero_is_every_port_of_its_protocol() {
    let mut engine = engine();
    let all_udp = one_term(Transport::Udp, PortMatch::All);
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), all_udp)]));
    for port in [0, 1, 53, u16::MAX] {
        assert_eq!(from_client(&mut engine, (17, port)), Because::Rule);
    }
    assert_eq!(from_client(&mut engine, (6, 53)), Because::DefaultDeny);
}

#[test]
fn p4_a_range_includes_both_ends() {
    let mut engine = engine();
    let range = one_term(Transport::Tcp, PortMatch::Range(1000, 2000));
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), range)]));
    for (port, expected) in [
        (999, Because::DefaultDeny),
        (1000, Because::Rule),
        (1500, Because::Rule),
        (2000, Because::Rule),
        (2001, Because::DefaultDeny),
    ] {
        assert_eq!(from_client(&mut engine, (6, port)), expected, "{port}");
    }
}

#[test]
fn p7_icmp_has_types_and_ports_do_not_mean_it() {
    let mut engine = engine();
    let echo = Ports::Only(vec![
        PortTerm::Icmp(IcmpFamily::V4, 8),
        PortTerm::Icmp(IcmpFamily::V6, 128),
    ]);
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), echo)]));
    assert_eq!(from_client(&mut engine, (1, 8)), Because::Rule);
    assert_eq!(from_client(&mut engine, (58, 128)), Because::Rule);
    assert_eq!(from_client(&mut engine, (1, 0)), Because::DefaultDeny);
    assert_eq!(from_client(&mut engine, (58, 8)), Because::DefaultDeny);
    assert_eq!(from_client(&mut engine, (6, 8)), Because::DefaultDeny);
}

#[test]
fn p8_rules_are_alternatives_and_the_terms_of_one_are_conditions() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![
            (Section::Ingress, client(), tcp(80)),
            (Section::Ingress, cidr("8.8.8.0/24", &[]), tcp(81)),
        ],
    ));
    assert_eq!(from_client(&mut engine, (6, 80)), Because::Rule);
    assert_eq!(from_client(&mut engine, (6, 81)), Because::DefaultDeny);
    assert_eq!(from_world(&mut engine, "8.8.8.8", (6, 81)), Because::Rule);
    assert_eq!(
        from_world(&mut engine, "8.8.8.8", (6, 80)),
        Because::DefaultDeny
    );
}

#[test]
fn nearest_has_the_fewest_failed_terms_first() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![
            // Peer and port fail; then the peer alone; then the port alone.
            (Section::Ingress, entity(Entity::Host), tcp(443)),
            (Section::Ingress, entity(Entity::Host), tcp(80)),
            (Section::Ingress, client(), tcp(81)),
        ],
    ));
    let decision = engine.decide_direction(
        &Party::in_cluster(WEB, None),
        &Party::in_cluster(CLIENT, None),
        Direction::Ingress,
        Traffic {
            protocol: 6,
            port: 80,
        },
    );
    let order: Vec<u32> = decision.nearest.iter().map(|n| n.rule.index).collect();
    assert_eq!(order, [2, 1, 0]);
    assert_eq!(decision.verdict, EntryVerdict::Deny);
}

#[test]
fn rows_by_policy_says_who_makes_a_map_large() {
    let mut engine = engine();
    let ranges: Vec<PortTerm> = (0..20u16)
        .map(|n| PortTerm::Transport(Transport::Tcp, PortMatch::Range(n * 100 + 1, n * 100 + 98)))
        .collect();
    engine.set_policy(policy(
        "large",
        vec![(Section::Ingress, client(), Ports::Only(ranges))],
    ));
    engine.set_policy(policy(
        "small",
        vec![(
            Section::Ingress,
            Peers::Terms(vec![Peer::Endpoints(app("web"))]),
            tcp(80),
        )],
    ));
    let rows = engine.rows_by_policy(WEB);
    let name = |name: &str| PolicyId::new(PolicyKind::CiliumNetworkPolicy, "shop", name);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].0, name("large"));
    assert!(rows[0].1 > 100, "{rows:?}");
    assert_eq!(rows[1], (name("small"), 1));
    let total = engine.compile(WEB).entries.len();
    assert!(rows.iter().map(|(_, rows)| rows).sum::<usize>() <= total);
}

/// The entries of a rule stand once, whatever the number of identities and of classes of addresses that it selects.
#[test]
fn what_a_rule_says_stands_once_however_many_it_selects() {
    let mut engine = engine();
    let ports = || {
        let ports = (0..10u16).map(|n| n * 100 + 1);
        let ports =
            ports.map(|port| PortTerm::Transport(Transport::Tcp, PortMatch::Range(port, port)));
        Ports::Only(ports.collect())
    };
    let cluster = entity(Entity::Cluster);
    engine.set_policy(policy(
        "wide",
        vec![
            (Section::Ingress, cluster, ports()),
            (Section::Ingress, cidr("0.0.0.0/1", &[]), ports()),
        ],
    ));
    let before = engine.compile(WEB);
    for number in 0..2_000u32 {
        engine.set_identity(
            Identity(20_000 + number),
            pod(&format!("many-{number}"), ""),
        );
    }
    let many = (0..500).map(|at| {
        let block = cidr(&format!("20.{}.{}.0/24", at / 250, at % 250), &[]);
        (Section::Ingress, block, Ports::All)
    });
    let mut many = policy("many", many.collect());
    many.specs[0].subject = app("client");
    engine.set_policy(many);
    let now = engine.compile(WEB);
    assert_eq!(now.size(), before.size());
    assert!(
        now.entries.len() < before.entries.len() + 10,
        "{}",
        now.entries.len()
    );
    assert!(now.aliases.len() >= 2_500);
    for identity in [20_000, 21_999] {
        let found = now.lookup(Direction::Ingress, Identity(identity), Identity(0), 6, 901);
        assert_eq!(
            found.map(|entry| entry.key.identity),
            Some(Identity(identity))
        );
        let none = now.lookup(Direction::Ingress, Identity(identity), Identity(0), 6, 902);
        assert_eq!(none, None);
    }
}

/// Cilium with two families matches nobody by `reserved:world`; here it is the world of both (docs/policy/differences.md).
#[test]
fn s6_reserved_world_is_the_world_of_both_families() {
    let mut engine = engine();
    let world = EndpointSelector::new(
        Selector::new(
            BTreeMap::new(),
            vec![Requirement {
                key: "reserved:world".into(),
                operator: Operator::Exists,
                values: vec![],
            }],
        )
        .unwrap(),
    );
    let peers = Peers::Terms(vec![Peer::Endpoints(world)]);
    engine.set_policy(policy("p", vec![(Section::Egress, peers, Ports::All)]));
    for address in ["203.0.113.1/32", "2001:db8::1/128"] {
        let peer = Party::world(address.parse().unwrap());
        assert_eq!(
            ask(&mut engine, peer, Direction::Egress, (6, 443)),
            Because::Rule
        );
    }
    let pod = Party::in_cluster(CLIENT, None);
    assert_eq!(
        ask(&mut engine, pod, Direction::Egress, (6, 443)),
        Because::DefaultDeny
    );
}
