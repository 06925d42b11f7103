//! Reflection: frames off a link that bear the address of this node or of its pods.

use crate::{
    bed,
    craft::{self, datagram, fragments, segment},
    lab::{Lab, PORT, foe, friend, ip},
    raw::Wire,
    table::{Expect, Table},
};
use heddle_abi::DropReason::InvalidSourceIp;

const IP_IN_IP: u8 = 4;
const KINDS: [&str; 8] = [
    "UDP",
    "SYN",
    "SYN-ACK",
    "RST",
    "first fragment",
    "later fragment",
    "IP in IP",
    "unreadable",
];

#[test]
fn nobody_outside_sends_in_a_local_name() {
    let mut table = Table::default();
    for (overlay, host_routing) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(overlay, host_routing);
        for v6 in [false, true] {
            let of = |v4: &str, other: &str| ip(if v6 { other } else { v4 });
            let mut sources = vec![
                ("a pod of this node", lab.neighbour(v6)),
                ("the victim", lab.victim(v6)),
                ("this node", of("172.31.1.2", "fd31:1::2")),
            ];
            if overlay {
                sources.push((
                    "a pod of the other node",
                    of("10.244.2.2", "fd10:244:0:2::2"),
                ));
                sources.push((
                    "an unassigned address",
                    of("10.244.2.99", "fd10:244:0:2::99"),
                ));
                sources.push(("this node's range", of("10.244.1.99", "fd10:244:0:1::99")));
            }
            let destinations = [
                ("a pod of this node", lab.victim(v6)),
                ("another pod of this node", lab.neighbour(v6)),
                ("a pod of the other node", foe(v6)),
                ("this node", of("172.31.1.2", "fd31:1::2")),
                ("the other node", of("172.31.2.2", "fd31:2::2")),
                (
                    "this node's second address",
                    of("172.31.1.77", "fd31:1::77"),
                ),
                ("every node on the link", of("172.31.1.255", "ff02::1")),
                ("world", of("203.0.113.9", "2001:db8::9")),
            ];
            for (from, source) in &sources {
                for (to, destination) in &destinations {
                    for kind in KINDS {
                        let name = format!(
                            "{kind} from {from} to {to}, IPv6 {v6}, overlay {overlay}, host routing {host_routing}"
                        );
                        let ends = (*source, *destination);
                        let expect = Expect::Dropped(InvalidSourceIp);
                        let class = "G reflection";
                        lab.outside_case(&mut table, class, &name, expect, |marker| {
                            let ports = (4000, PORT);
                            let long = [marker, &[0; 8], marker].concat();
                            let [first, later] = fragments(&datagram(ends, ports, &long), 40, 7);
                            vec![match kind {
                                "UDP" => datagram(ends, ports, marker),
                                "SYN" => segment(ends, ports, 2, marker),
                                "first fragment" => first,
                                "later fragment" => later,
                                "IP in IP" => {
                                    craft::ip(ends, IP_IN_IP, &datagram(ends, ports, marker))
                                }
                                "unreadable" => craft::ip(ends, 0xfd, marker),
                                "SYN-ACK" => segment(ends, ports, 18, marker),
                                _ => segment(ends, ports, 4, marker),
                            }]
                        });
                    }
                }
            }
        }
    }
    table.finish();
}

/// A node may have links that no program sees, and a stack that looks at no source address.
#[test]
fn no_other_link_leads_to_a_pod_in_anothers_name() {
    let mut table = Table::default();
    for (overlay, host_routing) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(overlay, host_routing);
        let (node, router) = (lab.bed.node(), lab.bed.outside());
        assert!(bed::sh(&format!(
            "ip -n {node} link add side type veth peer name side netns {router}
             ip -n {node} link set side up; ip -n {router} link set side up
             ip netns exec {node} sh -c 'for d in all side; do
               echo 0 >/proc/sys/net/ipv4/conf/$d/rp_filter; done'"
        )));
        let side = Wire::open(router, "side");
        let node_mac = Wire::open(node, "side").mac;
        for v6 in [false, true] {
            let mode = format!("IPv6 {v6}, overlay {overlay}, host routing {host_routing}");
            let forged = Expect::Dropped(InvalidSourceIp);
            for (who, source, expect) in [
                ("a pod of this node", lab.neighbour(v6), forged),
                ("the victim", lab.victim(v6), forged),
                ("a pod of another node", friend(v6), Expect::Delivered),
            ] {
                let marker = lab.marker();
                let packet = datagram((source, lab.victim(v6)), (4000, PORT), &marker);
                let frame = craft::frame(node_mac, side.mac, &packet);
                let outcome = lab.send(&side, &[frame], &marker);
                table.record("G other link", &format!("{who}, {mode}"), expect, &outcome);
            }
        }
    }
    table.finish();
}
