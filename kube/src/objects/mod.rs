//! Objects that Heddle writes or reads field by field, as typed structures: one file per kind.
//!
//! They are thin: what others wrote and Heddle does not read is left out, so an object that is written back is
//! built from its stored JSON and not from these.

mod condition;
mod lease;
mod node_policy_report;

pub use condition::{Condition, ConditionStatus, condition_in};
pub use lease::LeaseSpec;
pub use node_policy_report::{NodePolicyReport, OpenEndpoints};
