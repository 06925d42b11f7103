//! The node's control loop: endpoints, identities, policy, flows.
#![forbid(unsafe_code)]

pub mod config;
pub mod directory;
