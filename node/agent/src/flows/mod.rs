//! Flows: kernel events are decoded, remembered and handed to those who observe.

mod devices;
mod explain;
mod hub;
mod ring;
#[cfg(test)]
pub(crate) mod simulated;

pub(crate) use devices::Devices;
pub use explain::Explainer;
pub use hub::{FlowHub, HubOptions, HubStatus, Observation, ObserveError};
