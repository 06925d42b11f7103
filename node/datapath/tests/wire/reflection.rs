//! Reflection: frames off the link that bear the address of this node or of its pods.

use crate::{
    craft::{self, datagram, fragments, segment},
    lab::{Lab, PORT, foe, ip},
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
