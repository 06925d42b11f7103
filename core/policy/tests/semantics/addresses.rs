//! CIDR groups, services, and the numbers of prefixes.

use super::{CLIENT, TCP80, WEB, ask, cidr, engine, from_client, from_world, pod, policy, tcp};
use heddle_model::{Identity, NamespacedName, Operator, Requirement, Selector};
use heddle_policy::{
    Because, CidrBlock, CidrGroupRef, CidrScope, Direction, Engine, Party, Peer, Peers, PortMatch,
    PortTerm, Ports, Section, ServiceFacts, ServiceRef, Transport,
};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

fn labels(kind: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("kind".to_owned(), kind.to_owned())])
}

fn of_kind(kind: &str) -> Selector {
    let requirement = Requirement {
        key: "kind".into(),
        operator: Operator::In,
        values: vec![kind.into()],
    };
    Selector::new(BTreeMap::new(), vec![requirement]).unwrap()
}

fn group(by: CidrGroupRef, except: &[&str]) -> Peers {
    Peers::Terms(vec![Peer::CidrGroup {
        by,
        except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
    }])
}

fn nets(prefixes: &[&str]) -> Vec<IpNet> {
    prefixes.iter().map(|one| one.parse().unwrap()).collect()
}

fn number(engine: &Engine, address: &str) -> Identity {
    engine.cidr_covering(format!("{address}/32").parse().unwrap(), CidrScope::World)
}

#[test]
fn e12b_a_missing_cidr_group_selects_nothing_and_default_deny_is_on() {
    let mut engine = engine();
    let by_name = group(CidrGroupRef::Name("g".into()), &["10.1.0.0/16"]);
    engine.set_policy(policy("p", vec![(Section::Ingress, by_name, Ports::All)]));
    let inside = "10.2.0.1";
    assert_eq!(from_world(&mut engine, inside, TCP80), Because::DefaultDeny);
    let touched = engine.set_cidr_group("g", labels("k"), nets(&["10.0.0.0/8"]));
    assert_eq!(touched, BTreeSet::from([WEB]));
    assert_eq!(from_world(&mut engine, inside, TCP80), Because::Rule);
    let hole = "10.1.0.1";
    assert_eq!(from_world(&mut engine, hole, TCP80), Because::DefaultDeny);
    // A group lists addresses outside the cluster.
    let pod = Party::in_cluster(CLIENT, Some("10.2.0.1/32".parse().unwrap()));
    let asked = ask(&mut engine, pod, Direction::Ingress, TCP80);
    assert_eq!(asked, Because::DefaultDeny);
    engine.remove_cidr_group("g");
    assert_eq!(from_world(&mut engine, inside, TCP80), Because::DefaultDeny);
}

#[test]
fn cidr_groups_are_found_by_their_labels() {
    let mut engine = engine();
    let by_labels = group(CidrGroupRef::Labels(of_kind("k")), &[]);
    engine.set_policy(policy("p", vec![(Section::Ingress, by_labels, Ports::All)]));
    engine.set_cidr_group("a", labels("k"), nets(&["10.0.0.0/16", "10.9.0.0/16"]));
    engine.set_cidr_group("b", labels("k"), nets(&["10.1.0.0/16", "10.9.0.0/16"]));
    engine.set_cidr_group("c", labels("other"), nets(&["10.2.0.0/16"]));
    for (address, expected) in [
        ("10.0.0.1", Because::Rule),
        ("10.1.0.1", Because::Rule),
        ("10.2.0.1", Because::DefaultDeny),
    ] {
        assert_eq!(from_world(&mut engine, address, TCP80), expected);
    }
    // What two groups list stays when one of them goes.
    engine.set_cidr_group("a", labels("other"), nets(&["10.0.0.0/16", "10.9.0.0/16"]));
    assert_eq!(
        from_world(&mut engine, "10.0.0.1", TCP80),
        Because::DefaultDeny
    );
    assert_eq!(from_world(&mut engine, "10.9.0.1", TCP80), Because::Rule);
}

#[test]
fn e12_a_missing_service_selects_nothing_even_with_ports() {
    let name = NamespacedName::new("shop", "backend");
    let facts = |selector: Option<&str>, addresses: &[&str]| ServiceFacts {
        labels: labels("k"),
        selector: selector.map(|app| BTreeMap::from([("app".to_owned(), app.to_owned())])),
        addresses: nets(addresses),
    };
    for by in [
        ServiceRef::Name(name.clone()),
        ServiceRef::Labels {
            selector: of_kind("k"),
            namespace: Some("shop".into()),
        },
    ] {
        let mut engine = engine();
        engine.set_policy(policy(
            "p",
            vec![(
                Section::Egress,
                Peers::Terms(vec![Peer::Services(by)]),
                tcp(80),
            )],
        ));
        let to_client = |engine: &mut Engine| {
            let peer = Party::in_cluster(CLIENT, None);
            ask(engine, peer, Direction::Egress, TCP80)
        };
        let to_world = |engine: &mut Engine| {
            let peer = Party::world("203.0.113.7/32".parse().unwrap());
            ask(engine, peer, Direction::Egress, TCP80)
        };
        assert_eq!(to_client(&mut engine), Because::DefaultDeny);
        assert_eq!(to_world(&mut engine), Because::DefaultDeny);
        // A service with a selector stands for its pods, and not for addresses.
        let touched = engine.set_service(name.clone(), facts(Some("client"), &["203.0.113.7/32"]));
        assert_eq!(touched, BTreeSet::from([WEB]));
        assert_eq!(to_client(&mut engine), Because::Rule);
        assert_eq!(to_world(&mut engine), Because::DefaultDeny);
        // Without one, for its endpoints' addresses.
        engine.set_service(name.clone(), facts(None, &["203.0.113.7/32"]));
        assert_eq!(to_client(&mut engine), Because::DefaultDeny);
        assert_eq!(to_world(&mut engine), Because::Rule);
        engine.remove_service(&name);
        assert_eq!(to_world(&mut engine), Because::DefaultDeny);
        // The same name or label in another namespace is another service.
        engine.set_service(
            NamespacedName::new("other", "backend"),
            facts(None, &["203.0.113.7/32"]),
        );
        assert_eq!(to_world(&mut engine), Because::DefaultDeny);
    }
}

#[test]
fn fifty_thousand_prefixes_of_a_group_are_one_row_for_each_rule() {
    let prefixes = |changed: u32| -> Vec<IpNet> {
        (0..50_000u32)
            .map(|n| if n < changed { n + 50_000 } else { n })
            .map(|n| {
                IpNet::new(std::net::Ipv4Addr::from(0x6400_0000 + n * 256).into(), 24).unwrap()
            })
            .collect()
    };
    let mut engine = engine();
    engine.stage_cidrs();
    engine.set_cidr_group("g", labels("k"), prefixes(0));
    let by_name = || group(CidrGroupRef::Name("g".into()), &[]);
    let mut touched = engine.set_policy(policy(
        "p",
        vec![
            (Section::Ingress, by_name(), tcp(80)),
            (Section::Egress, by_name(), Ports::All),
        ],
    ));
    let first = engine.take_cidr_changes();
    assert_eq!(first.len(), 50_000);
    touched.extend(engine.settle_cidrs());
    assert_eq!(touched, BTreeSet::from([WEB]));
    let numbers: BTreeSet<Identity> = engine.cidrs().iter().map(|one| one.identity).collect();
    assert_eq!(numbers.len(), 1);
    // One row of each rule, and one that lets the own node in.
    assert_eq!(engine.compile(WEB).entries.len(), 3);
    // Ten prefixes go and ten others come: so many changes, and nobody's rows change.
    let touched = engine.set_cidr_group("g", labels("k"), prefixes(10));
    let changes = engine.take_cidr_changes();
    assert_eq!(changes.iter().filter(|change| !change.fresh).count(), 10);
    assert_eq!(changes.len(), 20);
    for identity in touched {
        engine.compile(identity);
    }
    engine.settle_cidrs();
    let gone = engine.take_cidr_changes();
    assert_eq!(gone.iter().filter(|change| !change.named).count(), 10);
    let after: BTreeSet<Identity> = engine.cidrs().iter().map(|one| one.identity).collect();
    assert_eq!(after, numbers);
    assert_eq!(engine.compile(WEB).entries.len(), 3);
}

#[test]
fn i11_prefixes_that_behave_alike_share_a_number_and_the_longest_counts() {
    let mut engine = engine();
    let list = |blocks: &[&str]| {
        let block = |block: &&str| {
            Peer::Cidr(CidrBlock {
                block: block.parse().unwrap(),
                except: vec![],
                in_cluster: false,
            })
        };
        Peers::Terms(blocks.iter().map(block).collect())
    };
    engine.set_policy(policy(
        "list",
        vec![(
            Section::Ingress,
            list(&["10.0.0.0/16", "10.5.0.0/16"]),
            tcp(80),
        )],
    ));
    assert_eq!(number(&engine, "10.0.0.1"), number(&engine, "10.5.0.1"));
    let shared = number(&engine, "10.0.0.1");
    // Another rule tells them apart; who stays keeps the number.
    engine.set_policy(policy(
        "one",
        vec![(Section::Ingress, cidr("10.5.0.0/16", &[]), tcp(81))],
    ));
    assert_eq!(number(&engine, "10.0.0.1"), shared);
    assert_ne!(number(&engine, "10.5.0.1"), shared);
    assert_eq!(from_world(&mut engine, "10.5.0.1", (6, 81)), Because::Rule);
    assert_eq!(
        from_world(&mut engine, "10.0.0.1", (6, 81)),
        Because::DefaultDeny
    );
    // A rule about something else changes no number.
    let before = engine.cidrs();
    engine.set_policy(policy(
        "else",
        vec![(Section::Ingress, cidr("192.0.2.0/24", &[]), tcp(82))],
    ));
    let kept: Vec<_> = engine
        .cidrs()
        .into_iter()
        .filter(|one| before.contains(one))
        .collect();
    assert_eq!(kept, before);
    assert_eq!(from_client(&mut engine, TCP80), Because::DefaultDeny);
}

#[test]
fn restored_numbers_stay_with_their_prefixes_when_policies_come_one_by_one() {
    let policies = || {
        [
            policy(
                "a",
                vec![(
                    Section::Ingress,
                    cidr("10.0.0.0/8", &["10.1.0.0/16"]),
                    tcp(80),
                )],
            ),
            policy(
                "b",
                vec![(Section::Egress, cidr("10.1.2.0/24", &[]), Ports::All)],
            ),
            policy(
                "c",
                vec![(Section::Egress, cidr("10.2.0.0/16", &[]), tcp(443))],
            ),
        ]
    };
    let mut before = engine();
    before.stage_cidrs();
    policies()
        .into_iter()
        .for_each(|one| drop(before.set_policy(one)));
    before.take_cidr_changes();
    before.settle_cidrs();
    before.take_cidr_changes();
    for reverse in [false, true] {
        let mut after = engine();
        after.stage_cidrs();
        for one in before.cidrs() {
            after.restore_cidr(one.prefix, one.scope, one.identity);
        }
        let mut policies = policies();
        if reverse {
            policies.reverse();
        }
        policies
            .into_iter()
            .for_each(|one| drop(after.set_policy(one)));
        assert_eq!(after.take_cidr_changes(), []);
        after.settle_cidrs();
        assert_eq!(after.take_cidr_changes(), []);
        assert_eq!(after.cidrs(), before.cidrs());
    }
}

#[test]
fn attending_to_some_leaves_out_the_others() {
    let mut engine = engine();
    engine.attend(Some(BTreeSet::from([CLIENT])));
    let touched = engine.set_policy(policy(
        "p",
        vec![(Section::Ingress, Peers::Any, Ports::All)],
    ));
    assert_eq!(touched, BTreeSet::new(), "the policy is about {WEB}");
    engine.attend(Some(BTreeSet::from([WEB])));
    let everybody = super::app("client");
    let touched = engine.set_policy(policy(
        "p",
        vec![(
            Section::Ingress,
            Peers::Terms(vec![Peer::Endpoints(everybody)]),
            Ports::All,
        )],
    ));
    assert_eq!(touched, BTreeSet::from([WEB]));
    let touched = engine.set_identity(Identity(700), super::pod("client", ""));
    assert_eq!(touched, BTreeSet::from([WEB]));
    let touched = engine.set_identity(Identity(701), super::pod("bystander", ""));
    assert_eq!(touched, BTreeSet::new());
}

#[test]
fn p5_a_named_port_towards_a_block_is_each_pods_own() {
    let named = Ports::Only(vec![PortTerm::Transport(
        Transport::Tcp,
        PortMatch::Name("http".into()),
    )]);
    let block = Peers::Terms(vec![Peer::Cidr(CidrBlock {
        block: "10.0.0.0/8".parse().unwrap(),
        except: vec!["10.9.0.0/16".parse().unwrap()],
        in_cluster: true,
    })]);
    let mut engine = engine();
    let (eight, nine) = (Identity(400), Identity(401));
    engine.set_identity(eight, pod("eight", "http=TCP/8080"));
    engine.set_identity(nine, pod("nine", "http=TCP/9000,metrics=TCP/1"));
    engine.set_policy(policy("p", vec![(Section::Egress, block, named)]));
    let asked = |engine: &mut Engine, identity: Identity, address: &str, port: u16| {
        let prefix = format!("{address}/32").parse().unwrap();
        engine.set_address(prefix, identity);
        let peer = Party::in_cluster(identity, Some(prefix));
        ask(engine, peer, Direction::Egress, (6, port))
    };
    for (identity, address, port, expected) in [
        (eight, "10.1.0.1", 8080, Because::Rule),
        (eight, "10.1.0.1", 9000, Because::DefaultDeny),
        (nine, "10.1.0.2", 9000, Because::Rule),
        (nine, "10.1.0.2", 8080, Because::DefaultDeny),
        (CLIENT, "10.1.0.3", 8080, Because::DefaultDeny),
        (
            Identity::REMOTE_NODE,
            "10.1.0.4",
            8080,
            Because::DefaultDeny,
        ),
        (Identity::UNMANAGED, "10.1.0.5", 8080, Because::DefaultDeny),
        // Outside the block, and in the hole.
        (eight, "11.0.0.1", 8080, Because::DefaultDeny),
        (eight, "10.9.0.1", 8080, Because::DefaultDeny),
    ] {
        let found = asked(&mut engine, identity, address, port);
        assert_eq!(found, expected, "{identity} {address} {port}");
    }
    // Outside the cluster nobody says what the name means.
    let world = Party::world("10.1.0.9/32".parse().unwrap());
    assert_eq!(
        ask(&mut engine, world, Direction::Egress, (6, 8080)),
        Because::DefaultDeny
    );
    // The name moves, and the rows with it.
    let touched = engine.set_identity(nine, pod("nine", "http=TCP/9001"));
    assert!(touched.contains(&WEB), "{touched:?}");
    assert_eq!(asked(&mut engine, nine, "10.1.0.2", 9001), Because::Rule);
    assert_eq!(
        asked(&mut engine, nine, "10.1.0.2", 9000),
        Because::DefaultDeny
    );
}
