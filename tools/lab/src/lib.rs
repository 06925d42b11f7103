//! A cluster on one machine: nodes and pods are network namespaces.
//!
//! `up` builds the network and starts the `daemon`; the daemon runs the store, the operator and the
//! agents, and plays what Heddle expects around it: scheduler, Deployment controller, kubelet and the
//! cloud's route table. The other modules are what the `heddle lab` commands do.
// A lab enters namespaces between fork and exec, which only `pre_exec` and `fork` can do.
#![allow(unsafe_code)]

pub mod apply;
pub mod calls;
pub mod cgroup;
pub mod config;
pub mod connectivity;
pub mod control;
pub mod daemon;
pub mod delete;
pub mod describe;
pub mod down;
pub mod enter;
pub mod error;
pub mod events;
pub mod exec;
pub mod files;
pub mod get;
pub mod images;
pub mod label;
pub mod list;
pub mod logs;
pub mod manifests;
pub mod mirror;
pub mod namespace;
pub mod network;
pub mod paths;
pub mod pod;
pub mod status;
pub mod terminal;
pub mod time;
pub mod topology;
pub mod up;
pub mod wait;

pub use error::LabError;
