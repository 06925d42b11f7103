//! Tunnels: who may encapsulate, and for whom.

use crate::{
    bed::{self, deny_all},
    craft::{VXLAN, datagram, encapsulated, fragments, with_options},
    lab::{FRIEND, Lab, PORT, foe, friend, ip, unassigned},
    table::{Expect, Place, Table},
};
use heddle_abi::DropReason::{
    EncapsulationTrafficIsProhibited, FirstLogicalDatagramFragmentNotFound,
    InvalidIpv6ExtensionHeader, InvalidSourceIp, PolicyDenied, StaleOrUnroutableIp,
};
use std::net::IpAddr;

fn for_each_mode(test: impl Fn(&Lab, &mut Table, &str, bool)) {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let lab = Lab::new(true, host_routing);
        for v6 in [false, true] {
            let mode = format!(
                "inner {}, host routing {host_routing}",
                if v6 { "IPv6" } else { "IPv4" }
            );
            test(&lab, &mut table, &mode, v6);
        }
    }
    table.finish();
}

/// Changes an outer packet.
type Form = fn(&[u8]) -> Vec<Vec<u8>>;

#[test]
fn only_nodes_may_encapsulate() {
    let plain: Form = |packet| vec![packet.to_vec()];
    let in_fragments: Form = |packet| fragments(packet, 24, 77).to_vec();
    let one_header: Form = |packet| vec![with_options(packet, 1)];
    let five_headers: Form = |packet| vec![with_options(packet, 5)];
    let late_header: Form = |packet| fragments(&with_options(packet, 2), 16, 78).to_vec();
    let forms: [(&str, &str, Form, bool); 10] = [
        ("to the node", "172.31.1.2", plain, true),
        ("to the node's second address", "172.31.1.77", plain, true),
        ("broadcast", "172.31.1.255", plain, true),
        ("limited broadcast", "255.255.255.255", plain, true),
        ("multicast", "224.0.0.1", plain, true),
        ("in fragments", "172.31.1.2", in_fragments, true),
        ("to the node", "fd31:1::2", plain, true),
        ("one extension header", "fd31:1::77", one_header, true),
        // Only the device can read these.
        ("five extension headers", "fd31:1::2", five_headers, false),
        (
            "the header in a later fragment",
            "fd31:1::2",
            late_header,
            false,
        ),
    ];
    // Outer source, and the reason at the uplink.
    let outer4 = [
        ("world", "198.51.100.7", EncapsulationTrafficIsProhibited),
        (
            "on the link",
            "172.31.1.99",
            EncapsulationTrafficIsProhibited,
        ),
        ("the router", "172.31.1.1", EncapsulationTrafficIsProhibited),
        ("loopback", "127.0.0.1", EncapsulationTrafficIsProhibited),
        ("this node", "172.31.1.2", InvalidSourceIp),
        ("a pod of this node", "10.244.1.3", InvalidSourceIp),
        ("a pod of the other node", "10.244.2.2", InvalidSourceIp),
    ];
    let outer6 = [
        ("world", "2001:db8::7", EncapsulationTrafficIsProhibited),
        (
            "on the link",
            "fd31:1::99",
            EncapsulationTrafficIsProhibited,
        ),
        ("link-local", "fe80::99", EncapsulationTrafficIsProhibited),
        ("this node", "fd31:1::2", InvalidSourceIp),
        ("a pod of this node", "fd10:244:0:1::3", InvalidSourceIp),
        (
            "a pod of the other node",
            "fd10:244:0:2::2",
            InvalidSourceIp,
        ),
    ];
    for_each_mode(|lab, table, mode, v6| {
        let inner_sources = [
            ("friend", friend(v6)),
            ("unassigned", unassigned(v6)),
            ("pod of this node", lab.neighbour(v6)),
        ];
        for (form, destination, change, is_read) in forms {
            let destination = ip(destination);
            let sources: &[_] = if destination.is_ipv4() {
                &outer4
            } else {
                &outer6
            };
            for (who, source, reason) in sources {
                for (inner_name, inner) in inner_sources {
                    let expect = if is_read || *reason == InvalidSourceIp {
                        Expect::Dropped(*reason)
                    } else {
                        Expect::Nowhere
                    };
                    let name = format!(
                        "{form} {destination}, outer source {who}, inner {inner_name}, {mode}"
                    );
                    lab.outside_case(table, "F outer header", &name, expect, |marker| {
                        let packet = datagram((inner, lab.victim(v6)), (4000, PORT), marker);
                        change(&encapsulated((ip(source), destination), FRIEND, &packet))
                    });
                }
            }
        }
    });
}

#[test]
fn nodes_encapsulate_for_their_own_pods_only() {
    let delivered = Expect::Delivered;
    let forged = Expect::Dropped(InvalidSourceIp);
    let denied = Expect::Dropped(PolicyDenied);
    for_each_mode(|lab, table, mode, v6| {
        let of = |v4: &str, other: &str| ip(if v6 { other } else { v4 });
        let sources: Vec<(&str, IpAddr, Expect)> = vec![
            ("its pod", friend(v6), delivered),
            ("its pod that may not", foe(v6), denied),
            ("itself", of("172.31.2.2", "fd31:2::2"), denied),
            (
                "a third node's pod",
                of("10.244.3.2", "fd10:244:0:3::2"),
                forged,
            ),
            (
                "a third node's range",
                of("10.244.3.99", "fd10:244:0:3::99"),
                forged,
            ),
            ("a third node", of("172.31.3.2", "fd31:3::2"), forged),
            (
                "this node's range",
                of("10.244.1.99", "fd10:244:0:1::99"),
                forged,
            ),
            ("a pod of this node", lab.neighbour(v6), forged),
            ("the receiver", lab.victim(v6), forged),
            ("this node", of("172.31.1.2", "fd31:1::2"), forged),
            ("nobody", of("203.0.113.9", "2001:db8::9"), forged),
            ("loopback", of("127.0.0.1", "::1"), forged),
            ("unspecified", of("0.0.0.0", "::"), forged),
            ("multicast", of("224.0.0.1", "ff02::1"), forged),
            ("link-local", of("169.254.23.1", "fe80::23:1"), forged),
        ];
        let vnis = [FRIEND, 0, 1, 65_536 + FRIEND, 0xff_ffff];
        let outer = (ip("172.31.2.2"), ip("172.31.1.2"));
        for vni in vnis {
            for (who, source, expect) in &sources {
                let name = format!("inner source {who}, VNI {vni}, {mode}");
                lab.outside_case(table, "F inner source", &name, *expect, |marker| {
                    let packet = datagram((*source, lab.victim(v6)), (4000, PORT), marker);
                    vec![encapsulated(outer, vni, &packet)]
                });
            }
            // Of an address in its range that is not known yet, the node that owns the range tells. At the pod's link,
            // where its policy is enforced without host routing, the VNI is gone and the address unmanaged.
            let is_told = vni == FRIEND && mode.ends_with("host routing true");
            let expect = if is_told { delivered } else { denied };
            let name = format!("inner source unassigned, VNI {vni}, {mode}");
            lab.outside_case(table, "F inner source", &name, expect, |marker| {
                let packet = datagram((unassigned(v6), lab.victim(v6)), (4000, PORT), marker);
                vec![encapsulated(outer, vni, &packet)]
            });
        }
        let forms: [(&str, (&str, &str), Form, Expect); 6] = [
            (
                "to the second address",
                ("172.31.2.2", "172.31.1.77"),
                |p| vec![p.to_vec()],
                delivered,
            ),
            (
                "in fragments",
                ("172.31.2.2", "172.31.1.2"),
                |p| fragments(p, 24, 99).to_vec(),
                delivered,
            ),
            // The second node's underlay address is its IPv4 one.
            (
                "by its other family",
                ("fd31:2::2", "fd31:1::2"),
                |p| vec![p.to_vec()],
                forged,
            ),
            (
                "by a third node",
                ("172.31.3.2", "172.31.1.2"),
                |p| vec![p.to_vec()],
                forged,
            ),
            (
                "by a third node",
                ("fd31:3::2", "fd31:1::2"),
                |p| vec![p.to_vec()],
                forged,
            ),
            (
                "by a third node",
                ("fd31:3::2", "fd31:1::2"),
                |p| vec![with_options(p, 5)],
                forged,
            ),
        ];
        for (form, (from, to), change, expect) in forms {
            let name = format!("{form} {from} {to}, {mode}");
            lab.outside_case(table, "F outer node", &name, expect, |marker| {
                let packet = datagram((friend(v6), lab.victim(v6)), (4000, PORT), marker);
                change(&encapsulated((ip(from), ip(to)), FRIEND, &packet))
            });
        }
        for headers in [0, 1, 5] {
            let name = format!("a third node's pod by IPv6, {headers} extension headers, {mode}");
            lab.outside_case(table, "F outer node", &name, delivered, |marker| {
                let source = of("10.244.3.2", "fd10:244:0:3::2");
                let packet = datagram((source, lab.victim(v6)), (4000, PORT), marker);
                let outer = (ip("fd31:3::2"), ip("fd31:1::2"));
                let packet = encapsulated(outer, FRIEND, &packet);
                vec![if headers == 0 {
                    packet
                } else {
                    with_options(&packet, headers)
                }]
            });
        }
        let destinations = [
            (
                "nobody's pod address",
                of("10.244.1.99", "fd10:244:0:1::99"),
            ),
            ("a pod of the sender", foe(v6)),
            ("world", of("203.0.113.9", "2001:db8::9")),
            (
                "another address of the node",
                of("172.31.1.77", "fd31:1::77"),
            ),
            ("the router", of("172.31.1.1", "fd31:1::1")),
            ("loopback", of("127.0.0.1", "::1")),
            ("multicast", of("224.0.0.1", "ff02::1")),
        ];
        for (to, destination) in destinations {
            let name = format!("inner destination {to}, {mode}");
            let expect = Expect::Dropped(StaleOrUnroutableIp);
            lab.outside_case(table, "F inner destination", &name, expect, |marker| {
                let packet = datagram((friend(v6), destination), (4000, PORT), marker);
                vec![encapsulated(outer, FRIEND, &packet)]
            });
        }
    });
}

#[test]
fn pods_do_not_encapsulate() {
    for_each_mode(|lab, table, mode, v6| {
        let prohibited = Expect::Dropped(EncapsulationTrafficIsProhibited);
        let of = |v4: &str, other: &str| ip(if v6 { other } else { v4 });
        let destinations = [
            ("this node", of("172.31.1.2", "fd31:1::2")),
            ("its second address", of("172.31.1.77", "fd31:1::77")),
            ("the other node", of("172.31.2.2", "fd31:2::2")),
            ("a third node", of("172.31.3.2", "fd31:3::2")),
            ("world", of("203.0.113.9", "2001:db8::9")),
        ];
        for (to, destination) in destinations {
            let outer = |marker: &[u8]| {
                let packet = datagram((friend(v6), lab.victim(v6)), (4000, PORT), marker);
                encapsulated((lab.neighbour(v6), destination), FRIEND, &packet)
            };
            let class = "F from a pod";
            let name = format!("to {to}, {mode}");
            lab.pod_case(table, class, &name, prohibited, |marker| {
                vec![outer(marker)]
            });
            let name = format!("to {to}, first fragment, {mode}");
            lab.pod_case(table, class, &name, prohibited, |marker| {
                vec![fragments(&outer(marker), 32, 5)[0].clone()]
            });
            let name = format!("to {to}, later fragment, {mode}");
            let no_first = Expect::Dropped(FirstLogicalDatagramFragmentNotFound);
            lab.pod_case(table, class, &name, no_first, |marker| {
                vec![fragments(&outer(marker), 32, 5)[1].clone()]
            });
            if v6 {
                for (headers, expect) in [
                    (1, prohibited),
                    (5, Expect::Dropped(InvalidIpv6ExtensionHeader)),
                ] {
                    let name = format!("to {to}, {headers} extension headers, {mode}");
                    lab.pod_case(table, class, &name, expect, |marker| {
                        vec![with_options(&outer(marker), headers)]
                    });
                }
            }
        }
    });
}

#[test]
fn what_a_node_encapsulates_is_an_ip_packet() {
    for_each_mode(|lab, table, mode, v6| {
        let of = |v4: &str, other: &str| ip(if v6 { other } else { v4 });
        let outer = (ip("172.31.2.2"), ip("172.31.1.2"));
        let good = |marker: &[u8]| {
            let inner = datagram((friend(v6), lab.victim(v6)), (4000, PORT), marker);
            encapsulated(outer, FRIEND, &inner)
        };
        let mut case = |name: &str, expect, packets: &dyn Fn(&[u8]) -> Vec<Vec<u8>>| {
            let name = format!("{name}, {mode}");
            lab.outside_case(table, "F malformed", &name, expect, packets);
        };
        // Where the VXLAN header and the inner frame begin.
        let (header, frame) = (28, 36);
        let changed = |marker: &[u8], at: usize, bytes: &[u8]| {
            let mut packet = good(marker);
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            // No checksum.
            packet[26..28].fill(0);
            vec![packet]
        };
        case("as it should be", Expect::Delivered, &|marker| {
            vec![good(marker)]
        });
        case("no VNI", Expect::Nowhere, &|marker| {
            changed(marker, header, &[0])
        });
        case("every flag", Expect::Nowhere, &|marker| {
            changed(marker, header, &[0xff])
        });
        case("a wrong checksum", Expect::Nowhere, &|marker| {
            let mut packet = good(marker);
            packet[26] ^= 0x55;
            vec![packet]
        });
        for (name, ethertype) in [
            ("ARP", [8, 6]),
            ("VLAN", [0x81, 0]),
            ("MPLS", [0x88, 0x47]),
            ("the other family", if v6 { [8, 0] } else { [0x86, 0xdd] }),
        ] {
            case(&format!("inner {name}"), Expect::Nowhere, &|marker| {
                changed(marker, frame + 12, &ethertype)
            });
        }
        for length in [0, 8, 13, 22, 30, 40] {
            case(
                &format!("cut to {length} bytes"),
                Expect::Nowhere,
                &|marker| {
                    let packet = good(marker);
                    vec![datagram(
                        outer,
                        (50_000, VXLAN),
                        &packet[header..header + length],
                    )]
                },
            );
        }
        // The device opens what comes out of it for the node's own address once more.
        let forged = Expect::Dropped(InvalidSourceIp);
        for (name, middle, reason) in [
            ("another node's pod", friend(v6), forged),
            ("an unassigned address", unassigned(v6), forged),
        ] {
            case(&format!("nested, by {name}"), reason, &|marker| {
                let inner = datagram((friend(v6), lab.victim(v6)), (4000, PORT), marker);
                let to = of("172.31.1.2", "fd31:1::2");
                let inner = encapsulated((middle, to), FRIEND, &inner);
                vec![encapsulated(outer, FRIEND, &inner)]
            });
        }
    });
}

#[test]
fn a_nodes_policy_lets_tunnels_in_fragments_pass() {
    for_each_mode(|lab, table, mode, v6| {
        let class = "F fragments under host policy";
        lab.bed.set_node_policy(Some(&deny_all()));
        // Less than what the overlay's device puts into one packet.
        let node = lab.bed.node();
        assert!(bed::sh(&format!("ip -n {node} link set eth0 mtu 1400")));
        for (by, expect) in [
            (("172.31.2.2", "172.31.1.2"), Expect::Delivered),
            (("172.31.2.2", "172.31.1.77"), Expect::Delivered),
            (("198.51.100.7", "172.31.1.2"), Expect::Nowhere),
        ] {
            let outer = (ip(by.0), ip(by.1));
            let name = format!("into the node, {by:?}, {mode}");
            lab.outside_case(table, class, &name, expect, |marker| {
                let packet = datagram((friend(v6), lab.victim(v6)), (4000, PORT), marker);
                fragments(&encapsulated(outer, FRIEND, &packet), 24, 99).to_vec()
            });
        }
        let name = format!("another datagram of a node, {mode}");
        let denied = Expect::Dropped(PolicyDenied);
        lab.outside_case(table, class, &name, denied, |marker| {
            let ends = (ip("172.31.2.2"), ip("172.31.1.2"));
            fragments(&datagram(ends, (4000, PORT), marker), 8, 99)[..1].to_vec()
        });
        // Only the later fragment bears the marker.
        let marker = lab.marker();
        let payload = [&[0; 1340][..], &marker].concat();
        let packet = datagram((lab.neighbour(v6), friend(v6)), (4000, PORT), &payload);
        let frame = lab.neighbour_frame(&packet);
        let outcome = lab.send(&lab.in_neighbour, &[frame], &marker);
        let right = outcome.places == [Place::Outside] && outcome.drops.is_empty();
        let name = format!("out of the node, {mode}");
        table.check(class, &name, right, &format!("{outcome:?}"));
    });
}
