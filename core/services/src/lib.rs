//! Services and EndpointSlices in, frontends and backends out, with a reason for each backend.
//!
//! [`WrittenService::read`] and [`WrittenEndpointSlice::read`] turn objects into values and say what of them cannot
//! be used. [`Services`] holds the values and computes an [`Outcome`] per Service: the addresses and ports that this
//! node serves, and for each of them which backends take connections and why the others do not. [`make_slices`] does
//! what an EndpointSlice controller does, for clusters without one.
#![forbid(unsafe_code)]

mod address;
mod backend;
mod balance;
mod conflict;
mod maglev;
mod make;
mod node;
mod outcome;
mod problem;
mod select;
mod service;
mod slice;
mod table;

pub use address::AddressFault;
pub use backend::{AdminState, BackendKey, Probe, Protocol};
pub use conflict::{Kind, Subject};
pub use heddle_model::Family;
pub use maglev::{Maglev, MaglevConfig, TABLE_SIZES, TableSizeError};
pub use make::{HintsRefused, MAX_ENDPOINTS_PER_SLICE, Made, NodeCapacity, Pod, make_slices};
pub use node::{HostPort, HostPortPod, Node};
pub use outcome::{
    Backend, Behind, Frontend, HealthCheck, MAX_BACKENDS, NoBackend, Outcome, Scope, Selection,
};
pub use problem::{Fault, MAX_PROBLEMS, Problem};
pub use select::{BackendState, InReason, OutReason, Topology};
pub use service::{
    Algorithm, ClusterFacts, ClusterIps, DEFAULT_AFFINITY_TIMEOUT, Distribution, FamilyPolicy,
    Ignored, Ingress, IngressMode, MAX_ADDRESSES, MAX_AFFINITY_TIMEOUT, MAX_PORTS,
    MAX_SOURCE_RANGES, Service, ServicePort, ServiceType, Sources, Target, TrafficPolicy,
    WrittenIngress, WrittenPort, WrittenService,
};
pub use slice::{
    Conditions, DEFAULT_WEIGHT, Endpoint, EndpointSlice, Hints, MAX_HINTS, MAX_SLICE_ENDPOINTS,
    MAX_SLICE_PORTS, SlicePort, WrittenEndpoint, WrittenEndpointSlice, WrittenSlicePort,
};
pub use table::Services;
