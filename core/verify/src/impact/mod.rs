//! Which verdicts a change of the objects changes, both ways, and why.

mod compare;
mod draw;

pub use compare::{Change, Outcome, compare};
pub use draw::{peers as draw_peers, probes as draw_probes};

use crate::Cluster;

/// The two clusters that are compared, and what else the reader should know.
#[derive(Clone)]
pub struct Sides {
    /// As it is.
    pub before: Cluster,
    /// As it would be; what is not written is where `before` has it.
    pub after: Cluster,
    /// What the comparison leaves out.
    pub notes: Vec<String>,
}
