//! What the agent tells others of what is in force: this node's report, gauges. It is told
//! apart from what enforces, and nothing that enforces waits for it.

mod gauges;
mod report;

pub(crate) use gauges::{Gauges, update_metrics};
pub(crate) use report::Report;
