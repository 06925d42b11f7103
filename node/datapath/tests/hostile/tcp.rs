//! TCP without a connection, and tuples that are used again.

use crate::{
    bed::packets::{ACK, FIN, PSH, RST, SYN, TCP, URG, ip, tcp},
    scene::{Actor, Policy, Run},
};
use heddle_abi::DropReason::PolicyDenied;

pub fn cases(run: &Run<'_>) {
    let mut senders = vec![Actor::World, Actor::OtherNode, Actor::B];
    if !run.scene.overlay {
        senders.push(Actor::OtherPod);
    }
    for sender in senders {
        without_connection(run, sender, Actor::Node, Policy::ClientNode);
        // Without host routing the pod's policy is enforced at its own link, by what the stack forwards; for what
        // another pod of the node begins, before that, too.
        if run.scene.host_routing || sender == Actor::B {
            without_connection(run, sender, Actor::A, Policy::ClientA);
        }
    }
    reuse(run, Actor::A, Actor::B, Policy::ClientA);
    if run.scene.host_routing {
        reuse(run, Actor::A, Actor::World, Policy::ClientA);
    }
    reuse(run, Actor::Node, Actor::World, Policy::ClientNode);
    reuse(run, Actor::Node, Actor::OtherNode, Policy::ClientNode);
}

/// A segment without SYN is no reply, from whatever port, and the SYN behind it finds nothing open.
fn without_connection(run: &Run<'_>, from: Actor, to: Actor, policy: Policy) {
    let kinds = [
        ("no flags", 0, 443),
        ("FIN", FIN, 22),
        ("ACK", ACK, 1),
        ("RST", RST, 443),
        ("PSH and ACK", PSH | ACK, 22),
        ("FIN, PSH and URG", FIN | PSH | URG, 1),
        ("SYN and ACK", SYN | ACK, 443),
    ];
    for (name, flags, port) in kinds {
        let ports = (port, run.number());
        let (source, destination) = run.ends(from, to);
        let segment = |flags| ip(source, destination, TCP, &tcp(ports, flags));
        run.case(
            "TCP without a connection",
            &format!("{name} from port {port} to {to:?}, then SYN"),
            policy,
            &[
                (from, segment(flags), Err(PolicyDenied)),
                (from, segment(SYN), Err(PolicyDenied)),
            ],
        );
    }
}

/// The responder of a connection begins none on its tuple, and what it tries harms nothing.
fn reuse(run: &Run<'_>, client: Actor, server: Actor, policy: Policy) {
    let ends = run.ends(client, server);
    let steps = |port: u16| {
        let there = move |flags| ip(ends.0, ends.1, TCP, &tcp((port, 80), flags));
        let back = move |flags| ip(ends.1, ends.0, TCP, &tcp((80, port), flags));
        (there, back)
    };
    let (there, back) = steps(run.number());
    run.case(
        "tuple re-use",
        "SYN of the responder on a live connection",
        policy,
        &[
            (client, there(SYN), Ok(())),
            (server, back(SYN | ACK), Ok(())),
            (client, there(ACK), Ok(())),
            (server, back(SYN), Err(PolicyDenied)),
            (client, there(ACK), Ok(())),
            (server, back(ACK), Ok(())),
        ],
    );
    let (there, back) = steps(run.number());
    run.case(
        "tuple re-use",
        "SYN of the responder before it answered",
        policy,
        &[
            (client, there(SYN), Ok(())),
            (server, back(SYN), Err(PolicyDenied)),
            (server, back(SYN | ACK), Ok(())),
        ],
    );
    let (there, back) = steps(run.number());
    run.case(
        "tuple re-use",
        "SYN of the responder on a closing connection",
        policy,
        &[
            (client, there(SYN), Ok(())),
            (server, back(SYN | ACK), Ok(())),
            (client, there(RST), Ok(())),
            (server, back(SYN), Err(PolicyDenied)),
        ],
    );
    let (there, back) = steps(run.number());
    run.case(
        "tuple re-use",
        "SYN of the initiator on a closing connection",
        policy,
        &[
            (client, there(SYN), Ok(())),
            (server, back(SYN | ACK), Ok(())),
            (client, there(RST), Ok(())),
            (client, there(SYN), Ok(())),
        ],
    );
}
