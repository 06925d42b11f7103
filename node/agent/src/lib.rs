//! The node's control loop: endpoints, identities, policy, flows.

pub mod config;
pub mod flows;
pub mod metrics;
