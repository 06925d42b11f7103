//! The CNI plugin's protocol: what the runtime asks and what the agent answers.
//!
//! The plugin keeps no state and touches no network: it checks what the runtime hands it, asks the agent
//! over its socket, and prints the answer in the shape of the version that was asked for. The one thing
//! it writes is a queue of deletions that the agent has not heard of yet ([`pending`]).
#![forbid(unsafe_code)]

mod client;
mod config;
mod environment;
mod error;
pub mod pending;
mod plugin;
pub mod protocol;
mod result;
mod version;

pub use client::{AskError, ask};
pub use config::{DEFAULT_AGENT_SOCKET, NetworkConfig, PluginSettings, ValidAttachment};
pub use environment::{Command, Environment, PodArguments};
pub use error::{CniError, codes};
pub use plugin::{Outcome, run};
pub use result::render;
pub use version::Version;
