//! Frames off the uplink with a source that cannot be there, and tunnels that nobody may open.

use crate::{
    bed::packets::{UDP, ip, udp},
    scene::{Actor, Policy, Run},
};
use heddle_abi::DropReason::{EncapsulationTrafficIsProhibited, InvalidSourceIp};

pub fn cases(run: &Run<'_>) {
    let mut sources = vec![Actor::A, Actor::B, Actor::Node];
    if run.scene.overlay {
        sources.push(Actor::OtherPod);
    }
    for policy in [Policy::Open, Policy::ClientNode] {
        for source in &sources {
            for to in [Actor::C, Actor::Node, Actor::OtherPod, Actor::World] {
                if *source == to {
                    continue;
                }
                let (from, destination) = run.ends(*source, to);
                run.case(
                    "spoofing off the uplink",
                    &format!("source {source:?}, to {to:?}"),
                    policy,
                    &[(
                        Actor::World,
                        ip(from, destination, UDP, &udp((run.number(), 53))),
                        Err(InvalidSourceIp),
                    )],
                );
            }
        }
    }
    let sources: &[&str] = if run.v6 {
        &["::1", "::", "ff02::1"]
    } else {
        &["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]
    };
    for source in sources {
        let packet = ip(
            source.parse().unwrap(),
            run.address(Actor::A),
            UDP,
            &udp((run.number(), 53)),
        );
        run.case(
            "spoofing off the uplink",
            &format!("source {source}, to A"),
            Policy::Open,
            &[(Actor::World, packet, Err(InvalidSourceIp))],
        );
    }
    tunnels(run);
}

fn tunnels(run: &Run<'_>) {
    const PORT: u16 = 8472;
    let class = "tunnels";
    let refused = Err(EncapsulationTrafficIsProhibited);
    let mut from_pod = vec![(Actor::Node, refused), (Actor::OtherNode, refused)];
    from_pod.push((
        Actor::World,
        if run.scene.overlay { refused } else { Ok(()) },
    ));
    for (to, wished) in from_pod {
        let (source, destination) = run.ends(Actor::A, to);
        run.case(
            class,
            &format!("VXLAN of a pod to {to:?}"),
            Policy::Open,
            &[(
                Actor::A,
                ip(source, destination, UDP, &udp((run.number(), PORT))),
                wished,
            )],
        );
    }
    if !run.scene.overlay {
        return;
    }
    let node = run.address(Actor::Node);
    let broadcast = run.either("172.31.1.255", "ff02::1");
    let multicast = run.either("224.0.0.1", "ff05::1");
    for destination in [node, broadcast, multicast] {
        run.case(
            class,
            &format!("VXLAN of a stranger to {destination}"),
            Policy::Open,
            &[(
                Actor::World,
                ip(
                    run.address(Actor::World),
                    destination,
                    UDP,
                    &udp((run.number(), PORT)),
                ),
                refused,
            )],
        );
    }
    run.case(
        class,
        "VXLAN of a node",
        Policy::Open,
        &[(
            Actor::OtherNode,
            ip(
                run.address(Actor::OtherNode),
                node,
                UDP,
                &udp((run.number(), PORT)),
            ),
            Ok(()),
        )],
    );
}
