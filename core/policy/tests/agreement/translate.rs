//! From the model to the engine's types.

use crate::model::{
    API_SERVER, Block, By, End, HOST, Level, Mode, OWN_KIND, POD_RANGE, Pod, REMOTE,
    SERVICE_NAMESPACES, Says, Sheet, What, Who, World,
};
use heddle_model::{
    Entity, Identity, LabelFilter, LabelSet, NamespacedName, Operator, Requirement, Selector,
};
use heddle_policy::{
    Action, CidrBlock, CidrGroupRef, CidrScope, EndpointSelector, EnforcementMode, Engine,
    IcmpFamily, Isolation, NodeFacts, Party, Peer, Peers, Policy, PolicyId, PolicyKind, PolicySpec,
    PortMatch, PortTerm, Ports, Rule, Section, ServiceFacts, ServiceRef, Tier, Transport,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

/// Pods that are alike share an identity.
pub(crate) fn identity(pods: &[Pod], pod: usize) -> Identity {
    let like = |a: &Pod, b: &Pod| (a.namespace, a.app, a.web) == (b.namespace, b.app, b.web);
    if pod == pods.len() {
        return Identity::OWN_NODE;
    }
    let first = pods.iter().position(|other| like(other, &pods[pod]));
    Identity(256 + first.unwrap() as u32)
}

pub(crate) fn labels(pod: &Pod) -> LabelSet {
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

fn requirement(key: &str, operator: Operator, value: &str) -> Requirement {
    Requirement {
        key: key.into(),
        operator,
        values: vec![value.into()],
    }
}

fn selector(namespace: Option<&str>, app: Option<&str>, not: bool) -> EndpointSelector {
    let mut requirements = vec![match namespace {
        Some(namespace) => requirement(LabelSet::NAMESPACE, Operator::In, namespace),
        None => Requirement {
            key: LabelSet::NAMESPACE.into(),
            operator: Operator::Exists,
            values: vec![],
        },
    }];
    if let Some(app) = app {
        let operator = if not { Operator::NotIn } else { Operator::In };
        requirements.push(requirement("app", operator, app));
    }
    EndpointSelector::new(Selector::new(BTreeMap::new(), requirements).unwrap())
}

fn of_kind(kind: &str) -> Selector {
    Selector::new(
        BTreeMap::new(),
        vec![requirement("kind", Operator::In, kind)],
    )
    .unwrap()
}

pub(crate) fn address(address: u32, six: bool) -> IpAddr {
    if six {
        let high = 0x2001_0db8u128 << 96;
        Ipv6Addr::from_bits(high | u128::from(address)).into()
    } else {
        IpAddr::V4(address.into())
    }
}

pub(crate) fn net(block: &Block) -> IpNet {
    let length = block.length + if block.six { 96 } else { 0 };
    IpNet::new(address(block.base, block.six), length)
        .unwrap()
        .trunc()
}

fn transport(name: &str) -> Transport {
    match name {
        "TCP" => Transport::Tcp,
        "UDP" => Transport::Udp,
        "SCTP" => Transport::Sctp,
        _ => Transport::Any,
    }
}

fn peer(who: &Who) -> Peer {
    match who {
        Who::Pods {
            namespace,
            app,
            not,
        } => Peer::Endpoints(selector(*namespace, *app, *not)),
        Who::Addresses {
            block,
            holes,
            kubernetes,
        } => Peer::Cidr(CidrBlock {
            block: net(block),
            except: holes.iter().map(net).collect(),
            in_cluster: *kubernetes,
        }),
        Who::Listed { by, holes } => Peer::CidrGroup {
            by: match by {
                By::Name(number) => CidrGroupRef::Name(format!("g{number}")),
                By::Label(kind) => CidrGroupRef::Labels(of_kind(kind)),
            },
            except: holes.iter().map(net).collect(),
        },
        Who::Served(by) => Peer::Services(match by {
            By::Name(number) => ServiceRef::Name(service_name(*number)),
            By::Label(kind) => ServiceRef::Labels {
                selector: of_kind(kind),
                namespace: None,
            },
        }),
        Who::Nodes(None) => Peer::Nodes(Selector::everything()),
        Who::Nodes(Some(kind)) => Peer::Nodes(of_kind(kind)),
        Who::Entity(name) => Peer::Entity(name.parse::<Entity>().unwrap()),
    }
}

fn port_term(what: &What) -> PortTerm {
    match what {
        What::Ports(name, 0, u16::MAX) => PortTerm::Transport(transport(name), PortMatch::All),
        What::Ports(name, low, high) => {
            PortTerm::Transport(transport(name), PortMatch::Range(*low, *high))
        }
        What::Name(name) => PortTerm::Transport(transport(name), PortMatch::Name("web".into())),
        What::Icmp(kind) => PortTerm::Icmp(IcmpFamily::V4, *kind),
    }
}

pub(crate) fn policy(number: usize, sheet: &Sheet) -> Policy {
    let (tier, priority) = match sheet.level {
        Level::Admin(priority) => (Tier::Admin, priority),
        Level::Normal => (Tier::Normal, 0),
        Level::Baseline(priority) => (Tier::Baseline, priority),
    };
    let mut positions: BTreeMap<Section, u32> = BTreeMap::new();
    let rules = sheet
        .lines
        .iter()
        .map(|line| {
            let denies = tier == Tier::Normal && line.says == Says::Deny;
            let section = match (line.ingress, denies) {
                (true, false) => Section::Ingress,
                (true, true) => Section::IngressDeny,
                (false, false) => Section::Egress,
                (false, true) => Section::EgressDeny,
            };
            let position = positions.entry(section).or_default();
            let index = *position;
            *position += 1;
            Rule {
                section,
                index,
                action: match line.says {
                    Says::Allow => Action::Allow,
                    Says::Deny => Action::Deny,
                    Says::Pass => Action::Pass,
                },
                name: None,
                peers: match &line.who {
                    None => Peers::Any,
                    Some(list) => Peers::Terms(list.iter().map(peer).collect()),
                },
                ports: match &line.what {
                    None => Ports::All,
                    Some(list) => Ports::Only(list.iter().map(port_term).collect()),
                },
            }
        })
        .collect();
    let (kind, namespace) = match (tier, sheet.namespace) {
        (Tier::Normal, Some(namespace)) => (PolicyKind::CiliumNetworkPolicy, namespace),
        (Tier::Normal, None) => (PolicyKind::CiliumClusterwideNetworkPolicy, ""),
        _ => (PolicyKind::ClusterNetworkPolicy, ""),
    };
    Policy {
        id: PolicyId::new(kind, namespace, format!("p{number}")),
        tier,
        priority,
        specs: vec![PolicySpec {
            position: None,
            subject: match sheet.node {
                Some(kind) => EndpointSelector::of_nodes(&of_kind(kind)),
                None => selector(sheet.namespace, sheet.app, false),
            },
            isolates: Isolation {
                ingress: sheet.isolates.0,
                egress: sheet.isolates.1,
            },
            rules,
        }],
    }
}

pub(crate) fn party(world: &World, end: &End) -> Party {
    let at = |bits: u32| Some(IpNet::from(address(bits, false)));
    match end {
        End::Pod(pod) => {
            Party::in_cluster(identity(&world.pods, *pod), at(world.pods[*pod].address))
        }
        End::Host => Party::in_cluster(Identity::HOST, at(HOST)),
        End::Remote => Party::in_cluster(Identity::REMOTE_NODE, at(REMOTE)),
        End::ApiServer => Party::in_cluster(Identity::KUBE_APISERVER, at(API_SERVER)),
        End::Unmanaged(bits) => Party::in_cluster(Identity::UNMANAGED, at(*bits)),
        End::World(bits, six) => Party::world(IpNet::from(address(*bits, *six))),
    }
}

/// Who a subject is.
pub(crate) fn subject_party(world: &World, subject: usize) -> Party {
    if subject == world.pods.len() {
        party(world, &End::Host).with_subject(Identity::OWN_NODE)
    } else {
        party(world, &End::Pod(subject))
    }
}

pub(crate) fn scope(party: &Party) -> CidrScope {
    if party.in_cluster {
        CidrScope::InCluster
    } else {
        CidrScope::World
    }
}

pub(crate) fn cidr_of(engine: &Engine, party: &Party) -> Identity {
    party.prefix.map_or(Identity::UNKNOWN, |prefix| {
        engine.cidr_covering(prefix, scope(party))
    })
}

pub(crate) fn service_name(number: usize) -> NamespacedName {
    NamespacedName::new(SERVICE_NAMESPACES[number % 2], format!("s{number}"))
}

// ---- giving a world to an engine ----

pub(crate) fn set_pods(engine: &mut Engine, world: &World) {
    engine.set_identity(Identity::OWN_NODE, LabelSet::of_node([("kind", OWN_KIND)]));
    for (number, pod) in world.pods.iter().enumerate() {
        engine.set_identity(identity(&world.pods, number), labels(pod));
    }
}

pub(crate) fn set_addresses(engine: &mut Engine, world: &World) {
    engine.set_address(net(&POD_RANGE), Identity::UNMANAGED);
    for (name, end) in [
        ("host", End::Host),
        ("remote", End::Remote),
        ("api", End::ApiServer),
    ] {
        let bits = end.cluster_address(&world.pods).unwrap();
        let facts = NodeFacts {
            labels: BTreeMap::from([("kind".into(), end.node_kind().unwrap().into())]),
            addresses: vec![address(bits, false)],
        };
        engine.set_node(name, facts);
    }
    for (bits, identity) in [
        (HOST, Identity::HOST),
        (REMOTE, Identity::REMOTE_NODE),
        (API_SERVER, Identity::KUBE_APISERVER),
    ] {
        engine.set_address(address(bits, false).into(), identity);
    }
    for (number, pod) in world.pods.iter().enumerate() {
        let prefix = address(pod.address, false).into();
        engine.set_address(prefix, identity(&world.pods, number));
    }
}

pub(crate) fn set_group(engine: &mut Engine, world: &World, number: usize) -> BTreeSet<Identity> {
    let name = format!("g{number}");
    match &world.groups[number] {
        Some(group) => engine.set_cidr_group(
            &name,
            BTreeMap::from([("kind".into(), group.kind.into())]),
            group.blocks.iter().map(net).collect(),
        ),
        None => engine.remove_cidr_group(&name),
    }
}

pub(crate) fn set_service(engine: &mut Engine, world: &World, number: usize) -> BTreeSet<Identity> {
    match &world.services[number] {
        Some(service) => engine.set_service(
            service_name(number),
            ServiceFacts {
                labels: BTreeMap::from([("kind".into(), service.kind.into())]),
                selector: service
                    .app
                    .map(|app| BTreeMap::from([("app".into(), app.into())])),
                addresses: service.addresses.iter().map(net).collect(),
            },
        ),
        None => engine.remove_service(&service_name(number)),
    }
}

pub(crate) const fn mode(mode: Mode) -> EnforcementMode {
    match mode {
        Mode::Default => EnforcementMode::Default,
        Mode::Always => EnforcementMode::Always,
        Mode::Never => EnforcementMode::Never,
    }
}
