//! Pods: what a manifest asks for, and the kubelet's work of running it.

pub mod capabilities;
pub mod cni;
pub mod container;
pub mod output;
pub mod probe;
pub mod runtime;
pub mod sandbox;
pub mod spec;
pub mod status;
pub mod worker;
