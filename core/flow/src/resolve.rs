//! Who is behind an address, and which policies are behind a number in an event.

use crate::record::{Direction, Policy, Workload};
use heddle_model::NamespacedName;
use std::net::IpAddr;

/// Whom an address belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Security identity number; 0 when not known.
    pub identity: u32,
    /// Printed labels of the identity, sorted (`k8s:app=web`).
    pub labels: Vec<String>,
    /// The pod, for a pod's address.
    pub pod: Option<NamespacedName>,
    /// Endpoint id, for a pod of this node; else 0.
    pub endpoint: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The objects that own the pod.
    pub workloads: Vec<Workload>,
}

/// What a policy was asked, and the cookie of the entry that answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The endpoint whose policy it was.
    pub endpoint: u32,
    /// Which of its two directions.
    pub direction: Direction,
    /// The entry's cookie; never 0.
    pub cookie: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the responder; for ICMP the type of the request.
    pub port: u16,
}

/// A connection that no rule allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Denied {
    /// The endpoint whose policy it was; 0 for the node.
    pub endpoint: u32,
    /// Which of its two directions.
    pub direction: Direction,
    /// The endpoint's policy generation when it was asked.
    pub generation: u32,
    /// Identity number of the other end.
    pub peer: u32,
    /// Address of the other end.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the responder; for ICMP the type of the request.
    pub port: u16,
}

/// What the decoder asks about addresses and numbers. Answers must be quick: every event asks.
pub trait Resolver: Send + Sync {
    /// Whom an address belongs to; `None` when nobody known has it.
    fn peer(&self, address: IpAddr) -> Option<Peer>;

    /// Printed labels of an identity, sorted; empty when it is not known.
    fn labels(&self, identity: u32) -> Vec<String>;

    /// The policies behind a cookie; empty when it is not known (any more).
    fn policies(&self, cookie: u32) -> Vec<Policy>;

    /// The policies that isolate an endpoint of this node in a direction.
    fn isolating(&self, endpoint: u32, direction: Direction) -> Vec<Policy>;

    /// The name of an interface of this node.
    fn interface(&self, index: u32) -> Option<String>;

    /// What kind of policy entry decided, as Cilium's policy match type (reference 3.7): 0 none or not
    /// known, 1 L3 only, 2 L3-L4, 3 L4 only, 4 all, 5 L3 and protocol, 6 protocol only.
    fn match_type(&self, asked: &Asked) -> u32 {
        let _ = asked;
        0
    }
}

/// Knows nobody: flows have addresses and numbers only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Resolver for Nobody {
    fn peer(&self, _: IpAddr) -> Option<Peer> {
        None
    }
    fn labels(&self, _: u32) -> Vec<String> {
        Vec::new()
    }
    fn policies(&self, _: u32) -> Vec<Policy> {
        Vec::new()
    }
    fn isolating(&self, _: u32, _: Direction) -> Vec<Policy> {
        Vec::new()
    }
    fn interface(&self, _: u32) -> Option<String> {
        None
    }
}
