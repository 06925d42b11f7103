//! The node's own policy: what host policies say of this node, and what they must not cut.

use crate::config::AgentConfig;
use crate::directory::{Directory, PolicyListing};
use crate::endpoint::pods::Pods;
use crate::endpoint::table::EndpointTable;
use crate::ledger::transition::{truncated, with_fresh, with_joined};
use crate::ledger::{Shortfall, Writer, as_compiled};
use crate::policy::{Policies, Rules};
use heddle_datapath::{Datapath, DatapathError};
use heddle_model::Identity;
use heddle_policy::{
    CidrChange, CidrScope, CompiledPolicy, Direction, DirectionDecision, EntryVerdict, Party,
    PolicyId, Traffic, protocol::TCP,
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
    /// Rows that a policy may have.
    most_entries: u32,
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

/// Where it stands what this node lives by.
#[derive(Clone, Copy)]
pub(crate) struct Needs<'a> {
    pub(crate) config: &'a AgentConfig,
    pub(crate) endpoints: &'a EndpointTable,
    pub(crate) pods: &'a Pods,
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
    pub(crate) fn restore(
        config: &AgentConfig,
        datapath: &dyn Datapath,
    ) -> Result<Self, DatapathError> {
        let in_force = datapath.node_policy()?.and_then(as_compiled).map(Arc::new);
        Ok(Self {
            wished: in_force.clone(),
            in_force,
            most_entries: config.max_policy_entries,
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
    pub(crate) fn reconsider(&mut self) {
        self.refused = None;
    }

    /// Compiles the node's policy anew.
    pub(crate) fn compile(&mut self, audit: bool, rules: &mut Rules) {
        // Before the store has said this node's labels, nobody can say which policies are about it.
        if rules.engine().labels(Identity::OWN_NODE).is_none() {
            return;
        }
        self.wished = rules.engine().is_about(Identity::OWN_NODE).then(|| {
            let mut policy = rules.compile(Identity::OWN_NODE);
            policy.audit = audit;
            Arc::new(policy)
        });
        let listing = match &self.wished {
            Some(policy) => rules.listing(Identity::OWN_NODE, policy),
            None => PolicyListing::default(),
        };
        self.listing = Some(Arc::new(listing));
    }

    /// Gives the policy in force rows for the numbers that addresses are about to bear. `fresh` are these numbers.
    pub(crate) fn extend(
        &mut self,
        changes: &[CidrChange],
        fresh: &BTreeSet<Identity>,
        rules: &mut Rules,
        writer: &mut Writer,
    ) {
        let present = self.in_force.as_deref();
        if let Some(policy) = present.and_then(|present| with_fresh(present, changes)) {
            self.replace(policy, fresh, rules, writer);
        }
    }

    /// See [`EndpointTable::reduce_stale_policies`].
    pub(crate) fn reduce_stale(
        &mut self,
        changes: &[CidrChange],
        cookie: u32,
        rules: &mut Rules,
        writer: &mut Writer,
    ) {
        let stale = self
            .in_force
            .as_deref()
            .filter(|policy| self.wished.as_deref() != Some(*policy));
        if let Some(policy) = stale.and_then(|stale| with_joined(stale, changes, cookie)) {
            self.replace(policy, &BTreeSet::new(), rules, writer);
        }
    }

    /// Puts the node's wished policy in force, unless it would cut the node off from those who could mend it.
    pub(crate) fn write(&mut self, needs: Needs<'_>, policies: &mut Policies, writer: &mut Writer) {
        let wished = self.wished.clone();
        if self.refused.is_some() && self.refused == wished {
            return;
        }
        let changes = wished != self.in_force;
        let lock_outs = match &wished {
            // What is only told cuts nothing.
            Some(policy) if changes && !policy.audit => {
                find_lock_outs(self.needed(needs, &writer.directory, policies), policies)
            }
            _ => Vec::new(),
        };
        for one in &lock_outs {
            tracing::error!(
                traffic = %one.what, policies = %names(&one.policies),
                "host policy not put in force, the former stays: it would cut traffic that this node needs"
            );
        }
        self.refused = wished.clone().filter(|_| !lock_outs.is_empty());
        self.lock_outs = lock_outs;
        if self.refused.is_some() {
            return;
        }
        writer.announce(self.listing.as_ref());
        self.put(wished, &mut policies.rules, writer);
        if self.in_force == self.wished
            && !self.in_doubt
            && let Some(listing) = self.listing.take()
        {
            writer.list(0, listing);
        }
    }

    /// Replaces the node's policy in force by one with other rows for some addresses, or as much of it as fits.
    fn replace(
        &mut self,
        policy: CompiledPolicy,
        last: &BTreeSet<Identity>,
        rules: &mut Rules,
        writer: &mut Writer,
    ) {
        let most = self.most_entries as usize;
        let policy = if policy.size() > most {
            truncated(&policy, most, last)
        } else {
            policy
        };
        self.put(Some(Arc::new(policy)), rules, writer);
    }

    /// Writes the node's policy if the kernel has another.
    fn put(&mut self, policy: Option<Arc<CompiledPolicy>>, rules: &mut Rules, writer: &mut Writer) {
        if self.in_force == policy && !self.in_doubt {
            return;
        }
        match writer.datapath.set_node_policy(policy.as_deref()) {
            Ok(()) => {
                self.in_doubt = false;
                self.in_force = policy;
            }
            // It was not begun: what was in force is in force.
            Err(error @ DatapathError::MapFull { .. }) => {
                let shortfall = Shortfall {
                    reason: format!(
                        "{error}; the former policy stays, without what it can no longer tell apart; {}",
                        rules.largest_policies(Identity::OWN_NODE)
                    ),
                    pod: None,
                    identity: Some(Identity::OWN_NODE),
                };
                writer.failures.fall_short(NODE.to_owned(), shortfall);
            }
            Err(error) => {
                self.in_doubt = true;
                let reason = error.to_string();
                tracing::error!(%reason, "host policy not in force");
                writer.failures.fail(NODE.to_owned(), reason);
            }
        }
    }

    /// What this node lives by: who is logged in, what the configuration protects, and the probes of its
    /// own pods. Encapsulated packets between nodes, neighbour discovery and errors about known connections are not
    /// on the list, because no policy is asked about them.
    fn needed(&self, needs: Needs<'_>, directory: &Directory, policies: &Policies) -> Vec<Needed> {
        let tcp = |port| Traffic {
            protocol: TCP,
            port,
        };
        let sessions = (self.sessions.0)().into_iter().filter_map(|address| {
            let peer = directory.party(address.into());
            // No policy is asked about what the node sends to itself.
            (peer.identity != Identity::HOST).then(|| Needed {
                what: format!("the SSH session from {address}"),
                peer,
                direction: Direction::Ingress,
                traffic: tcp(crate::sessions::SSH),
            })
        });
        let protected = needs.config.protected_traffic.iter().flat_map(|it| {
            let peers = peers_in(it.peer, directory, policies);
            peers.into_iter().map(|peer| Needed {
                what: it.to_string(),
                peer,
                direction: it.direction,
                traffic: Traffic {
                    protocol: it.protocol.number(),
                    port: it.port,
                },
            })
        });
        let probes = needs.endpoints.values().flat_map(|endpoint| {
            let pod = needs.pods.get(&endpoint.record.pod);
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
}

/// Whoever may stand in a range, one for each that policies can tell apart: what a policy says of a part of the range it
/// says of no address outside that part.
fn peers_in(range: IpNet, directory: &Directory, policies: &Policies) -> Vec<Party> {
    let mut peers = directory.parties(range);
    let named = policies.rules.engine().cidrs().into_iter();
    let named = named.filter(|one| one.scope == CidrScope::World && range.contains(&one.prefix));
    peers.extend(named.map(|one| Party::world(one.prefix)));
    peers
}

/// What the wished policy would cut, and whose policies that are. Where all of these are annotated to do
/// so, that is what their author wants.
fn find_lock_outs(needed: Vec<Needed>, policies: &Policies) -> Vec<LockOut> {
    let subject = Party::in_cluster(Identity::HOST, None).with_subject(Identity::OWN_NODE);
    let mut found: Vec<LockOut> = Vec::new();
    for needed in needed {
        let decision =
            policies
                .rules
                .decide(&subject, &needed.peer, needed.direction, needed.traffic);
        if decision.verdict == EntryVerdict::Allow {
            continue;
        }
        let culprits: BTreeSet<PolicyId> = culprits(&decision)
            .into_iter()
            .filter(|id| !policies.objects.may_lock_out(id))
            .collect();
        if !culprits.is_empty() {
            let found_before = found.iter_mut().find(|one| one.what == needed.what);
            match found_before {
                Some(one) => one.policies.extend(culprits),
                None => found.push(LockOut {
                    what: needed.what,
                    policies: culprits,
                }),
            }
        }
    }
    found
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

#[cfg(test)]
mod tests;
