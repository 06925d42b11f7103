//! Identity numbers of policy CIDRs (reference I11), in two scopes.
//!
//! Prefixes that policy cannot tell apart share a number: a class is the set of regions (what one rule says
//! of addresses) that cover its prefixes. A number, once given to a class, stays with its prefixes for as
//! long as they behave alike. So a change of rules splits classes at first, and joins those that have become
//! alike only when told to ([`crate::Engine::settle_cidrs`]).

mod areas;
mod classes;
mod number;
mod points;
mod staging;

pub(crate) use areas::{Area, AreaNo, RegionNo};
pub(crate) use classes::{Cidrs, Class};

use heddle_model::Identity;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which addresses a policy CIDR's identity is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CidrScope {
    /// Addresses outside the cluster: every policy CIDR and every `except` counts.
    World,
    /// Addresses of pods and nodes and pod ranges: only Kubernetes' blocks count, because the Kubernetes
    /// APIs select pods and nodes by address and Cilium's CIDR rules do not (reference I1).
    InCluster,
}

impl CidrScope {
    const ALL: [Self; 2] = [Self::World, Self::InCluster];
}

/// The identity of a policy CIDR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct CidrAssignment {
    /// The prefix as some policy has it, host bits cleared.
    pub prefix: IpNet,
    /// Which addresses it is for.
    pub scope: CidrScope,
    /// Its number, from `Identity::NODE_FIRST`; prefixes that policy cannot tell apart share it.
    pub identity: Identity,
}

/// A prefix whose addresses bear another CIDR identity than before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CidrChange {
    /// The prefix, host bits cleared.
    pub prefix: IpNet,
    /// Which addresses it is for.
    pub scope: CidrScope,
    /// What its addresses bore, by a prefix of their own or by a wider one; 0: none.
    pub before: Identity,
    /// What they are to bear.
    pub after: Identity,
    /// No policy map has rows for `after` yet. Every fresh change to one number has the same `before`.
    pub fresh: bool,
    /// Whether policies name the prefix still; else it needs no row in the ipcache any more, and `after` is
    /// what a wider prefix says.
    pub named: bool,
}
