//! Compiled policy: what the datapath enforces.

use heddle_model::Identity;
use serde::{Deserialize, Serialize};

/// Which way a connection goes, seen from the endpoint whose policy is asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the endpoint.
    Ingress,
    /// Out of the endpoint.
    Egress,
}

/// Precedence of a deny that no rule gives, above every rule: for addresses that a policy cannot tell apart any more.
pub const PRECEDENCE_CLOSED: u32 = u32::MAX;
/// Precedence of an explicit deny of the tier Normal; those of the tier Admin are above it.
pub const PRECEDENCE_DENY: u32 = 255 << 24;
/// Precedence of an allow of the tier Normal; those of the tier Baseline are below it.
pub const PRECEDENCE_ALLOW: u32 = 1 << 24;
/// Precedence of an allow that no rule gives: nothing is enforced, or the endpoint's own node asks. Lower
/// than a rule's, so that a rule is named where there is one.
pub const PRECEDENCE_FALLBACK: u32 = 1;

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryVerdict {
    /// Let it pass.
    Allow,
    /// Stop it.
    Deny,
}

/// What an entry matches.
///
/// Ports are a prefix: `port_prefix` leading bits of `port` are fixed (16: one port, 0: all ports). For
/// ICMP the port is the message type. `protocol` 0 means every protocol, and then `port_prefix` is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What it matches.
    pub key: EntryKey,
    /// What it says.
    pub verdict: EntryVerdict,
    /// The entry of the highest precedence wins among those found for the peer's identity, for its CIDR
    /// identity and for anybody (for each, the longest prefix). Entries of one precedence have one verdict.
    pub precedence: u32,
    /// Names the set of rules it comes from (see [`Engine::rules_of`](crate::Engine::rules_of)); 0 only
    /// where no policy is enforced. The cookie of no rules bears the own node's allow, and the default deny
    /// where a wider row would say otherwise.
    pub cookie: u32,
}

/// How many of these entries (sorted) are beyond the first of each identity and direction; see
/// [`CompiledPolicy::size`].
pub fn size(entries: &[Entry]) -> usize {
    let peers = entries
        .chunk_by(|a, b| (a.key.direction, a.key.identity) == (b.key.direction, b.key.identity));
    entries.len() - peers.count()
}

/// An identity of which an endpoint's policy says the same as of another.
///
/// Whether a policy has few entries must not depend on how many identities there are, nor on how finely other
/// policies divide addresses: the entries of a rule stand once, however many peers it selects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Alias {
    /// Direction.
    pub direction: Direction,
    /// An identity without entries of its own; never 0.
    pub identity: Identity,
    /// The identity whose entries it has: one with entries of its own; never 0.
    pub like: Identity,
}

/// Everything the datapath needs to enforce an endpoint's policy.
///
/// A direction that is not enforced has one entry that allows everything with cookie 0; so the entries and
/// aliases alone are the whole truth and can be swapped in one step.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct CompiledPolicy {
    /// Whether some policy isolates the endpoint for ingress.
    pub ingress_enforced: bool,
    /// Whether some policy isolates the endpoint for egress.
    pub egress_enforced: bool,
    /// The entries, sorted by key, keys unique.
    pub entries: Vec<Entry>,
    /// The identities that have another's entries, sorted, unique by direction and identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Alias>,
    /// On audit: what the entries deny is told and passes. Never so as the engine compiles it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
}
