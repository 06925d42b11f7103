//! Rows of the reference's semantics tables that are about the engine, by their names.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod addresses;
mod rest;
mod tiers;

use heddle_model::{
    Entity, Identity, LabelFilter, LabelSet, NamespacedName, Operator, Requirement, Selector,
};
use heddle_policy::{
    Because, CidrAssignment, CidrBlock, CidrScope, Direction, EndpointSelector, Engine,
    EntryVerdict, Isolation, Party, Peer, Peers, Policy, PolicyId, PolicyKind, PolicySpec,
    PortMatch, PortTerm, Ports, Rule, Section, Term, Tier, Traffic, Transport, protocol,
};
use ipnet::IpNet;
use std::collections::BTreeMap;

const WEB: Identity = Identity(300);
const CLIENT: Identity = Identity(301);

fn pod(app: &str, named: &str) -> LabelSet {
    LabelSet::of_pod(
        &NamespacedName::new("shop", app),
        [("app", app)],
        [],
        "default",
        named,
        "default",
        &LabelFilter::default(),
    )
}

fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_identity(WEB, pod("web", "http=TCP/8080"));
    engine.set_identity(CLIENT, pod("client", ""));
    engine
}

fn app(app: &str) -> EndpointSelector {
    let requirement = |key: &str, value: &str| Requirement {
        key: key.into(),
        operator: Operator::In,
        values: vec![value.into()],
    };
    EndpointSelector::new(
        Selector::new(
            BTreeMap::new(),
            vec![
                requirement("app", app),
                requirement(LabelSet::NAMESPACE, "shop"),
            ],
        )
        .unwrap(),
    )
}

fn policy(name: &str, rules: Vec<(Section, Peers, Ports)>) -> Policy {
    let mut isolates = Isolation::default();
    for (section, ..) in &rules {
        match section.direction() {
            Direction::Ingress => isolates.ingress = true,
            Direction::Egress => isolates.egress = true,
        }
    }
    Policy {
        id: PolicyId::new(PolicyKind::CiliumNetworkPolicy, "shop", name),
        tier: Tier::Normal,
        priority: 0,
        specs: vec![PolicySpec {
            position: None,
            subject: app("web"),
            isolates,
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(index, (section, peers, ports))| Rule {
                    section,
                    index: index as u32,
                    action: section.action(),
                    name: None,
                    peers,
                    ports,
                })
                .collect(),
        }],
    }
}

fn tcp(port: u16) -> Ports {
    Ports::Only(vec![PortTerm::Transport(
        Transport::Tcp,
        PortMatch::Range(port, port),
    )])
}

fn cidr(block: &str, except: &[&str]) -> Peers {
    Peers::Terms(vec![Peer::Cidr(CidrBlock {
        block: block.parse().unwrap(),
        except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
        in_cluster: false,
    })])
}

fn client() -> Peers {
    Peers::Terms(vec![Peer::Endpoints(app("client"))])
}

fn entity(entity: Entity) -> Peers {
    Peers::Terms(vec![Peer::Entity(entity)])
}

/// Asks paper and rows, which must agree.
fn ask(
    engine: &mut Engine,
    peer: Party,
    direction: Direction,
    (protocol, port): (u8, u16),
) -> Because {
    let subject = Party::in_cluster(WEB, None);
    let paper = engine.decide_direction(&subject, &peer, direction, Traffic { protocol, port });
    let scope = if peer.in_cluster {
        CidrScope::InCluster
    } else {
        CidrScope::World
    };
    let cidr = peer
        .prefix
        .map_or(Identity::UNKNOWN, |p| engine.cidr_covering(p, scope));
    let compiled = engine.compile(WEB);
    let row = compiled.lookup(direction, peer.identity, cidr, protocol, port);
    assert_eq!(
        row.is_some_and(|row| row.verdict == EntryVerdict::Allow),
        paper.verdict == EntryVerdict::Allow,
        "{row:?} {paper:?}"
    );
    paper.because
}

fn from_client(engine: &mut Engine, traffic: (u8, u16)) -> Because {
    ask(
        engine,
        Party::in_cluster(CLIENT, None),
        Direction::Ingress,
        traffic,
    )
}

fn from_world(engine: &mut Engine, address: &str, traffic: (u8, u16)) -> Because {
    let prefix = IpNet::from(address.parse::<std::net::IpAddr>().unwrap());
    ask(engine, Party::world(prefix), Direction::Ingress, traffic)
}

const TCP80: (u8, u16) = (protocol::TCP, 80);
const PING: (u8, u16) = (protocol::ICMP, 8);

#[test]
fn d1_without_policy_everything_is_allowed_by_one_row_each_way() {
    let mut engine = engine();
    assert_eq!(from_client(&mut engine, TCP80), Because::NotEnforced);
    let compiled = engine.compile(WEB);
    assert!(!compiled.ingress_enforced && !compiled.egress_enforced);
    assert_eq!(compiled.entries.len(), 2);
    assert!(compiled.entries.iter().all(|entry| entry.cookie == 0));
}

#[test]
fn d4_init_is_denied_until_its_labels_are_known() {
    let mut engine = engine();
    let compiled = engine.compile(Identity::INIT);
    assert!(compiled.ingress_enforced && compiled.egress_enforced);
    assert!(
        compiled
            .lookup(Direction::Egress, CLIENT, Identity(0), 6, 80)
            .is_none()
    );
}

#[test]
fn an_unknown_subject_is_closed() {
    let compiled = engine().compile(Identity(9999));
    assert!(compiled.ingress_enforced && compiled.egress_enforced);
    assert!(
        compiled
            .lookup(Direction::Ingress, CLIENT, Identity(0), 6, 80)
            .is_none()
    );
}

#[test]
fn d6_only_the_selected_direction_is_denied() {
    let mut engine = engine();
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), tcp(80))]));
    assert_eq!(from_client(&mut engine, TCP80), Because::Rule);
    assert_eq!(from_client(&mut engine, (6, 81)), Because::DefaultDeny);
    let peer = Party::in_cluster(CLIENT, None);
    let out = ask(&mut engine, peer, Direction::Egress, TCP80);
    assert_eq!(out, Because::NotEnforced);
}

#[test]
fn d7_d8_rules_without_default_deny() {
    let mut engine = engine();
    let mut open = policy("open", vec![(Section::IngressDeny, client(), tcp(80))]);
    open.specs[0].isolates = Isolation::default();
    engine.set_policy(open);
    assert_eq!(from_client(&mut engine, TCP80), Because::ExplicitDeny);
    assert_eq!(from_client(&mut engine, (6, 81)), Because::NotEnforced);
    assert!(!engine.compile(WEB).ingress_enforced);
    engine.set_policy(policy(
        "closed",
        vec![(Section::Ingress, client(), tcp(82))],
    ));
    assert_eq!(from_client(&mut engine, (6, 81)), Because::DefaultDeny);
    assert_eq!(from_client(&mut engine, (6, 82)), Because::Rule);
}

#[test]
fn d11_d11b_the_own_node_gets_in_unless_denied_outright() {
    let host = Party::in_cluster(Identity::HOST, None);
    let remote = Party::in_cluster(Identity::REMOTE_NODE, None);
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![(Section::Ingress, Peers::Terms(vec![]), Ports::All)],
    ));
    let asked = ask(&mut engine, host, Direction::Ingress, TCP80);
    assert_eq!(asked, Because::Reserved);
    let asked = ask(&mut engine, remote, Direction::Ingress, TCP80);
    assert_eq!(asked, Because::DefaultDeny);
    for (name, peers) in [
        ("host", entity(Entity::Host)),
        ("all", entity(Entity::All)),
        ("any", Peers::Any),
    ] {
        // D11b
        engine.set_policy(policy(name, vec![(Section::IngressDeny, peers, tcp(80))]));
        let asked = ask(&mut engine, host, Direction::Ingress, TCP80);
        assert_eq!(asked, Because::ExplicitDeny, "{name}");
        let asked = ask(&mut engine, host, Direction::Ingress, (6, 81));
        assert_eq!(asked, Because::Reserved, "{name}");
        engine.remove_policy(&PolicyId::new(
            PolicyKind::CiliumNetworkPolicy,
            "shop",
            name,
        ));
    }
}

#[test]
fn d12_e3b_a_deny_alone_turns_default_deny_on() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![(Section::IngressDeny, Peers::Terms(vec![]), Ports::All)],
    ));
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
}

/// Reference 2.3, the table A1 to A5.
#[test]
fn deny_truth_table() {
    use Because::{DefaultDeny, ExplicitDeny, Rule as Allowed};
    let allows = vec![
        (Section::Ingress, Peers::Any, tcp(80)),
        (Section::Ingress, Peers::Any, tcp(81)),
        (Section::Ingress, client(), Ports::All),
    ];
    let deny80 = (Section::IngressDeny, Peers::Any, tcp(80));
    let deny_client = (Section::IngressDeny, client(), Ports::All);
    let cases = [
        (vec![], true, [Allowed, Allowed, Allowed]),
        (vec![deny80.clone()], true, [Allowed, ExplicitDeny, Allowed]),
        (
            vec![deny_client.clone()],
            true,
            [ExplicitDeny, ExplicitDeny, ExplicitDeny],
        ),
        (
            vec![deny80.clone(), deny_client],
            true,
            [ExplicitDeny, ExplicitDeny, ExplicitDeny],
        ),
        (
            vec![deny80],
            false,
            [DefaultDeny, ExplicitDeny, DefaultDeny],
        ),
    ];
    for (denies, with_allows, expected) in cases {
        for denies_first in [true, false] {
            let mut engine = engine();
            let allow = policy("allow", if with_allows { allows.clone() } else { vec![] });
            let deny = policy("deny", denies.clone());
            let order = if denies_first {
                [deny, allow]
            } else {
                [allow, deny]
            };
            for policy in order {
                engine.set_policy(policy);
            }
            let got = [(6, 81), TCP80, PING].map(|traffic| from_client(&mut engine, traffic));
            assert_eq!(got, expected, "{denies:?}");
        }
    }
}

#[test]
fn nested_cidr_allow_and_deny_in_both_orders() {
    for reverse in [false, true] {
        let mut engine = engine();
        let mut policies = vec![
            policy(
                "wide",
                vec![(Section::Ingress, cidr("10.0.0.0/8", &[]), Ports::All)],
            ),
            policy(
                "hole",
                vec![(Section::IngressDeny, cidr("10.1.0.0/16", &[]), Ports::All)],
            ),
            policy(
                "inner",
                vec![(Section::Ingress, cidr("10.1.2.0/24", &[]), Ports::All)],
            ),
        ];
        if reverse {
            policies.reverse();
        }
        for policy in policies {
            engine.set_policy(policy);
        }
        for (address, expected) in [
            ("10.2.0.1", Because::Rule),
            ("10.1.0.1", Because::ExplicitDeny),
            ("10.1.2.3", Because::ExplicitDeny),
            ("11.0.0.1", Because::DefaultDeny),
        ] {
            assert_eq!(
                from_world(&mut engine, address, TCP80),
                expected,
                "{address}"
            );
        }
    }
}

#[test]
fn i1_cilium_cidrs_do_not_select_pods_and_ip_blocks_do() {
    let address: IpNet = "10.244.0.9/32".parse().unwrap();
    for (in_cluster, expected) in [(false, Because::DefaultDeny), (true, Because::Rule)] {
        let mut engine = engine();
        engine.set_policy(policy(
            "p",
            vec![(
                Section::Ingress,
                Peers::Terms(vec![Peer::Cidr(CidrBlock {
                    block: "10.244.0.0/16".parse().unwrap(),
                    except: vec![],
                    in_cluster,
                })]),
                Ports::All,
            )],
        ));
        let peer = Party::in_cluster(CLIENT, Some(address));
        let asked = ask(&mut engine, peer, Direction::Ingress, TCP80);
        assert_eq!(asked, expected);
        assert_eq!(from_world(&mut engine, "10.244.0.9", TCP80), Because::Rule);
    }
}

#[test]
fn i2_i3_world_and_the_whole_of_a_family() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![
            (Section::Ingress, cidr("0.0.0.0/0", &[]), tcp(1)),
            (Section::Ingress, entity(Entity::World), tcp(2)),
        ],
    ));
    assert_eq!(from_world(&mut engine, "8.8.8.8", (6, 1)), Because::Rule);
    assert_eq!(
        from_world(&mut engine, "2001:db8::1", (6, 1)),
        Because::DefaultDeny
    );
    assert_eq!(
        from_world(&mut engine, "2001:db8::1", (6, 2)),
        Because::Rule
    );
    assert_eq!(from_client(&mut engine, (6, 1)), Because::DefaultDeny);
    assert_eq!(from_client(&mut engine, (6, 2)), Because::DefaultDeny);
    // Somewhere in the world, nothing finer known.
    let somewhere = Party::world("0.0.0.0/0".parse().unwrap());
    let asked = ask(&mut engine, somewhere, Direction::Ingress, (6, 1));
    assert_eq!(asked, Because::Rule);
}

#[test]
fn i4_cluster_is_everybody_but_the_world() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![(Section::Ingress, entity(Entity::Cluster), Ports::All)],
    ));
    for identity in [
        Identity::HOST,
        Identity::REMOTE_NODE,
        Identity::KUBE_APISERVER,
        Identity::INIT,
        Identity::INGRESS,
        Identity::HEALTH,
        Identity::UNMANAGED,
        CLIENT,
    ] {
        let peer = Party::in_cluster(identity, None);
        let asked = ask(&mut engine, peer, Direction::Ingress, PING);
        assert_eq!(asked, Because::Rule, "{identity}");
    }
    assert_eq!(
        from_world(&mut engine, "8.8.8.8", PING),
        Because::DefaultDeny
    );
}

#[test]
fn p1_p2_any_port_is_not_icmp_and_l3_is_everything() {
    let mut engine = engine();
    let any = Ports::Only(vec![PortTerm::Transport(Transport::Any, PortMatch::All)]);
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), any)]));
    for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP] {
        assert_eq!(from_client(&mut engine, (protocol, 9)), Because::Rule);
    }
    assert_eq!(from_client(&mut engine, PING), Because::DefaultDeny);
    engine.set_policy(policy("p", vec![(Section::Ingress, client(), Ports::All)]));
    for protocol in [protocol::ICMP, protocol::ICMPV6, 47, 50] {
        assert_eq!(from_client(&mut engine, (protocol, 8)), Because::Rule);
    }
}

#[test]
fn p5_p6_names_mean_what_the_receiver_says() {
    let named = || {
        Ports::Only(vec![PortTerm::Transport(
            Transport::Tcp,
            PortMatch::Name("http".into()),
        )])
    };
    let mut engine = engine();
    engine.set_identity(Identity(400), pod("other", "http=TCP/9000"));
    engine.set_policy(policy(
        "p",
        vec![
            (Section::Ingress, client(), named()),
            (Section::Egress, Peers::Any, named()),
        ],
    ));
    assert_eq!(from_client(&mut engine, (6, 8080)), Because::Rule);
    assert_eq!(from_client(&mut engine, (6, 9000)), Because::DefaultDeny);
    for (peer, port, expected) in [
        (Identity(400), 9000, Because::Rule),
        (Identity(400), 8080, Because::DefaultDeny),
        (CLIENT, 9000, Because::DefaultDeny),
        (Identity::HOST, 9000, Because::DefaultDeny),
    ] {
        let peer = Party::in_cluster(peer, None);
        let asked = ask(&mut engine, peer, Direction::Egress, (6, port));
        assert_eq!(asked, expected, "{peer:?} {port}");
    }
}

#[test]
fn nearest_names_the_term_that_failed() {
    let mut engine = engine();
    engine.set_policy(policy(
        "p",
        vec![
            (Section::Ingress, entity(Entity::Host), Ports::All),
            (Section::Ingress, client(), tcp(80)),
            (
                Section::Ingress,
                client(),
                Ports::Only(vec![PortTerm::Transport(Transport::Udp, PortMatch::All)]),
            ),
        ],
    ));
    let decision = engine.decide_direction(
        &Party::in_cluster(WEB, None),
        &Party::in_cluster(CLIENT, None),
        Direction::Ingress,
        Traffic {
            protocol: 6,
            port: 81,
        },
    );
    let failed: Vec<(u32, Term)> = decision
        .nearest
        .iter()
        .map(|near| (near.rule.index, near.failed))
        .collect();
    assert_eq!(
        failed,
        [(1, Term::Port), (2, Term::Protocol), (0, Term::Peer)]
    );
    assert_eq!(decision.nearest[0].wanted, "TCP/80");
    assert_eq!(decision.nearest[0].got, "TCP/81");
    assert_eq!(decision.isolated_by.len(), 1);
}

#[test]
fn cidr_numbers_survive_a_restart_and_are_not_shared() {
    let mut engine = engine();
    let prefix: IpNet = "10.0.0.0/8".parse().unwrap();
    let kept = Identity(0x0100_0123);
    engine.restore_cidr(prefix, CidrScope::World, kept);
    engine.restore_cidr(prefix, CidrScope::InCluster, Identity(7));
    assert!(engine.cidrs().is_empty());
    engine.set_policy(policy(
        "p",
        vec![(
            Section::Egress,
            cidr("10.0.0.0/8", &["10.1.0.0/16"]),
            Ports::All,
        )],
    ));
    let found = engine.cidrs();
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0],
        CidrAssignment {
            prefix,
            scope: CidrScope::World,
            identity: kept
        }
    );
    assert_ne!(found[1].identity, kept);
    let covering = engine.cidr_covering("10.1.2.3/32".parse().unwrap(), CidrScope::World);
    assert_eq!(covering, found[1].identity);
    let elsewhere = engine.cidr_covering("10.1.2.3/32".parse().unwrap(), CidrScope::InCluster);
    assert_eq!(elsewhere, Identity::UNKNOWN);
}
