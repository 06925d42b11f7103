//! The compiled rows, the decision on paper and an oracle written another way say the same, for random
//! policies, identities, CIDRs, ports and protocols, in whatever order things arrive.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use heddle_model::{
    Entity, Identity, LabelFilter, LabelSet, NamespacedName, Operator, Requirement, Selector,
};
use heddle_policy::{
    Because, CidrBlock, CidrScope, Direction, EndpointSelector, Engine, EntryVerdict, IcmpFamily,
    Isolation, Party, Peer, Peers, Policy, PolicyId, PolicyKind, PolicySpec, PortMatch, PortTerm,
    Ports, Rule, Section, Tier, Traffic, Transport,
};
use ipnet::IpNet;
use proptest::prelude::*;
use std::{collections::BTreeMap, net::IpAddr};

// ---- the model: policies as plain data, nothing shared with the engine ----

#[derive(Clone, Debug)]
struct Pod {
    namespace: &'static str,
    app: &'static str,
    /// What the name `web` means here.
    web: Option<(u8, u16)>,
}

#[derive(Clone, Debug)]
enum Who {
    Pods {
        namespace: Option<&'static str>,
        app: Option<&'static str>,
        not: bool,
    },
    Block {
        base: u32,
        length: u8,
        holes: Vec<(u32, u8)>,
        kubernetes: bool,
    },
    Group(&'static str),
}

#[derive(Clone, Debug)]
enum What {
    Ports(&'static str, u16, u16),
    Name(&'static str),
    Icmp(u8),
}

#[derive(Clone, Debug)]
struct Line {
    deny: bool,
    ingress: bool,
    who: Option<Vec<Who>>,
    what: Option<Vec<What>>,
}

#[derive(Clone, Debug)]
struct Sheet {
    namespace: &'static str,
    app: Option<&'static str>,
    isolates: (bool, bool),
    lines: Vec<Line>,
}

/// The other end, and what is known of it.
#[derive(Clone, Debug)]
enum End {
    Pod(usize),
    Host,
    Remote,
    ApiServer,
    World(u32),
}

const POD_BASE: u32 = 0x0a00_0000;

fn pod_address(pod: usize) -> u32 {
    POD_BASE + pod as u32 * 0x41
}

fn in_block(address: u32, base: u32, length: u8) -> bool {
    length == 0 || (address ^ base) >> (32 - u32::from(length)) == 0
}

// ---- the oracle ----

fn speaks(transport: &str, protocol: u8) -> bool {
    match transport {
        "TCP" => protocol == 6,
        "UDP" => protocol == 17,
        "SCTP" => protocol == 132,
        _ => [6, 17, 132].contains(&protocol),
    }
}

fn matches_line(
    line: &Line,
    pods: &[Pod],
    subject: usize,
    peer: &End,
    protocol: u8,
    port: u16,
) -> bool {
    let receiver = if line.ingress {
        Some(subject)
    } else if let End::Pod(pod) = peer {
        Some(*pod)
    } else {
        None
    };
    let what_holds = |towards_block: bool| match &line.what {
        None => true,
        Some(list) => list.iter().any(|what| match what {
            What::Ports(transport, low, high) => {
                speaks(transport, protocol) && *low <= port && port <= *high
            }
            What::Name(transport) => {
                speaks(transport, protocol)
                    && (line.ingress || !towards_block)
                    && receiver.is_some_and(|pod| pods[pod].web == Some((protocol, port)))
            }
            What::Icmp(kind) => protocol == 1 && port == u16::from(*kind),
        }),
    };
    let Some(list) = &line.who else {
        return what_holds(false);
    };
    list.iter().any(|who| match who {
        Who::Pods {
            namespace,
            app,
            not,
        } => {
            let End::Pod(pod) = peer else { return false };
            let pod = &pods[*pod];
            namespace.is_none_or(|namespace| namespace == pod.namespace)
                && app.is_none_or(|app| (app == pod.app) != *not)
                && what_holds(false)
        }
        Who::Block {
            base,
            length,
            holes,
            kubernetes,
        } => {
            let address = match peer {
                End::World(address) => *address,
                End::Pod(pod) if *kubernetes => pod_address(*pod),
                _ => return false,
            };
            in_block(address, *base, *length)
                && !holes
                    .iter()
                    .any(|(base, length)| in_block(address, *base, *length))
                && what_holds(true)
        }
        Who::Group(group) => {
            let holds = match *group {
                "all" => true,
                "world" => matches!(peer, End::World(_)),
                "cluster" => !matches!(peer, End::World(_)),
                "host" => matches!(peer, End::Host),
                "remote-node" => matches!(peer, End::Remote | End::ApiServer),
                "kube-apiserver" => matches!(peer, End::ApiServer),
                _ => false,
            };
            holds && what_holds(false)
        }
    })
}

fn oracle(
    sheets: &[Sheet],
    pods: &[Pod],
    subject: usize,
    peer: &End,
    ingress: bool,
    protocol: u8,
    port: u16,
) -> (bool, Because) {
    let me = &pods[subject];
    let mine: Vec<&Sheet> = sheets
        .iter()
        .filter(|s| s.namespace == me.namespace && s.app.is_none_or(|app| app == me.app))
        .collect();
    let isolated = mine
        .iter()
        .any(|s| if ingress { s.isolates.0 } else { s.isolates.1 });
    let hit = |deny: bool| {
        mine.iter().flat_map(|s| &s.lines).any(|line| {
            line.deny == deny
                && line.ingress == ingress
                && matches_line(line, pods, subject, peer, protocol, port)
        })
    };
    if hit(true) {
        (false, Because::ExplicitDeny)
    } else if hit(false) {
        (true, Because::Rule)
    } else if !isolated {
        (true, Because::NotEnforced)
    } else if ingress && matches!(peer, End::Host) {
        (true, Because::Reserved)
    } else {
        (false, Because::DefaultDeny)
    }
}

// ---- from the model to the engine ----

fn identity(pod: usize) -> Identity {
    Identity(256 + pod as u32)
}

fn labels(pod: &Pod) -> LabelSet {
    let named = pod.web.map_or(String::new(), |(protocol, port)| {
        format!("web={}/{port}", if protocol == 6 { "TCP" } else { "UDP" })
    });
    LabelSet::of_pod(
        &NamespacedName::new(pod.namespace, "pod"),
        [("app", pod.app)],
        [("kubernetes.io/metadata.name", pod.namespace)],
        "default",
        &named,
        "default",
        &LabelFilter::default(),
    )
}

fn selector(namespace: Option<&str>, app: Option<&str>, not: bool) -> EndpointSelector {
    let mut requirements = vec![match namespace {
        Some(namespace) => Requirement {
            key: LabelSet::NAMESPACE.into(),
            operator: Operator::In,
            values: vec![namespace.into()],
        },
        None => Requirement {
            key: LabelSet::NAMESPACE.into(),
            operator: Operator::Exists,
            values: vec![],
        },
    }];
    if let Some(app) = app {
        requirements.push(Requirement {
            key: "app".into(),
            operator: if not { Operator::NotIn } else { Operator::In },
            values: vec![app.into()],
        });
    }
    EndpointSelector::new(Selector::new(BTreeMap::new(), requirements).unwrap())
}

fn net(base: u32, length: u8) -> IpNet {
    IpNet::new(IpAddr::V4(base.into()), length).unwrap().trunc()
}

fn transport(name: &str) -> Transport {
    match name {
        "TCP" => Transport::Tcp,
        "UDP" => Transport::Udp,
        "SCTP" => Transport::Sctp,
        _ => Transport::Any,
    }
}

fn policy(number: usize, sheet: &Sheet) -> Policy {
    let mut positions: BTreeMap<Section, u32> = BTreeMap::new();
    let rules = sheet
        .lines
        .iter()
        .map(|line| {
            let section = match (line.ingress, line.deny) {
                (true, false) => Section::Ingress,
                (true, true) => Section::IngressDeny,
                (false, false) => Section::Egress,
                (false, true) => Section::EgressDeny,
            };
            let position = positions.entry(section).or_default();
            let index = *position;
            *position += 1;
            let peers = match &line.who {
                None => Peers::Any,
                Some(list) => Peers::Terms(
                    list.iter()
                        .map(|who| match who {
                            Who::Pods {
                                namespace,
                                app,
                                not,
                            } => Peer::Endpoints(selector(*namespace, *app, *not)),
                            Who::Block {
                                base,
                                length,
                                holes,
                                kubernetes,
                            } => Peer::Cidr(CidrBlock {
                                block: net(*base, *length),
                                except: holes.iter().map(|(b, l)| net(*b, *l)).collect(),
                                in_cluster: *kubernetes,
                            }),
                            Who::Group(name) => Peer::Entity(name.parse::<Entity>().unwrap()),
                        })
                        .collect(),
                ),
            };
            let ports = match &line.what {
                None => Ports::All,
                Some(list) => Ports::Only(
                    list.iter()
                        .map(|what| match what {
                            What::Ports(name, 0, u16::MAX) => {
                                PortTerm::Transport(transport(name), PortMatch::All)
                            }
                            What::Ports(name, low, high) => {
                                PortTerm::Transport(transport(name), PortMatch::Range(*low, *high))
                            }
                            What::Name(name) => {
                                PortTerm::Transport(transport(name), PortMatch::Name("web".into()))
                            }
                            What::Icmp(kind) => PortTerm::Icmp(IcmpFamily::V4, *kind),
                        })
                        .collect(),
                ),
            };
            Rule {
                section,
                index,
                action: section.action(),
                name: None,
                peers,
                ports,
            }
        })
        .collect();
    Policy {
        id: PolicyId::new(
            PolicyKind::CiliumNetworkPolicy,
            sheet.namespace,
            format!("p{number}"),
        ),
        tier: Tier::Normal,
        priority: 0,
        specs: vec![PolicySpec {
            position: None,
            subject: selector(Some(sheet.namespace), sheet.app, false),
            isolates: Isolation {
                ingress: sheet.isolates.0,
                egress: sheet.isolates.1,
            },
            rules,
        }],
    }
}

fn party(end: &End) -> Party {
    let at = |address: u32| IpNet::from(IpAddr::V4(address.into()));
    match end {
        End::Pod(pod) => Party::in_cluster(identity(*pod), Some(at(pod_address(*pod)))),
        End::Host => Party::in_cluster(Identity::HOST, None),
        End::Remote => Party::in_cluster(Identity::REMOTE_NODE, None),
        End::ApiServer => Party::in_cluster(Identity::KUBE_APISERVER, None),
        End::World(address) => Party::world(at(*address)),
    }
}

fn cidr_of(engine: &Engine, party: &Party) -> Identity {
    let scope = if party.in_cluster {
        CidrScope::InCluster
    } else {
        CidrScope::World
    };
    party.prefix.map_or(Identity::UNKNOWN, |prefix| {
        engine.cidr_covering(prefix, scope)
    })
}

// ---- random worlds ----

fn namespaces() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b"])
}

fn apps() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["x", "y"])
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    let web = prop::option::of(prop::sample::select(vec![
        (6u8, 80u16),
        (6, 81),
        (17, 80),
        (6, 8080),
    ]));
    prop::collection::vec(
        (namespaces(), apps(), web).prop_map(|(namespace, app, web)| Pod {
            namespace,
            app,
            web,
        }),
        1..5,
    )
}

fn block() -> impl Strategy<Value = (u32, u8)> {
    (
        prop::sample::select(vec![
            0x0a00_0000u32,
            0x0a00_0041,
            0x0a00_0080,
            0x0a01_0000,
            0xc000_0201,
            0,
        ]),
        prop::sample::select(vec![0u8, 8, 16, 24, 25, 26, 32]),
    )
        .prop_map(|(base, length)| {
            let mask = if length == 0 {
                0
            } else {
                u32::MAX << (32 - length)
            };
            (base & mask, length)
        })
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        (
            prop::option::of(namespaces()),
            prop::option::of(apps()),
            any::<bool>()
        )
            .prop_map(|(namespace, app, not)| Who::Pods {
                namespace,
                app,
                not
            }),
        (block(), prop::collection::vec(block(), 0..3), any::<bool>()).prop_map(
            |((base, length), holes, kubernetes)| Who::Block {
                base,
                length,
                holes: holes
                    .into_iter()
                    .filter(|(hole, inner)| *inner >= length && in_block(*hole, base, length))
                    .collect(),
                kubernetes,
            }
        ),
        prop::sample::select(vec![
            "all",
            "world",
            "cluster",
            "host",
            "remote-node",
            "kube-apiserver",
            "none",
        ])
        .prop_map(Who::Group),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![
        0u16,
        1,
        53,
        79,
        80,
        81,
        1023,
        1024,
        8080,
        65_534,
        u16::MAX,
    ])
}

fn transports() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["TCP", "UDP", "SCTP", "ANY"])
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => (transports(), port(), port())
            .prop_map(|(name, a, b)| What::Ports(name, a.min(b), a.max(b))),
        2 => transports().prop_map(What::Name),
        1 => prop::sample::select(vec![0u8, 8]).prop_map(What::Icmp),
    ]
}

fn sheet() -> impl Strategy<Value = Sheet> {
    let line = (
        prop::bool::weighted(0.3),
        any::<bool>(),
        prop::option::weighted(0.8, prop::collection::vec(who(), 0..3)),
        prop::option::weighted(0.7, prop::collection::vec(what(), 0..4)),
    )
        .prop_map(|(deny, ingress, who, what)| Line {
            deny,
            ingress,
            who,
            what,
        });
    (
        namespaces(),
        prop::option::of(apps()),
        (prop::bool::weighted(0.7), prop::bool::weighted(0.7)),
        prop::collection::vec(line, 0..4),
    )
        .prop_map(|(namespace, app, isolates, lines)| Sheet {
            namespace,
            app,
            isolates,
            lines,
        })
}

fn ends(pods: usize) -> Vec<End> {
    let mut ends = vec![End::Host, End::Remote, End::ApiServer];
    ends.extend((0..pods).map(End::Pod));
    ends.extend(
        [
            0x0a00_0001u32,
            0x0a00_0041,
            0x0a00_0081,
            0x0a00_ff01,
            0x0a01_0001,
            0x0aff_0001,
            0xc000_0201,
            0x0808_0808,
        ]
        .map(End::World),
    );
    ends
}

const QUESTIONS: &[(u8, u16)] = &[
    (6, 0),
    (6, 53),
    (6, 80),
    (6, 81),
    (6, 500),
    (6, 8080),
    (6, 65_535),
    (17, 80),
    (17, 1024),
    (132, 80),
    (1, 8),
    (1, 0),
    (58, 128),
    (47, 0),
];

fn forward(pods: &[Pod], sheets: &[Sheet]) -> Engine {
    let mut engine = Engine::new();
    for (number, pod) in pods.iter().enumerate() {
        engine.set_identity(identity(number), labels(pod));
    }
    for (number, sheet) in sheets.iter().enumerate() {
        engine.set_policy(policy(number, sheet));
    }
    engine
}

fn backward(pods: &[Pod], sheets: &[Sheet]) -> Engine {
    let mut engine = Engine::new();
    for (number, sheet) in sheets.iter().enumerate().rev() {
        engine.set_policy(policy(number, sheet));
    }
    for (number, pod) in pods.iter().enumerate().rev() {
        engine.set_identity(identity(number), labels(pod));
    }
    engine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn rows_paper_and_oracle_agree(
        pods in pods(),
        sheets in prop::collection::vec(sheet(), 0..5),
    ) {
        for mut engine in [forward(&pods, &sheets), backward(&pods, &sheets)] {
            for subject in 0..pods.len() {
                let compiled = engine.compile(identity(subject));
                let sorted = compiled.entries.windows(2).all(|pair| pair[0].key < pair[1].key);
                prop_assert!(sorted, "keys are sorted and unique");
                let me = party(&End::Pod(subject));
                for end in ends(pods.len()) {
                    let peer = party(&end);
                    let cidr = cidr_of(&engine, &peer);
                    for ingress in [true, false] {
                        let direction = if ingress { Direction::Ingress } else { Direction::Egress };
                        for &(protocol, port) in QUESTIONS {
                            let traffic = Traffic { protocol, port };
                            let about = format!("{direction:?} {end:?} {protocol}/{port}");
                            let (allowed, because) =
                                oracle(&sheets, &pods, subject, &end, ingress, protocol, port);
                            let paper = engine.decide_direction(&me, &peer, direction, traffic);
                            prop_assert_eq!(paper.because, because, "paper: {}", &about);
                            prop_assert_eq!(paper.verdict == EntryVerdict::Allow, allowed);
                            prop_assert_eq!(
                                engine.verdict(&me, &peer, direction, traffic),
                                paper.verdict
                            );
                            let row = compiled.lookup(direction, peer.identity, cidr, protocol, port);
                            let row_allows = row.is_some_and(|row| row.verdict == EntryVerdict::Allow);
                            prop_assert_eq!(row_allows, allowed, "rows: {} {:?}", &about, row);
                            // A row names rules that decided, and only such.
                            let named = row.map_or(Vec::new(), |row| engine.rules_of(row.cookie));
                            prop_assert!(named.iter().all(|rule| paper.rules.contains(rule)));
                            let by_rule = matches!(because, Because::Rule | Because::ExplicitDeny);
                            prop_assert_eq!(by_rule, !named.is_empty(), "{}", &about);
                            prop_assert_eq!(
                                because == Because::NotEnforced,
                                row.is_some_and(|row| row.cookie == 0)
                            );
                            if because == Because::DefaultDeny {
                                prop_assert!(!paper.isolated_by.is_empty());
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_change_touches_what_it_says_and_leaves_no_trace(
        pods in pods(),
        sheets in prop::collection::vec(sheet(), 1..5),
        late in sheet(),
        pick in any::<prop::sample::Index>(),
    ) {
        let mut engine = forward(&pods, &sheets);
        let all = |engine: &mut Engine| -> BTreeMap<Identity, _> {
            (0..pods.len()).map(|pod| (identity(pod), engine.compile(identity(pod)))).collect()
        };
        let mut before = all(&mut engine);
        let mut check = |engine: &mut Engine, touched: std::collections::BTreeSet<Identity>, what: &str| {
            let after = all(engine);
            for (identity, compiled) in &after {
                if !touched.contains(identity) && before.get(identity) != Some(compiled) {
                    return Err(TestCaseError::fail(format!("{what} changed {identity} unsaid")));
                }
            }
            before = after;
            Ok(())
        };
        let number = pick.index(sheets.len());
        let touched = engine.set_policy(policy(number, &late));
        check(&mut engine, touched, "replacing a policy")?;
        let id = policy(number, &late).id;
        let touched = engine.remove_policy(&id);
        check(&mut engine, touched, "removing a policy")?;
        let touched = engine.remove_policy(&policy(number, &sheets[number]).id);
        check(&mut engine, touched, "removing the same name in another namespace")?;
        let touched = engine.set_policy(policy(number, &sheets[number]));
        check(&mut engine, touched, "adding a policy")?;
        let stranger = Pod { namespace: "a", app: "x", web: Some((6, 8080)) };
        let touched = engine.set_identity(Identity(900), labels(&stranger));
        check(&mut engine, touched, "a new identity")?;
        let other = Pod { namespace: "b", app: "y", web: None };
        let touched = engine.set_identity(Identity(900), labels(&other));
        check(&mut engine, touched, "other labels")?;
        let touched = engine.remove_identity(Identity(900));
        check(&mut engine, touched, "an identity that goes")?;
        // Back where it started, up to the numbers of CIDRs.
        let mut fresh = forward(&pods, &sheets);
        for pod in 0..pods.len() {
            let (now, then) = (engine.compile(identity(pod)), fresh.compile(identity(pod)));
            prop_assert_eq!(now.entries.len(), then.entries.len());
            prop_assert_eq!(now.ingress_enforced, then.ingress_enforced);
        }
        for (number, sheet) in sheets.iter().enumerate() {
            engine.remove_policy(&policy(number, sheet).id);
        }
        prop_assert!(engine.policy_ids().is_empty());
        prop_assert!(engine.cidrs().is_empty());
    }
}
