//! Hostile packets on real links: what they say of themselves gets them nowhere, and the counter that the
//! table names counts them.
//!
//! Needs root. Everything lives in network namespaces that the tests make and remove.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by a panic, and its modules are nobody else's"
)]

#[path = "../bed/mod.rs"]
mod bed;
mod craft;
mod errors;
mod floods;
mod lab;
mod martians;
mod raw;
mod reflection;
mod resets;
mod reuse;
mod table;
mod tunnels;
mod vlans;
