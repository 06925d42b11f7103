//! Classes of addresses that no pod may send to.

use crate::{
    bed::packets::{SYN, TCP, UDP, ip, tcp, udp},
    scene::{Actor, Policy, Run},
};
use heddle_abi::DropReason::StaleOrUnroutableIp;

pub fn cases(run: &Run<'_>) {
    let refused = Err(StaleOrUnroutableIp);
    let destinations: &[(&str, _)] = if run.v6 {
        &[
            ("::1", refused),
            ("::", refused),
            ("ff02::1", refused),
            ("ff05::2", refused),
            ("ff0e::1", refused),
            ("fe80::23:1", refused),
            ("fe80::1234", refused),
            ("2001:db8:9::9", Ok(())),
        ]
    } else {
        &[
            ("127.0.0.1", refused),
            ("127.255.255.254", refused),
            ("0.0.0.0", refused),
            ("0.1.2.3", refused),
            ("224.0.0.251", refused),
            ("239.1.1.1", refused),
            ("240.0.0.1", refused),
            ("255.255.255.255", refused),
            ("169.254.23.1", refused),
            ("169.254.169.254", Ok(())),
            ("198.51.100.9", Ok(())),
        ]
    };
    for (text, wished) in destinations {
        let (source, to) = (run.address(Actor::A), text.parse().unwrap());
        let port = run.number();
        for (name, protocol, payload) in [
            ("TCP", TCP, tcp((port, 80), SYN)),
            ("UDP", UDP, udp((port, 53))),
        ] {
            run.case(
                "address classes",
                &format!("{name} to {text}"),
                Policy::Open,
                &[(Actor::A, ip(source, to, protocol, &payload), *wished)],
            );
        }
    }
}
