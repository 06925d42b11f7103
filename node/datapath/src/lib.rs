//! Loads and attaches the eBPF programs, keeps their maps, and sets up links and routes.
//!
//! [`Datapath`] is what the agent sees; [`KernelDatapath`] is the real one.
#![deny(unsafe_code)]

mod api;
mod attach;
mod background;
mod batch;
mod connections;
mod conversion;
mod cost;
mod events;
#[cfg(test)]
mod handover;
mod kernel;
mod map_of_maps;
mod maps;
mod netlink;
mod node_addresses;
mod object;
mod path;
mod pinned;
mod pinned_link;
mod pod_hooks;
mod policy;
mod routes;
mod settings;
mod takeover;

pub use api::{
    ConnectionRow, ConnectionRows, Counter, Datapath, DatapathError, Facts, Feature, FeatureState,
    LinkSpec, MapUse, PeerRow, PodLink, RealisedEndpoint, RealisedPolicy, RealisedRoutes,
};
pub use cost::ProgramSize;
pub use kernel::{KernelDatapath, link_name};
pub use object::{OBJECT, PROGRAMS};
pub use path::{PathPod, PathQuestion};
pub use pinned::{Bindings, Pinned};
pub use settings::Settings;
#[doc(hidden)]
pub use takeover::OpenStep;
pub use takeover::{Prepared, prepare_downgrade};
