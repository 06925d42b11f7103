//! Bringing the kernel to what is wished: only differences are written, in an order that opens nothing.

use super::transition::{CidrGeneration, with_aliases};
use super::{CIDRS_FILE, Ledger};
use crate::directory::{PolicyListing, Shapes};
use heddle_cni::pending::replace_file;
use heddle_datapath::DatapathError;
use heddle_model::Identity;
use heddle_policy::{CidrScope, CompiledPolicy, Direction};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

impl Ledger {
    /// Brings the kernel to what is wished. What fails is kept in `failures` and tried again next time;
    /// the rest is done nevertheless. True when nothing failed.
    pub(crate) fn reconcile(&mut self) -> bool {
        if !self.restored {
            return false;
        }
        self.failures.clear();
        self.take_in_ranges();
        let former = self.cidrs.clone();
        let wished_cidrs = if std::mem::take(&mut self.policies_changed) {
            let assignments = self.engine.cidrs();
            let generation = CidrGeneration::of(&assignments);
            self.ipcache.set_assignments(assignments);
            generation
        } else {
            former.clone()
        };
        self.compile_touched();

        if wished_cidrs == former {
            // No number changes its meaning: policies first, so that an address never bears an
            // identity that a policy does not know yet.
            self.write_policies(&[]);
            let covering = |prefix: IpNet, scope: CidrScope| wished_cidrs.covering(prefix, scope);
            self.write_peers(&covering);
            self.write_facts(&covering);
        } else {
            self.change_generation(&former, &wished_cidrs);
        }
        self.write_routes();
        let done = self.failures.is_empty();
        if done {
            let revision = self.policy_revision;
            for endpoint in self.endpoints.values_mut() {
                endpoint.policy_revision = revision;
            }
        }
        done
    }

    /// The five steps of [`super::transition`].
    fn change_generation(&mut self, former: &CidrGeneration, wished: &CidrGeneration) {
        self.keep_cidrs(&wished.and(former));
        // 1. What is in force, extended so that new numbers mean what their addresses meant.
        let entering = wished.aliases_in(former);
        let ids: Vec<u16> = self.endpoints.keys().copied().collect();
        for id in &ids {
            let extended = self.endpoints.get(id).and_then(|endpoint| {
                let present = endpoint.policy.as_ref()?;
                with_aliases(present, &entering)
            });
            if let Some(extended) = extended {
                self.write_policy(*id, Arc::new(extended));
            }
        }
        // 2. Addresses bear the numbers of both generations.
        let both = |prefix: IpNet, scope: CidrScope| wished.covering_either(former, prefix, scope);
        self.ipcache.keep_policy_prefixes(former.all_prefixes());
        self.write_peers(&both);
        self.write_facts(&both);
        // 3. The new policies, with old numbers meaning what the new policy says.
        self.write_policies(&former.aliases_in(wished));
        // 4. Addresses bear the new numbers only.
        self.ipcache.forget_policy_prefixes();
        let covering = |prefix: IpNet, scope: CidrScope| wished.covering(prefix, scope);
        self.write_peers(&covering);
        self.write_facts(&covering);
        // 5. The new policies alone.
        self.write_policies(&[]);
        if self.failures.is_empty() {
            self.cidrs = wished.clone();
            self.keep_cidrs(wished);
        } else {
            // Try all of it again; each step only writes what is missing.
            self.policies_changed = true;
        }
    }

    /// Writes down which number stands for which prefix: after a restart the kernel's rows alone would
    /// not tell for every one. Not synced to the disk: a power failure empties the kernel's maps too.
    fn keep_cidrs(&self, generation: &CidrGeneration) {
        let path = self.config.state_dir.join(CIDRS_FILE);
        let written = serde_json::to_vec(&generation.assignments())
            .map_err(std::io::Error::from)
            .and_then(|content| replace_file(&path, &content));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the numbers of policy CIDRs may change at the next restart");
        }
    }

    fn take_in_ranges(&mut self) {
        if !std::mem::take(&mut self.ranges_changed) {
            return;
        }
        let ranges = self.ranges();
        self.ipcache.set_ranges(ranges);
        let gateways: Vec<IpAddr> = self.gateways().collect();
        for gateway in gateways {
            self.refresh_host(gateway);
        }
        self.directory.set_ranges(self.ipcache.ranges().collect());
    }

    /// Compiles the policies of endpoints whose identity was touched, or that have none yet.
    fn compile_touched(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        let mut compiled: BTreeMap<Identity, Arc<CompiledPolicy>> = BTreeMap::new();
        let due: Vec<(u16, Identity)> = self
            .endpoints
            .iter()
            .filter(|(_, it)| it.wished.is_none() || touched.contains(&it.identity))
            .map(|(id, it)| (*id, it.identity))
            .collect();
        for (id, identity) in due {
            let policy = match compiled.get(&identity) {
                Some(policy) => Arc::clone(policy),
                None => {
                    let policy = Arc::new(self.engine.compile(identity));
                    compiled.insert(identity, Arc::clone(&policy));
                    policy
                }
            };
            // Events may name the new cookies as soon as the kernel has them.
            let cookies: BTreeSet<u32> = policy.entries.iter().map(|entry| entry.cookie).collect();
            let listing = PolicyListing {
                ingress: self.engine.isolating(identity, Direction::Ingress),
                egress: self.engine.isolating(identity, Direction::Egress),
                cookies: cookies
                    .into_iter()
                    .filter(|cookie| *cookie != 0)
                    .map(|cookie| (cookie, self.engine.rules_of(cookie)))
                    .collect(),
                shapes: Shapes::of(&policy),
            };
            self.directory.set_policy(id, listing);
            if let Some(endpoint) = self.endpoints.get_mut(&id) {
                endpoint.wished = Some(policy);
            }
        }
    }

    /// Puts every endpoint's wished policy in force, extended by `aliases`.
    fn write_policies(&mut self, aliases: &[(Identity, Identity)]) {
        let due: Vec<(u16, Arc<CompiledPolicy>)> = self
            .endpoints
            .iter()
            .filter_map(|(id, endpoint)| {
                let wished = endpoint.wished.as_ref()?;
                let target = if aliases.is_empty() {
                    Arc::clone(wished)
                } else {
                    with_aliases(wished, aliases).map_or_else(|| Arc::clone(wished), Arc::new)
                };
                (endpoint.policy.as_ref() != Some(&target)).then_some((*id, target))
            })
            .collect();
        for (id, policy) in due {
            self.write_policy(id, policy);
        }
    }

    fn write_policy(&mut self, id: u16, policy: Arc<CompiledPolicy>) {
        let outcome = self.datapath.set_policy(id, &policy);
        let Some(endpoint) = self.endpoints.get_mut(&id) else {
            return;
        };
        match outcome {
            Ok(()) => {
                endpoint.policy = Some(policy);
                endpoint.failure = None;
            }
            Err(error) => {
                let object = format!("endpoint {id} ({})", endpoint.record.pod);
                tracing::error!(endpoint = id, pod = %endpoint.record.pod, %error, "policy not in force");
                endpoint.failure = Some(error.to_string());
                // The kernel may have the old one or the new one.
                endpoint.policy = None;
                self.failures.insert(object, error.to_string());
            }
        }
    }

    fn write_facts(&mut self, covering: &dyn Fn(IpNet, CidrScope) -> Identity) {
        let due: Vec<_> = self
            .endpoints
            .iter()
            .filter_map(|(id, endpoint)| {
                let facts = self.wished_facts(endpoint, covering)?;
                (endpoint.facts.as_ref() != Some(&facts)).then_some((*id, facts))
            })
            .collect();
        for (id, facts) in due {
            match self.datapath.set_facts(&facts) {
                Ok(()) => {
                    if let Some(endpoint) = self.endpoints.get_mut(&id) {
                        endpoint.facts = Some(facts);
                    }
                }
                Err(error) => {
                    if let Some(endpoint) = self.endpoints.get_mut(&id) {
                        endpoint.facts = None;
                    }
                    self.failed(format!("endpoint {id}"), &error);
                }
            }
        }
    }

    fn write_peers(&mut self, covering: &dyn Fn(IpNet, CidrScope) -> Identity) {
        let changes = self.ipcache.changes(covering);
        let mut done = true;
        if !changes.set.is_empty() {
            match self.datapath.set_peers(&changes.set) {
                Ok(()) => self.ipcache.wrote(changes.set),
                Err(error) => {
                    done = false;
                    self.ipcache.doubt(&changes.set);
                    self.failed("ipcache".to_owned(), &error);
                }
            }
        }
        if !changes.remove.is_empty() {
            match self.datapath.remove_peers(&changes.remove) {
                Ok(()) => self.ipcache.removed(&changes.remove),
                Err(error) => {
                    done = false;
                    self.failed("ipcache".to_owned(), &error);
                }
            }
        }
        if done {
            self.ipcache.settled();
        }
    }

    /// Kernel routes to other nodes' pod ranges.
    fn write_routes(&mut self) {
        let routes: Vec<(IpNet, IpAddr)> = self
            .nodes
            .iter()
            .filter(|(name, _)| **name != self.config.node_name)
            .flat_map(|(_, node)| {
                node.pod_cidrs.iter().filter_map(|range| {
                    let underlay = node.underlay(self.config.fabric, range.addr().is_ipv4())?;
                    Some((range.trunc(), underlay))
                })
            })
            .collect();
        if self.routes.as_ref() == Some(&routes) {
            return;
        }
        match self.datapath.set_routes(&routes) {
            Ok(()) => self.routes = Some(routes),
            Err(error) => self.failed("routes".to_owned(), &error),
        }
    }

    fn failed(&mut self, object: String, error: &DatapathError) {
        tracing::error!(%object, %error, "not written");
        self.failures.insert(object, error.to_string());
    }

    /// True when something is wished that is not in force, as far as the ledger knows.
    pub(crate) fn is_behind(&self) -> bool {
        !self.failures.is_empty() || !self.touched.is_empty() || !self.relabel.is_empty()
    }
}
