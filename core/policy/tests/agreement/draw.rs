//! Random worlds: small enough that rules meet often.

use crate::model::{
    Block, By, End, Group, Level, Line, Mode, Pod, Says, Service, Sheet, What, Who, World,
};
use proptest::prelude::*;

pub(crate) fn namespaces() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b"])
}

fn apps() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["x", "y"])
}

fn kinds() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["k", "l"])
}

fn pod() -> impl Strategy<Value = Pod> {
    let web = prop::option::of(prop::sample::select(vec![
        (6u8, 80u16),
        (6, 81),
        (17, 80),
        (6, 8080),
    ]));
    let address = prop::sample::select(vec![
        0x0a00_0000u32,
        0x0a00_0041,
        0x0a00_0082,
        0x0a00_00c3,
        0x0a00_0104,
    ]);
    (namespaces(), apps(), web, address).prop_map(|(namespace, app, web, address)| Pod {
        namespace,
        app,
        web,
        address,
    })
}

pub(crate) fn pods() -> impl Strategy<Value = Vec<Pod>> {
    prop::collection::vec(pod(), 1..5).prop_map(|mut pods| {
        pods.sort_by_key(|pod| pod.address);
        pods.dedup_by_key(|pod| pod.address);
        pods
    })
}

fn block() -> impl Strategy<Value = Block> {
    (
        prop::sample::select(vec![
            0x0a00_0000u32,
            0x0a00_0041,
            0x0a00_0080,
            0x0a01_0000,
            0xc000_0201,
            0,
        ]),
        prop::sample::select(vec![0u8, 8, 16, 24, 25, 26, 31, 32]),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(base, length, six)| {
            let mask = if length == 0 {
                0
            } else {
                u32::MAX << (32 - length)
            };
            Block {
                base: base & mask,
                length,
                six,
            }
        })
}

fn by(numbers: usize) -> impl Strategy<Value = By> {
    // One more than there are: a name that nothing has.
    prop_oneof![
        (0..=numbers).prop_map(By::Name),
        kinds().prop_map(By::Label)
    ]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        3 => (
            prop::option::of(namespaces()),
            prop::option::of(apps()),
            any::<bool>()
        )
            .prop_map(|(namespace, app, not)| Who::Pods {
                namespace,
                app,
                not
            }),
        4 => (block(), prop::collection::vec(block(), 0..3), any::<bool>()).prop_map(
            |(block, holes, kubernetes)| Who::Addresses {
                holes: holes.into_iter().filter(|hole| hole.inside(&block)).collect(),
                block,
                kubernetes,
            }
        ),
        2 => (by(GROUPS), prop::collection::vec(block(), 0..2))
            .prop_map(|(by, holes)| Who::Listed { by, holes }),
        1 => by(SERVICES).prop_map(Who::Served),
        1 => prop::option::of(kinds()).prop_map(Who::Nodes),
        3 => prop::sample::select(vec![
            "all",
            "world",
            "cluster",
            "host",
            "remote-node",
            "kube-apiserver",
            "unmanaged",
            "none",
        ])
        .prop_map(Who::Entity),
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

fn line() -> impl Strategy<Value = Line> {
    (
        prop_oneof![4 => Just(Says::Allow), 3 => Just(Says::Deny), 3 => Just(Says::Pass)],
        any::<bool>(),
        prop::option::weighted(0.8, prop::collection::vec(who(), 0..3)),
        prop::option::weighted(0.6, prop::collection::vec(what(), 0..4)),
    )
        .prop_map(|(says, ingress, who, what)| Line {
            says,
            ingress,
            who,
            what,
        })
}

pub(crate) fn sheet() -> impl Strategy<Value = Sheet> {
    let level = prop_oneof![
        5 => Just(Level::Normal),
        3 => (0..3i32).prop_map(Level::Admin),
        2 => (0..3i32).prop_map(Level::Baseline),
    ];
    (
        level,
        prop::option::weighted(0.8, namespaces()),
        prop::option::of(apps()),
        prop::option::weighted(0.2, kinds()),
        (prop::bool::weighted(0.6), prop::bool::weighted(0.6)),
        prop::collection::vec(line(), 0..4),
    )
        .prop_map(|(level, namespace, app, node, isolates, lines)| Sheet {
            // Host policies are cluster-wide and in the tier Normal.
            level: node.map_or(level, |_| Level::Normal),
            namespace: namespace.filter(|_| node.is_none()),
            app,
            node,
            isolates,
            lines,
        })
}

pub(crate) const GROUPS: usize = 2;
pub(crate) const SERVICES: usize = 2;

pub(crate) fn group() -> impl Strategy<Value = Option<Group>> {
    prop::option::weighted(
        0.8,
        (kinds(), prop::collection::vec(block(), 0..4))
            .prop_map(|(kind, blocks)| Group { kind, blocks }),
    )
}

pub(crate) fn service() -> impl Strategy<Value = Option<Service>> {
    prop::option::weighted(
        0.8,
        (
            kinds(),
            prop::option::of(apps()),
            prop::collection::vec(block(), 0..3),
        )
            .prop_map(|(kind, app, addresses)| Service {
                kind,
                app,
                addresses,
            }),
    )
}

pub(crate) fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![8 => Just(Mode::Default), 1 => Just(Mode::Always), 1 => Just(Mode::Never)]
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    (
        pods(),
        prop::collection::vec(sheet(), 0..6),
        prop::collection::vec(group(), GROUPS),
        prop::collection::vec(service(), SERVICES),
        mode(),
    )
        .prop_map(|(pods, sheets, groups, services, mode)| World {
            pods,
            sheets,
            groups,
            services,
            mode,
        })
}

/// Who may stand at the other end of a subject; what the node says to itself nobody sees.
pub(crate) fn ends_of(pods: usize, subject: usize) -> Vec<End> {
    let mut ends = ends(pods);
    if subject == pods {
        ends.retain(|end| !matches!(end, End::Host));
    }
    ends
}

fn ends(pods: usize) -> Vec<End> {
    let mut ends = vec![
        End::Host,
        End::Remote,
        End::ApiServer,
        End::Unmanaged(0x0a00_0090),
        End::World(0x0a00_0040, true),
        End::World(0x0800_0000, true),
    ];
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
        .map(|address| End::World(address, false)),
    );
    ends
}

pub(crate) const QUESTIONS: &[(u8, u16)] = &[
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
