//! The node's own policy: what host policies say of this node, and what they must not cut.

use super::realised::as_compiled;
use super::transition::truncated;
use super::{Ledger, Shortfall};
use crate::directory::PolicyListing;
use heddle_datapath::{Datapath, DatapathError};
use heddle_model::Identity;
use heddle_policy::{
    CompiledPolicy, Direction, DirectionDecision, EntryVerdict, Party, PolicyId, Traffic,
    protocol::TCP,
};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// The node where it stands beside endpoints.
pub(crate) const NODE: &str = "the node";

/// The policy of this node as it is wished and as it is.
#[derive(Debug, Default)]
pub(crate) struct HostPolicy {
    /// `None`: no host policy is about this node, and its traffic is not evaluated.
    wished: Option<Arc<CompiledPolicy>>,
    in_force: Option<Arc<CompiledPolicy>>,
    /// What is to be said of the wished policy once it is in force.
    listing: Option<Arc<PolicyListing>>,
    /// The kernel may have `in_force` or what was to follow it.
    in_doubt: bool,
    /// What `refused` would cut.
    lock_outs: Vec<LockOut>,
    /// The wish that was not put in force because of that. It stays refused until host policies change: who
    /// logs out is to be able to come back.
    refused: Option<Arc<CompiledPolicy>>,
    /// Who is logged in to this node.
    pub(crate) sessions: Sessions,
}

/// A way to learn who is logged in to this node.
#[derive(Debug)]
pub(crate) struct Sessions(pub(crate) fn() -> Vec<IpAddr>);

impl Default for Sessions {
    fn default() -> Self {
        Self(crate::sessions::ssh_peers)
    }
}

/// Traffic that this node lives by, and the policies that would cut it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LockOut {
    /// What it is, in an operator's words.
    pub(crate) what: String,
    /// Who would cut it.
    pub(crate) policies: BTreeSet<PolicyId>,
}

/// Traffic that this node lives by.
struct Needed {
    what: String,
    peer: Party,
    direction: Direction,
    traffic: Traffic,
}

impl HostPolicy {
    /// What the kernel holds from a former run.
    pub(super) fn restore(datapath: &dyn Datapath) -> Result<Self, DatapathError> {
        let in_force = datapath.node_policy()?.and_then(as_compiled).map(Arc::new);
        Ok(Self {
            wished: in_force.clone(),
            in_force,
            ..Self::default()
        })
    }

    pub(crate) fn in_force(&self) -> Option<&Arc<CompiledPolicy>> {
        self.in_force.as_ref()
    }

    pub(crate) fn wished(&self) -> Option<&Arc<CompiledPolicy>> {
        self.wished.as_ref()
    }

    /// What keeps the wished policy from being put in force.
    pub(crate) fn lock_outs(&self) -> &[LockOut] {
        &self.lock_outs
    }

    /// Host policies changed, or what their authors say of them: what was refused is looked at again.
    pub(super) fn reconsider(&mut self) {
        self.refused = None;
    }
}

impl Ledger {
    /// Compiles the node's policy anew.
    pub(super) fn compile_node(&mut self) {
        // Before the store has said this node's labels, nobody can say which policies are about it.
        if self.engine.labels(Identity::OWN_NODE).is_none() {
            return;
        }
        self.host.wished = self.engine.is_about(Identity::OWN_NODE).then(|| {
            let mut policy = self.engine.compile(Identity::OWN_NODE);
            policy.audit = self.audits_node();
            Arc::new(policy)
        });
        let listing = match &self.host.wished {
            Some(policy) => self.listing(Identity::OWN_NODE, policy),
            None => PolicyListing::default(),
        };
        self.host.listing = Some(Arc::new(listing));
    }

    /// Tells those who describe flows of the node's policy when it is in force. In events the node is endpoint 0.
    fn list_node_policy(&mut self) {
        if self.host.in_force == self.host.wished
            && !self.host.in_doubt
            && let Some(listing) = self.host.listing.take()
        {
            self.directory.add_cookies(&listing);
            self.directory.set_policy(0, listing);
        }
    }

    /// Puts the node's wished policy in force, unless it would cut the node off from those who could mend it.
    pub(super) fn write_node_policy(&mut self) {
        let wished = self.host.wished.clone();
        if self.host.refused.is_some() && self.host.refused == wished {
            return;
        }
        let changes = wished != self.host.in_force;
        let lock_outs = match &wished {
            // What is only told cuts nothing.
            Some(policy) if changes && !policy.audit => self.find_lock_outs(),
            _ => Vec::new(),
        };
        for one in &lock_outs {
            tracing::error!(
                traffic = %one.what, policies = %names(&one.policies),
                "host policy not put in force, the former stays: it would cut traffic that this node needs"
            );
        }
        self.host.refused = wished.clone().filter(|_| !lock_outs.is_empty());
        self.host.lock_outs = lock_outs;
        if self.host.refused.is_none() {
            if let Some(listing) = &self.host.listing {
                // Events may name the new cookies as soon as the kernel has them.
                self.directory.add_cookies(listing);
            }
            self.put_node_policy(wished);
            self.list_node_policy();
        }
    }

    /// Replaces the node's policy in force by one with other rows for some addresses, or as much of it as fits.
    pub(super) fn replace_node_policy(
        &mut self,
        policy: CompiledPolicy,
        last: &BTreeSet<Identity>,
    ) {
        let most = self.config.max_policy_entries as usize;
        let policy = if policy.size() > most {
            truncated(&policy, most, last)
        } else {
            policy
        };
        self.put_node_policy(Some(Arc::new(policy)));
    }

    /// Writes the node's policy if the kernel has another.
    fn put_node_policy(&mut self, policy: Option<Arc<CompiledPolicy>>) {
        if self.host.in_force == policy && !self.host.in_doubt {
            return;
        }
        match self.datapath.set_node_policy(policy.as_deref()) {
            Ok(()) => {
                self.host.in_doubt = false;
                self.host.in_force = policy;
            }
            // It was not begun: what was in force is in force.
            Err(error @ DatapathError::MapFull { .. }) => {
                let shortfall = Shortfall {
                    reason: format!(
                        "{error}; the former policy stays, without what it can no longer tell apart; {}",
                        self.largest_policies(Identity::OWN_NODE)
                    ),
                    pod: None,
                    identity: Some(Identity::OWN_NODE),
                };
                self.failures.fall_short(NODE.to_owned(), shortfall);
            }
            Err(error) => {
                self.host.in_doubt = true;
                let reason = error.to_string();
                tracing::error!(%reason, "host policy not in force");
                self.failures.fail(NODE.to_owned(), reason);
            }
        }
    }

    /// What the wished policy would cut, and whose policies that are. Where all of these are annotated to do
    /// so, that is what their author wants.
    fn find_lock_outs(&self) -> Vec<LockOut> {
        let subject = Party::in_cluster(Identity::HOST, None).with_subject(Identity::OWN_NODE);
        let mut found: Vec<LockOut> = Vec::new();
        for needed in self.needed() {
            let decision = self.engine.decide_direction(
                &subject,
                &needed.peer,
                needed.direction,
                needed.traffic,
            );
            if decision.verdict == EntryVerdict::Allow {
                continue;
            }
            let policies: BTreeSet<PolicyId> = culprits(&decision)
                .into_iter()
                .filter(|id| !self.policies.may_lock_out(id))
                .collect();
            if !policies.is_empty() {
                found.push(LockOut {
                    what: needed.what,
                    policies,
                });
            }
        }
        found
    }

    /// What this node lives by: who is logged in, what the configuration protects, and the probes of its
    /// own pods. Encapsulated packets between nodes, neighbour discovery and errors about known connections are not
    /// on the list, because no policy is asked about them.
    fn needed(&self) -> Vec<Needed> {
        let tcp = |port| Traffic {
            protocol: TCP,
            port,
        };
        let sessions = (self.host.sessions.0)().into_iter().map(|address| Needed {
            what: format!("the SSH session from {address}"),
            peer: self.party(address.into()),
            direction: Direction::Ingress,
            traffic: tcp(crate::sessions::SSH),
        });
        let protected = self.config.protected_traffic.iter().map(|it| Needed {
            what: it.to_string(),
            peer: self.party(it.peer),
            direction: it.direction,
            traffic: Traffic {
                protocol: it.protocol.number(),
                port: it.port,
            },
        });
        let probes = self.endpoints.values().flat_map(|endpoint| {
            let pod = self.pods.get(&endpoint.record.pod);
            let ports = pod.map(|pod| heddle_kube::pod::probed_ports(&pod.value));
            let addresses: Vec<IpAddr> = endpoint.record.addresses().collect();
            ports.into_iter().flatten().flat_map(move |port| {
                let what = format!("the probes of pod {} on port {port}", endpoint.record.pod);
                let identity = endpoint.identity;
                addresses.clone().into_iter().map(move |address| Needed {
                    what: what.clone(),
                    peer: Party::in_cluster(identity, Some(address.into())),
                    direction: Direction::Egress,
                    traffic: tcp(port),
                })
            })
        });
        sessions.chain(protected).chain(probes).collect()
    }

    /// Who stands at an address or a range.
    pub(super) fn party(&self, prefix: IpNet) -> Party {
        let known = self.directory.peer(prefix.addr());
        match known {
            Some(peer) if !peer.identity.is_world() => {
                Party::in_cluster(peer.identity, Some(prefix))
            }
            _ => Party::world(prefix),
        }
    }
}

/// The policies because of which a direction is denied.
fn culprits(decision: &DirectionDecision) -> BTreeSet<PolicyId> {
    let rules = decision.rules.iter().map(|rule| rule.policy());
    if decision.rules.is_empty() {
        decision.isolated_by.iter().cloned().collect()
    } else {
        rules.collect()
    }
}

fn names(policies: &BTreeSet<PolicyId>) -> String {
    let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
    names.join(", ")
}
