//! Addresses that mean something only inside a host: a pod reaches none of the node's.

use crate::{
    craft::{datagram, segment, with_options},
    lab::{Lab, PORT, ip},
    raw::Wire,
    table::{Expect, Place, Table},
};
use heddle_abi::DropReason::{InvalidPacketDropped, InvalidSourceIp, StaleOrUnroutableIp};

#[test]
fn a_pod_reaches_no_loopback_and_no_gateway() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let lab = Lab::new(false, host_routing);
        // A node that is as open as its administrator can make it.
        assert!(crate::bed::sh(&format!(
            "ip netns exec {} sh -c 'for d in all default hd1 hd2; do
               echo 1 >/proc/sys/net/ipv4/conf/$d/route_localnet
               echo 1 >/proc/sys/net/ipv4/conf/$d/accept_local; done'",
            lab.bed.node()
        )));
        let loopback = Wire::open(lab.bed.node(), "lo");
        let link_local = crate::bed::said(&format!(
            "ip -n {} -6 -o addr show dev hd2 scope link | sed 's/.*inet6 //;s,/.*,,'",
            lab.bed.node()
        ));
        let unroutable = Expect::Dropped(StaleOrUnroutableIp);
        let malformed = Expect::Dropped(InvalidPacketDropped);
        let destinations = [
            ("127.0.0.1", unroutable),
            ("127.0.0.53", unroutable),
            ("127.255.255.255", unroutable),
            ("0.0.0.0", unroutable),
            ("0.0.0.1", unroutable),
            ("169.254.23.1", unroutable),
            ("224.0.0.1", unroutable),
            ("240.0.0.1", unroutable),
            ("255.255.255.255", unroutable),
            ("::1", unroutable),
            ("::", unroutable),
            ("fe80::23:1", unroutable),
            ("ff02::1", unroutable),
            ("ff01::1", unroutable),
            (link_local.trim(), unroutable),
            ("::ffff:127.0.0.1", malformed),
        ];
        for (text, expect) in destinations
            .into_iter()
            .filter(|(text, _)| !text.is_empty())
        {
            let destination = ip(text);
            let v6 = text.contains(':');
            let ends = (lab.neighbour(v6), destination);
            for kind in ["UDP", "SYN", "UDP behind options"] {
                if kind == "UDP behind options" && !v6 {
                    continue;
                }
                let name = format!("{kind} to {text}, host routing {host_routing}");
                lab.pod_case(&mut table, "H martians", &name, expect, |marker| {
                    vec![match kind {
                        "UDP" => datagram(ends, (4000, PORT), marker),
                        "SYN" => segment(ends, (4000, PORT), 2, marker),
                        _ => with_options(&datagram(ends, (4000, PORT), marker), 1),
                    }]
                });
                let heard = loopback.arrived().len();
                let name = format!("the node's loopback hears nothing: {name}");
                table.check("H martians", &name, heard == 0, &format!("{heard} packets"));
            }
        }
        // What these would be answered to, from a pod that claims to be the node.
        for (from, to) in [
            ("127.0.0.1", "172.31.1.2"),
            ("172.31.1.2", "172.31.1.2"),
            ("169.254.23.1", "172.31.1.2"),
            ("::1", "fd31:1::2"),
            ("fd31:1::2", "fd31:1::2"),
            ("fe80::23:1", "fd31:1::2"),
        ] {
            let name = format!("from {from} to {to}, host routing {host_routing}");
            let expect = Expect::Dropped(InvalidSourceIp);
            lab.pod_case(&mut table, "H martians", &name, expect, |marker| {
                vec![datagram((ip(from), ip(to)), (4000, PORT), marker)]
            });
        }
        // The same listener does hear what is for the node.
        for to in ["172.31.1.2", "fd31:1::2"] {
            let ends = (lab.neighbour(to.contains(':')), ip(to));
            let marker = lab.marker();
            let frame = lab.neighbour_frame(&datagram(ends, (4000, PORT), &marker));
            let outcome = lab.send(&lab.in_neighbour, &[frame], &marker);
            let right = outcome.places == [Place::Node] && outcome.drops.is_empty();
            let name = format!("to {to}, host routing {host_routing}");
            table.check("H the node itself", &name, right, &format!("{outcome:?}"));
        }
    }
    table.finish();
}
