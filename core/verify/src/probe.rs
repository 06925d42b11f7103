//! Probes, and their answers for whole kinds of pods at once.

use crate::{Cluster, Family, Peer, VerifyError};
use heddle_model::Identity;
use heddle_policy::{CidrScope, Direction, EntryVerdict, Party, Traffic, protocol};
use std::collections::HashMap;

/// One probe.
#[derive(Clone, Debug)]
pub struct Probe {
    /// As it is written.
    pub given: String,
    protocol: u8,
    port: PortOf,
    /// The family that it needs.
    pub family: Option<Family>,
}

#[derive(Clone, Debug)]
enum PortOf {
    Number(u16),
    Name(String),
}

impl Probe {
    /// Reads `TCP/80`, `TCP/http`, `ICMP/8`.
    pub fn parse(given: &str) -> Result<Self, VerifyError> {
        let refuse = || VerifyError::BadProbe {
            given: given.to_owned(),
        };
        let (name, port) = given.split_once('/').ok_or_else(refuse)?;
        let protocol = protocol::number(name).ok_or_else(refuse)?;
        let family = match protocol {
            protocol::ICMP => Some(Family::V4),
            protocol::ICMPV6 => Some(Family::V6),
            _ => None,
        };
        let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
        let port = match (family, digits) {
            (Some(_), _) => PortOf::Number(port.parse::<u8>().map_err(|_| refuse())?.into()),
            (None, true) => match port.parse::<u16>() {
                Ok(number) if number > 0 => PortOf::Number(number),
                _ => return Err(refuse()),
            },
            (None, false) if port.is_empty() => return Err(refuse()),
            (None, false) => PortOf::Name(port.to_owned()),
        };
        Ok(Self {
            given: given.to_owned(),
            protocol,
            port,
            family,
        })
    }

    /// What goes to this destination; `None` when it does not have the named port.
    pub fn traffic(&self, cluster: &Cluster, to: Peer) -> Option<Traffic> {
        let port = match &self.port {
            PortOf::Number(port) => *port,
            PortOf::Name(name) => to.named_port(cluster, self.protocol, name)?,
        };
        Some(Traffic {
            protocol: self.protocol,
            port,
        })
    }
}

/// A verdict in a word.
pub const fn word(verdict: EntryVerdict) -> &'static str {
    match verdict {
        EntryVerdict::Allow => "allow",
        EntryVerdict::Deny => "deny",
    }
}

/// Answers, remembered by what policy can tell apart: thousands of pods are few kinds of pods.
pub struct Answers<'a> {
    cluster: &'a Cluster,
    known: HashMap<(Kind, Kind, Traffic), (EntryVerdict, EntryVerdict)>,
}

/// All that a policy can see of an end: its identity, the longest policy CIDR around its address, whether that
/// is inside the cluster, and whose own policy it has.
pub type Kind = (Identity, Identity, bool, Identity);

impl<'a> Answers<'a> {
    /// Nothing is remembered yet.
    pub fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            known: HashMap::new(),
        }
    }

    /// What policy can see of an end.
    pub fn kind(&self, party: &Party) -> Kind {
        let scope = if party.in_cluster {
            CidrScope::InCluster
        } else {
            CidrScope::World
        };
        let cidr = party.prefix.map_or(Identity::UNKNOWN, |prefix| {
            self.cluster.engine.cidr_covering(prefix, scope)
        });
        (party.identity, cidr, party.in_cluster, party.subject())
    }

    /// The verdicts of egress and ingress.
    pub fn ask(
        &mut self,
        from: &Party,
        to: &Party,
        traffic: Traffic,
    ) -> (EntryVerdict, EntryVerdict) {
        let key = (self.kind(from), self.kind(to), traffic);
        if let Some(answer) = self.known.get(&key) {
            return *answer;
        }
        let engine = &self.cluster.engine;
        let answer = (
            engine.verdict(from, to, Direction::Egress, traffic),
            engine.verdict(to, from, Direction::Ingress, traffic),
        );
        self.known.insert(key, answer);
        answer
    }
}
