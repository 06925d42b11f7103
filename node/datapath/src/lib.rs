//! Loads and attaches the eBPF programs, keeps their maps, and sets up links and routes.
//!
//! [`Datapath`] is what the agent sees.

mod api;

pub use api::{
    CidrRow, ConnectionRow, Datapath, DatapathError, Facts, Feature, FeatureState, LinkSpec,
    MapUse, PeerRow, PodLink, RealisedEndpoint, RealisedPolicy,
};
