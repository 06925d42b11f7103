//! The CNI plugin: what the runtime asks, and what it is told.
//!
//! The plugin keeps no state and touches no network: it checks what the runtime hands it, asks the agent
//! over its socket, and prints the answer in the shape of the version that was asked for. The one thing
//! it writes is a queue of deletions that the agent has not heard of yet ([`heddle_rpc::pending`]).
#![forbid(unsafe_code)]

mod config;
mod environment;
mod error;
mod plugin;
mod result;
mod version;

pub use config::{DEFAULT_AGENT_SOCKET, NetworkConfig, PluginSettings};
pub use environment::{Command, Environment};
pub use error::{CniError, codes};
pub use plugin::{Outcome, run};
pub use result::render;
pub use version::Version;
