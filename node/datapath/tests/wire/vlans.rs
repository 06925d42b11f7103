//! Frames of a VLAN: those of a network that is not the nodes' do not become packets of it.

use crate::{
    craft::{VXLAN, datagram, encapsulated},
    lab::{FRIEND, Lab, PORT, contains, friend, ip},
    table::{Expect, Outcome, Place, Table},
};
use heddle_abi::DropReason::VlanFiltered;

/// Where a frame's EtherType is.
const ETHERTYPE: usize = 12;

fn tagged(frame: &[u8], tag: [u8; 4]) -> Vec<u8> {
    [&frame[..ETHERTYPE], &tag, &frame[ETHERTYPE..]].concat()
}

/// 802.1Q (VLAN 5, priority 3 of no VLAN) and 802.1ad.
const TAGS: [[u8; 4]; 3] = [[0x81, 0, 0, 5], [0x81, 0, 0x60, 0], [0x88, 0xa8, 0, 5]];

#[test]
fn a_pod_sends_no_tagged_frames() {
    let mut table = Table::default();
    for host_routing in [true, false] {
        let lab = Lab::new(false, host_routing);
        for v6 in [false, true] {
            for tag in TAGS {
                let marker = lab.marker();
                let ends = (lab.neighbour(v6), lab.victim(v6));
                let frame = lab.neighbour_frame(&datagram(ends, (4000, PORT), &marker));
                let outcome = lab.send(&lab.in_neighbour, &[tagged(&frame, tag)], &marker);
                let name = format!("{tag:02x?}, IPv6 {v6}, host routing {host_routing}");
                let expect = Expect::Dropped(VlanFiltered);
                table.record("K VLAN from a pod", &name, expect, &outcome);
            }
        }
    }
    table.finish();
}

/// Sends tagged frames at the uplink and in tunnels, and looks at each once it has gone by.
fn for_each_tagged(mut look: impl FnMut(&Lab, &str, &str, &Outcome, &[u8])) {
    for (overlay, host_routing) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(overlay, host_routing);
        for v6 in [false, true] {
            // A frame of VLAN 0 is one of the untagged network.
            for tag in [TAGS[0], TAGS[2]] {
                let name = format!(
                    "{tag:02x?}, IPv6 {v6}, overlay {overlay}, host routing {host_routing}"
                );
                let marker = lab.marker();
                let frame = tagged(&lab.outside_frame(&lab.good_packet(v6, &marker)), tag);
                let outcome = lab.send(&lab.outside, &[frame], &marker);
                look(&lab, "K VLAN at the uplink", &name, &outcome, &marker);
                if !overlay {
                    continue;
                }
                let marker = lab.marker();
                let outer = (ip("172.31.2.2"), ip("172.31.1.2"));
                let inner = datagram((friend(v6), lab.victim(v6)), (4000, PORT), &marker);
                let whole = encapsulated(outer, FRIEND, &inner);
                // Behind the outer headers: IPv4, UDP, VXLAN.
                let (header, frame) = whole[28..].split_at(8);
                let payload = [header, &tagged(frame, tag)].concat();
                let packet = datagram(outer, (50_000, VXLAN), &payload);
                let outcome = lab.send(&lab.outside, &[lab.outside_frame(&packet)], &marker);
                look(&lab, "K VLAN in a tunnel", &name, &outcome, &marker);
            }
        }
    }
}

#[test]
fn no_pods_stack_takes_tagged_frames() {
    let mut table = Table::default();
    for_each_tagged(|lab, class, name, _, marker| {
        let mut heard = lab.victim_heard();
        heard.retain(|datagram| contains(datagram, marker));
        table.check(
            class,
            name,
            heard.is_empty(),
            &format!("{} heard", heard.len()),
        );
    });
    table.finish();
}

#[test]
fn tagged_frames_reach_no_pods_link() {
    let mut table = Table::default();
    for_each_tagged(|_, class, name, outcome, _| {
        table.record(class, name, Expect::Nowhere, outcome);
    });
    table.finish();
}

/// Tags that the kernel takes off one after the other, only the outermost of them before the programs.
const NESTED: [&[[u8; 4]]; 5] = [
    &[[0x81, 0, 0, 0], [0x81, 0, 0, 0]],
    &[[0x88, 0xa8, 0, 0], [0x81, 0, 0, 0]],
    &[[0x81, 0, 0, 0], [0x88, 0xa8, 0, 0]],
    &[[0x81, 0, 0, 5], [0x81, 0, 0, 0]],
    &[[0x81, 0, 0, 0], [0x81, 0, 0, 0], [0x81, 0, 0, 0]],
];

#[test]
fn tags_within_tags_hide_no_packet() {
    let mut table = Table::default();
    for (overlay, host_routing) in [(false, true), (false, false), (true, true), (true, false)] {
        let lab = Lab::new(overlay, host_routing);
        for v6 in [false, true] {
            let of = |v4: &str, other: &str| ip(if v6 { other } else { v4 });
            let node = of("172.31.1.2", "fd31:1::2");
            let router = of("172.31.1.1", "fd31:1::1");
            let send = |packet: &[u8], tags: &[[u8; 4]], marker: &[u8]| {
                let frame = lab.outside_frame(packet);
                let frame = tags
                    .iter()
                    .rev()
                    .fold(frame, |frame, tag| tagged(&frame, *tag));
                lab.send(&lab.outside, &[frame], marker)
            };
            let mode = format!("IPv6 {v6}, overlay {overlay}, host routing {host_routing}");
            for tags in NESTED {
                let marker = lab.marker();
                let packets = [
                    ("a pod", lab.good_packet(v6, &marker)),
                    ("the node", datagram((router, node), (4000, PORT), &marker)),
                    (
                        "a pod in another's name",
                        datagram((lab.neighbour(v6), lab.victim(v6)), (4000, PORT), &marker),
                    ),
                    (
                        "a pod in the node's name",
                        datagram((node, lab.victim(v6)), (4000, PORT), &marker),
                    ),
                ];
                for (to, packet) in packets {
                    let outcome = send(&packet, tags, &marker);
                    let name = format!("{tags:02x?} to {to}, {mode}");
                    let expect = Expect::Dropped(VlanFiltered);
                    table.record("K nested tags", &name, expect, &outcome);
                }
            }
            // One tag that names no VLAN is none.
            for tag in [[0x81, 0, 0, 0], [0x81, 0, 0x60, 0]] {
                let marker = lab.marker();
                let packet = datagram((router, node), (4000, PORT), &marker);
                let outcome = send(&packet, &[tag], &marker);
                let right = outcome.places == [Place::Node] && outcome.drops.is_empty();
                let name = format!("{tag:02x?} to the node, {mode}");
                table.check("K priority tag", &name, right, &format!("{outcome:?}"));
                let marker = lab.marker();
                let outcome = send(&lab.good_packet(v6, &marker), &[tag], &marker);
                let name = format!("{tag:02x?} to a pod, {mode}");
                table.record("K priority tag", &name, Expect::Delivered, &outcome);
            }
        }
    }
    table.finish();
}
