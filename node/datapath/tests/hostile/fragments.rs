//! Fragments, and headers that lie outside the packet.

use crate::{
    bed::packets::{SYN, TCP, UDP, fragment, icmp, icmp_protocol, ip, tcp, udp},
    scene::{Actor, Policy, Run},
};
use heddle_abi::DropReason::{
    CtTruncatedOrInvalidHeader, FirstLogicalDatagramFragmentNotFound as NoFirst,
    InvalidIpv6ExtensionHeader, InvalidPacketDropped, InvalidSourceIp, PolicyDenied,
};

const CLASS: &str = "fragments";

pub fn cases(run: &Run<'_>) {
    let ends = run.ends(Actor::A, Actor::World);
    let open = Policy::Open;
    let first = |id| fragment(ends, UDP, (id, 0, true), &udp((4000, 53)));
    let later = |id| fragment(ends, UDP, (id, 2, false), &[9; 8]);
    let id = run.number();
    run.case(
        CLASS,
        "later without first",
        open,
        &[(Actor::A, later(id), Err(NoFirst))],
    );
    run.case(
        CLASS,
        "later of another datagram",
        open,
        &[
            (Actor::A, first(id), Ok(())),
            (Actor::A, later(id), Ok(())),
            (Actor::A, later(run.number()), Err(NoFirst)),
        ],
    );
    let id = run.number();
    run.case(
        CLASS,
        "later behind a first that another pod forged",
        open,
        &[
            (Actor::B, first(id), Err(InvalidSourceIp)),
            (Actor::A, later(id), Err(NoFirst)),
        ],
    );
    let id = run.number();
    run.case(
        CLASS,
        "later behind a denied first",
        Policy::DeniedA,
        &[
            (Actor::A, first(id), Err(PolicyDenied)),
            (Actor::A, later(id), Err(NoFirst)),
        ],
    );
    let id = run.number();
    let into = run.ends(Actor::World, Actor::Node);
    run.case(
        CLASS,
        "later behind a first that the node's policy denied",
        Policy::ClientNode,
        &[
            (
                Actor::World,
                fragment(into, UDP, (id, 0, true), &udp((4000, 53))),
                Err(PolicyDenied),
            ),
            (
                Actor::World,
                fragment(into, UDP, (id, 2, false), &[9; 8]),
                Err(NoFirst),
            ),
        ],
    );
    let id = run.number();
    let kind = if run.v6 { 139 } else { 13 };
    let protocol = icmp_protocol(run.v6);
    run.case(
        CLASS,
        "later behind a denied ICMP type, then that type whole",
        Policy::ClientNode,
        &[
            (
                Actor::World,
                fragment(into, protocol, (id, 0, true), &icmp(kind, 0, [0; 4], &[])),
                Err(PolicyDenied),
            ),
            (
                Actor::World,
                fragment(into, protocol, (id, 1, false), &[9; 8]),
                Err(NoFirst),
            ),
            (
                Actor::World,
                ip(into.0, into.1, protocol, &icmp(kind, 0, [0; 4], &[])),
                Err(PolicyDenied),
            ),
        ],
    );
    let segment = tcp((4000, 80), SYN);
    run.case(
        CLASS,
        "first of eight bytes of TCP",
        open,
        &[(
            Actor::A,
            fragment(ends, TCP, (run.number(), 0, true), &segment[..8]),
            Err(CtTruncatedOrInvalidHeader),
        )],
    );
    lengths(run);
    if run.v6 {
        extension_headers(run);
    } else {
        run.case(
            CLASS,
            "over the TCP flags",
            open,
            &[(
                Actor::A,
                fragment(ends, TCP, (run.number(), 1, false), &segment[8..]),
                Err(InvalidPacketDropped),
            )],
        );
    }
}

/// Bytes behind the end that the IP header names are no transport header.
fn lengths(run: &Run<'_>) {
    let v6 = run.v6;
    for (sender, to, policy) in [
        (Actor::A, Actor::World, Policy::Open),
        (Actor::World, Actor::Node, Policy::ClientNode),
    ] {
        let (source, destination) = run.ends(sender, to);
        let kinds = [
            ("TCP", TCP, tcp((4000, 80), SYN), 19),
            ("UDP", UDP, udp((4000, 53)), 7),
            (
                "ICMP",
                icmp_protocol(v6),
                icmp(if v6 { 128 } else { 8 }, 0, [0; 4], &[]),
                7,
            ),
        ];
        for (name, protocol, payload, length) in kinds {
            let mut packet = ip(source, destination, protocol, &payload);
            packet[if v6 { 5 } else { 3 }] = if v6 { length } else { 20 + length };
            run.case(
                "lengths",
                &format!("{name} header past the end of the packet"),
                policy,
                &[(sender, packet, Err(CtTruncatedOrInvalidHeader))],
            );
        }
    }
}

fn extension_headers(run: &Run<'_>) {
    let (source, destination) = run.ends(Actor::A, Actor::World);
    let atomic = |next: u8| [next, 0, 0, 0, 0, 0, 0, 7];
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let datagram = udp((4000, 53));
    let refused = Err(InvalidIpv6ExtensionHeader);
    let kinds = [
        (
            "atomic fragment",
            44,
            [&atomic(UDP)[..], &datagram].concat(),
            Ok(()),
        ),
        (
            "fragment in a fragment",
            44,
            [&atomic(44)[..], &atomic(UDP), &datagram].concat(),
            refused,
        ),
        (
            "routing header",
            43,
            [&[UDP, 0, 0, 0, 0, 0, 0, 0][..], &datagram].concat(),
            refused,
        ),
        (
            "hop-by-hop options that are not first",
            60,
            [&options(0)[..], &options(UDP), &datagram].concat(),
            refused,
        ),
        (
            "three headers",
            60,
            [&options(60).repeat(2)[..], &options(UDP), &datagram].concat(),
            Ok(()),
        ),
        (
            "four headers",
            60,
            [&options(60).repeat(3)[..], &options(UDP), &datagram].concat(),
            refused,
        ),
        (
            "five headers",
            60,
            [&options(60).repeat(4)[..], &options(UDP), &datagram].concat(),
            refused,
        ),
    ];
    for (name, next, payload, wished) in kinds {
        let packet = ip(source, destination, next, &payload);
        run.case(
            "extension headers",
            name,
            Policy::Open,
            &[(Actor::A, packet, wished)],
        );
    }
}
