//! ICMP errors about others' connections, and ICMP types that would ride on an echo's connection.

use crate::{
    bed::packets::{UDP, echo, fragment, icmp, icmp_protocol, ip, udp},
    scene::{Actor, Policy, Run},
};
use heddle_abi::DropReason::{InvalidPacketDropped, PolicyDenied};

const ERRORS: &str = "ICMP errors";
const TYPES: &str = "ICMP types";

pub fn cases(run: &Run<'_>) {
    let quoted = ip(
        run.address(Actor::B),
        run.address(Actor::A),
        UDP,
        &udp((1, 2)),
    );
    let (kind, code) = if run.v6 { (1, 4) } else { (3, 3) };
    run.case(
        ERRORS,
        "an error in fragments",
        Policy::Open,
        &[(
            Actor::B,
            fragment(
                run.ends(Actor::B, Actor::A),
                icmp_protocol(run.v6),
                (run.number(), 0, true),
                &icmp(kind, code, [0; 4], &quoted),
            ),
            Err(InvalidPacketDropped),
        )],
    );
    if run.scene.host_routing {
        errors(run, Actor::B);
        errors(run, Actor::World);
        types(run, Actor::A, Actor::B, Policy::ClientA);
    }
    types(run, Actor::Node, Actor::OtherNode, Policy::ClientNode);
}

/// Pod A has sent a datagram to `peer`.
fn errors(run: &Run<'_>, peer: Actor) {
    let protocol = icmp_protocol(run.v6);
    let v6 = run.v6;
    let unreachable = if v6 { (1, 4) } else { (3, 3) };
    let too_big = if v6 { (2, 0) } else { (3, 4) };
    let exceeded = if v6 { (3, 0) } else { (11, 0) };
    let no_route = if v6 { (1, 0) } else { (3, 0) };
    let router = run.either("203.0.113.1", "2001:db8:1::1");
    let a = run.address(Actor::A);
    let from_peer = run.address(peer);
    let from_c = run.address(Actor::C);
    let denied = Err(PolicyDenied);
    // Between two pods of a node there is none.
    let by_router = if peer == Actor::World { Ok(()) } else { denied };
    let mut kinds = vec![
        (
            "unreachable port, by the receiver",
            peer,
            from_peer,
            unreachable,
            Ok(()),
        ),
        ("too big, by the receiver", peer, from_peer, too_big, Ok(())),
        (
            "unreachable port, by a third pod",
            Actor::C,
            from_c,
            unreachable,
            denied,
        ),
        ("too big, by a third pod", Actor::C, from_c, too_big, denied),
        (
            "time exceeded, by a third pod",
            Actor::C,
            from_c,
            exceeded,
            denied,
        ),
        (
            "unreachable port, by a router",
            Actor::World,
            router,
            unreachable,
            denied,
        ),
        (
            "too big, by a router",
            Actor::World,
            router,
            too_big,
            by_router,
        ),
        (
            "time exceeded, by a router",
            Actor::World,
            router,
            exceeded,
            by_router,
        ),
        (
            "too big, by another node",
            Actor::OtherNode,
            run.address(Actor::OtherNode),
            too_big,
            Ok(()),
        ),
        (
            "no route, by a router",
            Actor::World,
            router,
            no_route,
            by_router,
        ),
    ];
    if !v6 {
        kinds.push((
            "redirect, by a router",
            Actor::World,
            router,
            (5, 1),
            denied,
        ));
        kinds.push((
            "source quench, by a router",
            Actor::World,
            router,
            (4, 0),
            denied,
        ));
        kinds.push((
            "protocol unreachable, by a router",
            Actor::World,
            router,
            (3, 2),
            denied,
        ));
    }
    let message = |source, (kind, code): (u8, u8), quoted: &[u8]| {
        ip(
            source,
            a,
            protocol,
            &icmp(kind, code, [0, 0, 5, 0xdc], quoted),
        )
    };
    let opening = |port| ip(a, from_peer, UDP, &udp((port, 53)));
    for (name, sender, source, kind, wished) in kinds {
        let sent = opening(run.number());
        run.case(
            ERRORS,
            &format!("{name}: A sent to {peer:?}"),
            Policy::ClientA,
            &[
                (Actor::A, sent.clone(), Ok(())),
                (sender, message(source, kind, &sent), wished),
            ],
        );
    }
    let sent = opening(run.number());
    let mut later = sent.clone();
    if !v6 {
        later[7] = 2;
    }
    let mut unknown = sent.clone();
    unknown[if v6 { 6 } else { 9 }] = 47;
    let mut version = sent.clone();
    version[0] ^= 0x10;
    let header = if v6 { 40 } else { 20 };
    let mut quotes = vec![
        ("another version of IP", version),
        ("an unknown protocol", unknown),
        ("a header cut short", sent[..header + 2].to_vec()),
        ("another port", opening(run.number())),
        ("nothing", Vec::new()),
    ];
    if !v6 {
        quotes.push(("a later fragment", later));
    }
    for (name, quoted) in quotes {
        run.case(
            ERRORS,
            &format!("quotes {name}: A sent to {peer:?}"),
            Policy::ClientA,
            &[
                (Actor::A, sent.clone(), Ok(())),
                (peer, message(from_peer, too_big, &quoted), denied),
            ],
        );
    }
    run.case(
        ERRORS,
        &format!("about a connection that is denied since: A sent to {peer:?}"),
        Policy::DeniedA,
        &[(peer, message(from_peer, too_big, &sent), denied)],
    );
}

/// Only the reply of an echo comes back by its connection.
fn types(run: &Run<'_>, client: Actor, server: Actor, policy: Policy) {
    let (source, destination) = run.ends(client, server);
    let protocol = icmp_protocol(run.v6);
    // Timestamp request, and node information query.
    let kind = if run.v6 { 139 } else { 13 };
    let there = |message: &[u8]| ip(source, destination, protocol, message);
    let back = |message: &[u8]| ip(destination, source, protocol, message);
    let id = run.number();
    let request = (client, there(&echo(run.v6, true, id)), Ok(()));
    let as_type = (client, there(&echo(run.v6, true, kind.into())), Ok(()));
    let [high, low] = id.to_be_bytes();
    let denied = Err(PolicyDenied);
    let attempts = [
        (
            "echo reply of its identifier",
            echo(run.v6, false, id),
            Ok(()),
        ),
        (
            "echo reply of another identifier",
            echo(run.v6, false, id ^ 1),
            denied,
        ),
        (
            "echo request of its identifier",
            echo(run.v6, true, id),
            denied,
        ),
        (
            "another type with its identifier",
            icmp(kind, 0, [high, low, 0, 1], &[]),
            denied,
        ),
    ];
    for (name, message, wished) in attempts {
        run.case(
            TYPES,
            name,
            policy,
            &[request.clone(), (server, back(&message), wished)],
        );
    }
    run.case(
        TYPES,
        "a type that is the identifier of an echo",
        policy,
        &[as_type, (server, back(&icmp(kind, 0, [0; 4], &[])), denied)],
    );
}
