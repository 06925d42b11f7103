//! What nearly allowed a denied connection, by the policy that was in force when it was denied.

use super::Ledger;
use heddle_model::Identity;
use heddle_policy::{Direction, Nearest, Party, Traffic};
use std::net::IpAddr;

/// A connection that no rule allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    /// Endpoint id; 0 for the node.
    pub(crate) endpoint: u16,
    pub(crate) direction: Direction,
    /// The endpoint's policy generation then.
    pub(crate) generation: u32,
    pub(crate) peer: Identity,
    pub(crate) address: IpAddr,
    pub(crate) traffic: Traffic,
}

impl Ledger {
    /// Empty when another policy is in force by now, or one is wished that is not in force yet.
    pub(crate) fn nearest(&self, denial: &Denial) -> Vec<Nearest> {
        let subject = if denial.endpoint == 0 {
            (self.host.in_force() == self.host.wished())
                .then(|| Party::in_cluster(Identity::HOST, None).with_subject(Identity::OWN_NODE))
        } else {
            self.endpoints
                .get(denial.endpoint)
                .filter(|it| it.has_wished())
                .map(|it| Party::in_cluster(it.identity, None))
        };
        let Some(subject) = subject.filter(|_| !self.is_behind()) else {
            return Vec::new();
        };
        let present = self.writer.datapath.policy_generation(denial.endpoint);
        if !present.is_ok_and(|generation| generation == denial.generation) {
            return Vec::new();
        }
        let peer = Party {
            identity: denial.peer,
            ..self.writer.directory.party(denial.address.into())
        };
        self.policies
            .rules
            .decide(&subject, &peer, denial.direction, denial.traffic)
            .nearest
    }
}
