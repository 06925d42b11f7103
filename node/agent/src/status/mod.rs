//! What the agent tells others of what is in force: conditions on policies, this node's report, gauges. It is told
//! apart from what enforces, and nothing that enforces waits for it.

pub(crate) mod conditions;
mod gauges;
mod report;

pub(crate) use conditions::Conditions;
pub(crate) use gauges::Gauges;
pub(crate) use report::Report;
