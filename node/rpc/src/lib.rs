//! What travels over the sockets of a node: calls with the types of their parameters and answers, their one server and
//! their one client. A call is a line of JSON, and so is each answer.
//!
//! The embedded store has a protocol of its own, a floor below (`heddle_kube::store`).
#![forbid(unsafe_code)]

pub mod client;
pub mod cni;
pub mod durable;
mod error;
mod message;
#[cfg(feature = "node")]
pub mod node;
pub mod pending;
#[cfg(feature = "server")]
pub mod server;

pub use client::{Answers, CallError, Client};
pub use error::{ApiError, error_codes};
pub use message::{Call, Done, Request};
