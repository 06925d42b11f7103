//! Kubernetes objects as Heddle reads them, and the Store they live in.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod configuration;
pub mod identity;
pub mod lease;
pub mod manifest;
pub mod objects;
pub mod pod;
pub mod policy;
pub mod process_lock;
pub mod schema;
pub mod service;
pub mod store;
pub mod timestamp;
