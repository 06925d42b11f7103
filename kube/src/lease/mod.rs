//! Leader election over a Lease: of many candidates at most one leads at any time, while their clocks run at the
//! same speed. What they show does not matter.
//!
//! [`Election`] decides, and knows neither the store nor a clock. [`Candidate`] drives it, and [`LeaderStore`] is
//! a store that lets only the leader write.

mod candidate;
mod election;
mod leader_store;

#[cfg(test)]
mod tests;

pub use candidate::{Candidate, Leadership};
pub use election::{Election, Step, Term, Timing};
pub use leader_store::LeaderStore;
