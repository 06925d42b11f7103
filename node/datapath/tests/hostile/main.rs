//! Hostile packets at the hooks: a table that says of each case what must happen and which drop reason
//! counts it, in both fabrics, both routing modes and both families where they apply.
//!
//! Needs root. Frames are run by `BPF_PROG_TEST_RUN` and go nowhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test fails by a panic; its modules serve nobody else"
)]

#[path = "../bed/mod.rs"]
mod bed;

mod addresses;
mod fragments;
mod icmp;
mod scene;
mod spoofing;
mod tcp;

use scene::{Scene, Table};

#[test]
fn every_case_ends_as_the_table_says() {
    let table = Table::default();
    for overlay in [false, true] {
        for host_routing in [true, false] {
            let scene = Scene::new(overlay, host_routing);
            scene.bed.in_node(|| {
                for v6 in [false, true] {
                    let run = scene.run(&table, v6);
                    spoofing::cases(&run);
                    tcp::cases(&run);
                    icmp::cases(&run);
                    fragments::cases(&run);
                    addresses::cases(&run);
                }
            });
        }
    }
    table.finish();
}
