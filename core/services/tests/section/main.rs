//! What a Service leads to on a node, line by line of what Services can be, and what becomes of bad input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod conflicts;
mod endpoints;
mod hosts;
mod policies;
mod types;
mod world;
