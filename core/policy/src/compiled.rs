//! Compiled policy: what the datapath enforces.

use heddle_model::Identity;
use serde::Serialize;

/// Which way a connection goes, seen from the endpoint whose policy is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the endpoint.
    Ingress,
    /// Out of the endpoint.
    Egress,
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryVerdict {
    /// Let it pass.
    Allow,
    /// Stop it; wins over every allow.
    Deny,
}

/// What an entry matches.
///
/// Ports are a prefix: `port_prefix` leading bits of `port` are fixed (16: one port, 0: all ports). For
/// ICMP the port is the message type. `protocol` 0 means every protocol, and then `port_prefix` is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct EntryKey {
    /// Direction.
    pub direction: Direction,
    /// The peer: a security identity, a CIDR identity, or 0 for anybody.
    pub identity: Identity,
    /// IP protocol number; 0 for all.
    pub protocol: u8,
    /// First port of the range.
    pub port: u16,
    /// Number of fixed leading bits of the port.
    pub port_prefix: u8,
}

/// One row of an endpoint's policy map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Entry {
    /// What it matches.
    pub key: EntryKey,
    /// What it says.
    pub verdict: EntryVerdict,
    /// The entry of the highest precedence wins among those found for the peer's identity, for its CIDR
    /// identity and for anybody (for each, the longest prefix). Deny 255 << 24, allow 1 << 24.
    pub precedence: u32,
    /// Names the set of rules it comes from (see `Engine::rules_of`); 0 only where no policy is enforced.
    pub cookie: u32,
}

/// Everything the datapath needs to enforce an endpoint's policy.
///
/// A direction that is not enforced has one entry that allows everything with cookie 0; so the entries
/// alone are the whole truth and can be swapped in one step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct CompiledPolicy {
    /// Whether some policy isolates the endpoint for ingress.
    pub ingress_enforced: bool,
    /// Whether some policy isolates the endpoint for egress.
    pub egress_enforced: bool,
    /// The entries, sorted by key, keys unique.
    pub entries: Vec<Entry>,
}
